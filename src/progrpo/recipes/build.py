"""What a recipe trains on and how it samples, the same for every engine: its task, its prompts, its responses."""

from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.recipes.schema import (
    ChoiceSection,
    CodeSection,
    CountdownSection,
    JsonlSection,
    MathSection,
    ReasoningGymSection,
    Recipe,
)
from progrpo.sampling import Sampling
from progrpo.tasks import ChoiceTask, CodeTask, Countdown, JsonlTask, MathTask, Problem, ReasoningGymTask, Task


def make_task(recipe: Recipe) -> Task:
    """The recipe's task. Problems that are made, not read, depend on the recipe's seed where they are trained on."""
    section = recipe.task
    settings = {name: getattr(section, name) for name in type(section).model_fields if name != "name"}
    match section:
        case CountdownSection():
            return Countdown(**settings, seed=recipe.seed)
        case ReasoningGymSection():
            return ReasoningGymTask(**settings, seed=recipe.seed)
        case MathSection():
            return MathTask(**settings)
        case CodeSection():
            return CodeTask(**settings)
        case ChoiceSection():
            return ChoiceTask(**settings)
        case JsonlSection():
            return JsonlTask(**settings)


def response_budget(recipe: Recipe, task: Task) -> int:
    """How many tokens a response may have: the recipe's word, or else the task's."""
    return recipe.training.max_response_tokens or task.max_response_tokens


def sampling(recipe: Recipe, task: Task) -> Sampling:
    """How the recipe's evaluations sample."""
    return Sampling(response_budget(recipe, task), recipe.evaluation.temperature, seed=recipe.seed)


def micro_batch(recipe: Recipe, processes: int, called: str) -> int:
    """How many responses each process takes in a forward pass: the recipe's word, or else all of its share.

    Args:
        processes: that train.
        called: what they are called in the message, such as ``GPU(s)``.

    Raises:
        ConfigError: a step's responses can't be divided so.
    """
    training = recipe.training
    responses, what = update_size(recipe), "training.prompts_per_step * training.group_size"
    if training.updates_per_rollout > 1:
        what += " / training.updates_per_rollout"
    each = training.micro_batch or max(responses // processes, 1)
    if responses % (each * processes):
        remedy = (
            f"choose training.micro_batch to divide {responses // processes}"
            if responses % processes == 0
            else f"choose a number of {called} that divides it"
        )
        raise ConfigError(
            f"{what} is {responses}, which {processes} {called} can't take in micro-batches of {each}; {remedy}."
        )
    return each


def steps_per_rollout(recipe: Recipe) -> int:
    """Optimiser steps from one rollout to the next: each update is made ``trl.num_iterations`` times.

    >>> from progrpo.recipes.schema import load_recipe
    >>> steps_per_rollout(load_recipe("countdown_cpu", ["training.updates_per_rollout=4", "trl.num_iterations=2"]))
    8
    """
    iterations = recipe.trl.get("num_iterations", 1) if recipe.engine == "trl" else 1
    return recipe.training.updates_per_rollout * int(iterations)


def update_size(recipe: Recipe) -> int:
    """How many responses one optimiser step takes: a rollout's, or its share of them.

    Raises:
        ConfigError: a rollout's responses can't be divided by ``training.updates_per_rollout``.

    >>> from progrpo.recipes.schema import load_recipe
    >>> update_size(load_recipe("countdown_cpu", ["training.updates_per_rollout=4"]))
    128
    """
    training = recipe.training
    responses = training.prompts_per_step * training.group_size
    if responses % training.updates_per_rollout:
        raise ConfigError(
            f"training.updates_per_rollout is {training.updates_per_rollout}, which does not divide the {responses} "
            "responses of a rollout (training.prompts_per_step * training.group_size); choose a number that does."
        )
    return responses // training.updates_per_rollout


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
