r"""Prompt templates: the words around a problem, in plain text.

========  ===================================================================================================
plain     the problem alone
base      for pretrained models: ``Problem: ...``, the instruction, and ``Solution:``, which the model continues
chat      for instruction-tuned models: a user message, which the tokenizer's own chat template wraps
your own  any text with ``{problem}`` in it, and optionally ``{instruction}``
========  ===================================================================================================

Worked examples (few-shot) stand above the problem in ``base`` and are earlier turns in ``chat``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from progrpo.verify.thinking import begin_thinking, ends_in_thinking

Message = dict[str, Any]
Prompt = str | list[Message]

NAMES = ("plain", "base", "chat")
BASE_STOP = "\nProblem:"
"""A response ends before this text: a pretrained model often invents another problem after its solution."""


def check_template(template: str) -> str:
    """The template itself; raises a ValueError if it is neither a name nor a text with ``{problem}``."""
    if template not in NAMES and "{problem}" not in template:
        raise ValueError(f"must be one of {', '.join(NAMES)}, or a text with {{problem}} in it")
    return template


def render(template: str, problem: str, instruction: str, examples: Sequence[tuple[str, str]] = ()) -> Prompt:
    r"""A prompt: text, or messages for ``chat``.

    Examples are problems with worked solutions; ``plain`` and your own texts leave them out. In a chat they show how
    to write an answer, so the instruction is left out.

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
        earlier = "".join(f"Problem: {text}\nSolution: {solution}\n\n" for text, solution in examples)
        return f"{earlier}Problem: {problem}\n{instruction}\nSolution:"
    if template == "chat":
        texts = [text for example in examples for text in example]
        texts.append(problem if examples else f"{problem}\n\n{instruction}")
        return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]
    # In one pass, so that a problem's own braces stay. str.format would fail on LaTeX's braces.
    values = {"{problem}": problem, "{instruction}": instruction}
    return re.sub(r"\{problem\}|\{instruction\}", lambda match: values[match[0]], template)


def prompt_text(prompt: Prompt) -> str:
    """A prompt as text for people: the messages one after the other.

    >>> prompt_text([{"role": "user", "content": [{"type": "text", "text": "1 + "}, {"type": "text", "text": "1?"}]}])
    'user: 1 + 1?'
    """
    return prompt if isinstance(prompt, str) else "\n\n".join(f"{m['role']}: {content_text(m)}" for m in prompt)


def content_text(message: Mapping[str, Any]) -> str:
    """The text of a message's content; if the content has parts, this is the text parts joined, without images."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def response_text(completion: str | list[Message], *, in_thinking: bool = False) -> str:
    r"""The text of one of TRL's completions, for verifiers: the text itself, or the last message's content (empty
    where there is no message).

    ``in_thinking`` says whether the completion begins inside a thinking part, see :func:`opens_thinking`. TRL may have
    moved this part out of a message's content.

    >>> response_text([{"role": "assistant", "content": "7?</think> 8"}], in_thinking=True)
    '<think>\n7?</think> 8'
    """
    messages = [{"content": completion}] if isinstance(completion, str) else completion
    message = messages[-1] if messages else {}
    text = content_text(message)
    is_split = message.get("reasoning_content") is not None or message.get("thinking") is not None
    return begin_thinking(text) if in_thinking and not is_split else text


def opens_thinking(prompt: Prompt, template_opens: bool = False) -> bool:
    """Whether a response to a prompt begins inside a thinking part. If the prompt is text, the text shows it; for
    messages, pass :func:`template_opens_thinking` of the tokenizer."""
    return ends_in_thinking(prompt) if isinstance(prompt, str) else template_opens


def template_opens_thinking(tokenizer: Any, chat_template: str | None = None, **kwargs: Any) -> bool:
    """Whether a tokenizer's chat template ends a prompt inside a thinking part, as DeepSeek-R1's does.

    Without a chat template, it is False. ``chat_template`` is used instead of the tokenizer's own. ``kwargs`` are more
    arguments of the template, such as ``enable_thinking=False`` (TRL's ``chat_template_kwargs``).
    """
    if not (chat_template or getattr(tokenizer, "chat_template", None)):
        return False
    # The message is fixed, because words of a problem that mention thinking must not count.
    messages, options = [{"role": "user", "content": "1 + 1?"}], {"tokenize": False, "add_generation_prompt": True}
    return ends_in_thinking(tokenizer.apply_chat_template(messages, chat_template=chat_template, **options, **kwargs))
