"""Rows of a whole group, a prompt with lists of responses and scores: one row a response."""

from collections.abc import Iterable
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.inspection.columns import Columns
from progrpo.inspection.files import Row, Split
from progrpo.inspection.values import SEVERAL, Kind, described, kind_of

PER_TOKEN = ("logps", "prompt_logps", "token_ids")
"""Columns that hold a list for each response, so a list of lists."""
KINDS_PER_TOKEN: tuple[Kind, ...] = ("lists", "none")
KINDS: tuple[Kind, ...] = ("texts", "numbers", "conversations", "lists", "none")
OF_THE_ROW = ("prompt", "step", "group", "gold", "prompt_logps", "prompt_confidence")
"""What all responses of a row may have in common: it then stands there once."""


def splitter(columns: Columns) -> Split:
    """What makes of a row one row for each of its responses. Every list is as long as the list of responses.

    >>> columns = Columns("q", "texts", (("scores", 1.0),))
    >>> splitter(columns)({"q": "1 + 1?", "texts": ["2", "3"], "scores": [1, 0]}, "a.jsonl, row 1")
    [{'q': '1 + 1?', 'texts': '2', 'scores': 1}, {'q': '1 + 1?', 'texts': '3', 'scores': 0}]
    """
    roles = {name: "reward" for name, _ in columns.rewards} | {name: role for role, name in columns.by_role()}

    def split(row: Row, place: str) -> list[Row]:
        responses = row[columns.response]
        if kind_of(responses) not in (*SEVERAL, "none"):
            raise ConfigError(
                f"{place}: column {columns.response!r} must hold a list of responses, as in the file's first rows; "
                f"here it holds {described(responses)}."
            )
        n = len(responses or [])
        spread = {name: _spread(value, roles[name], name, n, columns.response, place) for name, value in row.items()}
        return [dict(zip(spread, values, strict=True)) for values in zip(*spread.values(), strict=True)]

    return split


def _spread(value: Any, role: str, name: str, n: int, responses: str, place: str) -> Iterable[Any]:
    """A column's value for each of n responses."""
    is_listed = kind_of(value) in (KINDS_PER_TOKEN if role in PER_TOKEN else KINDS)
    if isinstance(value, list) and is_listed and not (role in OF_THE_ROW and len(value) != n):
        if len(value) == n:
            return value
        raise ConfigError(
            f"{place}: column {name!r} holds {len(value)} entries and column {responses!r} {n} responses; there must "
            "be one entry for each response."
        )
    if role in OF_THE_ROW or value is None:
        return [value] * n
    option = "--" + role.replace("_", "-")
    raise ConfigError(
        f"{place}: column {name!r} holds {described(value)} for the {n} responses in column {responses!r}; {option} "
        "must name a column with a list that has one entry for each response."
    )
