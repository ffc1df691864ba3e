"""What the plugin relies on in verl's private API. A failure here says what a new version of verl changed."""

import inspect
import re
from typing import Any

from tests.verl.in_verl.verl_run import skip_without_verl

skip_without_verl()

OVERRIDDEN = {
    "_compute_old_log_prob": ["self", "batch", "metrics"],
    "_compute_advantage": ["self", "batch", "metrics"],
    "on_init_end": ["self"],
}


def trainer() -> Any:
    from verl.trainer.ppo.v1 import PPOTrainerSync

    return PPOTrainerSync


def test_overridden_methods_have_the_parameters_that_they_had() -> None:
    for name, parameters in OVERRIDDEN.items():
        current = list(inspect.signature(getattr(trainer(), name)).parameters)
        assert current == parameters, f"PPOTrainerSync.{name} now takes {current}"


def test_nothing_else_of_verl_is_overridden() -> None:
    from progrpo.verl.trainer import ProGRPOTrainer

    methods = {name for name, value in vars(ProGRPOTrainer).items() if inspect.isfunction(value)}
    assert methods & set(dir(trainer())) == {"__init__", *OVERRIDDEN}


def test_no_method_body_of_verl_is_copied() -> None:
    from verl.trainer.ppo.v1 import PPOTrainer

    from progrpo.verl.trainer import ProGRPOTrainer

    theirs = {line.strip() for line in inspect.getsource(PPOTrainer).split("\n") if len(line.strip()) > 60}
    ours = [line.strip() for line in inspect.getsource(ProGRPOTrainer).split("\n")]
    assert [line for line in ours if line in theirs] == []


def test_verl_computes_the_actors_log_probs_before_the_reference_models() -> None:
    source = inspect.getsource(trainer()._step_once)
    steps = [source.index(f"self.{name}(") for name in ("_compute_old_log_prob", "_compute_ref_log_prob")]
    assert steps == sorted(steps), "the reference model's log-probs now come first: they are in the same field"
    assert source.index("self._compute_advantage(") > max(steps)


def test_verl_compares_the_mode_only_with_sync() -> None:
    from verl.trainer.ppo.v1 import PPOTrainer

    compared = re.findall(r'self\.trainer_mode [!=]= "(\w+)"', inspect.getsource(PPOTrainer))
    assert set(compared) == {"sync"}, f"verl also compares the mode with {set(compared)}"
    assert len(compared) == 6


def test_groups_with_failures_use_the_epsilon_of_verls_grpo() -> None:
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    from progrpo.verl.batch import VERL_EPS

    assert inspect.signature(compute_grpo_outcome_advantage).parameters["epsilon"].default == VERL_EPS
