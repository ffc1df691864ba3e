"""What a run needs from any engine. ``progrpo.launch.engines`` lists the engines."""

import shlex
from dataclasses import dataclass
from typing import Literal, Protocol

from progrpo.common.errors import ConfigError
from progrpo.common.progress import Progress
from progrpo.evaluation.results import Evaluation
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import RunFolder

Sharding = Literal["NO", "FSDP", "DEEPSPEED", "MULTI_GPU"]
"""How weights, gradients and optimiser states are spread, in accelerate's words: one process, a part on each process
(FSDP2, ZeRO-3), or a copy on each."""


@dataclass(frozen=True)
class Command:
    """A command to launch a run, and where or why the user gives it."""

    purpose: str
    words: list[str]

    def __str__(self) -> str:
        """The command as a shell takes it. Words such as ``$HOST``, which the user fills in, are not quoted."""
        return " ".join(word if word.startswith("$") or "=$" in word else shlex.quote(word) for word in self.words)


@dataclass(frozen=True)
class MemoryFacts:
    """The properties of an engine that decide how much memory a run takes."""

    sharding: Sharding
    computes_in: str
    """The dtype of activations: ``float32`` or ``bfloat16``."""
    recomputes: bool
    """Whether the backward pass recomputes activations (gradient checkpointing)."""
    whole_logits: bool
    """Whether the logits of a micro-batch are held all at once, or in tiles."""
    vllm_share: float | None
    """The share of a GPU that vLLM takes beside the training; 0 if it runs elsewhere, None if transformers samples."""
    vllm_sleeps: bool
    """Whether vLLM gives its memory back during the update."""
    evaluates: bool
    """Whether transformers samples the evaluations while the trained model is in memory."""


class Engine(Protocol):
    """An engine that can run a recipe: a module with these functions, which imports its libraries only to train."""

    def train(self, recipe: Recipe, folder: RunFolder, progress: Progress, *, resume: bool = False) -> Evaluation:
        """Train as the recipe says, fill the run folder, and evaluate at the end."""

    def check(self, recipe: Recipe) -> None:
        """Raise a ConfigError if the recipe can't be run as it is. No model or data is loaded."""

    def processes(self, recipe: Recipe) -> int:
        """The number of training processes."""

    def commands(self, recipe: Recipe, train: list[str], folder: RunFolder) -> list[Command]:
        """All commands that start the run, in order; ``train`` is the ``progrpo train`` command of the recipe."""

    def memory_facts(self, recipe: Recipe) -> MemoryFacts:
        """The properties of the engine that decide the memory of the run."""

    def warnings(self, recipe: Recipe) -> list[str]:
        """Sentences about settings that are allowed but likely to disappoint."""


def refuse_server_gpus(recipe: Recipe) -> None:
    """Raise a ConfigError for ``launch.server_gpus`` in a run that has no vLLM server."""
    if recipe.launch.server_gpus:
        raise ConfigError(
            f"launch.server_gpus is {recipe.launch.server_gpus}, but the run has no server: it needs engine = 'trl', "
            "trl.use_vllm = true and trl.vllm_mode = 'server'."
        )
