"""Tasks whose problems are rows of datasets: reading, checking, rendering, and the split."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import ClassVar

from progrpo.common.errors import ConfigError
from progrpo.tasks.base import Problem
from progrpo.tasks.rows import (
    BadRow,
    BadRowError,
    Data,
    ForeignRowError,
    NotOnHubError,
    Row,
    digest,
    read_rows,
    refuse_bad_rows,
    text_column,
)
from progrpo.tasks.templates import BASE_STOP, Prompt, check_template, render
from progrpo.verify import Verdict
from progrpo.verify.registry import count_votes, verify, wrong_golds


@dataclass(frozen=True)
class Item:
    """What a row says, whatever its columns are called."""

    problem: str
    gold: str
    """What the verifier compares with: an answer, or tests as JSON."""
    verifier: str = ""
    """A name of :data:`progrpo.verify.registry.VERIFIERS`; the task's where it is empty."""
    solution: str | None = None
    """How it is solved, for worked examples."""
    source_id: str | None = None
    """What others call the problem, where something is to be looked up by it: ``problem["source_id"]``."""
    problem_id: str | None = None
    """What tells the row from others with the same words; by default the words alone do."""

    @property
    def key(self) -> str:
        """``problem["problem_id"]``"""
        return self.problem_id or digest(self.problem)


@dataclass(frozen=True)
class Preset:
    """A public dataset: where it is, and how one of its rows is read."""

    read: Callable[[Row], Item]
    hub: str | None = None
    split: str = "train"
    subset: str | tuple[str, ...] | None = None
    """Several are read one after the other."""
    files: Sequence[str] = ()
    """The JSONL files of a dataset whose split only a script would put together; the hub runs none any more."""
    keep: Callable[[Row], bool] | None = None
    """Whether a row belongs to it, where the dataset holds more."""
    make: Callable[[int], Iterator[Row]] | None = None
    """Makes rows from a seed, where there is nothing to read."""
    id: str | None = None
    """The column with the dataset's own id of a row, where its official score counts every row, repeated questions
    too. Without it, or in rows without that column, a problem that is repeated counts once."""

    def read_if_kept(self, row: Row) -> Item | None:
        """What a row says; None if it is not one of this preset's."""
        if self.keep is not None and not self.keep(row):
            return None
        item = self.read(row)
        return replace(item, problem_id=text_column(row, self.id)) if self.id in row else item


@dataclass(frozen=True)
class DatasetTask(ABC):
    """Problems from two sources of rows, one to train on and one held out.

    Args:
        train, heldout: where the rows come from. A training problem that is also held out is left out. Train is None
            where nothing is trained, as in a benchmark.
        template: see :mod:`progrpo.tasks.templates`.
        examples: worked examples in each prompt: the first training problems, which are then not trained on.
        skip_bad_rows: leave out rows that can't be used, instead of refusing them all.

    Raises:
        ConfigError: (when problems are asked for) data that can't be read, an unknown preset, bad rows, too few rows.
    """

    train: Data | None
    heldout: Data
    template: str = "chat"
    examples: int = 0
    skip_bad_rows: bool = False

    PRESETS: ClassVar[Mapping[str, Preset]] = {}
    name: ClassVar[str]
    max_response_tokens: ClassVar[int] = 1024

    def __post_init__(self) -> None:
        check_template(self.template)

    @property
    @abstractmethod
    def verifier(self) -> str:
        """Its name in :data:`progrpo.verify.registry.VERIFIERS`."""

    def read_columns(self, data: Data) -> Callable[[Row], Item]:
        """How to read the rows of data without a preset."""
        return lambda row: Item(text_column(row, data.problem or "problem"), text_column(row, data.gold or "answer"))

    def write_response(self, item: Item) -> str:
        """A worked example's response: its solution, and its answer where the verifier looks for it."""
        return item.solution or ""

    @property
    def instruction(self) -> str:
        """How an answer is to be written, said in the prompt."""
        return ""

    def train_problems(self) -> list[Problem]:
        self._require_train("training problems")
        return self._problems[0]

    def heldout_problems(self) -> list[Problem]:
        return self._problems[1]

    def verify(self, problem: Problem, response: str) -> Verdict:
        return self.verify_batch([problem], [response])[0]

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        return verify(
            [problem["verifier"] for problem in problems],
            [problem["gold"] for problem in problems],
            self._cut(responses),
        )

    def count_votes(self, problem: Problem, responses: Sequence[str]) -> tuple[list[int], int] | None:
        return count_votes(problem["verifier"], problem["gold"], self._cut(responses))

    @property
    def stop(self) -> str | None:
        """Where a response ends for the verifier, whatever follows."""
        return BASE_STOP if self.template == "base" else None

    def _cut(self, responses: Sequence[str]) -> Sequence[str]:
        return responses if self.stop is None else [response.split(self.stop)[0] for response in responses]

    def gold(self, problem: Problem) -> str:
        return problem["gold"]

    def count_solutions(self, problem: Problem) -> None:
        return None

    @cached_property
    def bad_rows(self) -> list[BadRow]:
        """The rows that were left out, train first."""
        return [*self._rows[0].bad, *self._rows[1].bad]

    @cached_property
    def repeated_rows(self) -> int:
        """How many rows repeat a problem, within a source or in both."""
        train, heldout = self._rows
        return train.repeated + heldout.repeated + len(train.items) - len(_without(train.items, heldout.items))

    @cached_property
    def _rows(self) -> tuple["_Rows", "_Rows"]:
        train, heldout = self._read("train", self.train), self._read("heldout", self.heldout)
        refuse_bad_rows([*train.bad, *heldout.bad], skip=self.skip_bad_rows)
        return train, heldout

    @cached_property
    def _problems(self) -> tuple[list[Problem], list[Problem]]:
        if self.examples:
            self._require_train("worked examples")
        train, heldout = (rows.items for rows in self._rows)
        for name, data, items in (("train", self.train, train), ("heldout", self.heldout, heldout)):
            if data is not None and not items:
                raise ConfigError(f"task.{name} has no usable problem; give it other rows, or a higher limit.")
        different = _without(train, heldout)
        if train and not different:
            raise ConfigError(
                f"all {len(train)} problems of task.train are in task.heldout too, and what is held out is not trained "
                "on; give one of the two other rows, or task.heldout a lower limit."
            )
        shown = list(islice(different, self.examples))
        examples = [self._example(different.pop(key)) for key in shown]
        if train and not different:
            raise ConfigError(
                f"task.examples is {self.examples}, and task.train has no more problems than that ({len(shown)}): none "
                "is left to train on; lower it, or give more rows."
            )
        train = different
        return (
            [self._problem(key, item, examples) for key, item in train.items()],
            [self._problem(key, item, examples) for key, item in heldout.items()],
        )

    def _require_train(self, wanted: str) -> None:
        if self.train is None:
            raise ConfigError(f"task.train is None, so there are no {wanted}; give it a path or a preset.")

    def _problem(self, key: str, item: Item, examples: Sequence[tuple[str, str]]) -> Problem:
        prompt: Prompt = render(self.template, item.problem, self.instruction, examples)
        problem = {
            "prompt": prompt,
            "problem_id": key,
            "gold": item.gold,
            "verifier": item.verifier or self.verifier,
        }
        return problem if item.source_id is None else problem | {"source_id": item.source_id}

    def _example(self, item: Item) -> tuple[str, str]:
        if item.solution is None:
            raise ConfigError(
                f"task.examples is {self.examples}, but these rows have no worked solutions to show; set it to 0."
            )
        return item.problem, self.write_response(item)

    def _read(self, name: str, data: Data | None) -> "_Rows":
        if data is None:
            return _Rows()
        try:
            rows, read = self._source(data)
            return _collect(rows, read, self.verifier, data.limit)
        except ForeignRowError as error:
            wanted = self.PRESETS[data.preset or ""].hub
            raise ConfigError(
                f"preset {data.preset!r} was given rows of another dataset: {error}; give it the rows of {wanted}, or "
                "choose the preset that these rows are of."
            ) from None
        except NotOnHubError as error:
            if self.train is None:  # a benchmark, which no recipe has a path for
                raise
            raise ConfigError(f"{str(error).rstrip('.')}: task.{name}.path=FILE.") from None

    def _source(self, data: Data) -> tuple[Iterable[tuple[str, Row | BadRow]], Callable[[Row], Item | None]]:
        """The rows, and how to read one."""
        if data.preset is None:
            if data.path is None:
                raise ConfigError(
                    "task.train and task.heldout each need a path or a preset "
                    f"({', '.join(self.PRESETS) or 'none here'})."
                )
            return read_rows(data.path, data.subset, data.split), self.read_columns(data)
        if data.preset not in self.PRESETS:
            raise ConfigError(
                f"preset {data.preset!r} is not one of task {self.name!r}: {', '.join(self.PRESETS)}; for other data "
                "give path, problem and gold."
            )
        preset = self.PRESETS[data.preset]
        if preset.make is not None:
            if data.limit is None:
                raise ConfigError(f"preset {data.preset!r} makes rows without end; say how many with limit.")
            made = preset.make(data.seed)
            return ((f"{data.preset} row {i}", row) for i, row in enumerate(made, start=1)), preset.read
        path, subset, split = data.path or preset.hub, data.subset or preset.subset, data.split or preset.split
        assert path is not None, "a preset has a dataset or makes its rows"
        files = preset.files if data.path is None else ()
        if isinstance(subset, tuple):
            # A local file has its rows in one place; of the hub's dataset each subset is to be had by its name alone.
            subsets = subset if data.path is None else (None,)
            return chain.from_iterable(read_rows(path, one, split) for one in subsets), preset.read_if_kept
        return read_rows(path, subset, split, files), preset.read_if_kept


@dataclass(frozen=True)
class _Rows:
    items: dict[str, Item] = field(default_factory=dict)
    """By problem id, in the order of the rows."""
    bad: list[BadRow] = field(default_factory=list)
    repeated: int = 0


# Golds are checked so many at a time: a limit is then reached without checking a whole dataset.
_CHECKED_AT_ONCE = 1024


def _collect(
    rows: Iterable[tuple[str, Row | BadRow]], read: Callable[[Row], Item | None], verifier: str, limit: int | None
) -> _Rows:
    """The first ``limit`` different usable items; the same problem with another answer is a bad row."""
    items: dict[str, Item] = {}
    places: dict[str, str] = {}
    bad: list[BadRow] = []
    repeated = 0
    remaining = iter(rows)
    while (limit is None or len(items) < limit) and (chunk := list(islice(remaining, _chunk_size(limit, len(items))))):
        entries = [(place, _read_row(place, row, read)) for place, row in chunk]
        good = [item for _, item in entries if isinstance(item, Item)]
        reasons = iter(wrong_golds([item.verifier or verifier for item in good], [item.gold for item in good]))
        for place, item in entries:
            if isinstance(item, BadRow):
                bad.append(item)
                continue
            if item is None:
                continue
            key, reason = item.key, next(reasons)
            if reason:
                bad.append(BadRow(place, reason))
            elif key not in items:
                items[key], places[key] = item, place
            elif (items[key].problem, items[key].gold) == (item.problem, item.gold):
                repeated += 1
            elif items[key].problem != item.problem:
                bad.append(BadRow(place, f"has the id {key!r} of {places[key]}, which is another problem"))
            else:
                bad.append(BadRow(place, f"is the problem of {places[key]} with another answer"))
    return _Rows(items, bad, repeated)


def _without(items: Mapping[str, Item], others: Mapping[str, Item]) -> dict[str, Item]:
    """The items whose problem is none of the others', whatever their ids are."""
    problems = {item.problem for item in others.values()}
    return {key: item for key, item in items.items() if item.problem not in problems}


def _read_row(place: str, row: Row | BadRow, read: Callable[[Row], Item | None]) -> Item | BadRow | None:
    if isinstance(row, BadRow):
        return row
    try:
        return read(row)
    except ForeignRowError as error:
        raise ForeignRowError(f"{place} {error}") from None
    except BadRowError as error:
        return BadRow(place, str(error))


def _chunk_size(limit: int | None, found: int) -> int:
    return _CHECKED_AT_ONCE if limit is None else min(_CHECKED_AT_ONCE, limit - found)
