"""TRL's colocated vLLM on a CPU, where it was not made to run. Everything else of TRL and of vLLM is as it ships."""

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
    """``vllm.LLM`` for TRL: one engine for all trainers with the same settings, for a process bears no second world."""
    llm = _engine(**settings)
    set_random_seed(settings["seed"])  # as a new engine does
    if not torch.distributed.is_torchelastic_launched():  # TRL set them for vLLM
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]  # or accelerate would take the next trainer for one of several
    return llm


def sync_weights(generation: vllm_generation.VLLMGeneration) -> None:
    """In place of TRL's, which loads tensor by tensor into a model whose weights vLLM keeps packed on a CPU."""
    assert not generation.model.config.tie_word_embeddings, "lm_head would keep a packed copy of the old embeddings"
    runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
    runner.reload_weights(weights_iterator=generation._iter_named_params())
    generation.llm.reset_prefix_cache()


def run_on_cpu(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, ``use_vllm=True, vllm_mode="colocate"`` trains on a CPU."""
    patch.setattr(vllm_generation, "LLM", engine)
    patch.setattr(vllm_generation.VLLMGeneration, "sync_weights", sync_weights)
