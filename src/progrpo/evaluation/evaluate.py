"""Evaluating a model on a task's held-out problems."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progrpo.evaluation.intervals import Estimate, mean_over_problems
from progrpo.evaluation.pass_at_k import pass_at_k
from progrpo.evaluation.sample import Sample, sample
from progrpo.tasks import Problem, Task


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

    def pass_at(self, k: int) -> NDArray[np.float64]:
        """pass@k of each problem."""
        return np.atleast_1d(pass_at_k([p.samples for p in self.problems], [p.correct for p in self.problems], k))

    def values(self, measure: str) -> NDArray[np.float64]:
        """A measure of each problem: ``pass@K``, ``avg``, ``distinct``, ``coverage`` or ``entropy``.

        ``coverage`` is the share of a problem's solutions that were found; NaN where their number is not known.
        """
        if measure.startswith("pass@"):
            return self.pass_at(int(measure.removeprefix("pass@")))
        if measure == "avg":
            return np.array([p.correct / p.samples if p.samples else np.nan for p in self.problems])
        if measure == "coverage":
            return np.array([p.distinct / p.solutions if p.solutions else np.nan for p in self.problems])
        return np.array([getattr(p, measure) for p in self.problems], dtype=np.float64)

    def estimate(self, measure: str) -> Estimate:
        """A measure's mean over problems with its 95 % interval."""
        return mean_over_problems(self.values(measure))

    @property
    def samples(self) -> int:
        """n: the fewest samples that a problem has."""
        return min(p.samples for p in self.problems)

    @property
    def entropy(self) -> float:
        """Token-weighted mean entropy over all responses, in nats."""
        return float(np.average([p.entropy for p in self.problems], weights=[p.tokens for p in self.problems]))

    def summary(self) -> dict[str, float]:
        """The means, under the field's names."""
        ks = sorted({k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k <= self.samples})
        named = {f"pass@{k}": float(self.pass_at(k).mean()) for k in ks}
        return named | {
            f"avg@{self.samples}": float(self.values("avg").mean()),
            "distinct": float(self.values("distinct").mean()),
            "coverage": float(np.nanmean(self.values("coverage"))),
            "entropy": self.entropy,
            "errors": float(sum(p.errors for p in self.problems)),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``evaluations/*.json`` of a run folder."""
        coverage = None if any(p.solutions is None for p in self.problems) else "coverage"
        measures = [f"pass@{k}" for k in range(1, self.samples + 1)] + ["distinct", *([coverage] if coverage else [])]
        return {
            "settings": self.settings,
            "summary": {name: value for name, value in self.summary().items() if not np.isnan(value)},
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
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Evaluation, list[list[Sample]]]:
    """Sample n responses to each problem (the held-out ones by default), verify and count them.

    Returns the counts and the samples themselves. Arguments as in :func:`progrpo.evaluation.sample.sample`.
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
    settings = {
        "task": task.name,
        "samples": n,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    return Evaluation(settings, [count(task, p, s) for p, s in zip(problems, samples, strict=True)]), samples


def count(task: Task, problem: Problem, samples: Sequence[Sample]) -> ProblemResult:
    """Verify the samples of one problem and count them."""
    verdicts = [task.verify(problem, s.text) for s in samples]
    judged = [verdict for verdict in verdicts if verdict.status != "error"]
    entropies = [entropy for s in samples for entropy in s.entropies]
    return ProblemResult(
        problem_id=problem["problem_id"],
        samples=len(judged),
        correct=sum(verdict.correct for verdict in judged),
        errors=len(verdicts) - len(judged),
        distinct=len({verdict.canonical for verdict in judged if verdict.correct}),
        solutions=task.count_solutions(problem),
        entropy=float(np.mean(entropies)) if entropies else 0.0,
        tokens=len(entropies),
    )
