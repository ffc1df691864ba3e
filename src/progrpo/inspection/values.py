"""What a cell of a rollout file holds: text, chat messages, a number, or a list of them."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from progrpo.tasks.templates import content_text

Kind = Literal["number", "text", "messages", "object", "texts", "numbers", "objects", "conversations", "lists", "none"]
"""``messages`` are one conversation, ``conversations`` several; ``object`` is a dict, ``objects`` a list of them;
``lists`` is a list of lists, such as one list of log-probs a response; ``none`` is null or an empty list."""
SEVERAL: tuple[Kind, ...] = ("texts", "conversations")
"""What a column of responses holds where one row of the file is one prompt."""
NESTED: tuple[Kind, ...] = ("object", "objects")
VERDICTS = {"correct": 1.0, "incorrect": 0.0, "error": math.nan}
MOST_DEPTH = 4
LARGEST = 1e100
"""A larger number is a mistake, and the square of one that is much larger is infinite."""


def kind_of(value: Any) -> Kind:
    """What one value is.

    >>> kind_of([{"role": "user", "content": "1 + 1?"}]), kind_of(["2", "3"]), kind_of({"text": "2", "score": 1.0})
    ('messages', 'texts', 'object')
    """
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return "messages" if is_message(value) else "object"
    if isinstance(value, list):
        return _kind_of_list(value)
    return "none" if value is None else "number"


def _kind_of_list(values: list[Any]) -> Kind:
    inside: dict[Kind, Kind] = {"text": "texts", "object": "objects", "messages": "conversations"}
    first = next((value for value in values if value is not None), None)
    if first is None:
        return "none"
    if isinstance(first, dict):
        return "messages" if is_message(first) else "objects"
    if isinstance(first, list):
        return "conversations" if kind_of(first) == "messages" else "lists"
    return inside.get(kind_of(first), "numbers")


def is_message(value: Any) -> bool:
    """A chat message has a role."""
    return isinstance(value, dict) and "role" in value


def value_at(value: Any, name: str) -> Any:
    """What a name leads to within a row: ``completion.text`` is the entry ``text`` of what ``completion`` holds, and
    of a list of dicts the list of their entries. None where there is no such entry.

    >>> value_at({"samples": [{"text": "2"}, {"text": "3"}]}, "samples.text")
    ['2', '3']
    """
    if isinstance(value, list):
        return [value_at(entry, name) for entry in value]
    if not isinstance(value, Mapping):
        return None
    if name in value:
        return value[name]
    end = name.find(".")
    while end >= 0:
        if name[:end] in value:
            return value_at(value[name[:end]], name[end + 1 :])
        end = name.find(".", end + 1)
    return None


def kinds_within(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Kind]]:
    """A column's name and kind, and those of the entries of its dicts, under dotted names.

    >>> dict(kinds_within("completion", {"text": "2", "score": 1.0}))
    {'completion': 'object', 'completion.text': 'text', 'completion.score': 'number'}
    """
    kind = kind_of(value)
    yield name, kind
    if kind not in NESTED or depth == MOST_DEPTH:
        return
    entries = value if isinstance(value, dict) else next(entry for entry in value if entry is not None)
    for key, entry in entries.items():
        # Through a list of dicts, each entry becomes a list.
        yield from kinds_within(f"{name}.{key}", entry if kind == "object" else [entry], depth + 1)


def as_number(value: Any) -> float:
    """A number, also one that is written as text; None is NaN.

    Raises:
        ValueError: it is something else, infinite, or larger than :data:`LARGEST`.

    >>> as_number("0.5"), as_number(True), as_number("correct"), as_number("False")
    (0.5, 1.0, 1.0, 0.0)
    """
    if value is None:
        return math.nan
    if isinstance(value, int) and abs(value) > LARGEST:  # float() can't take every whole number
        raise ValueError(described(value))
    if isinstance(value, str):
        text = value.strip()
        if text in VERDICTS:
            return VERDICTS[text]
        if text.lower() in ("true", "false"):
            return float(text.lower() == "true")
        number = math.nan if text.lower() in ("", "none", "null") else float(text)
    elif isinstance(value, (list, dict)):
        raise ValueError(described(value))
    else:
        number = float(value)
    if abs(number) > LARGEST:
        raise ValueError(f"{number} is too large")
    return number


def as_text(value: Any) -> str:
    """A prompt or a response as text: of chat messages each with its role; of a response see :func:`response_of`.

    Raises:
        ValueError: it holds a dict that is no chat message, or a list of something else.
    """
    if isinstance(value, str):
        return value
    if is_message(value):
        return _content(value)
    if isinstance(value, list) and all(is_message(message) for message in value):
        return "\n".join(f"{message['role']}: {_content(message)}" for message in value)
    if isinstance(value, (list, dict)):
        raise ValueError(described(value))
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def described(value: Any) -> str:
    """What a value is, in a few words.

    >>> described({"text": "2", "score": 1.0}), described(["2", "3"]), described("2")
    ("a dict with 'text', 'score'", 'a list of 2 entries', "'2'")
    """
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, value)) or 'no entries'}"
    if isinstance(value, list):
        return f"a list of {len(value)} entries"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def response_of(value: Any) -> str:
    """All that a response says, which tells two responses apart: of a single message its content, of several (tools,
    turns) each with its role. A verifier reads less: :func:`progrpo.tasks.templates.response_text`.

    >>> response_of([{"role": "assistant", "content": "2"}]), response_of("2")
    ('2', '2')
    """
    if isinstance(value, list) and len(value) == 1 and is_message(value[0]):
        return _content(value[0])
    return as_text(value)


def as_list(value: Any) -> list[Any]:
    """A list; in a CSV file it is written as JSON. None is an empty one.

    Raises:
        TypeError, ValueError: it is something else.
    """
    parsed = json.loads(value) if isinstance(value, str) and value.strip() else value
    if parsed is None or parsed == "":
        return []
    if not isinstance(parsed, list):
        raise TypeError("not a list")
    return parsed


def as_key(value: Any) -> str:
    """What two values have in common exactly if they are the same: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _content(message: Mapping[str, Any]) -> str:
    """A message's reasoning, its text, and the tools that it calls, which tell two messages apart as well."""
    if isinstance(message.get("content"), dict):
        raise ValueError(f"a chat message whose content is {described(message['content'])}")
    calls = message.get("tool_calls")
    parts = [message.get("reasoning_content"), content_text(message), as_key(calls) if calls else None]
    return "\n".join(str(part) for part in parts if part)
