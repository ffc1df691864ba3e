"""What is launched, what is refused, and the shipped files of accelerate's, as accelerate itself reads them."""

import os
from pathlib import Path
from typing import Any

import pytest

from progrpo.common.errors import ConfigError
from progrpo.launch.commands import ACCELERATE, check_launch
from progrpo.launch.plan import Plan, make_plan
from progrpo.recipes.schema import load_recipe
from progrpo.runs.folder import RunFolder

SEVEN_B = "qwen2.5_7b_dapo_math"
FILES = sorted(ACCELERATE.glob("*.yaml"))


def plan(*overrides: str, source: str = SEVEN_B) -> Plan:
    return make_plan(load_recipe(source, list(overrides)), source, list(overrides), RunFolder(Path("run")))


def validated(file: Path) -> tuple[Any, Any]:
    """What ``accelerate launch`` makes of a file, before it starts anything."""
    from accelerate.commands import launch

    arguments = ["--config_file", str(file), "--num_processes", "8", "-m", "progrpo", "train", SEVEN_B]
    args, defaults, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(arguments))
    return args, defaults


def test_there_are_files() -> None:
    assert [file.stem for file in FILES] == ["ddp", "deepspeed_zero3", "fsdp2"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_takes_a_shipped_file(file: Path) -> None:
    args, _ = validated(file)
    kinds = {"ddp": "multi_gpu", "deepspeed_zero3": "use_deepspeed", "fsdp2": "use_fsdp"}
    for stem, kind in kinds.items():
        assert bool(getattr(args, kind)) == (file.stem == stem), kind
    assert (args.num_processes, args.num_machines, args.mixed_precision) == (8, 1, "bf16")
    assert (args.module, args.training_script, args.training_script_args) == (True, "progrpo", ["train", SEVEN_B])


def test_fsdp2_builds_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    args, _ = validated(ACCELERATE / "fsdp2.yaml")
    set_environment(monkeypatch, prepare_multi_gpu_env(args))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert str(plugin.state_dict_type).endswith("FULL_STATE_DICT")
    assert plugin.activation_checkpointing is False, "it is the trainer's"


def test_zero3_builds_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed itself is not needed for that; docs/scale.md says how its own parser was asked."""
    from accelerate.utils import DeepSpeedPlugin, dataclasses
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    args, defaults = validated(ACCELERATE / "deepspeed_zero3.yaml")
    args.deepspeed_fields_from_accelerate_config = list(defaults.deepspeed_config)
    _, environment = prepare_deepspeed_cmd_env(args)
    set_environment(monkeypatch, environment)
    for name in ("is_deepspeed_available", "compare_versions"):
        if hasattr(dataclasses, name):
            monkeypatch.setattr(dataclasses, name, lambda *_: True)
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == 3
    zero = plugin.deepspeed_config["zero_optimization"]
    assert (zero["stage"], zero["stage3_gather_16bit_weights_on_model_save"]) == (3, True)
    assert plugin.deepspeed_config["gradient_accumulation_steps"] == "auto", "the trainer's"


def set_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        if name.startswith(("ACCELERATE_", "FSDP_")) and os.environ.get(name) != value:
            monkeypatch.setenv(name, value)


# The ways to run a recipe on eight GPUs


def test_fsdp2_with_vllm_beside_it() -> None:
    found = plan()
    assert (found.sharding, found.processes, found.warnings) == ("FSDP", 8, [])
    [command] = found.commands
    assert command.words[:6] == [
        *("accelerate", "launch", "--config_file", str(ACCELERATE / "fsdp2.yaml"), "--num_processes", "8")
    ]


def test_zero3_keeps_its_copy_with_the_states() -> None:
    found, fsdp = plan("launch.accelerate=deepspeed_zero3"), plan()
    assert found.sharding == "DEEPSPEED"
    everything = ("weights", "optimizer")
    total = sum(found.memory.always[part] for part in everything) + found.memory.moments["update"]["gradients"]
    assert total == pytest.approx(16 * found.trained / 8)
    assert total == sum(fsdp.memory.always[part] for part in everything) + fsdp.memory.moments["update"]["gradients"]
    assert any("DeepSpeed was not run" in warning for warning in found.warnings)


def test_a_server_has_gpus_of_its_own() -> None:
    server = ["trl.vllm_mode=server", "launch.server_gpus=4", "trl.vllm_tensor_parallel_size=2"]
    serve, train = plan(*server).commands
    assert serve.words[:5] == [
        "CUDA_VISIBLE_DEVICES=0,1,2,3",
        "VLLM_SERVER_DEV_MODE=1",
        "vllm",
        "serve",
        "Qwen/Qwen2.5-7B",
    ]
    told = dict(zip(serve.words[5::2], serve.words[6::2], strict=True))
    assert (told["--tensor-parallel-size"], told["--data-parallel-size"]) == ("2", "2")
    assert (told["--max-model-len"], told["--weight-transfer-config"]) == ("9216", '{"backend": "nccl"}')
    assert train.words[0] == "CUDA_VISIBLE_DEVICES=4,5,6,7"
    assert train.words[train.words.index("--num_processes") + 1] == "4"
    assert plan(*server).memory.moments["rollout"]["vllm"] == 0


def test_adapters_make_32b_fit_one_machine() -> None:
    one = ["launch.nodes=1", "model.lora.r=64"]
    found = plan(*one, source="qwen2.5_32b_dapo_math")
    assert found.trained == pytest.approx(0.54e9, rel=0.02)
    assert found.memory.peak < 80e9
    assert not found.warnings
    whole = plan("launch.nodes=1", "training.micro_batch=8", source="qwen2.5_32b_dapo_math")
    [warning] = whole.warnings
    assert warning.startswith("this run does not fit: the update needs about ")
    assert " GB, and each GPU has 80" in warning


def test_machines_are_told_their_rank() -> None:
    [command] = plan(source="qwen2.5_32b_dapo_math").commands
    assert "--num_machines 4 --machine_rank $RANK --main_process_ip $HOST" in str(command)
    assert "RANK 0 to 3" in command.purpose


def test_verl_needs_ray_on_each_machine() -> None:
    head, worker, train, started = plan("engine=verl", source="qwen2.5_32b_dapo_math").commands
    assert (str(head), str(worker)) == ("ray start --head --port 6379", "ray start --address $HOST:6379")
    assert train.words[:2] == ["progrpo", "train"]
    assert "actor_rollout_ref.rollout.tensor_model_parallel_size=4" in started.words
    assert "vllm" in plan("engine=verl").memory.moments["rollout"]


def test_copies_in_bfloat16_alone_lose_their_steps() -> None:
    found = plan("launch.accelerate=ddp")
    assert any("mostly rounded away: take model.dtype = 'float32'" in warning for warning in found.warnings)
    assert not any("rounded away" in w for w in plan("launch.accelerate=ddp", "model.lora.r=8").warnings)


def test_ones_own_file(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text((ACCELERATE / "fsdp2.yaml").read_text())
    assert str(own) in plan(f"launch.accelerate={own}").commands[0].words


# What is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["launch.accelerate=zero3"],
            r"launch.accelerate must be one of ddp, deepspeed_zero3, fsdp2, or a file .* 'zero3'",
        ),
        (["launch.server_gpus=2"], r"launch.server_gpus is 2, but nothing is served: it goes with engine = 'trl'"),
        (["engine=verl", "launch.server_gpus=2"], r"launch.server_gpus is 2, but nothing is served"),
        (["trl.vllm_mode=server"], r"needs GPUs of its own: set launch.server_gpus to 1..7, got 0"),
        (["trl.vllm_mode=server", "launch.server_gpus=8"], r"set launch.server_gpus to 1..7, got 8"),
        (["trl.vllm_tensor_parallel_size=3"], r"vllm_tensor_parallel_size is 3, which does not divide the 8 GPUs"),
        (["training.max_response_tokens=9000"], r"vllm_max_model_length is 9216, less than .* = 10024; raise it"),
        (["training.micro_batch=3"], r"is 2048, which 8 process\(es\) can't take in micro-batches of 3"),
        (["launch.gpus_per_node=7"], r"is 2048, which 7 process\(es\) can't"),
        (
            ["training.max_response_tokens=200000", "trl.vllm_max_model_length=300000"],
            r"do not fit in the 131072 positions of model 'Qwen/Qwen2.5-7B'; lower training.max_response_tokens",
        ),
        (["engine=verl", "model.lora.r=8"], r"model.lora has no counterpart for engine 'verl'"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        plan(*overrides)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "can't be read"),
        ("- a\n", "is not a configuration of accelerate's"),
        ("distributed_type: TPU\n", r"distributed_type 'TPU', for which nothing is known here; it must be one of FSDP"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        plan(f"launch.accelerate={tmp_path / 'own.yaml'}")


def test_a_launch_of_another_size_is_refused() -> None:
    recipe = load_recipe(SEVEN_B)
    check_launch(recipe, 8)
    with pytest.raises(ConfigError, match="is for 8 processes and this is 1 of 4"):
        check_launch(recipe, 4)


def test_a_rollout_serves_each_of_its_updates_as_often_as_trl_iterates() -> None:
    several = ["training.updates_per_rollout=2", "trl.num_iterations=2", "training.steps=8"]
    assert plan(*several, source="countdown_cpu").rollouts == 2


def test_what_a_run_would_refuse_of_trl_s_table_is_refused() -> None:
    pytest.importorskip("trl")
    with pytest.raises(ConfigError, match=r"trl\.num_generations is set by the run; use training\.group_size"):
        plan("trl.num_generations=3", source="countdown_cpu")
