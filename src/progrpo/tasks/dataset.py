"""Tasks whose problems are the rows of datasets: reading, checking, rendering, and the split."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import ClassVar

from progrpo.common.errors import ConfigError
from progrpo.tasks.base import Problem, Task
from progrpo.tasks.rows import BadRowError, Data, ForeignRowError, NotOnHubError, Row, digest, read_rows, text_column
from progrpo.tasks.templates import BASE_STOP, check_template, render
from progrpo.verify import Verdict
from progrpo.verify.registry import VERIFIERS, wrong_golds

CHECKED_AT_ONCE = 1024  # golds; a limit is then reached without checking a whole dataset
SHOWN_BAD_ROWS = 20


@dataclass(frozen=True)
class Item:
    """The content of a row, whatever its columns are called.

    ``verifier`` is empty for the task's own. ``solution`` is for worked examples in prompts. ``source_id`` is the
    problem's id elsewhere, if something is looked up by it: ``problem["source_id"]``. ``problem_id`` is the row's own
    id, for datasets whose official score counts repeated questions too; without one, a repeated problem counts once.
    """

    problem: str
    gold: str
    verifier: str = ""
    solution: str | None = None
    source_id: str | None = None
    problem_id: str | None = None

    @property
    def key(self) -> str:
        return self.problem_id or digest(self.problem)


@dataclass(frozen=True)
class Preset:
    """A public dataset: where it is, and how one of its rows is read.

    Attributes:
        split, subset: of the dataset ``hub``; several subsets are read one after the other.
        read: reads a row; None if the row does not belong to this preset.
        files: the JSONL files to read, for datasets that need a loading script: the hub no longer runs these scripts.
        make: makes rows from a seed, if there is no dataset to read.
    """

    read: Callable[[Row], Item | None]
    hub: str | None = None
    split: str = "train"
    subset: str | tuple[str, ...] | None = None
    files: Sequence[str] = ()
    make: Callable[[int], Iterator[Row]] | None = None


@dataclass(frozen=True)
class DatasetTask(Task):
    """Problems from two sources of rows, one to train on and one held out.

    A training problem that is also held out is left out. ``train`` is None if nothing is trained, as in a benchmark.
    ``template`` is explained in :mod:`progrpo.tasks.templates`. ``examples`` is the number of worked examples in each
    prompt; the training problems that serve as examples are not trained on. ``skip_bad_rows`` leaves out rows that
    can't be used. When the problems are read, a ConfigError is raised for data that can't be read, an unknown preset,
    bad rows or too few rows.
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
        """A name of :data:`progrpo.verify.registry.VERIFIERS`."""

    @property
    def instruction(self) -> str:
        """The sentence in the prompt that says how to write the answer."""
        return ""

    def read_columns(self, data: Data) -> Callable[[Row], Item]:
        """How to read the rows of data without a preset."""
        return lambda row: Item(text_column(row, data.problem or "problem"), text_column(row, data.gold or "answer"))

    def write_response(self, item: Item) -> str:
        """The response in a worked example: the solution, then the answer in the form that the verifier reads."""
        return item.solution or ""

    @property
    def stop(self) -> str | None:
        """The verifier reads a response up to this text; None if it reads the whole response."""
        return BASE_STOP if self.template == "base" else None

    def train_problems(self) -> list[Problem]:
        if self.train is None:
            raise ConfigError("task.train is None, so there are no training problems; give it a path or a preset.")
        return self._problems[0]

    def heldout_problems(self) -> list[Problem]:
        return self._problems[1]

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        return super().verify_batch(problems, self._cut(responses))

    def count_votes(self, problem: Problem, responses: Sequence[str]) -> tuple[list[int], int] | None:
        return super().count_votes(problem, self._cut(responses))

    def _cut(self, responses: Sequence[str]) -> Sequence[str]:
        return responses if self.stop is None else [response.split(self.stop)[0] for response in responses]

    @cached_property
    def bad_rows(self) -> list[BadRowError]:
        """The rows that were left out, those of train first."""
        return [*self._rows[0].bad, *self._rows[1].bad]

    @cached_property
    def repeated_rows(self) -> int:
        """How many rows repeat a problem, within a source or in both."""
        train, heldout = self._rows
        return train.repeated + heldout.repeated + len(train.items) - len(_without(train.items, heldout.items))

    @cached_property
    def _rows(self) -> tuple["_Rows", "_Rows"]:
        train, heldout = self._read("train", self.train), self._read("heldout", self.heldout)
        bad = [*train.bad, *heldout.bad]
        if bad and not self.skip_bad_rows:
            listed = "".join(f"\n  {row}" for row in bad[:SHOWN_BAD_ROWS])
            more = f"\n  and {len(bad) - SHOWN_BAD_ROWS} more" if len(bad) > SHOWN_BAD_ROWS else ""
            raise ConfigError(
                f"{len(bad)} bad row(s); correct them, or leave them out with --skip-bad-rows "
                f"(task.skip_bad_rows = true):{listed}{more}"
            )
        return train, heldout

    @cached_property
    def _problems(self) -> tuple[list[Problem], list[Problem]]:
        if self.examples and self.train is None:
            raise ConfigError("task.train is None, so there are no worked examples; give it a path or a preset.")
        all_train, heldout = (source.items for source in self._rows)
        for name, data, items in (("train", self.train, all_train), ("heldout", self.heldout, heldout)):
            if data is not None and not items:
                raise ConfigError(f"task.{name} has no usable problem; give it other rows, or a higher limit.")
        train = _without(all_train, heldout)
        if all_train and not train:
            raise ConfigError(
                f"all {len(all_train)} problems of task.train are in task.heldout too, and held-out problems are not "
                "trained on; give other rows to one of the two, or a lower limit to task.heldout."
            )
        shown = [train.pop(key) for key in list(train)[: self.examples]]
        if any(item.solution is None for item in shown):
            raise ConfigError(
                f"task.examples is {self.examples}, but these rows have no worked solutions to show; set it to 0."
            )
        if all_train and not train:
            raise ConfigError(
                f"task.examples is {self.examples}, and task.train has only {len(shown)} problems, so none is left to "
                "train on; lower it, or give more rows."
            )
        examples = [(item.problem, self.write_response(item)) for item in shown]
        return (
            [self._problem(key, item, examples) for key, item in train.items()],
            [self._problem(key, item, examples) for key, item in heldout.items()],
        )

    def _problem(self, key: str, item: Item, examples: Sequence[tuple[str, str]]) -> Problem:
        prompt = render(self.template, item.problem, self.instruction, examples)
        problem = dict(prompt=prompt, problem_id=key, gold=item.gold, verifier=item.verifier or self.verifier)
        return problem if item.source_id is None else problem | {"source_id": item.source_id}

    def _read(self, name: str, data: Data | None) -> "_Rows":
        if data is None:
            return _Rows()
        try:
            rows, read = self._source(data)
            return _collect(rows, read, self.verifier, data.limit)
        except ForeignRowError as error:
            dataset = self.PRESETS[data.preset or ""].hub
            raise ConfigError(
                f"preset {data.preset!r} was given rows of another dataset: {error}; give it the rows of {dataset}, or "
                "choose the preset that these rows belong to."
            ) from None
        except NotOnHubError as error:
            if self.train is None:  # a benchmark, for which no recipe has a path
                raise
            raise ConfigError(f"{str(error).rstrip('.')}: task.{name}.path=FILE.") from None

    def _source(self, data: Data) -> tuple[Iterator[tuple[str, Row | BadRowError]], Callable[[Row], Item | None]]:
        """The rows with their places, and the function that reads one."""
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
            made = enumerate(preset.make(data.seed), start=1)
            return ((f"{data.preset} row {number}", row) for number, row in made), preset.read
        path, files = data.path or preset.hub, preset.files if data.path is None else ()
        assert path is not None, "a preset has a dataset or makes its rows"
        subset, split = data.subset or preset.subset, data.split or preset.split
        subsets: Sequence[str | None] = subset if isinstance(subset, tuple) else (subset,)
        if isinstance(subset, tuple) and data.path is not None:
            subsets = (None,)  # a local file holds all subsets; the hub has each under its own name
        return chain.from_iterable(read_rows(path, name, split, files) for name in subsets), preset.read


@dataclass
class _Rows:
    """The rows of one source. Problem ids, in the order of the rows, lead to the items and their places."""

    items: dict[str, Item] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    bad: list[BadRowError] = field(default_factory=list)
    repeated: int = 0

    def add(self, place: str, item: Item) -> str:
        """Add an item, unless its problem was added before, and return why its row is bad; empty if it is not."""
        known, first = self.items.setdefault(item.key, item), self.places.setdefault(item.key, place)
        if known.problem != item.problem:
            return f"has the id {item.key!r} of {first}, which is another problem"
        if known.gold != item.gold:
            return f"is the problem of {first} with another answer"
        self.repeated += known is not item
        return ""


def _collect(
    rows: Iterator[tuple[str, Row | BadRowError]], read: Callable[[Row], Item | None], verifier: str, limit: int | None
) -> _Rows:
    """The first ``limit`` different usable items."""
    collected = _Rows()
    while limit is None or len(collected.items) < limit:
        most = CHECKED_AT_ONCE if limit is None else min(CHECKED_AT_ONCE, limit - len(collected.items))
        entries = [(place, _read_row(place, row, read)) for place, row in islice(rows, most)]
        if not entries:
            break
        items = [item for _, item in entries if isinstance(item, Item)]
        reasons = iter(wrong_golds([item.verifier or verifier for item in items], [item.gold for item in items]))
        for place, item in entries:
            if isinstance(item, BadRowError):
                collected.bad.append(item)
            elif item is not None and (reason := next(reasons) or collected.add(place, item)):
                collected.bad.append(BadRowError(reason, place))
    return collected


def _read_row(place: str, row: Row | BadRowError, read: Callable[[Row], Item | None]) -> Item | BadRowError | None:
    try:
        return row if isinstance(row, BadRowError) else read(row)
    except ForeignRowError as error:
        raise ForeignRowError(f"{place} {error}") from None
    except BadRowError as error:
        return BadRowError(str(error), place)


def _without(items: Mapping[str, Item], others: Mapping[str, Item]) -> dict[str, Item]:
    """The items whose problem is not among the others, whatever their ids are."""
    problems = {item.problem for item in others.values()}
    return {key: item for key, item in items.items() if item.problem not in problems}


@dataclass(frozen=True)
class JsonlTask(DatasetTask):
    """Your own problems: rows of ``{"prompt": ..., "gold": ..., "verifier": ...}``, each with the verifier it names, or
    else with ``default_verifier``, a name of :data:`progrpo.verify.registry.VERIFIERS`."""

    template: str = "plain"
    default_verifier: str = "math"

    name: ClassVar[str] = "jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.default_verifier not in VERIFIERS:
            raise ValueError(f"default_verifier must be one of {', '.join(VERIFIERS)}, got {self.default_verifier!r}.")

    @property
    def verifier(self) -> str:
        return self.default_verifier

    def read_columns(self, data: Data) -> Callable[[Row], Item]:
        problem, gold = data.problem or "prompt", data.gold or "gold"
        return lambda row: Item(
            text_column(row, problem),
            text_column(row, gold),
            text_column(row, "verifier") if row.get("verifier") else "",
        )
