"""A run's plan: the model, the batch arithmetic, the memory by part, the commands. Nothing is loaded or launched."""

from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from progrpo.common.errors import ConfigError
from progrpo.launch.architecture import Architecture, architecture_of
from progrpo.launch.commands import Command, check_launch, commands, sharding
from progrpo.launch.memory import BYTES, GB, Layout, Lengths, Memory, engine_share, estimate
from progrpo.recipes.schema import CountdownSection, DatasetSection, ReasoningGymSection, Recipe
from progrpo.runs.folder import RunFolder

ASSUMED_PROMPT = 1024
"""Tokens, where neither the recipe nor a look at the data says how long prompts are."""
READ_PROBLEMS = 2000
"""So many prompts are looked at."""
SMALLEST_STEP = 1e-4
"""AdamW's step relative to a weight of size 1; bfloat16 tells 1 from 1.0078 at the least, and weights are some 0.02."""


@dataclass(frozen=True)
class Plan:
    """What ``progrpo train --dry-run`` shows."""

    recipe: Recipe
    architecture: Architecture
    trained: int
    """Parameters that are trained."""
    processes: int
    micro_batch: int
    accumulation: int
    lengths: Lengths
    sharding: str
    gpu: bool
    memory: Memory
    memory_limit: float
    """Bytes of a GPU, as the recipe has it, or of this machine."""
    commands: list[Command]
    warnings: list[str]

    @property
    def responses(self) -> int:
        """Of one rollout, which may serve several steps."""
        return self.recipe.training.prompts_per_step * self.recipe.training.group_size

    @property
    def rollouts(self) -> int:
        """Of the whole run."""
        from progrpo.recipes.build import steps_per_rollout

        return -(-self.recipe.training.steps // steps_per_rollout(self.recipe))

    @property
    def tokens_a_rollout(self) -> int:
        """At most: every prompt and every response as long as they may be."""
        return self.responses * self.lengths.total


def make_plan(recipe: Recipe, source: str, overrides: list[str], folder: RunFolder) -> Plan:
    """The plan of a recipe.

    Args:
        recipe: what ``source`` and ``overrides`` make together.
        source: as ``progrpo train`` was given it.
        overrides: the same.
        folder: where the run would be.

    Raises:
        ConfigError: the recipe can't be run as it is; what a run would refuse of the recipe alone is refused here.

    >>> from progrpo.recipes.schema import load_recipe
    >>> plan = make_plan(load_recipe("countdown_cpu"), "countdown_cpu", [], RunFolder(Path("run")))
    >>> plan.processes, plan.micro_batch * plan.accumulation, str(plan.commands[0])
    (1, 512, 'progrpo train countdown_cpu --out run')
    """
    check_launch(recipe)
    if recipe.engine == "trl" and find_spec("trl"):
        from progrpo.trl.fields import check_fields
        from progrpo.trl.settings import refuse_what_the_run_sets

        check_fields(recipe)
        refuse_what_the_run_sets(recipe)
    architecture = architecture_of(recipe)
    processes = _processes(recipe)
    micro_batch, accumulation = _batch(recipe, processes)
    lengths, assumed = _lengths(recipe)
    if lengths.total > architecture.positions:
        raise ConfigError(
            f"prompts of {lengths.prompt} and responses of {lengths.response} tokens do not fit in the "
            f"{architecture.positions} positions of model {recipe.model.path!r}; lower training.max_response_tokens."
        )
    how = sharding(recipe)
    layout = _layout(recipe, how, processes)
    memory = estimate(
        architecture,
        recipe,
        layout,
        lengths,
        micro_batch=micro_batch,
        accumulation=accumulation,
        rollout=micro_batch * accumulation * recipe.training.updates_per_rollout,
        process=0.0 if layout.gpu else resident(recipe.engine),
    )
    lora = recipe.model.lora
    plan = Plan(
        recipe=recipe,
        architecture=architecture,
        trained=architecture.lora_parameters(lora) if lora else architecture.parameters,
        processes=processes,
        micro_batch=micro_batch,
        accumulation=accumulation,
        lengths=lengths,
        sharding=how,
        gpu=layout.gpu,
        memory=memory,
        memory_limit=recipe.launch.gpu_memory_gb * GB if layout.gpu else machine_memory(),
        commands=commands(recipe, source, overrides, folder),
        warnings=[],
    )
    return replace(plan, warnings=_warnings(plan, layout, assumed))


def _processes(recipe: Recipe) -> int:
    if recipe.engine == "verl":
        from progrpo.verl.settings import processes

        return processes(recipe)
    return recipe.launch.processes


def _batch(recipe: Recipe, processes: int) -> tuple[int, int]:
    """Responses in a pass of one process, and passes an update."""
    from progrpo.trl.settings import batch_settings

    settings = batch_settings(recipe, processes)
    return settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]


def _lengths(recipe: Recipe) -> tuple[Lengths, bool]:
    """The longest prompt and response, and whether the prompt's length is no more than assumed."""
    from progrpo.recipes.build import make_task, response_budget

    response = response_budget(recipe, make_task(recipe))
    prompt = recipe.training.max_prompt_tokens or _longest_prompt(recipe)
    return Lengths(prompt or ASSUMED_PROMPT, response), prompt is None


def _longest_prompt(recipe: Recipe) -> int | None:
    """Of problems and a tokenizer that are on this machine; None where one of them would have to be fetched."""
    from progrpo.recipes.build import make_task, prompt_length
    from progrpo.sampling.models import SHIPPED, load_tokenizer, smollm2_is_converted
    from progrpo.tasks import Countdown, ReasoningGymTask

    path = recipe.model.path
    has_tokenizer = path in SHIPPED or Path(path).is_dir() or (path == "smollm2" and smollm2_is_converted())
    if not has_tokenizer or not _is_local(recipe.task):
        return None
    tokenizer = load_tokenizer(path)
    task = make_task(recipe)
    if isinstance(task, Countdown | ReasoningGymTask):  # made one after the other: no more than are looked at
        if isinstance(task, Countdown):
            task.check_size(heldout=False)
        sizes = {name: min(getattr(task, name), READ_PROBLEMS) for name in ("train_size", "heldout_size")}
        task = replace(task, **sizes)
    problems = task.train_problems()[:READ_PROBLEMS]
    return max(prompt_length(problem["prompt"], tokenizer) for problem in problems)


def _is_local(section: object) -> bool:
    if isinstance(section, CountdownSection | ReasoningGymSection):
        return True
    assert isinstance(section, DatasetSection)
    made = section.train.preset in ("word_problems", "small_functions")
    return made or (section.train.path is not None and Path(section.train.path).is_file())


def _layout(recipe: Recipe, how: str, processes: int) -> Layout:
    import torch

    kept = BYTES[recipe.model.dtype]
    trained = 4 if recipe.model.lora else kept  # PEFT keeps adapters in float32
    weight, compute, states = {
        "FSDP": (4, 2, 8),  # accelerate keeps float32 weights where it computes in bfloat16
        "DEEPSPEED": (2, 2, 12),
        "MULTI_GPU": (trained, 2, 2 * trained),
        "NO": (trained, kept, 2 * trained),
    }[how]
    return Layout(
        weight=weight,
        frozen=kept,
        compute=kept if recipe.engine == "verl" else compute,
        states=states,
        shards=processes if how in ("FSDP", "DEEPSPEED") else 1,
        gpu=recipe.launch.gpus_per_node > 0 or torch.cuda.is_available(),
        gpu_bytes=recipe.launch.gpu_memory_gb * GB,
        recomputes=recipe.engine == "verl" or bool(recipe.trl.get("gradient_checkpointing")),
        buckets=how == "MULTI_GPU",
    )


LIBRARIES_AT_WORK = 50e6
"""Bytes that libraries take once they work (buffers, the parquet writer): measured on a run with next to no model."""


def resident(engine: str) -> float:
    """Bytes of a process that trains on a CPU, before its model: measured on this one, with all that a run imports."""
    import psutil

    import_module("progrpo.trl.recipe_trainer" if engine == "trl" else "progrpo.verl.run")
    return psutil.Process().memory_info().rss + LIBRARIES_AT_WORK


def machine_memory() -> float:
    """Bytes of this machine's memory."""
    import psutil

    return float(psutil.virtual_memory().total)


def _too_large(plan: Plan) -> str:
    """What a run that does not fit needs, what there is, and what helps."""
    moment, more = max(plan.memory.moments, key=plan.memory.at), ", or take more GPUs" if plan.gpu else ""
    fewer = "lower training.prompts_per_step or training.group_size"
    served = engine_share(plan.recipe) is not None
    advice = {
        "update": f"lower training.micro_batch or training.max_response_tokens, or train with model.lora{more}",
        "rollout": ("lower the share that vLLM takes" if served else fewer) + more,
        "evaluation": "lower evaluation.batch, or set evaluation.every = 0 and evaluation.samples low",
        "checkpoint": "train a smaller model, or with model.lora",
    }[moment]
    sizes = (plan.memory.peak, plan.memory_limit)
    needs, has = (f"{size / GB:,.0f}" if size >= 10 * GB else f"{size / GB:.1f}" for size in sizes)
    where = f"each GPU has {has}" if plan.gpu else f"this machine has {has}"
    return f"this run does not fit: the {moment} needs about {needs} GB, and {where}: {advice}."


def _warnings(plan: Plan, layout: Layout, assumed: bool) -> list[str]:
    recipe, found = plan.recipe, []
    if plan.memory.peak > plan.memory_limit:
        found.append(_too_large(plan))
    if recipe.engine == "trl" and layout.weight == 2 and layout.states < 12:
        found.append(
            f"weights are kept in bfloat16 alone, where steps of training.learning_rate = "
            f"{recipe.training.learning_rate:g} are mostly rounded away: take model.dtype = 'float32', or "
            "launch.accelerate = 'fsdp2' or 'deepspeed_zero3', which keep a float32 copy."
        )
    if recipe.engine == "trl" and plan.processes > 1 and engine_share(recipe) is None:
        found.append("trl.use_vllm is off: transformers samples, which at this scale takes most of the time.")
    if plan.sharding == "DEEPSPEED":
        found.append("DeepSpeed was not run by this project's tests, and a run of it can't be resumed by --resume.")
    if assumed:
        found.append(
            f"prompts are taken to have up to {ASSUMED_PROMPT} tokens: the data is not on this machine; say it with "
            "training.max_prompt_tokens."
        )
    return found
