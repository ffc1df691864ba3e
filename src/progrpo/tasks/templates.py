r"""Prompt templates: what stands around a problem. They are all here, in plain text.

========  ===================================================================================================
plain     the problem alone
base      for pretrained models: ``Problem: ...``, the instruction, and ``Solution:`` to be continued
chat      for instruction-tuned models: a user message, which the tokenizer's own chat template wraps
own text  any text with ``{problem}`` in it, and ``{instruction}`` where that should stand
========  ===================================================================================================

With worked examples (few-shot), ``base`` writes them above the problem, ``chat`` has them as earlier turns.
"""

from collections.abc import Sequence

Message = dict[str, str]
Prompt = str | list[Message]

NAMES = ("plain", "base", "chat")
BASE_EXAMPLE = "Problem: {problem}\nSolution: {solution}\n\n"
BASE = "Problem: {problem}\n{instruction}\nSolution:"
BASE_STOP = "\nProblem:"
"""A pretrained model that has finished its solution often invents the next problem; a response ends before it."""
CHAT = "{problem}\n\n{instruction}"


def check_template(template: str) -> str:
    """The template itself.

    Raises:
        ValueError: neither a name nor a text with ``{problem}``.
    """
    if template not in NAMES and "{problem}" not in template:
        raise ValueError(f"must be one of {', '.join(NAMES)}, or a text with {{problem}} in it")
    return template


def render(template: str, problem: str, instruction: str, examples: Sequence[tuple[str, str]] = ()) -> Prompt:
    r"""A prompt: text, or messages for ``chat``.

    Args:
        template: a name or a text, see the module.
        problem: the problem's own text.
        instruction: how to write the answer.
        examples: problems with worked solutions, shown first (not by ``plain`` and own texts).

    >>> render("base", "1 + 1?", "Give a number.")
    'Problem: 1 + 1?\nGive a number.\nSolution:'
    >>> render("chat", "1 + 1?", "Give a number.", [("2 + 2?", "4")])[1]
    {'role': 'assistant', 'content': '4'}
    >>> render("Q: {problem} A:", "1 + 1?", "Give a number.")
    'Q: 1 + 1? A:'
    """
    if template == "plain":
        return problem
    if template == "base":
        shown = "".join(_fill(BASE_EXAMPLE, problem=p, solution=s) for p, s in examples)
        return shown + _fill(BASE, problem=problem, instruction=instruction)
    if template == "chat":
        # With examples the answer's form is shown, and need not be told as well.
        texts = [text for example in examples for text in example]
        texts.append(problem if examples else _fill(CHAT, problem=problem, instruction=instruction))
        return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]
    return _fill(template, problem=problem, instruction=instruction)


def _fill(template: str, **values: str) -> str:
    """str.format would stumble over the braces of LaTeX; one pass, so that a problem's own text is left as it is."""
    parts = template.split("{")
    filled = parts[0]
    for part in parts[1:]:
        name, brace, rest = part.partition("}")
        filled += values[name] + rest if brace and name in values else "{" + part
    return filled


def prompt_text(prompt: Prompt) -> str:
    """A prompt as text for people: messages one after the other.

    >>> prompt_text([{"role": "user", "content": "1 + 1?"}])
    'user: 1 + 1?'
    """
    return prompt if isinstance(prompt, str) else "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def response_text(completion: str | list[Message]) -> str:
    """The text of a completion that TRL hands over: itself, or the last message's content."""
    return completion if isinstance(completion, str) else completion[-1]["content"]
