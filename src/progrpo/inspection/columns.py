"""Which column of a rollout file holds what: three formats are known, others are named by the user."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from progrpo.errors import ConfigError
from progrpo.inspection.files import listed


@dataclass(frozen=True)
class Columns:
    """The names of a file's columns; None where it has no such column."""

    prompt: str
    """Text, or chat messages."""
    response: str
    """Text, or chat messages."""
    rewards: tuple[tuple[str, float], ...]
    """Names with weights: the reward is the weighted sum. A column holds numbers, or our verdicts' ``status``."""
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

    def names(self) -> list[str]:
        """Every column that is read, each once."""
        single = (getattr(self, field.name) for field in fields(self) if field.name != "rewards")
        return list(dict.fromkeys(name for name in (*single, *(name for name, _ in self.rewards)) if name is not None))


@dataclass(frozen=True)
class Format:
    """A format that is recognised by its columns."""

    title: str
    marks: frozenset[str]
    columns: Columns


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
)


def choose_columns(
    present: Mapping[str, bool], given: Mapping[str, str], rewards: str | None = None
) -> tuple[str, Columns]:
    """What a file's format is called, and its columns: those of a format that is recognised, and those given.

    Args:
        present: the file's columns in order, and whether each holds numbers.
        given: fields of :class:`Columns` (but ``rewards``) by name, each the name of a column.
        rewards: columns of rewards, separated by commas, each with a weight after a colon if it is not 1.

    Raises:
        ConfigError: a given column is not there, or neither a format nor the given names tell prompt, response and
            reward.

    >>> present = {"input": False, "output": False, "score": True, "step": True, "acc": True}
    >>> title, columns = choose_columns(present, {}, rewards="acc:2")
    >>> title, columns.rewards, columns.answer
    ('rollouts dumped by verl', (('acc', 2.0),), None)
    """
    for field, name in given.items():
        if name not in present:
            raise ConfigError(
                f"--{field.replace('_', '-')} {name!r} is not a column of the file; {listed(list(present))}."
            )
    weighted = _parse_rewards(rewards, present) if rewards is not None else () if "gold" in given else None
    known = next((format for format in FORMATS if format.marks <= present.keys()), None)
    if known is None:
        lacking = [name for name in ("prompt", "response") if name not in given] + (
            ["reward"] if weighted is None else []
        )
        if lacking:
            raise ConfigError(
                f"the file's columns are not those of a known format (TRL, verl, progrpo); {listed(list(present))}: "
                f"name the missing ones with {' '.join(f'--{name} COL' for name in lacking)}."
            )
        assert weighted is not None
        return "columns as given", Columns(rewards=weighted, **given)
    default = known.columns
    absent = {
        field.name: None
        for field in fields(default)
        if field.name != "rewards" and getattr(default, field.name) not in present
    }
    if weighted is None:
        weighted = default.rewards or _reward_functions(present)
    return known.title, replace(default, **absent | dict(given), rewards=weighted)  # type: ignore[arg-type]


def _reward_functions(present: Mapping[str, bool]) -> tuple[tuple[str, float], ...]:
    """TRL's columns of rewards: it writes them between the completion and the advantage, under the functions' names."""
    names = list(present)
    between = names[names.index("completion") + 1 : names.index("advantage")]
    numeric = [name for name in between if present[name]]
    if not numeric:
        raise ConfigError(
            f"the file has no column of rewards between 'completion' and 'advantage'; {listed(names)}: name one with "
            "--reward COL."
        )
    return tuple((name, 1.0) for name in numeric)


def _parse_rewards(text: str, present: Mapping[str, bool]) -> tuple[tuple[str, float], ...]:
    if text in present:
        return ((text, 1.0),)
    weighted = []
    for part in text.split(","):
        name, colon, weight = part.strip().rpartition(":") if part.strip() not in present else (part.strip(), "", "")
        name = name if colon else part.strip()
        if name not in present:
            raise ConfigError(f"--reward {name!r} is not a column of the file; {listed(list(present))}.")
        try:
            weighted.append((name, float(weight) if colon else 1.0))
        except ValueError:
            raise ConfigError(
                f"--reward {part.strip()!r}: the weight after the colon must be a number; for example --reward "
                "accuracy:1,format:0.2."
            ) from None
    return tuple(weighted)
