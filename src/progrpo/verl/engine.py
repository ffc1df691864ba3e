"""The engine of ``engine = "verl"``: a :class:`progrpo.runs.engine.Engine`. verl itself is imported only to train."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def verl_table(recipe: Recipe) -> dict[str, Any]:
    """The ``[verl]`` table by dotted names: ``[verl.data] seed = 1`` and ``[verl] "data.seed" = 1`` are the same."""

    def flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in table.items():
            if isinstance(value, dict) and value:  # an empty table is a value, which a flat list would lose
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    return dict(flat(recipe.verl))


def verl_setting(recipe: Recipe, name: str, default: Any) -> Any:
    """The value of one setting in the ``[verl]`` table, or else the default."""
    return next((value for key, value in verl_table(recipe).items() if key.lstrip("+") == name), default)


def processes(recipe: Recipe) -> int:
    """The number of training processes, one for each GPU."""
    nodes = verl_setting(recipe, "trainer.nnodes", recipe.launch.nodes)
    return int(nodes) * int(verl_setting(recipe, "trainer.n_gpus_per_node", recipe.launch.gpus_per_node or 1))


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
