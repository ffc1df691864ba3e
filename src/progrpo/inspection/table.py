"""Responses as rows of numbers: all that is kept of a file, about 120 bytes a response, whatever its length.

Texts are read once and only their hashes stay, so a million responses fit in memory in any order, and a group may be
scattered over files. The few texts that a page shows are read again (:func:`read_rows`).
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from progrpo.common.errors import ConfigError
from progrpo.core.advantages import is_correct
from progrpo.inspection.columns import Columns, split_rows
from progrpo.inspection.files import BATCH_ROWS, Batch, BytesRead, RolloutFile, Row
from progrpo.inspection.folders import step_in_name
from progrpo.inspection.score import Floats, Ints, Judge, Scored, confidences
from progrpo.inspection.values import LARGEST, as_key, as_number, as_step, as_text, holds_several, is_null, response_of

FRACTIONS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""The values of low_prob_fraction that its curve is drawn through."""
MOST_RESPONSES = 64
"""A model scores at most so many responses of a group."""

GROUP_ROWS = 16
"""Rows in memory at a time, where each holds the responses of a whole group."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """One row of numbers for each response; B responses in the order of the files. NaN means "not known"."""

    steps_B: Ints
    groups_B: Ints
    """0, 1, 2, ... in the order in which groups first appear."""
    rewards_B: Floats
    correct_rewards_B: Floats
    """The reward that means right; it differs from ``rewards_B`` only where the user names one."""
    texts_B: Ints
    """A hash of the text: equal exactly if the texts are."""
    answers_B: Ints
    """A hash of the answer, or of the stripped text where there is no answer."""
    lengths_B: Floats
    entropy_B: Floats
    """Mean over the tokens of the response, nats."""
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
    def right_B(self) -> Bools:
        """A response is right if the reward that means right is above ``correct_above``."""
        right_B: Bools = is_correct(torch.from_numpy(self.correct_rewards_B), self.correct_above).numpy()
        return right_B

    @property
    def wrong_B(self) -> Bools:
        return self.known_B & ~self.right_B

    @property
    def known_B(self) -> Bools:
        """Whether it is known if the response is right. A judged response may lack the reward that means right."""
        return ~np.isnan(self.correct_rewards_B)

    @property
    def judged_B(self) -> Bools:
        """Whether the response has a reward, so that A is made from it."""
        return ~np.isnan(self.rewards_B)

    @property
    def has_c_q(self) -> bool:
        return not np.isnan(self.c_q_B).all()

    @property
    def has_c_o(self) -> bool:
        return not np.isnan(self.c_o_FB).all()

    def c_o_B(self, fraction: float) -> NDArray[np.float32]:
        """c(o|q) at one of :attr:`fractions`."""
        return self.c_o_FB[self.fractions.index(fraction)]


@dataclass
class Source:
    """Files of one format with their columns."""

    name: str
    """The name that the user gave them."""
    files: list[RolloutFile]
    title: str
    columns: Columns
    fractions: tuple[float, ...] = FRACTIONS
    judge: Judge | None = None
    """If there is one, its verdicts are the rewards, and no column of rewards is read."""
    starts: list[int] = field(default_factory=list)
    """The number of the first response of each file, once :func:`read_table` has read them."""

    def batches(self, file: RolloutFile, on_bytes: BytesRead | None = None) -> Iterator[Batch]:
        """The responses of one of the files, some at a time."""
        if not self.row_is_group:
            return file.batches(self.columns.names(), BATCH_ROWS, on_bytes)
        groups = file.batches(self.columns.names(), GROUP_ROWS, on_bytes)
        return (batch for group in groups if (batch := split_rows(group, self.columns)).size)

    @cached_property
    def row_is_group(self) -> bool:
        """Whether each row of the files holds several responses to one prompt."""
        return holds_several(self.files[0].examples[self.columns.response])

    @cached_property
    def has_named_steps(self) -> bool:
        """Whether the steps are those in the names of the files or of their folders."""
        return self.columns.step is None and all(step_in_name(file.path) is not None for file in self.files)

    @property
    def has_steps(self) -> bool:
        return self.columns.step is not None or self.has_named_steps


def read_table(source: Source, on_bytes: BytesRead | None = None, *, correct_above: float = 0.0) -> Table:
    """Read every file once, and keep only numbers. ConfigError for a value that its column can't hold, and if there is
    no reward anywhere."""
    parts: list[dict[str, NDArray[Any]]] = []
    total = 0
    source.starts.clear()
    for file in source.files:
        source.starts.append(total)
        for batch in source.batches(file, on_bytes):
            parts.append(_numbers(batch, source))
            total += batch.size
    if not parts:
        raise ConfigError(f"{str(source.files[0].path)!r} holds no responses: it has columns, but no row.")
    joined = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    # Where no other reward means right, one array is both.
    joined.setdefault("correct_rewards_B", joined["rewards_B"])
    if np.isnan(joined["rewards_B"]).all():
        if source.judge is not None:
            raise ConfigError(f"no response could be judged. {source.judge.notes()[0]}")
        names = ", ".join(repr(name) for name, _ in source.columns.rewards)
        raise ConfigError(
            f"no response has a reward: all of column {names} is null or NaN; name another with --reward."
        )
    if np.isnan(joined["correct_rewards_B"]).all():
        raise ConfigError(
            f"no response is known to be right or wrong: all of column {source.columns.correct_reward!r} is null or "
            "NaN where there is a reward; name another with --correct-reward."
        )
    # Hashes differ between processes; the order of first appearance does not.
    joined["groups_B"] = pd.factorize(joined["groups_B"])[0].astype(np.int64)
    return Table(**joined, fractions=source.fractions, correct_above=correct_above)


def read_rows(source: Source, wanted: Collection[int]) -> dict[int, Row]:
    """The raw rows of the responses with these numbers, from a second pass over the files that hold them."""
    rows: dict[int, Row] = {}
    for file, first, end in zip(source.files, source.starts, [*source.starts[1:], math.inf], strict=True):
        missing = {number for number in wanted if first <= number < end}
        start, batches = first, source.batches(file)
        while missing:
            batch = next(batches)
            if inside := missing.intersection(range(start, start + batch.size)):
                columns = {name: batch[name] for name in source.columns.names()}
                rows |= {row: {name: values[row - start] for name, values in columns.items()} for row in inside}
                missing -= inside
            start += batch.size
    return rows


def choose_responses(table: Table, groups: int) -> Ints:
    """The responses of so many groups, at even distances in the order of the files. A large group gives only its first
    :data:`MOST_RESPONSES`."""
    chosen = np.linspace(0, table.n_groups - 1, min(groups, table.n_groups)).round()
    groups_B = pd.Series(table.groups_B)
    is_chosen = groups_B.isin(chosen) & (groups_B.groupby(groups_B).cumcount() < MOST_RESPONSES)
    return np.flatnonzero(is_chosen.to_numpy())


def with_scores(table: Table, scored: Mapping[int, Scored]) -> Table:
    """The table with c(q), c(o|q) and entropy of the responses that a model scored, where the files lack them."""
    rows, scores = list(scored), scored.values()
    c_q_B, c_o_FB, entropy_B = table.c_q_B.copy(), table.c_o_FB.copy(), table.entropy_B.copy()
    if not table.has_c_q:
        prompt_logps = [np.array(score.prompt_logps, np.float32) for score in scores]
        (c_q_B[rows],), _ = confidences(prompt_logps, [1.0], "prompt")
    if not table.has_c_o:
        logps = [np.array(score.logps, np.float32) for score in scores]
        c_o_FB[:, rows], _ = confidences(logps, table.fractions, "response")
        if np.isnan(entropy_B).all():
            entropy_B[rows] = [_mean(np.array(score.entropies)) for score in scores]
    return replace(table, c_q_B=c_q_B, c_o_FB=c_o_FB, entropy_B=entropy_B)


def _numbers(batch: Batch, source: Source) -> dict[str, NDArray[Any]]:
    """The fields of :class:`Table` for a batch, as far as they come from the file; groups as hashes."""
    columns = source.columns
    texts = _texts(batch, columns.response, "response", response_of)
    _texts(batch, columns.prompt, "prompt", as_text)
    steps = [(step_in_name(batch.path) or 0) if source.has_named_steps else 0] * batch.size
    if columns.step:
        steps = _read(batch, columns.step, as_step, f"the step, column {columns.step!r}, must be a whole number")
    answers = batch[columns.answer] if columns.answer else [None] * batch.size
    if source.judge is not None:
        assert columns.gold is not None, "a judge compares with a column"
        verdicts = source.judge(batch[columns.prompt], batch[columns.response], batch[columns.gold])
        rewards = {"rewards_B": np.array([verdict.reward for verdict in verdicts], dtype=np.float64)}
        # The verifier tells solutions apart, unless a column does.
        answers = answers if columns.answer else [verdict.canonical for verdict in verdicts]
    else:
        rewards = _rewards(batch, columns)
    c_o_FB = np.full((len(source.fractions), batch.size), np.nan, dtype=np.float32)
    c_q_B, entropy_B = np.full(batch.size, np.nan, dtype=np.float32), np.full(batch.size, np.nan)
    lengths = [len(text.split()) for text in texts]
    if columns.logps:
        logps = batch.numbers(columns.logps)
        lengths = [len(values) for values in logps]
        c_o_FB, entropy_B = confidences(logps, source.fractions, columns.logps)
    if columns.token_ids:
        lengths = [len(values) for values in batch.numbers(columns.token_ids)]
    if columns.entropy and any(isinstance(value, list) for value in batch[columns.entropy]):
        entropy_B = np.array([_mean(entropies) for entropies in batch.numbers(columns.entropy, np.float64)])
    elif columns.entropy:
        entropy_B = _floats(batch, columns.entropy, "the entropy", "response whose entropy is not known")
    if columns.prompt_confidence:
        c_q_B = _floats(batch, columns.prompt_confidence, "c(q)", "prompt that has none").astype(np.float32)
    elif columns.prompt_logps:
        (c_q_B,), _ = confidences(batch.numbers(columns.prompt_logps), [1.0], columns.prompt_logps)
    return {
        "steps_B": np.array(steps, dtype=np.int64),
        "groups_B": _hashes(_group_keys(batch, source, steps)),
        **rewards,
        "texts_B": _hashes(texts),
        "answers_B": _hashes(
            text.strip() if is_null(answer) else as_key(answer) for answer, text in zip(answers, texts, strict=True)
        ),
        "lengths_B": np.array(lengths, dtype=np.float64),
        "entropy_B": entropy_B,
        "c_q_B": c_q_B,
        "c_o_FB": c_o_FB,
    }


def _hashes(values: Iterable[Any]) -> Ints:
    """64 bits each: among a million different values, two that collide are less likely than 1 in 10 million."""
    return np.array([hash(value) for value in values], dtype=np.int64)


def _mean(values: NDArray[Any]) -> float:
    """The mean; NaN if there are no values, without numpy's warning."""
    return float(values.mean()) if len(values) else math.nan


def _group_keys(batch: Batch, source: Source, steps: list[int]) -> Iterable[Any]:
    if source.columns.group is None and source.row_is_group:
        return [batch.place(i) for i in range(batch.size)]
    name = source.columns.group or source.columns.prompt
    keys = batch[name]
    if None in keys:
        place = batch.place(keys.index(None))
        raise ConfigError(f"{place}: column {name!r} is null, so the response belongs to no group.")
    return zip(steps, map(as_key, keys), strict=True)


def _rewards(batch: Batch, columns: Columns) -> dict[str, Floats]:
    """The weighted sum as in TRL, and the reward that means right, if that is another one. NaN takes no part in the
    sum, which is NaN if all rewards are. As in training, a response that only lacks the reward that means right counts
    in A, and ARM leaves it out."""
    unknown = "response that could not be judged"
    values_RB = np.array([_floats(batch, name, "the reward", unknown) for name, _ in columns.rewards])
    weights_R = np.array([weight for _, weight in columns.rewards])
    total_B = np.nansum(weights_R[:, None] * values_RB, axis=0)
    total_B[np.isnan(values_RB).all(axis=0)] = np.nan
    for i in np.flatnonzero(np.abs(total_B) > LARGEST)[:1]:
        names = ", ".join(name for name, _ in columns.rewards)
        raise ConfigError(
            f"{batch.place(i)}: the reward, the weighted sum of {names}, must be at most {LARGEST:g}, got "
            f"{total_B[i]:g}; lower the weights of --reward."
        )
    if columns.correct_reward is None:
        return {"rewards_B": total_B}
    correct_B = _floats(batch, columns.correct_reward, "the reward", unknown)
    return {"rewards_B": total_B, "correct_rewards_B": np.where(np.isnan(total_B), np.nan, correct_B)}


def _read(batch: Batch, name: str, read: Callable[[Any], Any], must: str, remedy: str = "") -> list[Any]:
    """Each value of a column, read. ``read`` raises a ValueError that describes the value."""
    values = []
    for i, value in enumerate(batch[name]):
        try:
            values.append(read(value))
        except ValueError as error:
            raise ConfigError(f"{batch.place(i)}: {must}, got {error}{remedy}.") from None
    return values


def _texts(batch: Batch, name: str, role: str, read: Callable[[Any], str]) -> list[str]:
    must = f"column {name!r} must hold a {role}, as text or as chat messages"
    remedy = f"; name another column with --{role}, or an entry of this one: --{role} {name}.ENTRY"
    return _read(batch, name, read, must, remedy)


def _floats(batch: Batch, name: str, what: str, unknown: str) -> Floats:
    must = f"{what}, column {name!r}, must be a finite number of at most {LARGEST:g}"
    return np.array(_read(batch, name, as_number, must, f"; null or NaN stands for a {unknown}"))
