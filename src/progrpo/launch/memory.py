r"""How much memory a run takes at its peak, on each process, from what is allocated.

Four moments matter: rollout, update, evaluation, and on a CPU the checkpoint; what stays throughout (weights, AdamW's
states, on a CPU the process itself) is added to the largest of them. With N = B (P + T) tokens in a micro-batch of B
responses, H hidden features, I of the MLP, Q = heads x head size, L layers, V tokens in the vocabulary, and s bytes a
number (4 float32, 2 bfloat16):

==============  ========================================================================================================
weights         s for each parameter; 4 where FSDP2 keeps float32 copies
optimizer       AdamW: two states, and a float32 copy under ZeRO-3; trained parameters only
gradients       one for each trained parameter
activations     saved for the backward pass: N L (6 H + 4 Q + 4 I) s. A layer saves its two normalisations' inputs,
                normalised inputs and outputs (6 H); q, k and v for each head, and what attention gives (4 Q); gate, its
                activation, up, and their product (4 I). With recomputation: N L H s and one layer's
logits          TRL's fused head makes them in tiles of 4,096 tokens by 32,768 of the vocabulary, and holds eight such
                tiles in torch's backward pass (two in Triton's, on a GPU), and the head's gradient, V H in float32;
                verl's holds all N V of them
gathered        sharded weights in use: two layers, the current one and the next, and the LM head; in an evaluation all
heap            on a CPU: what glibc keeps of freed activations, some two fifths (measured)
saved           on a CPU: AdamW's states as they are written to a checkpoint, twice
kv_cache        2 L (heads of k and v x head size) s for each token of each response that is generated
sampling        six copies of (B, V) float32 logits, and the prompt's pass through one layer
==============  ========================================================================================================

Where weights, gradients and states are sharded, each process has its part. ``benchmarks/memory.py`` compares this with
measured peaks on a CPU; on GPUs it was not measured.
"""

from dataclasses import dataclass, field
from typing import Any

from progrpo.launch.architecture import Architecture
from progrpo.recipes.schema import DatasetSection, Recipe
from progrpo.verl.settings import verl_setting

GB = 1e9

# trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE, and trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE.
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
# The product and what _backward_tile holds at its fullest: y, z, log p, p, the gradient, two terms of it, a mask.
TORCH_TILES = 8.25
# The product in its own type, written over by Triton's kernel, and one in float32 for the gradient's.
TRITON_TILES = 2.0
SAMPLING_COPIES = 6
# torch's writer of safetensors makes bytes of each tensor, and then one of all of them.
WRITER_COPIES = 2
# glibc keeps freed blocks of up to 32 MiB in its heap, with holes that the next pass does not fit in. How much of the
# activations' memory that comes to was measured, on both models of benchmarks/memory.py.
HEAP_KEEPS = 0.4

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest prompt and of the longest response."""

    prompt: int
    response: int

    @property
    def total(self) -> int:
        return self.prompt + self.response


@dataclass(frozen=True)
class Memory:
    """Bytes on one process (on one GPU, or in the machine's memory without one)."""

    always: dict[str, float]
    """Throughout the run."""
    moments: dict[str, dict[str, float]] = field(default_factory=dict)
    """On top of that, by moment: ``rollout``, ``update``, ``evaluation``, ``checkpoint``."""

    @property
    def peak(self) -> float:
        return sum(self.always.values()) + max(sum(parts.values()) for parts in self.moments.values())

    def at(self, moment: str) -> float:
        """All that is held at a moment."""
        return sum(self.always.values()) + sum(self.moments[moment].values())


@dataclass(frozen=True)
class Layout:
    """Where a run's numbers lie: how many bytes each has, and over how many processes they are spread."""

    weight: int
    """Bytes of a trained weight as it is kept, and of its gradient."""
    frozen: int
    """Bytes of a weight that is not trained."""
    compute: int
    """Bytes of an activation."""
    states: int
    """AdamW's bytes for each trained parameter."""
    shards: int
    """Processes that share weights, gradients and states; 1: each has all."""
    gpu: bool
    gpu_bytes: float
    recomputes: bool
    buckets: bool = False
    """DDP's: a second copy of the gradients."""


def estimate(
    architecture: Architecture,
    recipe: Recipe,
    layout: Layout,
    lengths: Lengths,
    *,
    micro_batch: int,
    accumulation: int,
    rollout: int,
    process: float = 0.0,
) -> Memory:
    """The memory of a run, part by part.

    Args:
        architecture: of the model.
        recipe: what is trained, evaluated and sampled with.
        layout: where weights and states lie.
        lengths: of the longest prompt and response; shorter ones take less.
        micro_batch, accumulation: responses in a pass of a process, and passes for one update.
        rollout: responses that a process generates for one rollout.
        process: bytes of the process before anything is loaded: the interpreter and its libraries. 0 on a GPU.
    """
    lora = recipe.model.lora
    trained = architecture.lora_parameters(lora) if lora else architecture.parameters
    frozen = architecture.parameters if lora else 0
    weights: float = (trained * layout.weight + frozen * layout.frozen) / layout.shards
    gradients = trained * layout.weight / layout.shards
    always = {
        "process": process,
        "weights": weights,
        "optimizer": trained * layout.states / layout.shards,
    }
    update = _update(architecture, recipe, layout, lengths, micro_batch)
    if layout.buckets:
        update["gradients"] = 2 * gradients
    elif accumulation > 1 or sum(update.values()) < gradients:
        # Of one pass alone, the gradients come as the activations go; of more, those of the passes before are there.
        update["gradients"] = gradients
    if layout.shards > 1:
        head = layout.frozen if lora else layout.weight
        update["gathered"] = 2.0 * architecture.layer_parameters * layout.compute + architecture.embedding * head
    moments = {"rollout": _rollout(architecture, recipe, layout, lengths, rollout), "update": update}
    if recipe.engine == "trl":
        responses = _evaluated_at_once(recipe)
        moments["evaluation"] = _generation(architecture, layout, lengths, responses, prompts=1)
        if layout.shards > 1:
            moments["evaluation"]["gathered"] = float(architecture.parameters * layout.compute)
            if not recipe.evaluation.every:  # the one at the end has the optimiser's memory
                moments["rollout"]["optimizer"] = moments["update"]["optimizer"] = always.pop("optimizer")
    if recipe.engine == "trl" and not layout.gpu:
        # What the heap still holds: freed gradients; and activations, where gradients that lived on lie between them.
        kept = update["activations"] + update["heap"] if accumulation > 1 else 0.0
        moments["checkpoint"] = {"heap": gradients + kept, "saved": WRITER_COPIES * always["optimizer"]}
    _always_there(recipe, layout, always, moments)
    return Memory({name: size for name, size in always.items() if size}, moments)


def _update(
    architecture: Architecture, recipe: Recipe, layout: Layout, lengths: Lengths, micro_batch: int
) -> dict[str, float]:
    one = architecture
    tokens = micro_batch * lengths.total
    layer = tokens * (6 * one.hidden + 4 * one.queries + 4 * one.intermediate) * layout.compute
    if recipe.model.lora:  # each adapter saves its input once more where there is dropout, and its inner features
        layer += tokens * 7 * recipe.model.lora.r * layout.compute
    kept = tokens * one.layers * one.hidden * layout.compute
    activations = kept + 2 * layer if layout.recomputes else one.layers * layer
    scored = micro_batch * (lengths.response if layout.gpu else lengths.total - 1)
    hidden = 2 * tokens * one.hidden * layout.compute + scored * one.hidden * 4
    head = 0.0 if recipe.model.lora else one.embedding * 4.0
    if recipe.engine == "verl":  # the logits, a float32 copy for their log-softmax, and their gradient
        logits = tokens * one.vocabulary * (2 * layout.compute + 4.0)
    else:
        tile = min(scored, TILE_TOKENS) * min(one.vocabulary, TILE_VOCABULARY)
        logits = tile * (TRITON_TILES * layout.compute if layout.gpu else TORCH_TILES * 4)
    backward = 2 * tokens * one.intermediate * layout.compute  # of the last layer, once the head's is done
    heap = 0.0 if layout.gpu else HEAP_KEEPS * activations
    parts = {"activations": activations + hidden, "logits": max(logits + head, backward), "heap": heap}
    return {name: size for name, size in parts.items() if size}


def _rollout(
    architecture: Architecture, recipe: Recipe, layout: Layout, lengths: Lengths, responses: int
) -> dict[str, float]:
    share = engine_share(recipe)
    if share is None:
        # TRL hands all responses to one call, each with its own copy of the prompt.
        return _generation(architecture, layout, lengths, responses, prompts=responses)
    return {"vllm": share * layout.gpu_bytes}


def _generation(
    architecture: Architecture, layout: Layout, lengths: Lengths, responses: int, *, prompts: int
) -> dict[str, float]:
    one = architecture
    cache: float = responses * lengths.total * one.layers * 2 * one.keys * layout.compute
    # Each token's cache is written anew, layer by layer: the old and the new one of a layer are there together.
    cache += cache / one.layers
    prompt = prompts * lengths.prompt * (3 * one.hidden + 3 * one.intermediate) * layout.compute
    logits = responses * one.vocabulary * 4.0 * SAMPLING_COPIES
    return {"kv_cache": cache, "sampling": max(prompt, logits)}


def engine_share(recipe: Recipe) -> float | None:
    """The share of a GPU that vLLM takes beside the training; None if transformers generates, 0.0 if a server does."""
    if recipe.engine == "verl":
        return float(verl_setting(recipe, "actor_rollout_ref.rollout.gpu_memory_utilization", 0.5))
    if not recipe.trl.get("use_vllm"):
        return None
    if recipe.trl.get("vllm_mode", "colocate") == "server":
        return 0.0
    return float(recipe.trl.get("vllm_gpu_memory_utilization", 0.3))


def _evaluated_at_once(recipe: Recipe) -> int:
    section, task = recipe.evaluation, recipe.task
    held_out = task.heldout.limit if isinstance(task, DatasetSection) else task.heldout_size
    problems = min(section.problems_in_training, held_out or section.problems_in_training)
    in_training = section.samples_in_training * problems if section.every else 0
    at_the_end = section.samples * held_out if held_out else section.batch
    return min(section.batch, max(in_training, at_the_end))


def _always_there(recipe: Recipe, layout: Layout, always: dict[str, Any], moments: dict[str, dict[str, float]]) -> None:
    """TRL's vLLM gives its memory back only if it may sleep; verl's always does."""
    if "vllm" in moments["rollout"] and recipe.engine == "trl" and not recipe.trl.get("vllm_enable_sleep_mode"):
        always["vllm"] = moments["rollout"].pop("vllm")
