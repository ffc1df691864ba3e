"""TRL's colocated vLLM on a CPU, which TRL does not support. The rest of TRL and vLLM is unchanged."""

import os
from functools import cache
from typing import Any

import pytest
import torch
from trl.generation import vllm_generation
from vllm import LLM
from vllm.utils.torch_utils import set_random_seed


@cache
def _engine(**settings: Any) -> LLM:
    # "auto" would cut float32 weights to bfloat16.
    return LLM(**settings, dtype="float32", enforce_eager=True)


def engine(**settings: Any) -> LLM:
    """``vllm.LLM`` for TRL: one engine for all trainers with the same settings, because a process can have only one
    world."""
    llm = _engine(**settings)
    set_random_seed(settings["seed"])  # as for a new engine
    if not torch.distributed.is_torchelastic_launched():  # TRL set them for vLLM
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]  # otherwise accelerate would assume that the next trainer is one of several
    return llm


def sync_weights(generation: vllm_generation.VLLMGeneration) -> None:
    """Replaces TRL's function, which loads tensor by tensor; on a CPU, vLLM keeps the model's weights packed."""
    assert not generation.model.config.tie_word_embeddings, "lm_head would keep a packed copy of the old embeddings"
    runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
    runner.reload_weights(weights_iterator=generation._iter_named_params())
    generation.llm.reset_prefix_cache()


def run_on_cpu(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, ``use_vllm=True, vllm_mode="colocate"`` trains on a CPU."""
    patch.setattr(vllm_generation, "LLM", engine)
    patch.setattr(vllm_generation.VLLMGeneration, "sync_weights", sync_weights)
