"""The estimate against sums worked by hand, and against the peak of a real run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from progrpo.launch.architecture import architecture_of
from progrpo.launch.memory import Layout, Lengths, Memory, estimate
from progrpo.recipes.schema import load_recipe

ROOT = Path(__file__).parents[2]
CPU = Layout(weight=4, frozen=4, compute=4, states=8, shards=1, gpu=False, gpu_bytes=0, recomputes=False)
# 887,936 parameters; H 128, I 384, 4 layers, 4 heads of 32 (k and v as many), V 130.
COUNTDOWN = architecture_of(load_recipe("countdown_cpu"))


def of_countdown(*overrides: str, layout: Layout = CPU, accumulation: int = 1) -> Memory:
    return estimate(
        COUNTDOWN,
        load_recipe("countdown_cpu", list(overrides)),
        layout,
        Lengths(prompt=7, response=18),
        micro_batch=10,
        accumulation=accumulation,
        rollout=20,
    )


def test_by_hand() -> None:
    found = of_countdown("evaluation.batch=4")
    assert found.always == {"weights": 887_936 * 4, "optimizer": 887_936 * 8}
    # 10 x 25 tokens; a layer keeps 6 H + 4 Q + 4 I = 768 + 512 + 1536 numbers of each.
    activations = 250 * 4 * 2816 * 4
    hidden = 2 * 250 * 128 * 4 + 240 * 128 * 4
    update = found.moments["update"]
    assert update["activations"] == activations + hidden
    # All 240 positions are scored on a CPU: eight tiles of 240 x 130 and a mask, and the head's gradient, 130 x 128.
    assert update["logits"] == max(240 * 130 * 4 * 8.25 + 130 * 128 * 4, 2 * 250 * 384 * 4)
    # One layer of the four is there twice while its cache grows.
    assert found.moments["rollout"]["kv_cache"] == 20 * 25 * 4 * 2 * 128 * 4 * 1.25
    assert found.moments["evaluation"]["kv_cache"] == 4 * 25 * 4 * 2 * 128 * 4 * 1.25
    # The update's largest part by far is small here: the moments of a checkpoint are written twice over.
    assert found.moments["checkpoint"] == {"heap": 887_936 * 4, "saved": 887_936 * 16}
    assert found.peak == sum(found.always.values()) + 887_936 * 20
    assert found.peak > found.at("update") == sum(found.always.values()) + sum(update.values())


def test_gradients_are_there_beside_activations_once_passes_add_up() -> None:
    assert "gradients" not in of_countdown("evaluation.batch=4").moments["update"]
    assert of_countdown(accumulation=2).moments["update"]["gradients"] == 887_936 * 4


def test_shards_share_weights_and_states() -> None:
    sharded = Layout(weight=4, frozen=2, compute=2, states=8, shards=8, gpu=True, gpu_bytes=80e9, recomputes=True)
    found = of_countdown(layout=sharded)
    assert found.always["weights"] == 887_936 * 4 / 8
    assert found.always["optimizer"] == 887_936
    assert "gathered" in found.moments["update"]
    assert found.moments["evaluation"]["gathered"] == 887_936 * 2, "all of them, on each"
    assert "optimizer" not in of_countdown("evaluation.every=0", layout=sharded).moments["evaluation"]
    assert "optimizer" not in of_countdown("evaluation.every=0", layout=sharded).always
    assert "heap" not in found.moments["update"]


def test_recomputation_keeps_the_inputs_of_layers() -> None:
    kept = of_countdown(layout=Layout(4, 4, 4, 8, 1, False, 0, True)).moments["update"]["activations"]
    assert kept == 250 * 4 * 128 * 4 + 2 * 250 * 2816 * 4 + 2 * 250 * 128 * 4 + 240 * 128 * 4


def test_adapters_alone_have_states_and_gradients() -> None:
    found = of_countdown("model.lora.r=8", accumulation=2)
    adapters = 4 * 8 * (4 * 256 + 3 * 512)
    assert found.always["optimizer"] == adapters * 8
    assert found.always["weights"] == (887_936 + adapters) * 4
    assert found.moments["update"]["gradients"] == adapters * 4


def test_vllm_that_sleeps_is_not_there_in_the_update() -> None:
    gpu = Layout(weight=2, frozen=2, compute=2, states=4, shards=1, gpu=True, gpu_bytes=80e9, recomputes=True)
    vllm = ["trl.use_vllm=true", "trl.vllm_gpu_memory_utilization=0.5"]
    asleep = of_countdown(*vllm, "trl.vllm_enable_sleep_mode=true", layout=gpu)
    assert asleep.moments["rollout"] == {"vllm": 40e9}
    assert asleep.at("update") < 1e9 < asleep.at("rollout")
    awake = of_countdown(*vllm, layout=gpu)
    assert awake.always["vllm"] == 40e9
    assert of_countdown(*vllm, "trl.vllm_mode=server", layout=gpu).peak < 1e9


@pytest.mark.skipif(sys.platform != "linux", reason="what an allocator keeps was measured on Linux")
@pytest.mark.parametrize("overrides", [["training.group_size=8"], ["training.micro_batch=128"]])
def test_within_15_percent_of_a_real_run(overrides: list[str]) -> None:
    """Two of the settings of benchmarks/memory.py or like them, by the same command; it has the larger ones."""
    small = ["training.steps=2", "evaluation.samples=2", "evaluation.every=0", "task.heldout_size=8"]
    done = subprocess.run(
        [sys.executable, "benchmarks/memory.py", "--train", "countdown_cpu", *small, *overrides],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().split("\n")[-1])
    assert found["estimate"] == pytest.approx(found["measured"], rel=0.15), found
    assert found["tokens"]["planned"] >= found["tokens"]["met"]
