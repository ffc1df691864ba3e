"""What each column of a rollout file holds: some formats are known, and the user names the columns of others."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.inspection.files import Batch, listed
from progrpo.inspection.values import LARGEST, described, first_of, holds_several, is_empty, is_nested
from progrpo.runs import rollouts


@dataclass(frozen=True)
class Columns:
    """The names of the columns of a file; None where it has no such column."""

    prompt: str
    """Text, or chat messages."""
    response: str
    """Text, or chat messages."""
    rewards: tuple[tuple[str, float], ...]
    """Names with weights: the reward is the weighted sum. A column holds numbers, also as text, or the ``status`` of
    our verdicts."""
    step: str | None = None
    group: str | None = None
    """Tells the groups of a step apart. Without it, a group is the responses to one prompt at one step."""
    logps: str | None = None
    """Log-prob of each response token, nats."""
    prompt_logps: str | None = None
    """Log-prob of each prompt token except the first, nats."""
    token_ids: str | None = None
    answer: str | None = None
    """Tells answers apart; where it is null, the text of the response does."""
    entropy: str | None = None
    """In nats: a mean over the tokens of the response, or a list with a value for each."""
    prompt_confidence: str | None = None
    gold: str | None = None
    """What a verifier compares with. Its verdicts are then the rewards, and no column of rewards is read."""
    correct_reward: str | None = None
    """The reward that means right; without it, the weighted sum of ``rewards`` does."""

    def roles(self) -> list[tuple[str, str]]:
        """The role and the name of each column. A role is the name of a field, or ``"reward"``."""
        named = {role: name for role, name in vars(self).items() if role != "rewards" and name is not None}
        return [*named.items(), *(("reward", name) for name, _ in self.rewards)]

    def names(self) -> list[str]:
        """The columns that are read, each once."""
        return list(dict.fromkeys(name for _, name in self.roles()))


COMPARED = ("answer", "group", "gold")
"""Columns that may hold anything: their values are compared with each other, or go to a verifier."""
PER_TOKEN = ("logps", "prompt_logps", "token_ids")
"""Columns with a list for each response; where a row holds several responses, a list of lists."""
SHARED = ("prompt", "step", "group", "gold", "prompt_logps", "prompt_confidence")
"""All responses of a row may share these: the row then holds them once."""

_REWARD, _SCORE, _STATUS = (("reward", 1.0),), (("score", 1.0),), (("status", 1.0),)
_RUN = {column.name: column.name for column in rollouts.COLUMNS if hasattr(Columns, column.name)}
"""The columns of a run's rollout table whose name is also that of a field of :class:`Columns` with a default."""
_TOKENS = {"logps": "logps", "token_ids": "token_ids", "entropy": "entropies"}

# Each format has a title, the columns that mark it (besides those of prompt, response and rewards), and all columns.
# The first format whose marks are all in the file is taken. TRL's columns of rewards have no fixed names, see
# _reward_functions. The column "answer" of verifiers holds the gold answer. Reward functions of verl that return the
# answer which they extracted call it "pred".
FORMATS: tuple[tuple[str, set[str], Columns], ...] = (
    ("rollouts of a progrpo run", {"step", "group"}, Columns("prompt", "text", _REWARD, answer="canonical", **_RUN)),
    (
        "samples of a progrpo evaluation",
        {"problem_id"},
        Columns("prompt", "text", _STATUS, group="problem_id", answer="canonical", **_TOKENS),
    ),
    ("episodes of verifiers", {"trace", "group"}, Columns("prompt", "response", _REWARD, "step", "group", **_TOKENS)),
    ("results of verifiers", {"example_id"}, Columns("prompt", "completion", _REWARD, "step", "example_id")),
    ("completions logged by TRL", {"step", "advantage"}, Columns("prompt", "completion", (), "step")),
    ("rollouts dumped by verl", set(), Columns("input", "output", _SCORE, "step", answer="pred")),
    ("one row a prompt", set(), Columns("prompt", "responses", (("rewards", 1.0),), "step")),
    ("one row a prompt", set(), Columns("prompt", "responses", (("scores", 1.0),), "step")),
)


def choose_columns(
    examples: Mapping[str, Any], named: Mapping[str, str], rewards: str | None = None
) -> tuple[str, Columns]:
    """The title of a file's format, and its columns: those of a format that is recognised, and those that are named.

    Args:
        examples: a value of each of the file's columns, in order; the entries of dicts have dotted names.
        named: fields of :class:`Columns` (except ``rewards``) by name, each the name of a column.
        rewards: columns of rewards, separated by commas, each with a weight after a colon if it is not 1.

    Raises:
        ConfigError: a named column is missing, neither a known format nor the names say which columns hold prompt,
            response and reward, or one of these holds dicts.

    >>> examples = {"input": "1 + 1?", "output": "2", "score": 1.0, "step": 1, "acc": True}
    >>> title, columns = choose_columns(examples, {}, rewards="acc:2")
    >>> title, columns.rewards, columns.answer
    ('rollouts dumped by verl', (('acc', 2.0),), None)
    """
    for role, name in named.items():
        _check_present(_option(role), name, examples)
    weighted = _parse_rewards(rewards, examples) if rewards is not None else () if "gold" in named else None
    known = [
        (title, columns)
        for title, marks, columns in FORMATS
        if {*marks, columns.prompt, columns.response, *(name for name, _ in columns.rewards)} <= examples.keys()
    ]
    missing = [_option(role) for role in ("prompt", "response") if role not in named]
    missing += ["--reward"] if weighted is None else []
    if not known and missing:
        raise ConfigError(
            "the file's columns are not those of a known format (TRL, verl, prime-rl, verifiers, progrpo); "
            f"{listed(examples)}: name the missing ones with {' '.join(f'{option} COL' for option in missing)}."
        )
    title, columns = known[0] if known else ("columns named by the user", Columns(**named, rewards=()))
    absent = {role: None for role, name in columns.roles() if name not in examples}
    weights = weighted if weighted is not None else columns.rewards or _reward_functions(examples)
    changes: dict[str, Any] = absent | dict(named) | {"rewards": weights}
    columns = replace(columns, **changes)
    for role, name in columns.roles():
        if role not in COMPARED and is_nested(examples.get(name)):
            entries = ", ".join(column for column in examples if column.startswith(f"{name}."))
            raise ConfigError(
                f"column {name!r} holds dicts, which are not read as text; name the entry that is meant with "
                f"{_option(role)}: {entries}."
            )
    return title, columns


def split_rows(batch: Batch, columns: Columns) -> Batch:
    """A batch with a row for each response, from a batch whose rows hold several responses.

    Raises:
        ConfigError: the lists of a row differ in length, or a column that must hold a list does not.

    >>> from pathlib import Path
    >>> rows = {"q": ["1 + 1?"], "texts": [["2", "3"]], "scores": [[1, 0]]}
    >>> split_rows(Batch(Path("a.jsonl"), rows, [0]), Columns("q", "texts", (("scores", 1.0),))).columns
    {'q': ['1 + 1?', '1 + 1?'], 'texts': ['2', '3'], 'scores': [1, 0]}
    """
    sizes = []
    for i, responses in enumerate(batch[columns.response]):
        if not (holds_several(responses) or is_empty(responses)):
            raise ConfigError(
                f"{batch.place(i)}: column {columns.response!r} must hold a list of responses, as in the file's first "
                f"rows; here it holds {described(responses)}."
            )
        sizes.append(len(responses or []))
    split = {
        name: [
            entry
            for i, value in enumerate(batch[name])
            for entry in _entries(value, role, sizes[i], f"{batch.place(i)}: column {name!r}", columns.response)
        ]
        for role, name in columns.roles()
    }
    return Batch(batch.path, split, [row for row, n in zip(batch.row_numbers, sizes, strict=True) for _ in range(n)])


def _entries(value: Any, role: str, n: int, place: str, responses: str) -> list[Any]:
    """The value of a column for each of n responses."""
    first = first_of(value)
    is_kind = isinstance(first, list) if role in PER_TOKEN else not isinstance(first, dict)
    is_listed = isinstance(value, list) and (first is None or is_kind)
    if is_listed and len(value) == n:
        return list(value)
    if role in SHARED or value is None:
        return [value] * n
    if is_listed:
        raise ConfigError(
            f"{place} holds {len(value)} entries, but column {responses!r} holds {n} responses; there must be one "
            "entry for each response."
        )
    raise ConfigError(
        f"{place} holds {described(value)} for the {n} responses in column {responses!r}; {_option(role)} must name a "
        "column with a list that has one entry for each response."
    )


def _option(role: str) -> str:
    return f"--{role.replace('_', '-')}"


def _check_present(option: str, name: str, examples: Mapping[str, Any]) -> None:
    if name not in examples:
        near = difflib.get_close_matches(name, examples, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"{option} {name!r} is not a column of the file{meant}; {listed(examples)}.")


def _reward_functions(examples: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """TRL's columns of rewards: it writes them between the completion and the advantage, under the functions' names."""
    names = list(examples)
    between = names[names.index("completion") + 1 : names.index("advantage")]
    numeric = [name for name in between if not isinstance(examples[name], (str, list, dict))]
    if not numeric:
        raise ConfigError(
            f"the file has no column of rewards between 'completion' and 'advantage'; {listed(names)}: name one with "
            "--reward COL."
        )
    return tuple((name, 1.0) for name in numeric)


def _parse_rewards(text: str, examples: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    if text in examples:
        return ((text, 1.0),)
    weighted = []
    for part in map(str.strip, text.split(",")):
        name, colon, weight = part.rpartition(":")
        if part in examples or not colon:
            name, weight = part, "1"
        _check_present("--reward", name, examples)
        try:
            number = float(weight)
        except ValueError:
            number = math.nan
        if not abs(number) <= LARGEST:
            raise ConfigError(
                f"--reward {part!r}: the weight after the colon must be a finite number of at most {LARGEST:g}; for "
                "example --reward accuracy:1,format:0.2."
            )
        weighted.append((name, number))
    return tuple(weighted)
