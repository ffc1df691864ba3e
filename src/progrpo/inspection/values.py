"""The cells of a rollout file: text, chat messages, numbers, dicts, and lists of them."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from progrpo.tasks.templates import content_text

MOST_DEPTH = 4
LARGEST = 1e100
"""A larger number counts as a mistake, because the squares of very large numbers overflow."""
_STATUS = {"correct": 1.0, "incorrect": 0.0, "error": math.nan}
_WORDS = {"true": 1.0, "false": 0.0, "": math.nan, "none": math.nan, "null": math.nan}


def first_of(value: Any) -> Any:
    """The first entry of a list that is not null; None if there is none, or if the value is not a list."""
    return next((entry for entry in value if entry is not None), None) if isinstance(value, list) else None


def is_empty(value: Any) -> bool:
    """Whether a value is null, or a list that holds nothing else."""
    return value is None or (isinstance(value, list) and first_of(value) is None)


def is_null(value: Any) -> bool:
    """Whether a value is null, or the NaN that pandas writes for a missing text."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_message(value: Any) -> bool:
    """Whether a value is a chat message, which is a dict with a role."""
    return isinstance(value, dict) and "role" in value


def is_nested(value: Any) -> bool:
    """Whether a value is a dict that is not a chat message, or a list of such dicts."""
    entry = value if isinstance(value, dict) else first_of(value)
    return isinstance(entry, dict) and not is_message(entry)


def holds_several(value: Any) -> bool:
    """Whether a value is a list of responses: texts, or conversations. A list of chat messages is one response.

    >>> holds_several(["2", "3"]), holds_several([{"role": "assistant", "content": "2"}])
    (True, False)
    """
    first = first_of(value)
    return isinstance(first, str) or is_message(first_of(first))


def with_entries(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The name and the value of a column, and those of the entries of its dicts, under dotted names.

    >>> dict(with_entries("completion", {"text": "2", "score": 1.0}))
    {'completion': {'text': '2', 'score': 1.0}, 'completion.text': '2', 'completion.score': 1.0}
    """
    yield name, value
    if is_nested(value) and depth < MOST_DEPTH:
        is_list = isinstance(value, list)
        for key, entry in (first_of(value) if is_list else value).items():
            # In a list of dicts, each entry stands for a list of such entries.
            yield from with_entries(f"{name}.{key}", [entry] if is_list else entry, depth + 1)


def value_at(value: Any, name: str) -> Any:
    """The value that a dotted name leads to: ``completion.text`` is the entry ``text`` of the dict ``completion``. In a
    list of dicts, it leads to the list of their entries. None where there is no such entry.

    >>> value_at({"samples": [{"text": "2"}, {"text": "3"}]}, "samples.text")
    ['2', '3']
    """
    if isinstance(value, list):
        return [value_at(entry, name) for entry in value]
    if not isinstance(value, Mapping):
        return None
    if name in value:
        return value[name]
    for dot in (i for i, character in enumerate(name) if character == "."):
        if name[:dot] in value:
            return value_at(value[name[:dot]], name[dot + 1 :])
    return None


def as_number(value: Any) -> float:
    """A number, which may be written as text. Null and NaN are NaN; ValueError for anything else, and above
    :data:`LARGEST`.

    >>> as_number("0.5"), as_number(True), as_number("correct"), as_number("False")
    (0.5, 1.0, 1.0, 0.0)
    """
    if isinstance(value, str):
        value = _STATUS.get(value.strip(), _WORDS.get(value.strip().lower(), value))
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if abs(number) > LARGEST:
        raise ValueError(described(value))
    return number


def as_step(value: Any) -> int:
    """A whole number, which may be written as text; ValueError for anything else."""
    number = as_number(value)
    if isinstance(value, bool) or not number.is_integer() or abs(number) >= 2**63:
        raise ValueError(described(value))
    return int(number)


def as_text(value: Any) -> str:
    """A prompt or a response as text; each chat message comes with its role. ValueError for other dicts and lists."""
    if isinstance(value, str):
        return value
    if is_message(value):
        return _content(value)
    if isinstance(value, list) and all(is_message(message) for message in value):
        return "\n".join(f"{message['role']}: {_content(message)}" for message in value)
    if isinstance(value, (list, dict)):
        raise ValueError(described(value))
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def response_of(value: Any) -> str:
    """The whole text of a response, which tells two responses apart: the content of a single message, or several
    messages with their roles. A verifier reads less, see :func:`progrpo.tasks.templates.response_text`."""
    return as_text(value[0] if isinstance(value, list) and len(value) == 1 and is_message(value[0]) else value)


def as_list(value: Any) -> list[Any]:
    """A list, which may be written as JSON, as in a CSV file. Null is an empty list; TypeError or ValueError for
    anything else."""
    entries = json.loads(value) if isinstance(value, str) and value else value
    if entries is None or entries == "":
        return []
    if not isinstance(entries, list):
        raise TypeError("not a list")
    return entries


def as_key(value: Any) -> str:
    """A text that two values share exactly if they are the same: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def described(value: Any) -> str:
    """A value in a few words, for messages.

    >>> described({"text": "2", "score": 1.0}), described(["2", "3"]), described("2")
    ("a dict with 'text', 'score'", 'a list of 2 entries', "'2'")
    """
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, value)) or 'no entries'}"
    if isinstance(value, list):
        return f"a list of {len(value)} entries"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _content(message: Mapping[str, Any]) -> str:
    """The reasoning, the text and the tool calls of a message: each of them tells two messages apart."""
    if isinstance(message.get("content"), dict):
        raise ValueError(f"a chat message whose content is {described(message['content'])}")
    calls = message.get("tool_calls")
    parts = [message.get("reasoning_content"), content_text(message), as_key(calls) if calls else None]
    return "\n".join(str(part) for part in parts if part)
