r"""Estimates the peak memory of a run on each process, from what is allocated.

Three moments matter: rollout, update and evaluation. What stays throughout (weights, AdamW's states) is added to each.
With N = B (P + T) tokens in a micro-batch of B responses, H hidden features, I features of the MLP, Q = heads x head
size, L layers, V tokens in the vocabulary, and s bytes a number (4 float32, 2 bfloat16):

============  ==========================================================================================================
weights       s for each parameter; 4 where FSDP2 keeps float32 copies
optimizer     two states of AdamW for each trained parameter, and a float32 copy under ZeRO-3
gradients     one for each trained parameter; DDP's buckets hold a second copy
activations   N L (6 H + 4 Q + 4 I) s. A layer saves its two normalisations' inputs, normalised inputs and outputs
              (6 H); q, k and v for each head, and attention's output (4 Q); gate, its activation, up, and their product
              (4 I). With recomputation: N L H s, and the activations of two layers
logits        TRL's fused head: tiles of 4,096 tokens by 32,768 of the vocabulary, and the head's gradient, V H in
              float32. verl's head: all N V logits, a float32 copy, and their gradient
gathered      sharded weights in use: two layers, the current one and the next, and the LM head; in an evaluation all
vllm          vLLM's share of a GPU, also during the update unless vLLM sleeps
kv_cache      2 L (heads of k and v x head size) s for each token of each response that transformers generates
sampling      six copies of (B, V) float32 logits, or the prompts' pass through one layer
============  ==========================================================================================================

Where weights, gradients and states are sharded, each process has its part. The process itself is not counted: Python,
memory that an allocator keeps, CUDA's context, NCCL's buffers. The estimate was not compared with measurements on GPUs.
"""

from dataclasses import dataclass

from progrpo.launch.architecture import Architecture
from progrpo.launch.engines import ENGINES
from progrpo.recipes.build import batch
from progrpo.recipes.schema import Recipe
from progrpo.runs.engine import MemoryFacts

GB = 1e9
BYTES = {"float32": 4, "bfloat16": 2}
# Source: trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE, and trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE.
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
# float32 tiles in torch's backward pass: y, z, log p, p, the gradient, two terms of it, the product, and a mask.
TORCH_TILES = 8.25
SAMPLING_COPIES = 6


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
    """Bytes on one process by part: throughout the run, and on top of that at the rollout, update and evaluation."""

    always: dict[str, float]
    moments: dict[str, dict[str, float]]

    @property
    def peak(self) -> float:
        return max(map(self.at, self.moments))

    def at(self, moment: str) -> float:
        return sum(self.always.values()) + sum(self.moments[moment].values())


def estimate(recipe: Recipe, architecture: Architecture, lengths: Lengths, *, gpu: bool) -> Memory:
    """The memory of a run, part by part. Prompts and responses shorter than ``lengths`` take less."""
    engine, lora = ENGINES[recipe.engine], recipe.model.lora
    facts, processes = engine.memory_facts(recipe), engine.processes(recipe)
    micro_batch, accumulation = batch(recipe, processes)
    kept, compute = BYTES[recipe.model.dtype], BYTES[facts.computes_in]
    whole = 4 if lora else kept  # PEFT keeps adapters in float32
    weight, states = {"FSDP": (4, 8), "DEEPSPEED": (2, 12)}.get(facts.sharding, (whole, 2 * whole))
    shards = processes if facts.sharding in ("FSDP", "DEEPSPEED") else 1
    trained, frozen = architecture.trained_parameters(lora), architecture.parameters if lora else 0
    gradients = trained * weight / shards
    always = {"weights": gradients + frozen * kept / shards, "optimizer": trained * states / shards}

    update = _update(recipe, architecture, facts, lengths, micro_batch, gpu)
    if facts.sharding == "MULTI_GPU":
        update["gradients"] = 2 * gradients
    elif accumulation > 1 or sum(update.values()) < gradients:  # one pass frees activations as its gradients come
        update["gradients"] = gradients
    responses = micro_batch * accumulation * recipe.training.updates_per_rollout
    if facts.vllm_share is None:  # TRL hands all responses to one call, each with its own copy of the prompt
        rollout = _generation(architecture, compute, lengths, responses, prompts=responses)
    else:
        rollout = {"vllm": facts.vllm_share * recipe.launch.gpu_memory_gb * GB}
        if not facts.vllm_sleeps:
            always |= rollout
            rollout = {}
    moments = {"rollout": rollout, "update": update}
    if facts.evaluates:
        moments["evaluation"] = _generation(architecture, compute, lengths, recipe.evaluation.batch, prompts=1)
    if shards > 1:
        head = architecture.config.vocab_size * architecture.config.hidden_size * (kept if lora else weight)
        update["gathered"] = 2.0 * architecture.layer_parameters * compute + head
        if facts.evaluates:
            moments["evaluation"]["gathered"] = float(architecture.parameters * compute)
            if not recipe.evaluation.every:  # the final evaluation takes place after the optimiser has gone
                rollout["optimizer"] = update["optimizer"] = always.pop("optimizer")
    return Memory(always, moments)


def _update(
    recipe: Recipe, architecture: Architecture, facts: MemoryFacts, lengths: Lengths, micro_batch: int, gpu: bool
) -> dict[str, float]:
    compute, config, (_, queries) = BYTES[facts.computes_in], architecture.config, architecture.linear_maps["q_proj"]
    hidden, intermediate, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    tokens = micro_batch * lengths.total
    layer = tokens * (6 * hidden + 4 * queries + 4 * intermediate) * compute
    if recipe.model.lora:  # each adapter saves its inner features, and its input once more where there is dropout
        layer += tokens * 7 * recipe.model.lora.r * compute
    inputs = tokens * config.num_hidden_layers * hidden * compute
    activations = inputs + 2 * layer if facts.recomputes else config.num_hidden_layers * layer
    scored = micro_batch * (lengths.response if gpu else lengths.total)
    last_hidden = 2 * tokens * hidden * compute + scored * hidden * 4
    if facts.whole_logits:
        logits = tokens * vocabulary * (2 * compute + 4.0)
    else:  # Triton's kernel needs two tiles, the product and a float32 one for the gradient
        tile = min(scored, TILE_TOKENS) * min(vocabulary, TILE_VOCABULARY)
        logits = tile * (2.0 * compute if gpu else TORCH_TILES * 4)
    head_gradient = 0.0 if recipe.model.lora else vocabulary * hidden * 4.0
    last_layer = 2 * tokens * intermediate * compute  # its backward pass begins once the head's is done
    return {"activations": activations + last_hidden, "logits": max(logits + head_gradient, last_layer)}


def _generation(
    architecture: Architecture, compute: int, lengths: Lengths, responses: int, *, prompts: int
) -> dict[str, float]:
    config, (_, keys) = architecture.config, architecture.linear_maps["k_proj"]
    cache: float = responses * lengths.total * config.num_hidden_layers * 2 * keys * compute
    cache += cache / config.num_hidden_layers  # a layer's old cache stays until its new one, a token longer, is written
    prompt = prompts * lengths.prompt * (3 * config.hidden_size + 3 * config.intermediate_size) * compute
    logits = responses * config.vocab_size * 4.0 * SAMPLING_COPIES
    return {"kv_cache": cache, "sampling": max(prompt, logits)}
