"""What a trainer goes on from: to the last bit, and without pickles."""

import json
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
from progrpo.trl.checkpoints import (
    check_resumable,
    load_optimizer,
    load_rng_state,
    load_rollout,
    processes_of,
    read_weights,
    save_optimizer,
    save_rng_state,
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
def test_an_optimizer_goes_on_to_the_last_bit(
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


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    random.gauss(0, 1), np.random.randn()  # both keep a second number back
    save_rng_state(tmp_path, 3)
    expected = draw()
    assert draw() != expected
    load_rng_state(tmp_path, 3)
    assert draw() == expected
    save_rng_state(tmp_path, 4)
    assert processes_of(tmp_path) == 2
    assert isinstance(json.loads((tmp_path / "rng_state_3.json").read_text()), dict)


def rollout(process: int, prompt: int, length: int) -> list[dict[str, torch.Tensor]]:
    """Two updates of two micro-batches of two rows, whose values say which row they are of."""
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
        save_rng_state(checkpoint, process)


def test_a_rollout_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    save_two(tmp_path)
    again = load_rollout(tmp_path, 1, 2, updates=2, accumulation=2)
    for ours, theirs in zip(again, rollout(1, 4, 2), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 4), (4, 1), (4, 2)])
def test_a_rollout_is_dealt_out_anew_to_other_processes(tmp_path: Path, processes: int, accumulation: int) -> None:
    """Each update has the responses that it had, each of them once, with its own prompt, mask and log-probs."""
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


def test_weights_of_several_files_are_read_together(tmp_path: Path) -> None:
    from progrpo.sampling.models import load_model

    model, _ = load_model("countdown")
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    read, known = read_weights(tmp_path, model), model.state_dict()
    assert read.keys() <= known.keys()
    for name, weight in read.items():
        assert torch.equal(weight, known[name])


def test_weights_that_are_saved_under_other_names_come_back_under_the_models(tmp_path: Path) -> None:
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, **experts))
    model.save_pretrained(tmp_path)
    assert not load_file(tmp_path / "model.safetensors").keys() <= model.state_dict().keys(), "the names are the same"
    read = read_weights(tmp_path, model)
    assert read.keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(read[name], weight)


def test_what_is_not_loaded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ConfigError, match="no weights in safetensors"):
        check_resumable(tmp_path)
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "optimizer.pt").touch()
    with pytest.raises(ConfigError, match=r"whose pickled state is not loaded; start a new run .* with model.path="):
        check_resumable(tmp_path)


def test_a_checkpoint_in_the_middle_of_a_rollout_that_it_does_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written in the middle of a rollout and does not hold it.*remove it"):
        load_rollout(tmp_path, 0, 1, 2, 1)
