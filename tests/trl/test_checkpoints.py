"""The state from which a trainer continues is the same to the last bit, and loading it runs no code."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from progrpo.common.errors import ConfigError
from progrpo.recipes.schema import load_recipe
from progrpo.trl.checkpoints import (
    check_resumable,
    count_processes,
    load_optimizer,
    load_rollout,
    load_start,
    save_optimizer,
    save_rollout,
    seed_anew,
)


def make(optimizer: type[torch.optim.Optimizer], **settings: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0, "lr": 3e-3}]
    return model, optimizer(groups, lr=1e-2, **settings)


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(5, 4, generator=generator)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.AdamW, {"betas": (0.8, 0.95)}),
        (torch.optim.AdamW, {"fused": True}),
        (torch.optim.Adafactor, {}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.SGD, {}),
    ],
)
def test_an_optimizer_continues_to_the_last_bit(
    optimizer: type[torch.optim.Optimizer], settings: dict[str, Any], tmp_path: Path
) -> None:
    model, state = make(optimizer, **settings)
    take_steps(model, state, seed=1)
    save_optimizer(tmp_path, model, state)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    take_steps(model, state, seed=2)

    again, new_state = make(optimizer, **settings)
    again.load_state_dict(weights)
    for group in new_state.param_groups:
        group["lr"] = 0.5  # comes from the file
    load_optimizer(tmp_path, again, new_state)
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, weights[name]), "loading changes no weight"
    take_steps(again, new_state, seed=2)
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".json", ".safetensors"}


def draw() -> list[Any]:
    return [random.random(), *np.random.rand(3), *np.random.randn(1), *torch.randn(3).tolist(), random.gauss(0, 1)]


def rollout(process: int, prompt: int, length: int) -> list[dict[str, torch.Tensor]]:
    """Two updates of two micro-batches of two rows; the values show to which row they belong."""
    batches = []
    for i in range(4):
        rows = torch.tensor([100 * process + 10 * i, 100 * process + 10 * i + 1])
        batches.append(
            {
                "prompt_ids": rows[:, None].expand(-1, prompt) + 1000,
                "prompt_mask": torch.ones(2, prompt, dtype=torch.long),
                "completion_ids": rows[:, None].expand(-1, length),
                "completion_mask": torch.ones(2, length, dtype=torch.long),
                "old_per_token_logps": -rows[:, None].float().expand(-1, length),
                "advantages": rows.float(),
                "num_items_in_batch": torch.tensor(7),
            }
        )
    return batches


def save_two(checkpoint: Path) -> None:
    for process, (prompt, length) in enumerate([(3, 5), (4, 2)]):
        save_rollout(checkpoint, process, rollout(process, prompt, length))
        (checkpoint / f"rng_state_{process}.pth").touch()
    assert count_processes(checkpoint) == 2


def test_a_rollout_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    save_two(tmp_path)
    again = load_rollout(tmp_path, 1, 2, updates=2, accumulation=2)
    for ours, theirs in zip(again, rollout(1, 4, 2), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 4), (4, 1), (4, 2)])
def test_a_rollout_is_redistributed_to_another_number_of_processes(
    tmp_path: Path, processes: int, accumulation: int
) -> None:
    """Each update has the same responses as before, each once, with its own prompt, mask and log-probs."""
    save_two(tmp_path)
    dealt = [load_rollout(tmp_path, i, processes, updates=2, accumulation=accumulation) for i in range(processes)]
    for update in range(2):
        part = slice(update * accumulation, (update + 1) * accumulation)
        batches = [batch for of in dealt for batch in of[part]]
        assert {len(batch["advantages"]) for batch in batches} == {8 // (processes * accumulation)}
        rows = [row for batch in batches for row in batch["advantages"].int().tolist()]
        assert sorted(rows) == [
            100 * p + 10 * i + j for p in (0, 1) for i in (2 * update, 2 * update + 1) for j in (0, 1)
        ]
        for batch in batches:
            assert int(batch["num_items_in_batch"]) == 7
            for i, row in enumerate(batch["advantages"].int().tolist()):
                prompt, response = batch["prompt_mask"][i].bool(), batch["completion_mask"][i].bool()
                prompt_length, length = (3, 5) if row < 100 else (4, 2)
                assert batch["prompt_ids"][i][prompt].tolist() == [row + 1000] * prompt_length
                assert prompt.tolist() == [False] * (4 - prompt_length) + [True] * prompt_length
                assert batch["completion_ids"][i][response].tolist() == [row] * length
                assert response.tolist() == [True] * length + [False] * (5 - length)
                assert batch["old_per_token_logps"][i][response].tolist() == [-float(row)] * length


def test_new_random_numbers_differ_by_step_and_process() -> None:
    drawn = []
    for step, process in ((4, 0), (4, 1), (5, 0)):
        seed_anew(0, step, process)
        drawn.append(draw())
    assert len({tuple(numbers) for numbers in drawn}) == 3
    seed_anew(0, 4, 1)
    assert draw() == drawn[1]


@pytest.fixture
def experts() -> nn.Module:
    """A mixture of experts: in memory one tensor holds all experts, in files each expert has its own."""
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    model: nn.Module = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, **experts))
    return model


@pytest.mark.parametrize("kind", ["several files", "other names", "another dtype"])
def test_weights_come_back_to_the_last_bit(
    kind: str, experts: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from progrpo.sampling import models

    model: Any = experts if kind == "other names" else models.load_model("countdown")[0]
    model.save_pretrained(tmp_path, max_shard_size="1MB" if kind == "several files" else "1GB")
    if kind == "several files":
        assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    if kind == "other names":
        saved = load_file(tmp_path / "model.safetensors")
        assert not saved.keys() <= model.state_dict().keys(), "the names are the same"
    monkeypatch.setattr(models, "load_tokenizer", lambda path: None)
    dtype = "bfloat16" if kind == "another dtype" else "float32"  # float32 weights of a bfloat16 recipe
    other, _ = load_start(load_recipe("countdown_cpu", [f"model.dtype={dtype}"]), tmp_path)
    assert other.name_or_path == other.config.name_or_path == models.model_source("countdown")
    assert other.state_dict().keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)
        assert other.state_dict()[name].dtype == weight.dtype
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert (other.get_input_embeddings().weight is other.get_output_embeddings().weight) == tied


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_a_rollout_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "rng_state.pth").touch()
    torch.save([{"completion_ids": Bomb(tmp_path / "exploded")}], tmp_path / "rollout_0.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_rollout(tmp_path, 0, 1, 2, 1)
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_in_a_format_that_is_not_loaded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ConfigError, match="no weights in safetensors"):
        check_resumable(tmp_path)
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "optimizer.pt").touch()
    with pytest.raises(ConfigError, match=r"their pickled state is not loaded; start a new run .* with model.path="):
        check_resumable(tmp_path)


def test_a_checkpoint_in_the_middle_of_a_rollout_that_it_does_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written in the middle of a rollout and does not hold that.*remove the"):
        load_rollout(tmp_path, 0, 1, 2, 1)
