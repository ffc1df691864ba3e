"""Responses as rows of numbers: all that is kept of a file, about 120 bytes a response, whatever its length.

Texts are read once and only their hashes stay, so a million responses fit in memory in any order, and a group may be
scattered over files. The few texts that a page shows are read again (:func:`read_rows`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from progrpo.common.errors import ConfigError
from progrpo.core import answer_confidence, prompt_confidence
from progrpo.core.advantages import is_correct
from progrpo.inspection.batches import Batch, Ragged
from progrpo.inspection.columns import Columns
from progrpo.inspection.files import Progress, RolloutFile, Row
from progrpo.inspection.values import LARGEST, as_key, as_number, as_text, described, response_of
from progrpo.inspection.verdicts import Judge, rewards_of

FRACTIONS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""The values of low_prob_fraction that its curve is drawn through."""
PADDED_CELLS = 1 << 20
"""Responses are padded to the longest of a chunk; a chunk has at most so many places."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """One row of numbers a response; B responses in the order of the files. NaN is "not known"."""

    steps_B: Ints
    groups_B: Ints
    """0, 1, 2, ... in the order in which groups first appear."""
    rewards_B: Floats
    correct_rewards_B: Floats
    """The reward that means right: another than ``rewards_B`` where one is named."""
    texts_B: Ints
    """A hash of the text: equal exactly if the texts are."""
    answers_B: Ints
    """A hash of the answer; of the stripped text where there is none."""
    lengths_B: Floats
    entropy_B: Floats
    """Mean over the response's tokens, nats."""
    c_q_B: NDArray[np.float32]
    c_o_FB: NDArray[np.float32]
    """c(o|q) by fraction."""
    fractions: tuple[float, ...]
    correct_above: float = 0.0

    @property
    def size(self) -> int:
        return len(self.steps_B)

    @property
    def n_groups(self) -> int:
        return int(self.groups_B.max()) + 1 if self.size else 0

    @property
    def right_B(self) -> NDArray[np.bool_]:
        """A response is right if its reward, or the one that means right, is above ``correct_above``."""
        right_B: NDArray[np.bool_] = is_correct(torch.from_numpy(self.correct_rewards_B), self.correct_above).numpy()
        return right_B

    @property
    def wrong_B(self) -> NDArray[np.bool_]:
        return self.known_B & ~self.right_B

    @property
    def known_B(self) -> NDArray[np.bool_]:
        """Whether it is known if the response is right. With a reward of its own for that, not every judged one is."""
        return ~np.isnan(self.correct_rewards_B)

    @property
    def judged_B(self) -> NDArray[np.bool_]:
        """Whether the response has a reward, so that A is made from it."""
        return ~np.isnan(self.rewards_B)

    def c_o_B(self, fraction: float) -> NDArray[np.float32]:
        """c(o|q) at one of :attr:`fractions`."""
        return self.c_o_FB[self.fractions.index(fraction)]


@dataclass
class Source:
    """Files of one format with their columns."""

    name: str
    """What the user called them."""
    files: list[RolloutFile]
    title: str
    columns: Columns
    fractions: tuple[float, ...] = FRACTIONS
    judge: Judge | None = None
    """Gives the rewards, in the place of columns."""
    starts: list[int] = field(default_factory=list)
    """The number of the first response of each file, once :func:`read_table` has read them."""

    @property
    def bytes(self) -> int:
        return sum(file.n_bytes for file in self.files)

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(note for file in self.files for note in file.notes))

    @property
    def has_named_steps(self) -> bool:
        """Whether the steps are those in the names of the files or of their folders."""
        return self.columns.step is None and all(file.step is not None for file in self.files)

    @property
    def has_steps(self) -> bool:
        return self.columns.step is not None or self.has_named_steps


def fractions_with(fraction: float) -> tuple[float, ...]:
    """:data:`FRACTIONS`, and one more.

    >>> fractions_with(0.2) == FRACTIONS, fractions_with(0.3)[3]
    (True, 0.3)
    """
    return tuple(sorted({*FRACTIONS, fraction}))


def read_table(source: Source, on_progress: Progress | None = None, *, correct_above: float = 0.0) -> Table:
    """Read every file once, keeping only numbers.

    Args:
        source: what to read.
        on_progress: called with the number of bytes after each batch.
        correct_above: a response is right if its reward is above this.

    Raises:
        ConfigError: a value that can't be what its column is said to hold, or no reward anywhere.
    """
    parts: list[dict[str, NDArray[Any]]] = []
    total = 0
    source.starts.clear()
    for file in source.files:
        source.starts.append(total)
        step = file.step if source.has_named_steps and file.step is not None else 0
        for batch in file.batches(source.columns.names(), on_progress):
            parts.append(_numbers(batch, source.columns, source.fractions, step, source.judge))
            total += batch.size
    if not parts:
        raise ConfigError(f"{str(source.files[0].path)!r} holds no responses: it has columns, but no row.")
    # The same array as the rewards, where no other reward means right, is kept once.
    joined = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    joined.setdefault("correct_rewards_B", joined["rewards_B"])
    if np.isnan(joined["rewards_B"]).all():
        if source.judge is not None:
            raise ConfigError(f"no response could be judged. {source.judge.notes()[0]}")
        named = ", ".join(repr(name) for name, _ in source.columns.rewards)
        raise ConfigError(
            f"no response has a reward: all of column {named} is null or NaN; name another with --reward."
        )
    if np.isnan(joined["correct_rewards_B"]).all():
        raise ConfigError(
            f"of no response is known whether it is right: all of column {source.columns.correct_reward!r} is null or "
            "NaN where there is a reward; name another with --correct-reward."
        )
    joined["groups_B"] = _in_order(joined["groups_B"])
    return Table(**joined, fractions=source.fractions, correct_above=correct_above)


def read_rows(source: Source, wanted: Sequence[int]) -> dict[int, Row]:
    """The raw rows of the responses with these numbers: a second pass over the files that hold one of them."""
    found: dict[int, Row] = {}
    ends = [*source.starts[1:], math.inf]
    for file, start, end in zip(source.files, source.starts, ends, strict=True):
        inside = [number - start for number in wanted if start <= number < end]
        found |= {start + number: row for number, row in file.rows(source.columns.names(), inside).items()}
    return found


def _numbers(
    batch: Batch, columns: Columns, fractions: tuple[float, ...], step: int, judge: Judge | None
) -> dict[str, NDArray[Any]]:
    texts = _texts(batch, columns.response, response_of, "response")
    _texts(batch, columns.prompt, as_text, "prompt")
    steps = _steps(batch, columns.step, step)
    answers = batch[columns.answer] if columns.answer else [None] * batch.size
    if judge is not None:
        assert columns.gold is not None, "a judge compares with a column"
        verdicts = judge(batch[columns.prompt], batch[columns.response], batch[columns.gold])
        rewards = {"rewards_B": np.array(rewards_of(verdicts))}
        # Solutions are told apart by the verifier, unless a column does.
        answers = answers if columns.answer else [verdict.canonical for verdict in verdicts]
    else:
        rewards = _rewards(batch, columns)
    c_o_FB = np.full((len(fractions), batch.size), np.nan, dtype=np.float32)
    surprisal = np.full(batch.size, np.nan)
    if columns.logps:
        c_o_FB, surprisal = confidences(batch.ragged(columns.logps), fractions, columns.logps)
    return {
        "steps_B": steps,
        "groups_B": _group_hashes(batch, columns, steps),
        **rewards,
        "texts_B": _hashes(texts),
        "answers_B": _hashes(
            text.strip() if _is_null(answer) else as_key(answer) for answer, text in zip(answers, texts, strict=True)
        ),
        "lengths_B": _lengths(batch, columns, texts),
        "entropy_B": _entropies(batch, columns.entropy) if columns.entropy else surprisal,
        "c_q_B": _c_q(batch, columns),
        "c_o_FB": c_o_FB,
    }


def _texts(batch: Batch, name: str, as_text_of: Callable[[Any], str], role: str) -> list[str]:
    texts = []
    for i, value in enumerate(batch[name]):
        try:
            texts.append(as_text_of(value))
        except ValueError as error:
            raise ConfigError(
                f"{batch.place(i)}: column {name!r} must hold a {role}, as text or as chat messages, and holds "
                f"{error}; name another column with --{role}, or an entry of this one: --{role} {name}.ENTRY."
            ) from None
    return texts


def _is_null(answer: Any) -> bool:
    """pandas writes NaN for a text that is not there."""
    return answer is None or (isinstance(answer, float) and math.isnan(answer))


def _hashes(texts: Iterable[str]) -> Ints:
    """64 bits each: among a million different texts, two that collide are less likely than 1 in 10 million."""
    return np.array([hash(text) for text in texts], dtype=np.int64)


def _in_order(hashes: Ints) -> Ints:
    """0, 1, 2, ... in the order of first appearance: hashes differ from process to process, this does not."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.ravel()]


def _group_hashes(batch: Batch, columns: Columns, steps: Ints) -> Ints:
    if columns.group is None and batch.origins is not None:
        return _hashes([batch.place(i) for i in range(batch.size)])  # a row is a group
    name = columns.group or columns.prompt
    keys = batch[name]
    for i, key in enumerate(keys):
        if key is None:
            raise ConfigError(f"{batch.place(i)}: column {name!r} is null, so the response belongs to no group.")
    return np.array([hash(pair) for pair in zip(steps.tolist(), map(as_key, keys), strict=True)], dtype=np.int64)


def _steps(batch: Batch, name: str | None, default: int) -> Ints:
    if name is None:
        return np.full(batch.size, default, dtype=np.int64)
    steps = batch[name]
    numbers = np.zeros(batch.size, dtype=np.int64)
    for i, step in enumerate(steps):
        try:
            numbers[i] = as_number(step)
            whole = not isinstance(step, bool) and numbers[i] == as_number(step)
        except (ValueError, OverflowError, TypeError):
            whole = False
        if not whole:
            raise ConfigError(f"{batch.place(i)}: the step, column {name!r}, must be a whole number, got {step!r}.")
    return numbers


def _rewards(batch: Batch, columns: Columns) -> dict[str, Floats]:
    """The weighted sum, as TRL does: NaN takes no part in it, and all NaN is NaN. And the reward that means right, if
    that is another; as in training, a response of which that is not known counts in A and is left out of ARM alone."""
    total, known = np.zeros(batch.size), np.zeros(batch.size, dtype=bool)
    for name, weight in columns.rewards:
        values = _reward(batch, name)
        total += np.where(np.isnan(values), 0.0, weight * values)
        known |= ~np.isnan(values)
    for i in np.flatnonzero(np.abs(total) > LARGEST)[:1]:
        summed = ", ".join(name for name, _ in columns.rewards)
        raise ConfigError(
            f"{batch.place(i)}: the reward, the weighted sum of {summed}, must be at most {LARGEST:g}, got "
            f"{total[i]:g}; lower the weights of --reward."
        )
    if columns.correct_reward is None:
        return {"rewards_B": np.where(known, total, np.nan)}
    correct = _reward(batch, columns.correct_reward)
    return {"rewards_B": np.where(known, total, np.nan), "correct_rewards_B": np.where(known, correct, np.nan)}


def _reward(batch: Batch, name: str) -> Floats:
    return _floats(batch, name, f"the reward, column {name!r},", "response that could not be judged")


def _floats(batch: Batch, name: str, what: str, unknown: str) -> Floats:
    values = np.full(batch.size, np.nan)
    for i, value in enumerate(batch[name]):
        try:
            values[i] = as_number(value)
        except (ValueError, TypeError):
            raise ConfigError(
                f"{batch.place(i)}: {what} must be a finite number of at most {LARGEST:g}, got {described(value)}; "
                f"null or NaN stands for a {unknown}."
            ) from None
    return values


def _lengths(batch: Batch, columns: Columns, texts: Sequence[str]) -> Floats:
    counted = columns.token_ids or columns.logps
    return (
        batch.lengths(counted).astype(np.float64)
        if counted
        else np.array([len(text.split()) for text in texts], dtype=np.float64)
    )


def _entropies(batch: Batch, name: str) -> Floats:
    values = batch[name]
    if any(isinstance(value, list) for value in values):
        ragged = batch.ragged(name, np.float64)
        # An empty list has no mean: NaN, without a warning.
        return np.array([row.mean() if len(row) else np.nan for row in ragged.rows()])
    return _floats(batch, name, f"the entropy, column {name!r},", "response whose entropy is not known")


def _c_q(batch: Batch, columns: Columns) -> NDArray[np.float32]:
    if columns.prompt_confidence:
        name = columns.prompt_confidence
        return _floats(batch, name, f"c(q), column {name!r},", "prompt that has none").astype(np.float32)
    if columns.prompt_logps:
        return prompt_confidences(batch.ragged(columns.prompt_logps), columns.prompt_logps)
    return np.full(batch.size, np.nan, dtype=np.float32)


def prompt_confidences(logps: Ragged, name: str) -> NDArray[np.float32]:
    """c(q) of each prompt, (B,). Arguments as in :func:`confidences`."""
    c_q_B = np.full(len(logps.lengths), np.nan, dtype=np.float32)
    for rows, logps_BP, mask_BP in padded(logps):
        with _named(name):
            c_q_B[rows] = prompt_confidence(logps_BP, mask_BP).numpy()
    return c_q_B


def confidences(logps: Ragged, fractions: Sequence[float], name: str) -> tuple[NDArray[np.float32], Floats]:
    """c(o|q) by fraction (F, B), and the mean of -log p over each response's tokens (B,).

    Args:
        logps: of the responses' tokens; one that is not finite does not count.
        fractions: values of low_prob_fraction.
        name: of the column, for messages.
    """
    c_o_FB = np.full((len(fractions), len(logps.lengths)), np.nan, dtype=np.float32)
    surprisal_B = np.full(len(logps.lengths), np.nan)
    for rows, logps_BT, mask_BT in padded(logps):
        with _named(name):
            for f, fraction in enumerate(fractions):
                c_o_FB[f, rows] = answer_confidence(logps_BT, mask_BT, low_prob_fraction=fraction).numpy()
        counts_B = mask_BT.sum(dim=1)
        sums_B = torch.where(mask_BT, -logps_BT, 0.0).sum(dim=1, dtype=torch.float64)
        surprisal_B[rows] = torch.where(counts_B > 0, sums_B / counts_B, torch.nan).numpy()
    return c_o_FB, surprisal_B


def padded(ragged: Ragged, cells: int = PADDED_CELLS) -> Iterator[tuple[Ints, torch.Tensor, torch.Tensor]]:
    """Rows of like length side by side: their numbers, values (B, T) and mask (B, T), at most so many cells a piece
    (a row that has more is a piece of its own). A value that is not finite is masked out."""
    starts = np.cumsum(ragged.lengths) - ragged.lengths
    order = np.argsort(ragged.lengths, kind="stable")
    while len(order):
        longest = np.maximum(ragged.lengths[order], 1)
        # Lengths rise: a piece of the first k has k * longest[k - 1] places.
        k = max(1, int(np.searchsorted(longest * np.arange(1, len(order) + 1), cells, side="right")))
        rows, order = order[:k], order[k:]
        places = np.arange(longest[k - 1])
        mask = places < ragged.lengths[rows, None]
        index = np.where(mask, starts[rows, None] + places, 0)
        values = torch.from_numpy(
            ragged.values[index] if len(ragged.values) else np.zeros(mask.shape, ragged.values.dtype)
        )
        yield rows, values, torch.from_numpy(mask) & values.isfinite()


@contextmanager
def _named(column: str) -> Iterator[None]:
    """Turns the core's complaint about log-probs into one about the column that they came from."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"column {column!r} does not hold log-probs: {error}") from None
