"""The thinking part of a response, ``<think>...</think>``: where it begins, and what follows it.

Some chat templates, such as those of DeepSeek's R1 models, end the prompt in ``<think>``. The response then begins
inside its thinking part, but its text does not show it. The caller of a verifier puts the ``<think>`` back
(:func:`begin_thinking`), and every verifier reads only :func:`after_thinking`.
"""

import re

START, END = "<think>", "</think>"
_OPEN = re.compile(rf"{START}[ \t]*(?:\n|\Z)")


def ends_in_thinking(prompt: str) -> bool:
    r"""Whether one of a prompt's lines ends in ``<think>``, and no ``</think>`` follows.

    A tag in the middle of a line belongs to an instruction that mentions it.

    >>> ends_in_thinking("<|Assistant|><think>\n"), ends_in_thinking("<think>\nOkay, so")
    (True, True)
    >>> ends_in_thinking("<think>\n\n</think>\n\n"), ends_in_thinking("Use <think> tags.")
    (False, False)
    """
    return _OPEN.search(prompt.rpartition(END)[2]) is not None


def begin_thinking(response: str) -> str:
    r"""A response with a ``<think>`` in front of it, unless it begins with one itself, as R1 models sometimes write.

    >>> begin_thinking("7?</think> It is 8."), begin_thinking("<think>7?")
    ('<think>\n7?</think> It is 8.', '<think>7?')
    """
    return response if response.lstrip().startswith(START) else f"{START}\n{response}"


def closes_unopened(response: str) -> bool:
    """Whether a response ends a thinking part that it did not begin. Its prompt probably began it.

    >>> closes_unopened("7?</think> 8"), closes_unopened("<think>7?</think> 8")
    (True, False)
    """
    before, end, _ = response.partition(END)
    return bool(end) and START not in before


def after_thinking(response: str) -> str | None:
    """What follows the last ``</think>``, if there is one; None for a response that was still thinking when it ended.

    >>> after_thinking("<think>7?</think> 8"), after_thinking("8"), after_thinking("<think>7?")
    (' 8', '8', None)
    """
    answer = response.rpartition(END)[2]
    return None if START in answer else answer
