"""What a trainer needs to go on exactly where it stopped, as files that hold no code: safetensors and JSON.

::

    optimizer/            moments and the like in safetensors, each process's part by itself
    optimizer.json        the rest of the optimizer: learning rates, betas, ...
    scheduler.json
    rng_state_0.json      the random number generators of process 0
    rollout_0.safetensors the rollout of process 0, where it serves further steps

Transformers writes these as pickles, which can run anything when they are loaded. The optimizer's tensors are written
and read by ``torch.distributed.checkpoint``: a process writes the part that it holds, with no gathering,
and reads the part that it needs, whichever processes wrote it.
"""

import hashlib
import json
import random
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from transformers import set_seed
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_json
from progrpo.trl.guard import batch_tensors

OPTIMIZER = "optimizer"
SCHEDULER = "scheduler.json"
SCALER = "scaler.json"
RNG = "rng_state_{}.json"
ROLLOUT = "rollout_{}.safetensors"
TRAINING_ARGS = "training_args.json"


def check_resumable(checkpoint: Path) -> None:
    """Whether training can go on from a checkpoint.

    Raises:
        ConfigError: its weights or its optimizer are in files that are not loaded, or not there.
    """
    weights = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, ADAPTER_SAFE_WEIGHTS_NAME)
    if not any((checkpoint / name).exists() for name in weights):
        raise ConfigError(f"checkpoint {str(checkpoint)!r} has no weights in safetensors, and no others are loaded.")
    if not (checkpoint / f"{OPTIMIZER}.json").exists():
        raise ConfigError(
            f"checkpoint {str(checkpoint)!r} has weights but no {OPTIMIZER}.json: it is DeepSpeed's or progrpo 0.1's, "
            f"whose pickled state is not loaded; start a new run from its weights with model.path={checkpoint}."
        )


def save_optimizer(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Write an optimizer's state; every process of a run calls it, and writes what it holds."""
    state: dict[str, Any] = dict(get_optimizer_state_dict(model, optimizer))
    tensors, rest = _parted(state["state"])
    if tensors:
        with _quiet():
            writer = HuggingFaceStorageWriter(str(checkpoint / OPTIMIZER), save_distributed=True)
            state_dict_saver.save(tensors, storage_writer=writer)
    if _is_first():
        write_json(checkpoint / f"{OPTIMIZER}.json", {"state": rest, "param_groups": state["param_groups"]})


def load_optimizer(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Read what :func:`save_optimizer` wrote; every process calls it, and there may be fewer or more of them."""
    # All zeros, of the right shapes: they are read into.
    state: dict[str, Any] = dict(get_optimizer_state_dict(model, optimizer))
    tensors, _ = _parted(state["state"])
    if tensors:
        with _quiet():
            state_dict_loader.load(tensors, storage_reader=HuggingFaceStorageReader(str(checkpoint / OPTIMIZER)))
    told = read_json(checkpoint / f"{OPTIMIZER}.json")
    for parameter, values in told["state"].items():
        state["state"][parameter] |= values
    state["param_groups"] = told["param_groups"]
    set_optimizer_state_dict(model, optimizer, state)


def read_weights(checkpoint: Path, model: nn.Module) -> dict[str, Tensor]:
    """The weights of a checkpoint in transformers' format, of one file or several, under the names of a model of it."""
    index = checkpoint / SAFE_WEIGHTS_INDEX_NAME
    names = set(read_json(index)["weight_map"].values()) if index.exists() else {SAFE_WEIGHTS_NAME}
    weights = {name: tensor for file in sorted(names) for name, tensor in load_file(checkpoint / file).items()}
    if weights.keys() <= model.state_dict().keys():
        return weights
    # A mixture of experts, which has one tensor for all experts and is saved with one for each.
    dtype, kind = next(iter(weights.values())).dtype, cast(Any, type(model))
    state: dict[str, Tensor] = kind.from_pretrained(checkpoint, dtype=dtype, use_safetensors=True).state_dict()
    return state


def save_rng_state(checkpoint: Path, process: int) -> None:
    """Write the state of this process's random number generators: Python's, NumPy's, torch's, its accelerator's."""
    name, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": _hex(torch.get_rng_state()),
    }
    if torch.accelerator.is_available():
        state["accelerator"] = _hex(torch.get_device_module().get_rng_state())
    write_json(checkpoint / RNG.format(process), state)


def load_rng_state(checkpoint: Path, process: int) -> None:
    """Read what :func:`save_rng_state` wrote."""
    state = read_json(checkpoint / RNG.format(process))
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_bytes(state["torch"]))
    if torch.accelerator.is_available() and "accelerator" in state:
        torch.get_device_module().set_rng_state(_bytes(state["accelerator"]))


def save_rollout(checkpoint: Path, process: int, batches: list[dict[str, Any]]) -> None:
    """Write the micro-batches of a rollout that serves steps after this checkpoint, this process's."""
    save_file(batch_tensors(batches), checkpoint / ROLLOUT.format(process))


def load_rollout(
    checkpoint: Path, process: int, processes: int, updates: int, accumulation: int
) -> list[dict[str, Any]]:
    """Read this process's micro-batches of what :func:`save_rollout` wrote.

    On another number of processes each update has the same responses, dealt out anew.

    Args:
        checkpoint: it has a rollout.
        process, processes: this one, of how many there are now.
        updates: optimiser steps that the rollout serves.
        accumulation: micro-batches of an update, now.

    Raises:
        ConfigError: the checkpoint is of a version that kept no rollouts.
    """
    if not (checkpoint / ROLLOUT.format(0)).exists():
        raise ConfigError(
            f"checkpoint {str(checkpoint)!r} was written in the middle of a rollout and does not hold it, so no run "
            "can go on from it; remove it, and --resume goes on from the one before."
        )
    written = [_unnamed(load_file(checkpoint / ROLLOUT.format(i))) for i in range(processes_of(checkpoint))]
    if len(written) == processes:
        return written[process]
    before = len(written[0]) // updates
    batches = []
    for update in range(updates):
        whole = _joined([batch for of in written for batch in of[update * before : (update + 1) * before]])
        size = len(whole["completion_ids"]) // (processes * accumulation)
        for i in range(process * accumulation, (process + 1) * accumulation):
            rows = slice(i * size, (i + 1) * size)
            batches.append({name: value[rows] if value.dim() else value for name, value in whole.items()})
    return batches


def _unnamed(tensors: dict[str, Tensor]) -> list[dict[str, Any]]:
    """The micro-batches that :func:`progrpo.trl.guard.batch_tensors` named."""
    batches: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, tensor in tensors.items():
        i, _, key = name.partition(".")
        batches[int(i)][key] = tensor
    return [batches[i] for i in sorted(batches)]


def _joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch of all rows; prompts are padded on the left, responses on the right, as TRL has them."""

    def join(name: str) -> Tensor:
        values = [batch[name] for batch in batches]
        if values[0].dim() == 0:  # the number of tokens of the whole rollout
            return cast(Tensor, values[0])
        if values[0].dim() == 1:
            return torch.cat(values)
        longest = max(value.shape[1] for value in values)
        missing = [longest - value.shape[1] for value in values]
        sides = [(more, 0) if name.startswith("prompt") else (0, more) for more in missing]
        return torch.cat([nn.functional.pad(value, side) for value, side in zip(values, sides, strict=True)])

    return {name: join(name) for name in batches[0]}


def seed_anew(seed: int, step: int, process: int) -> None:
    """Random numbers that no other step and no other process of the run has had."""
    digest = hashlib.blake2b(f"{seed} {step} {process}".encode(), digest_size=4).digest()
    set_seed(int.from_bytes(digest))


def processes_of(checkpoint: Path) -> int:
    """How many processes wrote a checkpoint."""
    return len(list(checkpoint.glob(RNG.format("*"))))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _parted(state: dict[str, dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """The tensors of each parameter's state under one name each, and what is no tensor."""
    tensors = {f"{p}.{name}": value for p, of in state.items() for name, value in of.items() if torch.is_tensor(value)}
    rest = {p: {name: value for name, value in of.items() if not torch.is_tensor(value)} for p, of in state.items()}
    return tensors, {p: values for p, values in rest.items() if values}


@contextmanager
def _quiet() -> Iterator[None]:
    """torch warns that it assumes one process where there is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _is_first() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _hex(state: Tensor) -> str:
    return state.numpy().tobytes().hex()


def _bytes(state: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8)
