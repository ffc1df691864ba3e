"""The record of a step; the runs of tests/cli test the rest."""

from types import SimpleNamespace
from typing import Any

import torch

from progrpo.recipes.schema import load_recipe
from progrpo.runs.folder import RunFolder
from progrpo.tasks import Countdown
from progrpo.tasks.rewards import task_reward
from progrpo.trl.recorder import Recorder


def test_a_signal_after_the_end_of_a_step_does_not_affect_that_step(tmp_path: Any) -> None:
    """The other processes evaluate, because they have not gathered this one's signal. So it has to evaluate with
    them."""
    task = Countdown(numbers=3)
    folder = RunFolder(tmp_path / "run")
    folder.start(recipe := load_recipe("countdown_cpu", ["evaluation.every=1"]), {})
    recorder: Any = Recorder(recipe, folder, task, task_reward(task), SimpleNamespace(advance=lambda *_, **__: None))
    accelerator = SimpleNamespace(gather=lambda tensor: tensor, device=torch.device("cpu"))
    recorder.trainer = SimpleNamespace(
        accelerator=accelerator, state=SimpleNamespace(global_step=1, is_world_process_zero=True)
    )
    evaluated: list[int] = []
    recorder._evaluate = evaluated.append

    control = SimpleNamespace(should_save=False, should_training_stop=False)
    recorder.on_step_end(None, None, control)
    recorder.stopped_by = 2  # the signal's handler
    recorder.record_step({"loss": 0.0})
    assert evaluated == [1]
    assert not control.should_training_stop

    recorder.trainer.state.global_step = 2
    recorder.on_step_end(None, None, control)
    recorder.record_step({"loss": 0.0})
    assert evaluated == [1], "the checkpoint comes first"
    assert control.should_training_stop
