"""Responses as rows of numbers: all that is kept of a file, about 120 bytes a response, whatever its length.

Texts are read once and only their hashes stay, so a million responses fit in memory in any order, and a group may be
scattered over files. The few texts that a page shows are read again (:func:`read_rows`).
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from progrpo.core import answer_confidence, prompt_confidence
from progrpo.errors import ConfigError
from progrpo.inspection.columns import Columns
from progrpo.inspection.files import Batch, Progress, Ragged, RolloutFile
from progrpo.inspection.verdicts import Judge, rewards_of

FRACTIONS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""The values of low_prob_fraction that its curve is drawn through."""
PADDED_CELLS = 1 << 20
"""Responses are padded to the longest of a chunk; a chunk has at most so many places."""
VERDICTS = {"correct": 1.0, "incorrect": 0.0, "error": math.nan}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """One row of numbers a response; B responses in the order of the files. NaN is "not known"."""

    steps_B: Ints
    groups_B: Ints
    """0, 1, 2, ... in the order in which groups first appear."""
    rewards_B: Floats
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

    @property
    def size(self) -> int:
        return len(self.steps_B)

    @property
    def n_groups(self) -> int:
        return int(self.groups_B.max()) + 1 if self.size else 0

    @property
    def right_B(self) -> NDArray[np.bool_]:
        """A response is right if its reward is above 0."""
        return self.rewards_B > 0

    @property
    def judged_B(self) -> NDArray[np.bool_]:
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
        return sum(file.bytes for file in self.files)

    @property
    def notes(self) -> list[str]:
        return [note for file in self.files for note in file.notes]


def fractions_with(fraction: float) -> tuple[float, ...]:
    """:data:`FRACTIONS`, and one more.

    >>> fractions_with(0.2) == FRACTIONS, fractions_with(0.3)[3]
    (True, 0.3)
    """
    return tuple(sorted({*FRACTIONS, fraction}))


def read_table(source: Source, on_progress: Progress | None = None) -> Table:
    """Read every file once, keeping only numbers.

    Raises:
        ConfigError: a value that can't be what its column is said to hold, or no reward anywhere.
    """
    parts: list[dict[str, NDArray[Any]]] = []
    total = 0
    source.starts.clear()
    for file in source.files:
        source.starts.append(total)
        for batch in file.batches(source.columns.names(), on_progress):
            parts.append(_numbers(batch, source.columns, source.fractions, source.judge))
            total += batch.size
    if not parts:
        raise ConfigError(f"{str(source.files[0].path)!r} holds no responses: it has columns, but no row.")
    joined = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    if np.isnan(joined["rewards_B"]).all():
        if source.judge is not None:
            raise ConfigError(f"no response could be judged. {source.judge.notes()[0]}")
        named = ", ".join(repr(name) for name, _ in source.columns.rewards)
        raise ConfigError(
            f"no response has a reward: all of column {named} is null or NaN; name another with --reward."
        )
    return Table(**joined | {"groups_B": _in_order(joined["groups_B"])}, fractions=source.fractions)


def read_rows(source: Source, wanted: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The raw rows of the responses with these numbers: a second pass over the files that hold one of them."""
    found: dict[int, dict[str, Any]] = {}
    ends = [*source.starts[1:], math.inf]
    for file, start, end in zip(source.files, source.starts, ends, strict=True):
        inside = [number - start for number in wanted if start <= number < end]
        found |= {start + number: row for number, row in file.rows(source.columns.names(), inside).items()}
    return found


def as_text(value: Any) -> str:
    """A prompt or a response as text; of a response given as chat messages see :func:`response_of`."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        return "\n".join(f"{message.get('role', '')}: {_content(message)}" for message in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def response_of(value: Any) -> str:
    """A response's text: of a single message its content, of several (tools, turns) each with its role.

    >>> response_of([{"role": "assistant", "content": "2"}]), response_of("2")
    ('2', '2')
    """
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return _content(value[0])
    return as_text(value)


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):  # parts: text, and images without their data
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content or "")


def _numbers(
    batch: Batch, columns: Columns, fractions: tuple[float, ...], judge: Judge | None
) -> dict[str, NDArray[Any]]:
    texts = [response_of(value) for value in batch[columns.response]]
    steps = _steps(batch, columns.step)
    answers = batch[columns.answer] if columns.answer else [None] * batch.size
    if judge is not None:
        assert columns.gold is not None, "a judge compares with a column"
        verdicts = judge(batch[columns.prompt], texts, batch[columns.gold])
        rewards_B = np.array(rewards_of(verdicts))
        # Solutions are told apart by the verifier, unless a column does.
        answers = answers if columns.answer else [verdict.canonical for verdict in verdicts]
    else:
        rewards_B = _rewards(batch, columns)
    c_o_FB = np.full((len(fractions), batch.size), np.nan, dtype=np.float32)
    surprisal = np.full(batch.size, np.nan)
    if columns.logps:
        c_o_FB, surprisal = confidences(batch.ragged(columns.logps), fractions, columns.logps)
    return {
        "steps_B": steps,
        "groups_B": _group_hashes(batch, columns, steps),
        "rewards_B": rewards_B,
        "texts_B": _hashes(texts),
        "answers_B": _hashes(
            # Two answers of another type than text are the same if they are written the same.
            [text.strip() if answer is None else str(answer) for answer, text in zip(answers, texts, strict=True)]
        ),
        "lengths_B": _lengths(batch, columns, texts),
        "entropy_B": _entropies(batch, columns.entropy) if columns.entropy else surprisal,
        "c_q_B": _c_q(batch, columns),
        "c_o_FB": c_o_FB,
    }


def _hashes(texts: Sequence[str]) -> Ints:
    """64 bits each: among a million different texts, two that collide are less likely than 1 in 10 million."""
    return np.array([hash(text) for text in texts], dtype=np.int64)


def _in_order(hashes: Ints) -> Ints:
    """0, 1, 2, ... in the order of first appearance: hashes differ from process to process, this does not."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.ravel()]


def _group_hashes(batch: Batch, columns: Columns, steps: Ints) -> Ints:
    keys = batch[columns.group] if columns.group else batch[columns.prompt]
    for i, key in enumerate(keys):
        if key is None:
            name = columns.group or columns.prompt
            raise ConfigError(f"{batch.place(i)}: column {name!r} is null, so the response belongs to no group.")
    keys = [key if isinstance(key, str) else as_text(key) for key in keys]
    return np.array([hash(pair) for pair in zip(steps.tolist(), keys, strict=True)], dtype=np.int64)


def _steps(batch: Batch, name: str | None) -> Ints:
    if name is None:
        return np.zeros(batch.size, dtype=np.int64)
    steps = batch[name]
    for i, step in enumerate(steps):
        if isinstance(step, bool) or not isinstance(step, (int, float)) or step != step // 1:
            raise ConfigError(f"{batch.place(i)}: the step, column {name!r}, must be a whole number, got {step!r}.")
    return np.array(steps, dtype=np.int64)


def _rewards(batch: Batch, columns: Columns) -> Floats:
    """The weighted sum, as TRL does: NaN takes no part in it, and all NaN is NaN."""
    total, known = np.zeros(batch.size), np.zeros(batch.size, dtype=bool)
    for name, weight in columns.rewards:
        values = np.array([_reward(value, batch, i, name) for i, value in enumerate(batch[name])])
        total += np.where(np.isnan(values), 0.0, weight * values)
        known |= ~np.isnan(values)
    return np.where(known, total, np.nan)


def _reward(value: Any, batch: Batch, i: int, name: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, (int, float)) and not math.isinf(value):
        return float(value)
    if isinstance(value, str) and value in VERDICTS:
        return VERDICTS[value]
    raise ConfigError(
        f"{batch.place(i)}: the reward, column {name!r}, must be a finite number, got {value!r}; null or NaN stands "
        "for a response that could not be judged."
    )


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
    return np.array([np.nan if value is None else float(value) for value in values])


def _c_q(batch: Batch, columns: Columns) -> NDArray[np.float32]:
    if columns.prompt_confidence:
        return np.array([np.nan if v is None else v for v in batch[columns.prompt_confidence]], dtype=np.float32)
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
