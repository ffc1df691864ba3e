"""The engine of ``engine = "trl"``: a :class:`progrpo.runs.engine.Engine`. TRL itself is imported only to train."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

from progrpo.common.errors import ConfigError
from progrpo.common.progress import Progress
from progrpo.evaluation.results import Evaluation
from progrpo.recipes.schema import Recipe
from progrpo.runs.engine import Command, MemoryFacts, Sharding, refuse_server_gpus
from progrpo.runs.folder import RunFolder

ACCELERATE = Path(str(files("progrpo") / "recipes" / "accelerate"))
"""The folder of the configurations of accelerate that come with the package."""
SHARDINGS = [name for name in get_args(Sharding) if name != "NO"]


def train(recipe: Recipe, folder: RunFolder, progress: Progress, *, resume: bool = False) -> Evaluation:
    """See :func:`progrpo.trl.run.train`."""
    from progrpo.trl import run

    return run.train(recipe, folder, progress, resume=resume)


def check(recipe: Recipe) -> None:
    """Refuse what :func:`check_launch` refuses and, where TRL is installed, fields that it does not take."""
    check_launch(recipe)
    if find_spec("trl"):
        from progrpo.trl.settings import check_fields

        check_fields(recipe)


def check_launch(recipe: Recipe, started_processes: int | None = None) -> None:
    """Raise a ConfigError if launch settings contradict each other or the number of processes that were started."""
    launch, trl = recipe.launch, recipe.trl
    if has_server(recipe):
        if launch.nodes > 1:
            raise ConfigError(
                f"trl.vllm_mode = 'server' is planned for one node, and launch.nodes is {launch.nodes}: accelerate "
                "needs the same number of processes on each; set launch.nodes = 1, or vllm_mode = 'colocate'."
            )
        if launch.gpus_per_node and not 0 < launch.server_gpus < launch.gpus_per_node:
            raise ConfigError(
                "trl.vllm_mode = 'server' needs GPUs of its own: set launch.server_gpus to "
                f"1..{launch.gpus_per_node - 1}, got {launch.server_gpus}."
            )
    else:
        refuse_server_gpus(recipe)
        parallel = int(trl.get("vllm_tensor_parallel_size", 1)) if trl.get("use_vllm") else 1
        if launch.gpus_per_node and launch.gpus_per_node % parallel:
            raise ConfigError(
                f"trl.vllm_tensor_parallel_size is {parallel}, which does not divide the {launch.gpus_per_node} GPUs "
                "of a node (launch.gpus_per_node)."
            )
    prompt, response = recipe.training.max_prompt_tokens, recipe.training.max_response_tokens
    longest = trl.get("vllm_max_model_length")
    if prompt and response and longest and prompt + response > longest:
        raise ConfigError(
            f"trl.vllm_max_model_length is {longest}, less than training.max_prompt_tokens + max_response_tokens = "
            f"{prompt + response}; raise it to that."
        )
    if started_processes is not None and launch.gpus_per_node and started_processes != launch.processes:
        raise ConfigError(
            f"recipe {recipe.name!r} is for {launch.processes} processes, but this launch has {started_processes}: "
            f"start it as progrpo train {recipe.name} --dry-run shows, or set launch.nodes and launch.gpus_per_node."
        )


def has_server(recipe: Recipe) -> bool:
    """Whether a vLLM server samples, on GPUs that do not train."""
    return bool(recipe.trl.get("use_vllm")) and recipe.trl.get("vllm_mode") == "server"


def processes(recipe: Recipe) -> int:
    """The number of training processes: one for each GPU that vLLM's server does not use."""
    return recipe.launch.processes


def commands(recipe: Recipe, train: list[str], folder: RunFolder) -> list[Command]:
    """``progrpo train`` alone, or under ``accelerate launch`` and after vLLM's server."""
    launch = recipe.launch
    if launch.processes == 1:
        return [Command("train", train)]
    words = ["accelerate", "launch", "--config_file", str(accelerate_file(recipe))]
    words += ["--num_processes", str(launch.processes)]
    purpose = "train"
    if launch.nodes > 1:
        words += ["--num_machines", str(launch.nodes), "--machine_rank", "$RANK"]
        words += ["--main_process_ip", "$HOST", "--main_process_port", "29500"]
        purpose = f"train: on each machine, RANK from 0 to {launch.nodes - 1}, HOST the name of machine 0"
    words += ["-m", *train]
    if not launch.server_gpus:
        return [Command(purpose, words)]
    gpus = ",".join(map(str, range(launch.server_gpus, launch.gpus_per_node)))
    return [_server_command(recipe), Command(purpose, [f"CUDA_VISIBLE_DEVICES={gpus}", *words])]


def _server_command(recipe: Recipe) -> Command:
    """The command that starts vLLM's server as TRL's client needs it: https://huggingface.co/docs/trl/vllm_integration"""
    trl, gpus = recipe.trl, recipe.launch.server_gpus
    parallel = int(trl.get("vllm_tensor_parallel_size", 1))
    options = {
        "--dtype": recipe.model.dtype,
        "--tensor-parallel-size": parallel,
        "--data-parallel-size": max(gpus // parallel, 1),
        "--port": trl.get("vllm_server_port", 8000),
        "--max-model-len": trl.get("vllm_max_model_length"),
        "--weight-transfer-config": '{"backend": "nccl"}',
        "--logprobs-mode": "processed_logprobs",
        "--max-logprobs": -1,
    }
    words = [f"CUDA_VISIBLE_DEVICES={','.join(map(str, range(gpus)))}", "VLLM_SERVER_DEV_MODE=1"]
    words += ["vllm", "serve", recipe.model.path]
    for option, value in options.items():
        words += [option, str(value)] if value is not None else []
    return Command("serve, and wait until it is up", words)


def memory_facts(recipe: Recipe) -> MemoryFacts:
    """accelerate's way to shard, TRL's tiled LM head, and vLLM or transformers as the sampler."""
    trl, spread = recipe.trl, sharding(recipe)
    share = None
    if trl.get("use_vllm"):
        share = 0.0 if has_server(recipe) else float(trl.get("vllm_gpu_memory_utilization", 0.3))
    return MemoryFacts(
        sharding=spread,
        computes_in=recipe.model.dtype if spread == "NO" else "bfloat16",
        recomputes=bool(trl.get("gradient_checkpointing")),
        whole_logits=False,
        vllm_share=share,
        vllm_sleeps=bool(trl.get("vllm_enable_sleep_mode")),
        evaluates=True,
    )


def warnings(recipe: Recipe) -> list[str]:
    """Weights in bfloat16 alone, slow sampling, and DeepSpeed."""
    sentences, spread = [], sharding(recipe)
    if spread in ("NO", "MULTI_GPU") and recipe.model.dtype == "bfloat16" and not recipe.model.lora:
        sentences.append(
            "weights are kept in bfloat16 alone, where steps of training.learning_rate = "
            f"{recipe.training.learning_rate:g} are mostly rounded away: take model.dtype = 'float32', or "
            "launch.accelerate = 'fsdp2' or 'deepspeed_zero3', which keep a float32 copy."
        )
    if processes(recipe) > 1 and not recipe.trl.get("use_vllm"):
        sentences.append("trl.use_vllm is off: transformers samples, which at this scale takes most of the time.")
    if spread == "DEEPSPEED":
        sentences.append("this project's tests do not run DeepSpeed, and --resume can't continue a run with it.")
    return sentences


def accelerate_file(recipe: Recipe) -> Path:
    """The configuration for ``accelerate launch``: a shipped one by its name, or the user's own file."""
    name = recipe.launch.accelerate
    shipped = {path.stem: path for path in sorted(ACCELERATE.glob("*.yaml"))}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise ConfigError(
            f"launch.accelerate must be one of {', '.join(shipped)}, or a file with accelerate's configuration, got "
            f"{name!r}."
        )
    return path


def sharding(recipe: Recipe) -> Sharding:
    """How weights are spread over a run's processes, as accelerate's configuration says; a ConfigError if it can't."""
    import yaml

    if recipe.launch.processes == 1:
        return "NO"
    path = accelerate_file(recipe)
    subject = f"launch.accelerate {str(path)!r}"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{subject} can't be read: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{subject} is not a configuration of accelerate.")
    kind = values.get("distributed_type")
    if kind not in SHARDINGS:
        raise ConfigError(
            f"{subject} has the distributed_type {kind!r}, which is not supported here; it must be one of "
            f"{', '.join(SHARDINGS)}."
        )
    return cast(Sharding, kind)
