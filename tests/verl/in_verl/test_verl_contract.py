"""What the plugin takes for granted of verl's private API. A failure here says what a new version of verl moved."""

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


def test_the_methods_that_are_overridden_have_the_parameters_they_had() -> None:
    for name, parameters in OVERRIDDEN.items():
        got = list(inspect.signature(getattr(trainer(), name)).parameters)
        assert got == parameters, f"PPOTrainerSync.{name} now takes {got}"


def test_nothing_else_of_verl_is_overridden() -> None:
    from progrpo.verl.trainer import ProGRPOTrainer

    own = {name for name, value in vars(ProGRPOTrainer).items() if inspect.isfunction(value)}
    assert own & set(dir(trainer())) == {"__init__", *OVERRIDDEN}


def test_no_method_body_of_verl_is_copied() -> None:
    from verl.trainer.ppo.v1 import PPOTrainer

    from progrpo.verl.trainer import ProGRPOTrainer

    theirs = {line.strip() for line in inspect.getsource(PPOTrainer).split("\n") if len(line.strip()) > 60}
    ours = [line.strip() for line in inspect.getsource(ProGRPOTrainer).split("\n")]
    assert [line for line in ours if line in theirs] == []


def test_the_steps_come_in_the_order_that_is_relied_on() -> None:
    source = inspect.getsource(trainer()._step_once)
    steps = [source.index(f"self.{name}(") for name in ("_compute_old_log_prob", "_compute_ref_log_prob")]
    assert steps == sorted(steps), "the reference model's log-probs now come first: they are in the same field"
    assert source.index("self._compute_advantage(") > max(steps)


def test_the_mode_is_only_ever_compared_with_sync() -> None:
    from verl.trainer.ppo.v1 import PPOTrainer

    compared = re.findall(r'self\.trainer_mode [!=]= "(\w+)"', inspect.getsource(PPOTrainer))
    assert set(compared) == {"sync"}, f"verl also compares the mode with {set(compared)}"
    assert len(compared) == 6


def test_grpo_s_delta_is_the_one_that_groups_with_failures_are_computed_with() -> None:
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    from progrpo.verl.batch import VERL_EPS

    assert inspect.signature(compute_grpo_outcome_advantage).parameters["epsilon"].default == VERL_EPS
