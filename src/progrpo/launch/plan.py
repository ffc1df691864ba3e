"""A run's plan: the model, the batch arithmetic, the memory by part, the commands. Nothing is loaded or launched."""

from dataclasses import dataclass, replace
from math import ceil, floor
from pathlib import Path

from progrpo.common.errors import ConfigError
from progrpo.launch.architecture import Architecture, architecture_of
from progrpo.launch.engines import ENGINES
from progrpo.launch.memory import GB, Lengths, Memory, estimate
from progrpo.recipes.build import batch, make_task, prompt_length, response_budget, steps_per_rollout
from progrpo.recipes.schema import DatasetSection, Recipe
from progrpo.runs.engine import Command, MemoryFacts
from progrpo.runs.folder import RunFolder

ASSUMED_PROMPT = 1024  # tokens, if neither the recipe nor local data says how long prompts are
READ_PROBLEMS = 2000  # how many prompts are read to find the longest one


@dataclass(frozen=True)
class Plan:
    """The plan that ``progrpo train --dry-run`` shows."""

    recipe: Recipe
    architecture: Architecture
    lengths: Lengths
    facts: MemoryFacts
    processes: int
    micro_batch: int
    accumulation: int
    gpu: bool
    memory: Memory
    memory_limit: float
    """Bytes of a GPU, as the recipe says, or of this machine."""
    commands: list[Command]
    warnings: list[str]

    @property
    def responses(self) -> int:
        """Responses of one rollout, which may serve several steps."""
        return self.recipe.training.prompts_per_step * self.recipe.training.group_size

    @property
    def rollouts(self) -> int:
        """Rollouts of the whole run."""
        return -(-self.recipe.training.steps // steps_per_rollout(self.recipe))


def make_plan(recipe: Recipe, source: str, overrides: list[str], folder: RunFolder) -> Plan:
    """The plan of a recipe, which ``progrpo train`` made from ``source`` and ``overrides``.

    Raises:
        ConfigError: the recipe can't be run as it is. What a run would refuse in the recipe itself is refused here.

    >>> from progrpo.recipes.schema import load_recipe
    >>> plan = make_plan(load_recipe("countdown_cpu"), "countdown_cpu", [], RunFolder(Path("run")))
    >>> plan.processes, plan.micro_batch * plan.accumulation, str(plan.commands[0])
    (1, 512, 'progrpo train countdown_cpu --out run')
    """
    import psutil
    import torch

    engine = ENGINES[recipe.engine]
    engine.check(recipe)
    architecture, processes = architecture_of(recipe), engine.processes(recipe)
    micro_batch, accumulation = batch(recipe, processes)
    prompt = recipe.training.max_prompt_tokens or _longest_prompt(recipe)
    lengths = Lengths(prompt or ASSUMED_PROMPT, response_budget(recipe, make_task(recipe)))
    positions = architecture.config.max_position_embeddings
    if lengths.total > positions:
        raise ConfigError(
            f"prompts of {lengths.prompt} and responses of {lengths.response} tokens do not fit in the "
            f"{positions} positions of model {recipe.model.path!r}; lower training.max_response_tokens."
        )
    gpu = recipe.launch.gpus_per_node > 0 or torch.cuda.is_available()
    train = ["progrpo", "train", source, *overrides]
    if source != str(folder.path):  # the source of a resumed run is its folder
        train += ["--out", str(folder.path)]
    plan = Plan(
        recipe=recipe,
        architecture=architecture,
        lengths=lengths,
        facts=engine.memory_facts(recipe),
        processes=processes,
        micro_batch=micro_batch,
        accumulation=accumulation,
        gpu=gpu,
        memory=estimate(recipe, architecture, lengths, gpu=gpu),
        memory_limit=recipe.launch.gpu_memory_gb * GB if gpu else float(psutil.virtual_memory().total),
        commands=engine.commands(recipe, train, folder),
        warnings=engine.warnings(recipe),
    )
    if plan.memory.peak > plan.memory_limit:
        plan.warnings.insert(0, _too_large(plan))
    if prompt is None:
        plan.warnings.append(
            f"prompts are taken to have up to {ASSUMED_PROMPT} tokens, as the data is not on this machine; set "
            "training.max_prompt_tokens to their real length."
        )
    return plan


def _longest_prompt(recipe: Recipe) -> int | None:
    """Tokens of the longest prompt, or None if the problems or the tokenizer are not on this machine."""
    from progrpo.sampling.models import SHIPPED, load_tokenizer, smollm2_is_converted
    from progrpo.tasks import Countdown, ReasoningGymTask

    path, section = recipe.model.path, recipe.task
    if not (path in SHIPPED or Path(path).is_dir() or (path == "smollm2" and smollm2_is_converted())):
        return None
    if isinstance(section, DatasetSection):
        file, is_made = section.train.path, section.train.preset in ("word_problems", "small_functions")
        if not is_made and not (file is not None and Path(file).is_file()):
            return None
    task = make_task(recipe)
    if isinstance(task, Countdown):
        task.check_size(heldout=False)
    if isinstance(task, Countdown | ReasoningGymTask):  # make only as many problems as are read
        sizes = {name: min(getattr(task, name), READ_PROBLEMS) for name in ("train_size", "heldout_size")}
        task = replace(task, **sizes)
    tokenizer = load_tokenizer(path)
    return max(prompt_length(problem["prompt"], tokenizer) for problem in task.train_problems()[:READ_PROBLEMS])


def _too_large(plan: Plan) -> str:
    """The warning that a run does not fit: what it needs, what there is, and what helps."""
    moment, more = max(plan.memory.moments, key=plan.memory.at), ", or take more GPUs" if plan.gpu else ""
    fewer = "lower training.prompts_per_step or training.group_size"
    advice = {
        "update": f"lower training.micro_batch or training.max_response_tokens, or train with model.lora{more}",
        "rollout": (fewer if plan.facts.vllm_share is None else "lower the share that vLLM takes") + more,
        "evaluation": "lower evaluation.batch, or set evaluation.every = 0 and lower evaluation.samples",
    }[moment]
    needed, available = ceil(plan.memory.peak / GB), floor(plan.memory_limit / GB)
    where = "each GPU has" if plan.gpu else "this machine has"
    return f"this run does not fit: the {moment} needs about {needed:,} GB, and {where} {available:,}: {advice}."
