"""The engine of ``engine = "verl"``: a :class:`progrpo.runs.engine.Engine`. verl itself is imported only to train."""

from pathlib import Path

from progrpo.common.progress import Progress
from progrpo.evaluation.results import Evaluation
from progrpo.recipes.schema import Recipe
from progrpo.runs.engine import Command, MemoryFacts, refuse_server_gpus
from progrpo.runs.folder import RunFolder


def train(recipe: Recipe, folder: RunFolder, progress: Progress, *, resume: bool = False) -> Evaluation:
    """See :func:`progrpo.verl.run.train`."""
    from progrpo.verl import run

    check(recipe)
    return run.train(recipe, folder, progress, resume=resume)


def check(recipe: Recipe) -> None:
    """Refuse ``launch.server_gpus``, and what has no counterpart in verl."""
    from progrpo.verl.settings import verl_settings

    refuse_server_gpus(recipe)
    verl_settings(recipe, RunFolder(Path(recipe.run_name)))


def processes(recipe: Recipe) -> int:
    """One process for each GPU."""
    from progrpo.verl import settings

    return settings.processes(recipe)


def commands(recipe: Recipe, train: list[str], folder: RunFolder) -> list[Command]:
    """Ray on each machine if there are several, ``progrpo train``, and the command of verl that it starts."""
    from progrpo.verl.settings import verl_command

    ray = [
        Command("on machine 0, HOST", ["ray", "start", "--head", "--port", "6379"]),
        Command("on each other machine", ["ray", "start", "--address", "$HOST:6379"]),
    ]
    return [
        *(ray if recipe.launch.nodes > 1 else []),
        Command("train", train),
        Command("started by progrpo train", verl_command(recipe, folder)),
    ]


def memory_facts(recipe: Recipe) -> MemoryFacts:
    """FSDP2 with recomputation, whole logits, and vLLM on the same GPUs, asleep during the update."""
    from progrpo.verl.settings import verl_setting

    return MemoryFacts(
        sharding="FSDP",
        computes_in=recipe.model.dtype,
        recomputes=True,
        whole_logits=True,
        vllm_share=float(verl_setting(recipe, "actor_rollout_ref.rollout.gpu_memory_utilization", 0.5)),
        vllm_sleeps=True,
        evaluates=False,
    )


def warnings(recipe: Recipe) -> list[str]:
    """No settings of verl need a warning."""
    return []
