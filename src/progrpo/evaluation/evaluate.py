"""Evaluating a model on a task's held-out problems."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progrpo.evaluation.intervals import Estimate, mean_over_problems
from progrpo.evaluation.pass_at_k import pass_at_k
from progrpo.evaluation.sample import Sample, sample
from progrpo.rewards import MAX_ERROR_SHARE, ErrorWatch
from progrpo.tasks import Problem, Task
from progrpo.verify import Verdict, VerifierFailedError

Judged = tuple[Sample, Verdict]
"""A response and the verdict on it."""


@dataclass(frozen=True)
class ProblemResult:
    """The samples of one problem, counted."""

    problem_id: str
    samples: int
    correct: int
    """Correct samples."""
    errors: int
    """Samples that the verifier failed on: counted among ``samples`` no more, shown so that none goes unseen."""
    distinct: int
    """Different correct solutions among the samples."""
    solutions: int | None
    """How many there are, where that can be known."""
    entropy: float
    """Mean over response tokens of the full-vocabulary entropy at the sampling temperature, in nats."""
    tokens: int
    """Response tokens, all samples together."""


@dataclass(frozen=True)
class Evaluation:
    """The results by problem, and what they add up to."""

    settings: dict[str, Any]
    problems: list[ProblemResult]

    @cached_property
    def judged(self) -> list[ProblemResult]:
        """The problems with a judged sample: all of them, unless the verifier failed on every sample of one."""
        return [p for p in self.problems if p.samples]

    def pass_at(self, k: int) -> NDArray[np.float64]:
        """pass@k of each judged problem."""
        return np.atleast_1d(pass_at_k([p.samples for p in self.judged], [p.correct for p in self.judged], k))

    def values(self, measure: str) -> NDArray[np.float64]:
        """A measure of each judged problem: ``pass@K``, ``avg``, ``distinct``, ``coverage`` or ``entropy``.

        ``coverage`` is the share of a problem's solutions that were found; NaN where their number is not known.
        """
        if measure.startswith("pass@"):
            return self.pass_at(int(measure.removeprefix("pass@")))
        if measure == "avg":
            return np.array([p.correct / p.samples for p in self.judged])
        if measure == "coverage":
            return np.array([p.distinct / p.solutions if p.solutions else np.nan for p in self.judged])
        return np.array([getattr(p, measure) for p in self.judged], dtype=np.float64)

    def estimate(self, measure: str) -> Estimate:
        """A measure's mean over problems with its 95 % interval."""
        return mean_over_problems(self.values(measure))

    @property
    def samples(self) -> int:
        """n: the fewest samples that a judged problem has."""
        return min(p.samples for p in self.judged)

    @property
    def entropy(self) -> float:
        """Token-weighted mean entropy over all responses, in nats."""
        return float(np.average([p.entropy for p in self.problems], weights=[p.tokens for p in self.problems]))

    def summary(self) -> dict[str, float]:
        """The means, under the field's names."""
        ks = sorted({k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k <= self.samples})
        summary = {f"pass@{k}": float(self.pass_at(k).mean()) for k in ks}
        summary[f"avg@{self.samples}"] = float(self.values("avg").mean())
        summary["distinct"] = float(self.values("distinct").mean())
        coverage = self.values("coverage")
        if not np.isnan(coverage).all():
            summary["coverage"] = float(np.nanmean(coverage))
        summary["entropy"] = self.entropy
        summary["errors"] = float(sum(p.errors for p in self.problems))
        if len(self.judged) < len(self.problems):
            summary["unjudged problems"] = float(len(self.problems) - len(self.judged))
        return summary

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``evaluations/*.json`` of a run folder."""
        coverage = None if any(p.solutions is None for p in self.problems) else "coverage"
        measures = [f"pass@{k}" for k in range(1, self.samples + 1)] + ["distinct", *([coverage] if coverage else [])]
        return {
            "settings": self.settings,
            "summary": self.summary(),
            "intervals": {name: asdict(self.estimate(name)) for name in measures},
            "problems": [asdict(problem) for problem in self.problems],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Evaluation":
        return cls(value["settings"], [ProblemResult(**problem) for problem in value["problems"]])


def evaluate(
    model: Any,
    tokenizer: Any,
    task: Task,
    *,
    problems: Sequence[Problem] | None = None,
    n: int = 64,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 1024,
    max_error_share: float = MAX_ERROR_SHARE,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Evaluation, list[list[Judged]]]:
    """Sample n responses to each problem (the held-out ones by default), verify and count them.

    Returns the counts, and the samples with their verdicts. Arguments as in
    :func:`progrpo.evaluation.sample.sample`, and ``max_error_share`` as in :class:`progrpo.rewards.Reward`.

    Raises:
        VerifierFailedError: the verifier failed on too large a share of the samples, or on all.
    """
    problems = task.heldout_problems() if problems is None else problems
    samples = sample(
        model,
        tokenizer,
        [problem["prompt"] for problem in problems],
        n=n,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        batch=batch,
        on_progress=on_progress,
    )
    judged = judge(task, problems, samples, max_error_share)
    settings = {
        "task": task.name,
        "samples": n,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    results = [count(task, problem, of_problem) for problem, of_problem in zip(problems, judged, strict=True)]
    evaluation = Evaluation(settings, results)
    if not evaluation.judged:
        raise VerifierFailedError(f"The verifier failed on all {n * len(problems)} samples.")
    return evaluation, judged


def judge(
    task: Task, problems: Sequence[Problem], samples: Sequence[Sequence[Sample]], max_error_share: float
) -> list[list[Judged]]:
    """Verify all samples at once, for verifiers that work on many at a time."""
    rows = [problem for problem, of_problem in zip(problems, samples, strict=True) for _ in of_problem]
    flat = [sample for of_problem in samples for sample in of_problem]
    verdicts = task.verify_batch(rows, [sample.text for sample in flat])
    pairs = iter(zip(flat, verdicts, strict=True))
    judged = [list(islice(pairs, len(of_problem))) for of_problem in samples]
    watch = ErrorWatch(max_error_share)
    for of_problem in judged:
        watch.see([verdict for _, verdict in of_problem])
    return judged


def count(task: Task, problem: Problem, judged: Sequence[Judged]) -> ProblemResult:
    """Count the judged samples of one problem."""
    verdicts = [verdict for _, verdict in judged if verdict.status != "error"]
    entropies = [entropy for sample, _ in judged for entropy in sample.entropies]
    return ProblemResult(
        problem_id=problem["problem_id"],
        samples=len(verdicts),
        correct=sum(verdict.correct for verdict in verdicts),
        errors=len(judged) - len(verdicts),
        distinct=len({verdict.canonical for verdict in verdicts if verdict.correct}),
        solutions=task.count_solutions(problem),
        entropy=float(np.mean(entropies)) if entropies else 0.0,
        tokens=len(entropies),
    )
