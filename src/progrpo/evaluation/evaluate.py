"""Evaluating a model on a task's held-out problems."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import progrpo
from progrpo.evaluation.backends import Backend, Request, Sample, Sampling
from progrpo.evaluation.intervals import Estimate, mean_over_problems
from progrpo.evaluation.pass_at_k import pass_at_k
from progrpo.evaluation.store import Judged, SampleStore
from progrpo.rewards import MAX_ERROR_SHARE, ErrorWatch
from progrpo.tasks import Problem, Task
from progrpo.verify import Verdict, VerifierFailedError

EntropyKind = Literal["distribution", "drawn"]
ENTROPY_KINDS: dict[EntropyKind | None, str] = {
    "distribution": "mean over response tokens of the entropy of the distribution that each was drawn from, nats",
    "drawn": "mean over response tokens of -log p of the token that was drawn, nats: an estimate of the entropy",
    None: "not known: the samples came without log-probs",
}
"""What an evaluation's ``settings["entropy"]`` stands for."""

_Waiting = tuple[Problem, list[Sample], Future[list[Verdict]]]


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
    entropy: float | None
    """Mean over response tokens, in nats, as :data:`ENTROPY_KINDS` says; None where log-probs are not known."""
    tokens: int
    """Response tokens, all samples together."""
    truncated: int = 0
    """Samples cut off by the budget of tokens."""
    solution_counts: list[int] | None = None
    """How many samples each different correct solution has, the most frequent first."""


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
        """Token-weighted mean entropy over all responses, in nats; NaN where it is not known."""
        known = [p for p in self.problems if p.entropy is not None]
        tokens = sum(p.tokens for p in known)
        return sum(p.tokens * (p.entropy or 0.0) for p in known) / tokens if tokens else float("nan")

    def summary(self) -> dict[str, float]:
        """The means, under the field's names."""
        ks = sorted({k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k <= self.samples})
        summary = {f"pass@{k}": float(self.pass_at(k).mean()) for k in ks}
        summary[f"avg@{self.samples}"] = float(self.values("avg").mean())
        summary["distinct"] = float(self.values("distinct").mean())
        coverage = self.values("coverage")
        if not np.isnan(coverage).all():
            summary["coverage"] = float(np.nanmean(coverage))
        if not np.isnan(self.entropy):
            summary["entropy"] = self.entropy
        summary["truncated"] = sum(p.truncated for p in self.judged) / sum(p.samples for p in self.judged)
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
    backend: Backend,
    task: Task,
    sampling: Sampling,
    *,
    n: int,
    problems: Sequence[Problem] | None = None,
    store: SampleStore | None = None,
    max_error_share: float = MAX_ERROR_SHARE,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Sample n responses to each problem, verify and count them.

    Args:
        backend: where samples come from.
        task: verifies them.
        sampling: temperature, seed and so on.
        n: responses a problem.
        problems: the task's held-out ones by default.
        store: keeps the samples, and has those of an evaluation that was interrupted: they are not drawn again.
        max_error_share: as in :class:`progrpo.rewards.Reward`.
        on_progress: called with a number of responses that are judged.

    Raises:
        VerifierFailedError: the verifier failed on too large a share of the samples, or on all.
        ConfigError: see :class:`progrpo.evaluation.backends.Backend` and :class:`SampleStore`.
    """
    problems = task.heldout_problems() if problems is None else problems
    judged = {problem["problem_id"]: list[Judged]() for problem in problems}
    if store is not None:
        judged |= {problem: samples[:n] for problem, samples in store.judged(problems).items()}
        if on_progress is not None:
            on_progress(sum(map(len, judged.values())))
    watch = ErrorWatch(max_error_share)
    try:
        for problem, samples, verdicts in _judged(backend, task, sampling, problems, judged, n):
            known = judged[problem["problem_id"]]
            if store is not None:
                store.append(problem, len(known), samples, verdicts)
            known += map(Judged.of, samples, verdicts)
            if on_progress is not None:
                on_progress(len(samples))
            watch.see(verdicts)
    finally:
        if store is not None:
            store.flush()
    results = [count(task, problem, judged[problem["problem_id"]]) for problem in problems]
    settings = {"task": task.name, "samples": n, "backend": backend.name} | asdict(sampling)
    evaluation = Evaluation(settings | {"entropy": _entropy_kind(judged.values())}, results)
    if not evaluation.judged:
        raise VerifierFailedError(f"The verifier failed on all {n * len(problems)} samples.")
    return evaluation


def open_store(folder: Path, backend: Backend, task: Task, sampling: Sampling) -> SampleStore:
    """The store of an evaluation's samples: what was sampled otherwise, or judged by another version, is refused."""
    key = {"model": backend.model_digest, "backend": backend.name, "task": task.name, "verifier": task.verifier}
    return SampleStore(folder, key | asdict(sampling) | {"version": progrpo.__version__})


def _judged(
    backend: Backend,
    task: Task,
    sampling: Sampling,
    problems: Sequence[Problem],
    known: dict[str, list[Judged]],
    n: int,
) -> Iterator[tuple[Problem, list[Sample], list[Verdict]]]:
    """The samples that are missing, with their verdicts: one batch is verified while the next is drawn."""
    missing = [problem for problem in problems if len(known[problem["problem_id"]]) < n]
    firsts = [len(known[problem["problem_id"]]) for problem in missing]
    requests = [Request(p["prompt"], first, n - first) for p, first in zip(missing, firsts, strict=True)]
    waiting: deque[_Waiting] = deque()
    failure: BaseException | None = None
    verifying = ThreadPoolExecutor(1)
    try:
        with closing(backend.sample(requests, sampling)) as drawn:
            try:
                for place, samples in drawn:
                    problem, texts = missing[place], [sample.text for sample in samples]
                    verdicts = verifying.submit(task.verify_batch, [problem] * len(texts), texts)
                    waiting.append((problem, samples, verdicts))
                    while waiting and waiting[0][2].done():
                        yield _with_verdicts(waiting.popleft())
            except (Exception, KeyboardInterrupt) as error:
                failure = error  # what was drawn before is kept
        while waiting:
            yield _with_verdicts(waiting.popleft())
        if failure is not None:
            raise failure
    finally:
        verifying.shutdown(cancel_futures=True)


def _with_verdicts(waiting: _Waiting) -> tuple[Problem, list[Sample], list[Verdict]]:
    problem, samples, verdicts = waiting
    return problem, samples, verdicts.result()


def _entropy_kind(judged: Iterable[Sequence[Judged]]) -> EntropyKind | None:
    """What the entropies of an evaluation are; one backend gives all its samples the same."""
    samples = [sample for of_problem in judged for sample in of_problem if sample.tokens]
    if all(sample.entropy is not None for sample in samples):
        return "distribution"
    return "drawn" if all(sample.surprisal is not None for sample in samples) else None


def count(task: Task, problem: Problem, judged: Sequence[Judged]) -> ProblemResult:
    """Count the judged samples of one problem."""
    verdicts = [sample.verdict for sample in judged if sample.verdict.status != "error"]
    solutions = Counter(verdict.canonical for verdict in verdicts if verdict.correct)
    return ProblemResult(
        problem_id=problem["problem_id"],
        samples=len(verdicts),
        correct=sum(verdict.correct for verdict in verdicts),
        errors=len(judged) - len(verdicts),
        distinct=len(solutions),
        solutions=task.count_solutions(problem),
        entropy=_mean_entropy(judged),
        tokens=sum(sample.tokens for sample in judged),
        truncated=sum(sample.truncated for sample in judged),
        solution_counts=sorted(solutions.values(), reverse=True),
    )


def _mean_entropy(judged: Sequence[Judged]) -> float | None:
    """Over tokens, not responses."""
    entropies = [s.surprisal if s.entropy is None else s.entropy for s in judged if s.tokens]
    known = [entropy for entropy in entropies if entropy is not None]
    if not known or len(known) < len(entropies):
        return None
    return float(np.average(known, weights=[s.tokens for s in judged if s.tokens]))
