"""The estimate of a run's memory against sums worked by hand."""

from dataclasses import replace

import pytest

from progrpo.launch.architecture import Architecture, architecture_of
from progrpo.launch.memory import Lengths, Memory, estimate
from progrpo.recipes.schema import load_recipe

# 887,936 parameters; H 128, I 384, 4 layers, 4 heads of 32 (k and v as many), V 130.
COUNTDOWN = architecture_of(load_recipe("countdown_cpu"))
PARAMETERS = 887_936
EIGHT_GPUS = ("launch.gpus_per_node=8", "training.prompts_per_step=8", "model.dtype=bfloat16")
TWO_PASSES = ("training.prompts_per_step=2",)


def memory_of(*overrides: str, gpu: bool = True, architecture: Architecture = COUNTDOWN) -> Memory:
    """The memory of one pass of 10 responses. Prompts have 7 tokens and responses 18."""
    batch = ["training.prompts_per_step=1", "training.group_size=10", "training.micro_batch=10"]
    recipe = load_recipe("countdown_cpu", [*batch, *overrides])
    return estimate(recipe, architecture, Lengths(prompt=7, response=18), gpu=gpu)


def test_by_hand() -> None:
    memory = memory_of("evaluation.batch=4")
    assert memory.always == {"weights": PARAMETERS * 4, "optimizer": PARAMETERS * 8}
    # 10 x 25 tokens; a layer keeps 6 H + 4 Q + 4 I = 768 + 512 + 1536 numbers of each.
    activations = 250 * 4 * 2816 * 4
    last_hidden = 2 * 250 * 128 * 4 + 180 * 128 * 4
    update = memory.moments["update"]
    # The two tiles of the 180 scored positions and the head's gradient are smaller than the last layer's MLP.
    assert 180 * 130 * 4 * 2 + 130 * 128 * 4 < 2 * 250 * 384 * 4
    assert update == {"activations": activations + last_hidden, "logits": 2 * 250 * 384 * 4}
    # One of the four layers is in memory twice while its cache grows.
    assert memory.moments["rollout"]["kv_cache"] == 10 * 25 * 4 * 2 * 128 * 4 * 1.25
    assert memory.moments["evaluation"]["kv_cache"] == 4 * 25 * 4 * 2 * 128 * 4 * 1.25
    assert memory.peak == memory.at("update") == PARAMETERS * 12 + sum(update.values())


def test_on_a_cpu_torch_holds_eight_tiles_of_all_positions() -> None:
    update = memory_of(gpu=False).moments["update"]
    assert update["logits"] == 250 * 130 * 4 * 8.25 + 130 * 128 * 4


def test_verl_holds_all_logits() -> None:
    config = type(COUNTDOWN.config)(**COUNTDOWN.config.to_dict() | {"vocab_size": 1300})
    memory = memory_of("engine=verl", architecture=replace(COUNTDOWN, config=config))
    assert memory.moments["update"]["logits"] == 250 * 1300 * (2 * 4 + 4) + 1300 * 128 * 4
    assert memory.moments["rollout"] == {"vllm": 40e9}
    assert set(memory.moments) == {"rollout", "update"}


def test_gradients_add_to_activations_if_passes_accumulate() -> None:
    assert "gradients" not in memory_of().moments["update"]
    assert memory_of(*TWO_PASSES).moments["update"]["gradients"] == PARAMETERS * 4


def test_ddp_holds_gradients_twice() -> None:
    memory = memory_of(*EIGHT_GPUS, "launch.accelerate=ddp", "model.dtype=float32")
    assert memory.moments["update"]["gradients"] == 2 * PARAMETERS * 4
    assert memory.always["weights"] == PARAMETERS * 4


def test_shards_share_weights_and_states() -> None:
    memory = memory_of(*EIGHT_GPUS)
    assert memory.always["weights"] == PARAMETERS * 4 / 8
    assert memory.always["optimizer"] == PARAMETERS
    assert "gathered" in memory.moments["update"]
    assert memory.moments["evaluation"]["gathered"] == PARAMETERS * 2, "each process gathers all weights"
    without = memory_of(*EIGHT_GPUS, "evaluation.every=0")
    assert "optimizer" not in without.always
    assert "optimizer" not in without.moments["evaluation"]
    assert without.moments["update"]["optimizer"] == PARAMETERS


def test_recomputation_keeps_the_inputs_of_layers() -> None:
    kept = memory_of("trl.gradient_checkpointing=true").moments["update"]["activations"]
    assert kept == 250 * 4 * 128 * 4 + 2 * 250 * 2816 * 4 + 2 * 250 * 128 * 4 + 180 * 128 * 4


def test_only_adapters_have_states_and_gradients() -> None:
    memory = memory_of("model.lora.r=8", *TWO_PASSES)
    adapters = 4 * 8 * (4 * 256 + 3 * 512)
    assert memory.always["optimizer"] == adapters * 8
    assert memory.always["weights"] == (PARAMETERS + adapters) * 4
    assert memory.moments["update"]["gradients"] == adapters * 4


def test_sleeping_vllm_takes_no_memory_in_the_update() -> None:
    vllm = ["model.dtype=bfloat16", "trl.use_vllm=true", "trl.vllm_gpu_memory_utilization=0.5"]
    asleep = memory_of(*vllm, "trl.vllm_enable_sleep_mode=true")
    assert asleep.moments["rollout"] == {"vllm": 40e9}
    assert asleep.at("update") < 1e9 < asleep.at("rollout")
    assert memory_of(*vllm).always["vllm"] == 40e9
    assert memory_of(*vllm, "trl.vllm_mode=server").peak < 1e9


@pytest.mark.parametrize("engine", ["trl", "verl"])
def test_the_peak_is_the_largest_moment(engine: str) -> None:
    memory = memory_of(f"engine={engine}")
    assert memory.peak == max(memory.at(moment) for moment in memory.moments)
