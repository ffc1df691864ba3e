"""What a recipe trains on and how it samples, the same for every engine: its task, its prompts, its responses."""

from collections.abc import Callable
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.recipes.schema import CountdownSection, ReasoningGymSection, Recipe
from progrpo.sampling import Sampling
from progrpo.tasks import ChoiceTask, CodeTask, Countdown, JsonlTask, MathTask, Problem, ReasoningGymTask, Task

TASKS: dict[str, Callable[..., Task]] = {
    task.name: task for task in (Countdown, MathTask, CodeTask, ChoiceTask, JsonlTask, ReasoningGymTask)
}
"""The tasks by the names that ``[task]`` gives them."""


def make_task(recipe: Recipe) -> Task:
    """The recipe's task. If its training problems are generated and not read, the recipe's seed decides them."""
    section = recipe.task
    settings = {name: getattr(section, name) for name in type(section).model_fields if name != "name"}
    if isinstance(section, CountdownSection | ReasoningGymSection):
        settings["seed"] = recipe.seed
    return TASKS[section.name](**settings)


def response_budget(recipe: Recipe, task: Task) -> int:
    """How many tokens a response may have: the recipe's number, or else the task's."""
    return recipe.training.max_response_tokens or task.max_response_tokens


def sampling(recipe: Recipe, task: Task) -> Sampling:
    """How the recipe's evaluations sample."""
    return Sampling(response_budget(recipe, task), recipe.evaluation.temperature, seed=recipe.seed)


def batch(recipe: Recipe, processes: int) -> tuple[int, int]:
    """The responses in a forward pass of one process, and the passes of one optimiser step. Without
    ``training.micro_batch`` a process takes its whole share at once.

    Raises:
        ConfigError: the responses of an optimiser step can't be divided like this.

    >>> from progrpo.recipes.schema import load_recipe
    >>> batch(load_recipe("countdown_cpu", ["training.micro_batch=64"]), processes=2)
    (64, 4)
    """
    training = recipe.training
    rollout, updates = training.prompts_per_step * training.group_size, training.updates_per_rollout
    if rollout % updates:
        raise ConfigError(
            f"training.updates_per_rollout is {updates}, which does not divide the {rollout} responses of a rollout "
            "(training.prompts_per_step * training.group_size); choose a number that does."
        )
    responses = rollout // updates
    each = training.micro_batch or max(responses // processes, 1)
    if responses % (each * processes):
        product = "training.prompts_per_step * training.group_size"
        product += " / training.updates_per_rollout" if updates > 1 else ""
        by_count = "choose a number of processes that divides it"
        by_size = f"choose training.micro_batch to divide {responses // processes}"
        raise ConfigError(
            f"{product} is {responses}, which {processes} process(es) can't take in micro-batches of {each}; "
            f"{by_count if responses % processes else by_size}."
        )
    return each, responses // (each * processes)


def steps_per_rollout(recipe: Recipe) -> int:
    """Optimiser steps from one rollout to the next. TRL's setting ``num_iterations`` makes each update several times.

    >>> from progrpo.recipes.schema import load_recipe
    >>> steps_per_rollout(load_recipe("countdown_cpu", ["training.updates_per_rollout=4", "trl.num_iterations=2"]))
    8
    """
    engine_settings: dict[str, Any] = getattr(recipe, recipe.engine)
    return recipe.training.updates_per_rollout * int(engine_settings.get("num_iterations", 1))


def training_problems(recipe: Recipe, task: Task, tokenizer: Any) -> list[Problem]:
    """The task's training problems without those whose prompts are longer than ``training.max_prompt_tokens``.

    Raises:
        ConfigError: all of them are longer.
    """
    problems, most = list(task.train_problems()), recipe.training.max_prompt_tokens
    if most is None:
        return problems
    kept = [problem for problem in problems if prompt_length(problem["prompt"], tokenizer) <= most]
    if not kept:
        raise ConfigError(
            f"training.max_prompt_tokens is {most}, and the prompts of all {len(problems)} training problems are "
            "longer; raise it, or take another template."
        )
    return kept


def prompt_length(prompt: str | list[dict[str, str]], tokenizer: Any) -> int:
    """How many tokens a prompt has as the trainers give it to the model."""
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"])
