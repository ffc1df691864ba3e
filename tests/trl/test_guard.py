"""The guard against NaN, on a real trainer: it keeps the earlier weights, and the batch that caused the fault."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset

from progrpo.sampling.models import load_model
from progrpo.tasks import Countdown
from progrpo.tasks.rewards import task_reward
from progrpo.trl import ProGRPOConfig, ProGRPOTrainer
from progrpo.trl.guard import FiniteGuard, NonFiniteError, batch_tensors, non_finite


class Guarded(FiniteGuard, ProGRPOTrainer):
    pass


@pytest.fixture
def make_guarded(tmp_path: Any) -> Callable[..., Guarded]:
    def make(**settings: Any) -> Guarded:
        torch.set_num_threads(1)
        model, tokenizer = load_model("countdown")
        task = Countdown(numbers=3, train_size=16, heldout_size=4)
        args = ProGRPOConfig(
            output_dir=str(tmp_path),
            **{"max_steps": 2, "num_generations": 4, "per_device_train_batch_size": 4} | settings,
            gradient_accumulation_steps=4,
            max_completion_length=14,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        rows = Dataset.from_list(task.train_problems())
        return Guarded(model, task_reward(task), args, train_dataset=rows, processing_class=tokenizer)

    return make


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def assert_same_weights(trainer: Any, before: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(parameter, before[name]) for name, parameter in trainer.model.named_parameters())


def test_infinite_advantages_stop_at_the_loss(make_guarded: Callable[..., Guarded]) -> None:
    trainer = make_guarded(alpha=1e39)  # beyond float32
    before = weights(trainer)
    with pytest.raises(NonFiniteError, match="the loss is ") as raised:
        trainer.train()
    assert_same_weights(trainer, before)
    assert not math.isfinite(raised.value.value)
    assert not raised.value.batches[-1]["advantages"].isfinite().all(), "the last one is the one at fault"


def test_an_infinite_gradient_of_finite_losses_stops_before_the_optimizer(make_guarded: Callable[..., Guarded]) -> None:
    trainer = make_guarded(alpha=1e37)  # the squares of its gradient are beyond float32
    before = weights(trainer)
    with pytest.raises(NonFiniteError, match="the norm of the gradient is ") as raised:
        trainer.train()
    assert_same_weights(trainer, before)
    assert len(raised.value.batches) == 4, "each of them may be at fault"
    assert all(batch["advantages"].isfinite().all() for batch in raised.value.batches)


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_gradients_are_checked_with_and_without_clipping(make_guarded: Callable[..., Guarded], clip: float) -> None:
    trainer = make_guarded(max_grad_norm=clip)
    weight = next(trainer.model.parameters())
    weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NonFiniteError, match="the norm of the gradient is nan"):
        trainer.train()
    assert non_finite((name, p.grad) for name, p in trainer.model.named_parameters())
    assert non_finite(iter(trainer.model.named_parameters())) == []


def test_without_a_fault_the_guard_changes_nothing(make_guarded: Callable[..., Guarded], monkeypatch: Any) -> None:
    guarded = make_guarded()
    guarded.train()
    for name in ("compute_loss", "_get_grad_norm", "_generate_and_score_completions"):
        monkeypatch.delattr(FiniteGuard, name)
    plain = make_guarded()
    plain.train()
    assert_same_weights(guarded, weights(plain))
    assert guarded._micro_batches == []


def test_weights_of_nan_give_no_distribution(make_guarded: Callable[..., Guarded]) -> None:
    trainer = make_guarded()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="the distribution of the next token is nan"):
        trainer.train()


def test_tensors_that_share_memory_are_stored_separately() -> None:
    shared = torch.arange(3)
    stored = batch_tensors([{"a": shared}, {"a": shared, "b": [1], "c": None}])
    assert sorted(stored) == ["0.a", "1.a"]
    assert stored["0.a"].data_ptr() != stored["1.a"].data_ptr()
