"""The benchmarks by name: where their rows come from, how a response is judged, what is reported."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from progrpo.common.errors import ConfigError
from progrpo.tasks import ChoiceTask, CodeTask, Data, MathTask
from progrpo.tasks.dataset import DatasetTask, Preset
from progrpo.tasks.templates import check_template


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, as it is usually reported; samples, template and budget are defaults that an evaluation may change.

    Attributes:
        about: one line for people.
        problems: how many it has as published.
        kind: the task that reads and judges it.
        preset: of that task's ``PRESETS``, with the Hugging Face dataset, its subset and split.
        metrics: what is reported. ``pass@32`` of 32 samples, as most papers have it, is no more than "any correct";
            for a smaller error take more samples than k.
        samples: responses a problem.
        max_new_tokens: where a response is cut off.
        template: see :mod:`progrpo.tasks.templates`.
        unusable: rows that are known to have no usable answer. They are left out; any other bad row is refused.
    """

    about: str
    problems: int
    kind: type[MathTask] | type[CodeTask] | type[ChoiceTask]
    preset: str
    metrics: tuple[str, ...]
    samples: int
    max_new_tokens: int
    template: str = "chat"
    unusable: int = 0

    @property
    def source(self) -> str:
        """The Hugging Face dataset, its subset and split."""
        rows = self._rows
        if rows.files:
            return f"{rows.hub}, {rows.files[0]} to {rows.files[-1]}"
        subsets = rows.subset if isinstance(rows.subset, tuple) else (rows.subset,)
        return ", ".join(filter(None, (rows.hub, *subsets, rows.split)))

    @property
    def verifier(self) -> str:
        """A name of :data:`progrpo.verify.registry.VERIFIERS`."""
        return self.task().verifier

    def count_note(self, problems: int) -> str:
        """A sentence where a benchmark's rows are not as many as published; empty where they are.

        Many datasets have the same columns: given another one's rows, their number is what gives it away.

        >>> BENCHMARKS["math500"].count_note(30)
        '500 problems are published and these rows hold 30: they are a part, another version or another dataset.'
        """
        published = self.problems - self.unusable
        if problems == published:
            return ""
        return (
            f"{published:,} problems are published and these rows hold {problems:,}: they are a part, another version "
            "or another dataset."
        )

    @property
    def _rows(self) -> Preset:
        return self.kind.PRESETS[self.preset]

    def task(
        self,
        path: str | None = None,
        *,
        limit: int | None = None,
        template: str | None = None,
        skip_bad_rows: bool | None = None,
    ) -> DatasetTask:
        """The task whose ``heldout_problems()`` are the benchmark's; it has no training problems.

        Args:
            path: a local file of the benchmark's rows, or another Hugging Face dataset of them; by default its own.
            limit: only the first so many problems.
            template: instead of the benchmark's.
            skip_bad_rows: leave out bad rows; by default where the benchmark is known to have some.

        Raises:
            ConfigError: an unknown template or a limit below 1; and when problems are asked for, rows that can't be
                had, or can't be used.

        >>> BENCHMARKS["gpqa"].task(limit=5).verifier
        'choice'
        """
        if limit is not None and limit < 1:
            raise ConfigError(f"limit must be at least 1, got {limit}.")
        try:
            template = check_template(template or self.template)
        except ValueError as error:
            raise ConfigError(f"template {error}, got {template!r}.") from None
        skip = self.unusable > 0 if skip_bad_rows is None else skip_bad_rows
        data = Data(preset=self.preset, path=path, limit=limit)
        return self.kind(None, data, template=template, skip_bad_rows=skip)


# The paper (arXiv 2602.05281) reports the first two, of 32 samples for mathematics and of 16 for LiveCodeBench. For the
# pass@10 of functions twice as many samples are taken. The budgets are ours: long enough for a 7B model to finish.
_AVG32 = ("avg@32", "pass@32", "maj@32")
_AVG16 = ("avg@16", "pass@16")
_PASS10 = ("pass@1", "pass@10")

BENCHMARKS: Mapping[str, Benchmark] = {
    "aime24": Benchmark(
        "American Invitational Mathematics Examination 2024, both papers: 30 problems, answers 0 to 999",
        30, MathTask, "aime24", _AVG32, samples=32, max_new_tokens=8192,
    ),
    "aime25": Benchmark(
        "American Invitational Mathematics Examination 2025, both papers: 30 problems, answers 0 to 999",
        30, MathTask, "aime25", _AVG32, samples=32, max_new_tokens=8192,
    ),
    "amc23": Benchmark(
        "American Mathematics Competitions 12, 2023: 40 problems, the choices turned into numbers",
        40, MathTask, "amc23", _AVG32, samples=32, max_new_tokens=8192,
    ),
    "math500": Benchmark(
        "MATH-500: 500 of MATH's test problems",
        500, MathTask, "math500", _AVG32, samples=32, max_new_tokens=8192,
    ),
    "minerva": Benchmark(
        "Minerva Math: 272 problems of undergraduate science, from MIT OpenCourseWare",
        272, MathTask, "minerva", _AVG32, samples=32, max_new_tokens=8192,
    ),
    "olympiadbench": Benchmark(
        "OlympiadBench, mathematics in English, text only: 675 problems, two of them without a readable answer",
        675, MathTask, "olympiadbench", _AVG32, samples=32, max_new_tokens=8192, unusable=2,
    ),
    "livecodebench": Benchmark(
        "LiveCodeBench v5, contests from August 2024 to January 2025: 279 problems",
        279, CodeTask, "livecodebench_v5_window", _AVG16, samples=16, max_new_tokens=8192,
    ),
    "codeforces": Benchmark(
        "Codeforces, DeepCoder's test set: 408 problems of 2024's contests, with their published sample tests",
        408, CodeTask, "codeforces", _AVG16, samples=16, max_new_tokens=8192,
    ),
    "humaneval": Benchmark(
        "HumanEval: 164 functions to complete",
        164, CodeTask, "humaneval", _PASS10, samples=20, max_new_tokens=2048,
    ),
    "humaneval_plus": Benchmark(
        "HumanEval+: HumanEval's 164 functions with EvalPlus' tests",
        164, CodeTask, "humaneval_plus", _PASS10, samples=20, max_new_tokens=2048,
    ),
    "mbpp": Benchmark(
        "Mostly Basic Python Problems, the test split (task 11 to 510): 500 functions",
        500, CodeTask, "mbpp_test", _PASS10, samples=20, max_new_tokens=2048,
    ),
    "mbpp_plus": Benchmark(
        "MBPP+: 378 of MBPP's functions with EvalPlus' tests (399 in its version 0.1.0)",
        378, CodeTask, "mbpp_plus", _PASS10, samples=20, max_new_tokens=2048,
    ),
    "gpqa": Benchmark(
        "GPQA diamond: 198 questions of graduate science, four options each",
        198, ChoiceTask, "gpqa_diamond", ("avg@8", "pass@8", "maj@8"), samples=8, max_new_tokens=8192,
    ),
    "mmlu_pro": Benchmark(
        "MMLU-Pro: 12,032 questions of 14 subjects, up to ten options each",
        12032, ChoiceTask, "mmlu_pro", ("pass@1",), samples=1, max_new_tokens=4096,
    ),
}  # fmt: skip


def benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        ConfigError: there is none, with the nearest name and all names.

    >>> benchmark("math500").source
    'HuggingFaceH4/MATH-500, test'
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    near = difflib.get_close_matches(name.lower(), BENCHMARKS, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? The" if near else "the"
    raise ConfigError(f"there is no benchmark {name!r}; {guess} benchmarks are {', '.join(BENCHMARKS)}.")
