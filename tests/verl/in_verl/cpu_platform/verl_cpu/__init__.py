"""Test helper: lets ``python -m verl.trainer.main_ppo`` run on a CPU. A verl plugin, loaded by ``import verl``.

verl has no platform for the CPU, and no rollout engine that is easy to install there. :mod:`verl_cpu.platform` and
:mod:`verl_cpu.rollout` add both; they do only what the tests need.
"""

import verl_cpu.platform  # noqa: F401  (registers VERL_PLATFORM=cpu, which the imports below already ask for)

# isort: split
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplicaRegistry


def _replica():
    from verl_cpu.rollout import HFReplica

    return HFReplica


RolloutReplicaRegistry.register("hf", _replica)  # actor_rollout_ref.rollout.name=hf
_ROLLOUT_REGISTRY["hf", "async"] = "verl_cpu.rollout.HFAdapter"
