"""What starts a recipe's run: the processes, how their weights are spread, the commands."""

import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import RunFolder

SHARDINGS = ("FSDP", "DEEPSPEED", "MULTI_GPU")
ACCELERATE = Path(str(files("progrpo") / "recipes" / "accelerate"))


@dataclass(frozen=True)
class Command:
    """A command, and where or why it is run."""

    purpose: str
    words: list[str]

    def __str__(self) -> str:
        """As a shell takes it; what stands for something of the user's machines (``$HOST``) is left open."""
        return " ".join(word if word.startswith("$") or "=$" in word else shlex.quote(word) for word in self.words)


def accelerate_file(recipe: Recipe) -> Path:
    """The configuration that ``accelerate launch`` is given: a shipped one by its name, or one's own.

    Raises:
        ConfigError: neither.
    """
    name = recipe.launch.accelerate
    path = ACCELERATE / f"{name}.yaml" if (ACCELERATE / f"{name}.yaml").exists() else Path(name)
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in ACCELERATE.glob("*.yaml")))
        raise ConfigError(f"launch.accelerate must be one of {shipped}, or a file of accelerate's, got {name!r}.")
    return path


def sharding(recipe: Recipe) -> str:
    """How weights are spread over a run's processes: ``FSDP``, ``DEEPSPEED``, ``MULTI_GPU`` (a copy on each) or ``NO``.

    Raises:
        ConfigError: ``launch.accelerate`` is not a configuration.
    """
    if recipe.engine == "verl":
        return "FSDP"
    if recipe.launch.processes == 1:
        return "NO"
    path = accelerate_file(recipe)
    kind = _read(path).get("distributed_type")
    if kind not in SHARDINGS:
        raise ConfigError(
            f"launch.accelerate {str(path)!r} has the distributed_type {kind!r}, for which nothing is known here; it "
            f"must be one of {', '.join(SHARDINGS)}."
        )
    return str(kind)


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"launch.accelerate {str(path)!r} can't be read: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"launch.accelerate {str(path)!r} is not a configuration of accelerate's.")
    return values


def check_launch(recipe: Recipe, processes: int | None = None) -> None:
    """Refuse what can't go together, before anything is loaded.

    Args:
        processes: of the launch that this is; None where nothing is launched yet.

    Raises:
        ConfigError: it can't.
    """
    launch, trl = recipe.launch, recipe.trl
    server = recipe.engine == "trl" and bool(trl.get("use_vllm")) and trl.get("vllm_mode") == "server"
    if launch.server_gpus and not server:
        raise ConfigError(
            f"launch.server_gpus is {launch.server_gpus}, but nothing is served: it goes with engine = 'trl', "
            "trl.use_vllm = true and trl.vllm_mode = 'server'."
        )
    if server and launch.nodes > 1:
        raise ConfigError(
            f"trl.vllm_mode = 'server' is planned for one node, and launch.nodes is {launch.nodes}: accelerate wants "
            "as many processes on each; set launch.nodes = 1, or vllm_mode = 'colocate'."
        )
    if server and launch.gpus_per_node and not 0 < launch.server_gpus < launch.gpus_per_node:
        raise ConfigError(
            f"trl.vllm_mode = 'server' needs GPUs of its own: set launch.server_gpus to 1..{launch.gpus_per_node - 1}, "
            f"got {launch.server_gpus}."
        )
    if recipe.engine == "trl" and trl.get("use_vllm") and not server:
        parallel = int(trl.get("vllm_tensor_parallel_size", 1))
        if launch.gpus_per_node and launch.gpus_per_node % parallel:
            raise ConfigError(
                f"trl.vllm_tensor_parallel_size is {parallel}, which does not divide the {launch.gpus_per_node} GPUs "
                "of a node (launch.gpus_per_node)."
            )
    prompt, longest = recipe.training.max_prompt_tokens, trl.get("vllm_max_model_length")
    response = recipe.training.max_response_tokens
    if recipe.engine == "trl" and prompt and response and longest and prompt + response > longest:
        raise ConfigError(
            f"trl.vllm_max_model_length is {longest}, less than training.max_prompt_tokens + max_response_tokens = "
            f"{prompt + response}; raise it to that."
        )
    if processes is not None and launch.gpus_per_node and processes != launch.processes:
        raise ConfigError(
            f"recipe {recipe.name!r} is for {launch.processes} processes and this is 1 of {processes}: start it as "
            f"progrpo train {recipe.name} --dry-run shows, or set launch.nodes and launch.gpus_per_node."
        )


def commands(recipe: Recipe, source: str, overrides: list[str], folder: RunFolder) -> list[Command]:
    """All that has to be started for a run, in this order.

    Raises:
        ConfigError: the recipe can't be launched as it says.
    """
    launch = recipe.launch
    train = ["progrpo", "train", source, *overrides]
    if source != str(folder.path):  # a run that is resumed is its own folder
        train += ["--out", str(folder.path)]
    if recipe.engine == "verl":
        from progrpo.verl.settings import verl_command

        return [*_ray(recipe), Command("train", train), Command("that starts", verl_command(recipe, folder))]
    if launch.processes == 1:
        return [Command("train", train)]
    words = ["accelerate", "launch", "--config_file", str(accelerate_file(recipe))]
    words += ["--num_processes", str(launch.processes)]
    if launch.nodes > 1:
        words += ["--num_machines", str(launch.nodes), "--machine_rank", "$RANK"]
        words += ["--main_process_ip", "$HOST", "--main_process_port", "29500"]
    where = "train" if launch.nodes == 1 else f"train: on each machine, RANK 0 to {launch.nodes - 1}, HOST machine 0's"
    found = [Command(where, [*words, "-m", *train])]
    if launch.server_gpus:
        found.insert(0, _server(recipe))
        training = range(launch.server_gpus, launch.gpus_per_node)
        found[1].words.insert(0, f"CUDA_VISIBLE_DEVICES={','.join(map(str, training))}")
    return found


def _server(recipe: Recipe) -> Command:
    """What TRL's vLLM client asks for: https://huggingface.co/docs/trl/vllm_integration"""
    trl = recipe.trl
    parallel = int(trl.get("vllm_tensor_parallel_size", 1))
    words = [f"CUDA_VISIBLE_DEVICES={','.join(map(str, range(recipe.launch.server_gpus)))}", "VLLM_SERVER_DEV_MODE=1"]
    words += ["vllm", "serve", recipe.model.path, "--dtype", recipe.model.dtype]
    words += ["--tensor-parallel-size", str(parallel)]
    words += ["--data-parallel-size", str(max(recipe.launch.server_gpus // parallel, 1))]
    words += ["--port", str(trl.get("vllm_server_port", 8000))]
    if "vllm_max_model_length" in trl:
        words += ["--max-model-len", str(trl["vllm_max_model_length"])]
    words += ["--weight-transfer-config", '{"backend": "nccl"}']
    words += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"]
    return Command("serve, and wait until it is up", words)


def _ray(recipe: Recipe) -> list[Command]:
    if recipe.launch.nodes == 1:
        return []
    return [
        Command("on machine 0, HOST", ["ray", "start", "--head", "--port", "6379"]),
        Command("on each other machine", ["ray", "start", "--address", "$HOST:6379"]),
    ]
