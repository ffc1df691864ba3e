"""The benchmarks by name: where their rows come from, how responses are judged, and what is reported."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from progrpo.common.errors import ConfigError
from progrpo.tasks import ChoiceTask, CodeTask, Data, MathTask
from progrpo.tasks.dataset import DatasetTask
from progrpo.tasks.templates import check_template


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as it is usually reported. Samples per problem, template and budget are defaults.

    Attributes:
        problems: how many problems were published.
        preset: the name in ``kind.PRESETS`` of the Hugging Face dataset, its subset and split.
        kind: the task that reads and judges the rows.
        metrics: what is reported. ``pass@32`` of 32 samples, as in most papers, is only "any correct"; more samples
            than k give a smaller error.
        unusable: how many rows have no usable answer. They are left out; any other bad row is refused.
    """

    about: str
    problems: int
    preset: str
    kind: type[MathTask] | type[CodeTask] | type[ChoiceTask]
    metrics: tuple[str, ...]
    samples: int
    max_new_tokens: int
    template: str = "chat"
    unusable: int = 0

    @property
    def source(self) -> str:
        """The Hugging Face dataset, its subset and split."""
        rows = self.kind.PRESETS[self.preset]
        if rows.files:
            return f"{rows.hub}, {rows.files[0]} to {rows.files[-1]}"
        subsets = rows.subset if isinstance(rows.subset, tuple) else (rows.subset,)
        return ", ".join(filter(None, (rows.hub, *subsets, rows.split)))

    @property
    def verifier(self) -> str:
        """A name of :data:`progrpo.verify.registry.VERIFIERS`."""
        return self.task().verifier

    def count_note(self, problems: int) -> str:
        """A sentence if there are not as many rows as published, else an empty string.

        Many datasets have the same columns, so that the number of rows may be the only sign of a wrong file.

        >>> BENCHMARKS["math500"].count_note(30)
        '500 problems are published and these rows hold 30: they are a part, another version or another dataset.'
        """
        published = self.problems - self.unusable
        note = f"{published:,} problems are published and these rows hold {problems:,}: they are a part, another "
        return "" if problems == published else note + "version or another dataset."

    def task(
        self,
        path: str | None = None,
        *,
        limit: int | None = None,
        template: str | None = None,
        skip_bad_rows: bool | None = None,
    ) -> DatasetTask:
        """The task whose ``heldout_problems()`` are the benchmark's; it has no training problems.

        ``path`` is a local file or another Hugging Face dataset with the benchmark's rows; by default its own dataset.
        ``limit`` is the number of problems, from the first on. Bad rows are left out by default only if the benchmark
        is known to have some.

        Raises ConfigError for an unknown template or a limit below 1; ``heldout_problems()`` raises it for rows that
        can't be found or used.

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


# The paper (arXiv 2602.05281) reports avg@n and pass@n, with 32 samples for mathematics and 16 for LiveCodeBench. For
# pass@10 of functions, 20 samples are drawn. The budgets are this project's; a 7B model can finish within them.
_maths = partial(Benchmark, kind=MathTask, metrics=("avg@32", "pass@32", "maj@32"), samples=32, max_new_tokens=8192)
_contests = partial(Benchmark, kind=CodeTask, metrics=("avg@16", "pass@16"), samples=16, max_new_tokens=8192)
_functions = partial(Benchmark, kind=CodeTask, metrics=("pass@1", "pass@10"), samples=20, max_new_tokens=2048)
_choices = partial(Benchmark, kind=ChoiceTask, metrics=("avg@8", "pass@8", "maj@8"), samples=8, max_new_tokens=8192)
_many_choices = partial(Benchmark, kind=ChoiceTask, metrics=("pass@1",), samples=1, max_new_tokens=4096)
_AIME = "American Invitational Mathematics Examination {}, both papers: 30 problems, answers 0 to 999"
_OLYMPIAD = "OlympiadBench, mathematics in English, text only: 675 problems, two of them without a readable answer"
_CODEFORCES = "Codeforces, DeepCoder's test set: 408 problems of 2024's contests, with their published sample tests"

BENCHMARKS: Mapping[str, Benchmark] = {
    "aime24": _maths(_AIME.format(2024), 30, "aime24"),
    "aime25": _maths(_AIME.format(2025), 30, "aime25"),
    "amc23": _maths(
        "American Mathematics Competitions 12, 2023: 40 problems, the choices turned into numbers", 40, "amc23"
    ),
    "math500": _maths("MATH-500: 500 of MATH's test problems", 500, "math500"),
    "minerva": _maths("Minerva Math: 272 problems of undergraduate science, from MIT OpenCourseWare", 272, "minerva"),
    "olympiadbench": _maths(_OLYMPIAD, 675, "olympiadbench", unusable=2),
    "livecodebench": _contests(
        "LiveCodeBench v5, contests from August 2024 to January 2025: 279 problems", 279, "livecodebench_v5_window"
    ),
    "codeforces": _contests(_CODEFORCES, 408, "codeforces"),
    "humaneval": _functions("HumanEval: 164 functions to complete", 164, "humaneval"),
    "humaneval_plus": _functions("HumanEval+: HumanEval's 164 functions with EvalPlus' tests", 164, "humaneval_plus"),
    "mbpp": _functions(
        "Mostly Basic Python Problems, the test split (task 11 to 510): 500 functions", 500, "mbpp_test"
    ),
    "mbpp_plus": _functions(
        "MBPP+: 378 of MBPP's functions with EvalPlus' tests (399 in its version 0.1.0)", 378, "mbpp_plus"
    ),
    "gpqa": _choices("GPQA diamond: 198 questions of graduate science, four options each", 198, "gpqa_diamond"),
    "mmlu_pro": _many_choices("MMLU-Pro: 12,032 questions of 14 subjects, up to ten options each", 12032, "mmlu_pro"),
}


def benchmark(name: str) -> Benchmark:
    """The benchmark with a name. If there is none, a ConfigError has the nearest name and all names.

    >>> benchmark("math500").source
    'HuggingFaceH4/MATH-500, test'
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    near = difflib.get_close_matches(name.lower(), BENCHMARKS, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? The" if near else "the"
    raise ConfigError(f"there is no benchmark {name!r}; {guess} benchmarks are {', '.join(BENCHMARKS)}.")
