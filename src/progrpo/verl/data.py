"""Writes a recipe's problems as verl's data files, after a check that verl would not cut or change their prompts."""

import reprlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_file
from progrpo.recipes.build import prompt_length, training_problems
from progrpo.recipes.schema import Recipe
from progrpo.sampling.models import load_tokenizer
from progrpo.tasks import Problem, Task
from progrpo.tasks.rewards import verl_row
from progrpo.tasks.templates import Message, template_opens_thinking
from progrpo.verl.settings import CHAT_TEMPLATE, PROMPT_ITSELF, is_chat, max_prompt_tokens


def write_data(recipe: Recipe, task: Task, settings: dict[str, Any]) -> None:
    """Write the training and validation problems to the parquet files that verl's settings name.

    Raises:
        ConfigError: there are too few problems, the model has no chat template, or verl would cut or change a prompt.
    """
    tokenizer = load_tokenizer(recipe.model.path)
    template = settings.get(CHAT_TEMPLATE)
    if is_chat(task) and not (template or tokenizer.chat_template):
        raise ConfigError(
            f"model {recipe.model.path!r} has no chat template, which task.template 'chat' needs; use 'base' or "
            f"'plain', or set verl.{CHAT_TEMPLATE}."
        )
    # verl passes these to the chat template, such as enable_thinking.
    prefix = "data.apply_chat_template_kwargs."
    arguments = {name.lstrip("+").removeprefix(prefix): settings[name] for name in settings if prefix in name}
    opens = template_opens_thinking(tokenizer, template, **arguments)

    def rows_of(problems: list[Problem], split: str) -> list[dict[str, Any]]:
        return [verl_row(task, problem, split=split, template_opens_thinking=opens) for problem in problems]

    train, batch = rows_of(training_problems(recipe, task, tokenizer), "train"), settings["data.train_batch_size"]
    if len(train) < batch:
        raise ConfigError(
            f"there are {len(train)} training problems, fewer than the {batch} of a step (training.prompts_per_step); "
            "give more problems, or lower it."
        )
    _check_prompts(recipe, [row["prompt"] for row in train], settings)
    validation = rows_of(validation_problems(recipe, task), "heldout")
    if not validation:
        raise ConfigError(
            f"no held-out problem has a prompt of at most {max_prompt_tokens(recipe)} tokens, which verl's validation "
            "needs; raise training.max_prompt_tokens."
        )
    for name, rows in (("data.train_files", train), ("data.val_files", validation)):
        with write_file(Path(settings[name])) as beside:
            pq.write_table(pa.Table.from_pylist(rows), beside)


def validation_problems(recipe: Recipe, task: Task) -> list[Problem]:
    """The problems of the evaluations in training, without those whose prompts verl would cut."""
    problems = task.heldout_problems()[: recipe.evaluation.problems_in_training]
    limit, tokenizer = max_prompt_tokens(recipe), load_tokenizer(recipe.model.path)
    return [problem for problem in problems if prompt_length(problem["prompt"], tokenizer) <= limit]


def _check_prompts(recipe: Recipe, prompts: list[list[Message]], settings: dict[str, Any]) -> None:
    """Refuse prompts that verl would cut (on the left, with a warning in its log), and prompts that it would change."""
    from verl.utils import hf_tokenizer

    tokenizer = hf_tokenizer(settings["actor_rollout_ref.model.path"])
    template = settings.get(CHAT_TEMPLATE)
    if template is not None:
        tokenizer.chat_template = template
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}  # as verl's agent loop does
    read = [list(tokenizer.apply_chat_template(prompt, **how)) for prompt in prompts]
    if template == PROMPT_ITSELF:
        expected = load_tokenizer(recipe.model.path)(prompts[0][0]["content"])["input_ids"]
        if read[0] != expected:
            raise ConfigError(
                f"model {recipe.model.path!r}: verl reads the first prompt as the tokens {_abridged(read[0])}, but "
                f"its tokenizer gives {_abridged(expected)}; use engine = 'trl', or a model with a tokenizer that "
                "AutoTokenizer loads and that adds nothing to a text."
            )
    limit, lengths = max_prompt_tokens(recipe), [len(ids) for ids in read]
    if max(lengths) > limit:
        raise ConfigError(
            f"{sum(length > limit for length in lengths)} of {len(prompts)} prompts have more than {limit} tokens "
            f"(the longest has {max(lengths)}), and verl would cut them; set training.max_prompt_tokens, which leaves "
            "longer ones out."
        )


def _abridged(ids: list[int]) -> str:
    return f"{reprlib.repr(ids)} ({len(ids)})"
