"""Which column of a rollout file holds what: some formats are known, others are named by the user."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from progrpo.common.errors import ConfigError
from progrpo.inspection.files import listed
from progrpo.inspection.values import LARGEST, NESTED, Kind


@dataclass(frozen=True)
class Columns:
    """The names of a file's columns; None where it has no such column."""

    prompt: str
    """Text, or chat messages."""
    response: str
    """Text, or chat messages."""
    rewards: tuple[tuple[str, float], ...]
    """Names with weights: the reward is the weighted sum. A column holds numbers, also as text, or our verdicts'
    ``status``."""
    step: str | None = None
    group: str | None = None
    """Tells a step's groups apart. Without one, a group is the responses to one prompt at one step."""
    logps: str | None = None
    """Log-prob of each response token, nats."""
    prompt_logps: str | None = None
    """Log-prob of each prompt token but the first, nats."""
    token_ids: str | None = None
    """Of the response."""
    answer: str | None = None
    """What tells answers apart; the response's text where it is null."""
    entropy: str | None = None
    """In nats: a mean over the response's tokens, or a list with one a token."""
    prompt_confidence: str | None = None
    """c(q), as a run of progrpo records it."""
    gold: str | None = None
    """What a verifier compares with: its verdicts are then the rewards, and none are read."""

    correct_reward: str | None = None
    """The reward that means right; the weighted sum of ``rewards`` where there is none."""

    def by_role(self) -> list[tuple[str, str]]:
        """The columns but those of ``rewards``, each as the name of a field and the column's name."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self) if field.name != "rewards")
        return [(role, name) for role, name in named if name is not None]

    def names(self) -> list[str]:
        """Every column that is read, each once."""
        return list(dict.fromkeys([*(name for _, name in self.by_role()), *(name for name, _ in self.rewards)]))


@dataclass(frozen=True)
class Format:
    """A format that is recognised by its columns."""

    title: str
    marks: frozenset[str]
    columns: Columns


COMPARED = ("answer", "group", "gold")
"""Columns that may hold anything: their values are compared with each other, or are for a verifier."""

# Of two formats whose marks are all there, the first. "rewards" of TRL are the reward functions' names: see below.
FORMATS = (
    Format(
        "rollouts of a progrpo run",
        frozenset({"step", "group", "prompt", "text", "reward"}),
        Columns(
            "prompt",
            "text",
            (("reward", 1.0),),
            step="step",
            group="group",
            logps="logps",
            token_ids="token_ids",
            answer="canonical",
            prompt_confidence="prompt_confidence",
        ),
    ),
    Format(
        "samples of a progrpo evaluation",
        frozenset({"problem_id", "prompt", "text", "status"}),
        Columns(
            "prompt",
            "text",
            (("status", 1.0),),
            group="problem_id",
            logps="logps",
            token_ids="token_ids",
            answer="canonical",
            entropy="entropies",
        ),
    ),
    Format(
        "episodes of verifiers",
        frozenset({"trace", "group", "prompt", "response"}),
        Columns(
            "prompt",
            "response",
            (("reward", 1.0),),
            step="step",
            group="group",
            logps="logps",
            token_ids="token_ids",
            entropy="entropies",
        ),
    ),
    Format(
        "results of verifiers",
        frozenset({"example_id", "prompt", "completion", "reward"}),
        # Its "answer" is the right one, not that of the response.
        Columns("prompt", "completion", (("reward", 1.0),), step="step", group="example_id"),
    ),
    Format(
        "completions logged by TRL",
        frozenset({"step", "prompt", "completion", "advantage"}),
        Columns("prompt", "completion", (), step="step"),
    ),
    Format(
        "rollouts dumped by verl",
        frozenset({"input", "output", "score"}),
        # Reward functions of verl that also return what they took for the answer call it "pred".
        Columns("input", "output", (("score", 1.0),), step="step", answer="pred"),
    ),
    *(
        Format(
            "one row a prompt",
            frozenset({"prompt", "responses", rewards}),
            Columns("prompt", "responses", ((rewards, 1.0),), step="step"),
        )
        for rewards in ("rewards", "scores")
    ),
)


def choose_columns(
    present: Mapping[str, Kind], given: Mapping[str, str], rewards: str | None = None
) -> tuple[str, Columns]:
    """What a file's format is called, and its columns: those of a format that is recognised, and those given.

    Args:
        present: the file's columns in order, and what each holds; the entries of dicts under dotted names.
        given: fields of :class:`Columns` (but ``rewards``) by name, each the name of a column.
        rewards: columns of rewards, separated by commas, each with a weight after a colon if it is not 1.

    Raises:
        ConfigError: a given column is not there, neither a format nor the given names tell prompt, response and
            reward, or one of these holds dicts.

    >>> present = {"input": "text", "output": "text", "score": "number", "step": "number", "acc": "number"}
    >>> title, columns = choose_columns(present, {}, rewards="acc:2")
    >>> title, columns.rewards, columns.answer
    ('rollouts dumped by verl', (('acc', 2.0),), None)
    """
    for field, name in given.items():
        _check_present(f"--{field.replace('_', '-')}", name, present)
    weighted = _parse_rewards(rewards, present) if rewards is not None else () if "gold" in given else None
    known = next((format for format in FORMATS if format.marks <= present.keys()), None)
    if known is not None:
        title, columns = known.title, _columns_of(known.columns, present, given, weighted)
    else:
        lacking = [name for name in ("prompt", "response") if name not in given] + (
            ["reward"] if weighted is None else []
        )
        if lacking:
            raise ConfigError(
                "the file's columns are not those of a known format (TRL, verl, prime-rl, verifiers, progrpo); "
                f"{listed(present)}: name the missing ones with {' '.join(f'--{name} COL' for name in lacking)}."
            )
        assert weighted is not None
        title, columns = "columns as given", Columns(rewards=weighted, **given)
    for role, name in (*columns.by_role(), *(("reward", name) for name, _ in columns.rewards)):
        if role not in COMPARED and present.get(name) in NESTED:
            raise ConfigError(_which_entry(role, name, present))
    return title, columns


def _columns_of(
    columns: Columns,
    present: Mapping[str, Kind],
    given: Mapping[str, str],
    weighted: tuple[tuple[str, float], ...] | None,
) -> Columns:
    """A known format's columns, without those that are not there, and with those that are given in their place."""
    absent = dict.fromkeys((role for role, name in columns.by_role() if name not in present), None)
    if weighted is None:
        weighted = columns.rewards or _reward_functions(present)
    return replace(columns, **absent | dict(given), rewards=weighted)  # type: ignore[arg-type]


def _check_present(option: str, name: str, present: Mapping[str, Kind]) -> None:
    if name not in present:
        near = difflib.get_close_matches(name, present, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"{option} {name!r} is not a column of the file{meant}; {listed(present)}.")


def _which_entry(role: str, name: str, present: Mapping[str, Kind]) -> str:
    """Dicts are no text and no number: which of their entries is meant?"""
    option = f"--{role.replace('_', '-')}"
    entries = [column for column in present if column.startswith(f"{name}.")]
    return (
        f"column {name!r} holds dicts, which are not read as text; name the entry that is meant with {option}: "
        f"{', '.join(entries)}."
    )


def _reward_functions(present: Mapping[str, Kind]) -> tuple[tuple[str, float], ...]:
    """TRL's columns of rewards: it writes them between the completion and the advantage, under the functions' names."""
    names = list(present)
    between = names[names.index("completion") + 1 : names.index("advantage")]
    numeric = [name for name in between if present[name] in ("number", "none")]
    if not numeric:
        raise ConfigError(
            f"the file has no column of rewards between 'completion' and 'advantage'; {listed(names)}: name one with "
            "--reward COL."
        )
    return tuple((name, 1.0) for name in numeric)


def _parse_rewards(text: str, present: Mapping[str, Kind]) -> tuple[tuple[str, float], ...]:
    if text in present:
        return ((text, 1.0),)
    weighted = []
    for part in text.split(","):
        name, colon, weight = part.strip().rpartition(":") if part.strip() not in present else (part.strip(), "", "")
        name = name if colon else part.strip()
        _check_present("--reward", name, present)
        try:
            number = float(weight) if colon else 1.0
        except ValueError:
            number = math.nan
        if not abs(number) <= LARGEST:
            raise ConfigError(
                f"--reward {part.strip()!r}: the weight after the colon must be a finite number of at most "
                f"{LARGEST:g}; for example --reward accuracy:1,format:0.2."
            )
        weighted.append((name, number))
    return tuple(weighted)
