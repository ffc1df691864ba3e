"""What is launched, what is refused, and how accelerate reads the shipped configuration files."""

import os
from pathlib import Path
from typing import Any

import pytest

from progrpo.common.errors import ConfigError
from progrpo.launch.plan import Plan, make_plan
from progrpo.recipes.schema import load_recipe
from progrpo.runs.folder import RunFolder
from progrpo.trl.engine import ACCELERATE, check_launch

SEVEN_B = "qwen2.5_7b_dapo_math"
FILES = sorted(ACCELERATE.glob("*.yaml"))


def plan(*overrides: str, source: str = SEVEN_B) -> Plan:
    return make_plan(load_recipe(source, list(overrides)), source, list(overrides), RunFolder(Path("run")))


def validated(file: Path) -> tuple[Any, Any]:
    """The settings that ``accelerate launch`` reads from a file, before it starts anything."""
    from accelerate.commands import launch

    arguments = ["--config_file", str(file), "--num_processes", "8", "-m", "progrpo", "train", SEVEN_B]
    args, defaults, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(arguments))
    return args, defaults


def test_the_shipped_configurations() -> None:
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
    """DeepSpeed itself is not needed for this; docs/scale.md says how its own parser was tested."""
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


def test_fsdp2_with_vllm_on_the_same_gpus() -> None:
    planned = plan()
    assert (planned.facts.sharding, planned.processes, planned.warnings) == ("FSDP", 8, [])
    [command] = planned.commands
    assert command.words[:6] == [
        *("accelerate", "launch", "--config_file", str(ACCELERATE / "fsdp2.yaml"), "--num_processes", "8")
    ]


def test_zero3_counts_its_float32_copy_with_the_states() -> None:
    planned, fsdp = plan("launch.accelerate=deepspeed_zero3"), plan()
    assert planned.facts.sharding == "DEEPSPEED"
    everything = ("weights", "optimizer")
    total = sum(planned.memory.always[part] for part in everything) + planned.memory.moments["update"]["gradients"]
    assert total == pytest.approx(16 * planned.architecture.parameters / 8)
    assert total == sum(fsdp.memory.always[part] for part in everything) + fsdp.memory.moments["update"]["gradients"]
    assert any("tests do not run DeepSpeed" in warning for warning in planned.warnings)


def test_a_server_gets_its_own_gpus() -> None:
    server = ["trl.vllm_mode=server", "launch.server_gpus=4", "trl.vllm_tensor_parallel_size=2"]
    serve, train = plan(*server).commands
    assert serve.words[:5] == [
        "CUDA_VISIBLE_DEVICES=0,1,2,3",
        "VLLM_SERVER_DEV_MODE=1",
        "vllm",
        "serve",
        "Qwen/Qwen2.5-7B",
    ]
    options = dict(zip(serve.words[5::2], serve.words[6::2], strict=True))
    assert (options["--tensor-parallel-size"], options["--data-parallel-size"]) == ("2", "2")
    assert (options["--max-model-len"], options["--weight-transfer-config"]) == ("9216", '{"backend": "nccl"}')
    assert train.words[0] == "CUDA_VISIBLE_DEVICES=4,5,6,7"
    assert train.words[train.words.index("--num_processes") + 1] == "4"
    assert plan(*server).memory.moments["rollout"]["vllm"] == 0


def test_adapters_make_32b_fit_one_machine() -> None:
    one = ["launch.nodes=1", "model.lora.r=64"]
    planned = plan(*one, source="qwen2.5_32b_dapo_math")
    assert planned.architecture.trained_parameters(planned.recipe.model.lora) == pytest.approx(0.54e9, rel=0.02)
    assert planned.memory.peak < 80e9
    assert not planned.warnings
    whole = plan("launch.nodes=1", "training.micro_batch=8", source="qwen2.5_32b_dapo_math")
    [warning] = whole.warnings
    assert warning.startswith("this run does not fit: the update needs about ")
    assert " GB, and each GPU has 80" in warning


def test_each_machine_is_given_its_rank() -> None:
    [command] = plan(source="qwen2.5_32b_dapo_math").commands
    assert "--num_machines 4 --machine_rank $RANK --main_process_ip $HOST" in str(command)
    assert "RANK from 0 to 3" in command.purpose


def test_verl_needs_ray_on_each_machine() -> None:
    head, worker, train, started = plan("engine=verl", source="qwen2.5_32b_dapo_math").commands
    assert (str(head), str(worker)) == ("ray start --head --port 6379", "ray start --address $HOST:6379")
    assert train.words[:2] == ["progrpo", "train"]
    assert "actor_rollout_ref.rollout.tensor_model_parallel_size=4" in started.words
    assert "vllm" in plan("engine=verl").memory.moments["rollout"]


def test_weights_in_bfloat16_alone_cause_a_warning() -> None:
    planned = plan("launch.accelerate=ddp")
    assert any("mostly rounded away: take model.dtype = 'float32'" in warning for warning in planned.warnings)
    assert not any("rounded away" in w for w in plan("launch.accelerate=ddp", "model.lora.r=8").warnings)


def test_a_configuration_of_the_users(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text((ACCELERATE / "fsdp2.yaml").read_text())
    assert str(file) in plan(f"launch.accelerate={file}").commands[0].words


# What is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["launch.accelerate=zero3"],
            r"launch.accelerate must be one of ddp, deepspeed_zero3, fsdp2, or a file .* 'zero3'",
        ),
        (["launch.server_gpus=2"], r"launch.server_gpus is 2, but the run has no server: it needs engine = 'trl'"),
        (["engine=verl", "launch.server_gpus=2"], r"launch.server_gpus is 2, but the run has no server"),
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
def test_contradicting_settings_are_refused_in_a_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        plan(*overrides)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "can't be read"),
        ("- a\n", "is not a configuration of accelerate"),
        ("distributed_type: TPU\n", r"distributed_type 'TPU', which is not supported here; it must be one of FSDP"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        plan(f"launch.accelerate={tmp_path / 'mine.yaml'}")


def test_a_launch_of_another_size_is_refused() -> None:
    recipe = load_recipe(SEVEN_B)
    check_launch(recipe, 8)
    with pytest.raises(ConfigError, match="is for 8 processes, but this launch has 4"):
        check_launch(recipe, 4)


def test_rollouts_are_counted_with_trls_iterations() -> None:
    several = ["training.updates_per_rollout=2", "trl.num_iterations=2", "training.steps=8"]
    assert plan(*several, source="countdown_cpu").rollouts == 2


def test_a_trl_field_that_the_run_sets_is_refused() -> None:
    pytest.importorskip("trl")
    with pytest.raises(ConfigError, match=r"trl\.num_generations is set by the run; use training\.group_size"):
        plan("trl.num_generations=3", source="countdown_cpu")
