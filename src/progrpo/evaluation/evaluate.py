"""Evaluating a model on a task's held-out problems."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

import progrpo
from progrpo.errors import ConfigError
from progrpo.evaluation.backends import Backend, Request, Sample, Sampling
from progrpo.evaluation.diversity import answer_entropy, distinct_at_k, diversity
from progrpo.evaluation.intervals import Estimate, mean_over_problems, mean_over_sampling
from progrpo.evaluation.majority import majority_at_k
from progrpo.evaluation.pass_at_k import pass_at_k
from progrpo.evaluation.store import Judged, SampleStore
from progrpo.files import locked, write_json
from progrpo.rewards import MAX_ERROR_SHARE, ErrorWatch
from progrpo.tasks import Problem, Task
from progrpo.verify import Verdict, VerifierFailedError

EntropyKind = Literal["distribution", "drawn", "greedy"]
ENTROPY_KINDS: dict[EntropyKind | None, str] = {
    "distribution": "mean over response tokens of the entropy of the distribution that each was drawn from, nats",
    "drawn": "mean over response tokens of -log p of the token that was drawn, nats: an estimate of the entropy",
    "greedy": "mean over response tokens of the entropy of the model's distribution at temperature 1, nats",
    None: "not known: the samples came without log-probs, or greedy ones without entropies",
}
"""What an evaluation's ``settings["entropy"]`` stands for."""

_Waiting = tuple[Problem, list[Sample], Future[list[Verdict]]]
_T = TypeVar("_T")


class Share(Protocol):
    """A part of an evaluation, where several processes make one together; :class:`progrpo.processes.Share` is one.

    Sample i of a problem has a seed of its own, so what is found does not depend on who evaluates which problem.
    """

    process: int
    """Of the processes of the evaluation, from 0; the first one writes its record."""

    def own(self, problems: Sequence[_T]) -> Sequence[_T]:
        """The problems that this process evaluates."""
        ...

    def join(self, judged: dict[str, list[Judged]]) -> dict[str, list[Judged]]:
        """What all processes found; called by each of them."""
        ...


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
    wrong_votes: list[int] | None = None
    """How many samples give each wrong answer, the most frequent first; None where a vote makes no sense."""
    no_answer: int = 0
    """Samples that give no answer, of those that have a vote."""
    diversity: dict[str, float | None] | None = None
    """See :func:`progrpo.evaluation.diversity.diversity`; None where it was not measured."""


@dataclass(frozen=True)
class Evaluation:
    """The results by problem, and what they add up to."""

    settings: dict[str, Any]
    problems: list[ProblemResult]

    @cached_property
    def judged(self) -> list[ProblemResult]:
        """The problems with a judged sample: all of them, unless the verifier failed on every sample of one."""
        return [p for p in self.problems if p.samples]

    def values(self, measure: str) -> NDArray[np.float64]:
        """A measure of each judged problem: ``pass@K``, ``maj@K``, ``distinct@K``, ``avg``, ``distinct``, ``coverage``,
        ``entropy``, ``answer_entropy``, ``truncated``, and the names of
        :func:`progrpo.evaluation.diversity.diversity`.

        ``distinct@K`` is the expected number of different correct solutions among K samples; ``coverage`` the share of
        a problem's solutions that were found, ``truncated`` the share of its samples that were cut off. NaN where it is
        not known.

        Raises:
            ValueError: K above the samples of a problem.
        """
        name, at, k = measure.partition("@")
        if at:
            return _AT_K[name](self.judged, int(k))
        if measure in self.diversity_measures:
            values = [(p.diversity or {}).get(measure) for p in self.judged]
            return np.array([np.nan if value is None else value for value in values])
        if measure == "answer_entropy":
            votes = [None if p.wrong_votes is None else [p.correct, *p.wrong_votes] for p in self.judged]
            return np.array([np.nan if counts is None else answer_entropy(counts) for counts in votes])
        if measure == "truncated":
            return np.array([p.truncated / p.samples for p in self.judged])
        if measure == "avg":
            return np.array([p.correct / p.samples for p in self.judged])
        if measure == "coverage":
            return np.array([p.distinct / p.solutions if p.solutions else np.nan for p in self.judged])
        return np.array([getattr(p, measure) for p in self.judged], dtype=np.float64)

    @cached_property
    def diversity_measures(self) -> list[str]:
        """The measures of words and meaning that were taken."""
        return list(dict.fromkeys(name for p in self.problems for name in p.diversity or {}))

    def estimate(self, measure: str) -> Estimate:
        """A measure's mean over the problems where it is known, with its 95 % interval over problems."""
        values = self.values(measure)
        return mean_over_problems(values[~np.isnan(values)])

    def sampling_estimate(self, measure: str) -> Estimate:
        """The same with its 95 % interval over sampling only; NaN where K (1 for ``avg``) is not below every n."""
        if int(measure.partition("@")[2] or 1) >= self.samples:
            return Estimate(float(self.values(measure).mean()), float("nan"), float("nan"), "sampling")
        without = [_without_one(problem) for problem in self.judged]
        values = iter(Evaluation({}, [one for of_problem in without for one, _ in of_problem]).values(measure))
        thetas = [([next(values) for _ in of_problem], [count for _, count in of_problem]) for of_problem in without]
        return mean_over_sampling(self.values(measure), thetas, [p.samples for p in self.judged])

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
        summary = {f"pass@{k}": float(self.values(f"pass@{k}").mean()) for k in ks}
        majority = self.values(f"maj@{self.samples}")
        if not np.isnan(majority).any():
            summary[f"maj@{self.samples}"] = float(majority.mean())
        summary[f"avg@{self.samples}"] = float(self.values("avg").mean())
        summary["distinct"] = float(self.values("distinct").mean())
        coverage = self.values("coverage")
        if not np.isnan(coverage).all():
            summary["coverage"] = float(np.nanmean(coverage))
        if not np.isnan(self.entropy):
            summary["entropy"] = self.entropy
        for measure in ("answer_entropy", *self.diversity_measures):
            if not np.isnan(values := self.values(measure)).all():
                summary[measure] = float(np.nanmean(values))
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


def _pass_at(problems: Sequence[ProblemResult], k: int) -> NDArray[np.float64]:
    return np.atleast_1d(pass_at_k([p.samples for p in problems], [p.correct for p in problems], k))


def _majority_at(problems: Sequence[ProblemResult], k: int) -> NDArray[np.float64]:
    _pass_at(problems, k)  # refuses a k above n
    return np.array(
        [
            np.nan if p.wrong_votes is None else _majority(p.correct, tuple(p.wrong_votes), p.no_answer)[k - 1]
            for p in problems
        ]
    )


_majority = lru_cache(maxsize=4096)(majority_at_k)


def _distinct_at(problems: Sequence[ProblemResult], k: int) -> NDArray[np.float64]:
    _pass_at(problems, k)
    return np.array(
        [np.nan if p.solution_counts is None else distinct_at_k(p.solution_counts, p.samples, k) for p in problems]
    )


_AT_K = {"pass": _pass_at, "maj": _majority_at, "distinct": _distinct_at}


def _without_one(problem: ProblemResult) -> list[tuple[ProblemResult, int]]:
    """The problem without one of its samples: each way that makes a difference, and how many samples it is for."""
    fewer = replace(problem, samples=problem.samples - 1)
    right = replace(fewer, correct=problem.correct - 1)
    if problem.solution_counts is None:
        ways = [(right, problem.correct)]
    else:
        ways = [(replace(right, solution_counts=less), n) for less, n in _one_less(problem.solution_counts)]
    unanswered = problem.samples - problem.correct
    if problem.wrong_votes is None:
        ways.append((fewer, unanswered))
    else:
        ways += [(replace(fewer, wrong_votes=less), n) for less, n in _one_less(problem.wrong_votes)]
        ways.append((replace(fewer, no_answer=problem.no_answer - 1), unanswered - sum(problem.wrong_votes)))
    return [(way, samples) for way, samples in ways if samples]


def _one_less(counts: list[int]) -> list[tuple[list[int], int]]:
    """The classes without one of their samples, and how many samples that is true of: classes of one size are alike."""
    ways = []
    for size, classes in Counter(counts).items():
        less = list(counts)
        less[less.index(size)] -= 1
        ways.append((sorted(less, reverse=True), size * classes))
    return ways


def evaluate(
    backend: Backend,
    task: Task,
    sampling: Sampling,
    *,
    n: int,
    problems: Sequence[Problem] | None = None,
    store: SampleStore | None = None,
    share: Share | None = None,
    max_error_share: float = MAX_ERROR_SHARE,
    with_diversity: bool = False,
    embedding_model: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Sample n responses to each problem, verify and count them.

    Args:
        backend: where samples come from.
        task: verifies them.
        sampling: temperature, seed and so on.
        n: responses a problem; 1 at temperature 0, where all would be the same.
        problems: the task's held-out ones by default.
        store: keeps the samples, and has those of an evaluation that was interrupted: they are not drawn again.
        share: this process's part, where several evaluate together; all of it by default. The result is of all parts.
        max_error_share: as in :class:`progrpo.rewards.Reward`.
        with_diversity: also measure :func:`progrpo.evaluation.diversity.diversity`, which takes a while.
        embedding_model: for it.
        on_progress: called with a number of responses that are judged.

    Raises:
        VerifierFailedError: the verifier failed on too large a share of the samples, or on all.
        ConfigError: n above 1 at temperature 0; and see :class:`progrpo.evaluation.backends.Backend` and
            :class:`SampleStore`.
    """
    if sampling.is_greedy and n > 1:
        raise ConfigError(f"at temperature 0 all samples of a problem are the same: n must be 1, got {n}.")
    problems = task.heldout_problems() if problems is None else problems
    own = problems if share is None else share.own(problems)
    judged = {problem["problem_id"]: list[Judged]() for problem in own}
    if store is not None:
        judged |= {problem: samples[:n] for problem, samples in store.judged(own).items()}
        if on_progress is not None:
            on_progress(sum(map(len, judged.values())))
    watch = ErrorWatch(max_error_share)
    try:
        for problem, samples, verdicts in _judged(backend, task, sampling, own, judged, n):
            known = judged[problem["problem_id"]]
            if store is None:
                known += map(Judged.of, samples, verdicts)
            else:
                known += store.append(problem, len(known), samples, verdicts)
            if on_progress is not None:
                on_progress(len(samples))
            watch.see(verdicts)
    finally:
        if store is not None:
            store.flush()
    if share is not None:
        judged = share.join(judged)
    results, kind = [], _entropy_kind(judged.values(), sampling)
    for problem in problems:
        of_problem = judged[problem["problem_id"]]
        result = count(task, problem, of_problem)
        result = result if kind else replace(result, entropy=None)
        results.append(replace(result, diversity=_diversity(of_problem, embedding_model)) if with_diversity else result)
    settings = {"task": task.name, "samples": n, "backend": backend.name} | asdict(sampling)
    evaluation = Evaluation(settings | {"entropy": kind}, results)
    if not evaluation.judged:
        raise VerifierFailedError(f"The verifier failed on all {n * len(problems)} samples.")
    return evaluation


def open_store(folder: Path, backend: Backend, task: Task, sampling: Sampling, *, writer: int = 0) -> SampleStore:
    """The store of an evaluation's samples: what was sampled otherwise, or judged by another version, is refused."""
    key = {"model": backend.model_digest, "backend": backend.name, "task": task.name, "verifier": task.verifier}
    return SampleStore(folder, key | asdict(sampling) | {"version": progrpo.__version__}, writer=writer)


def evaluate_into(
    folder: Path,
    name: str,
    backend: Backend,
    task: Task,
    sampling: Sampling,
    *,
    n: int,
    model: str,
    share: Share | None = None,
    max_error_share: float = MAX_ERROR_SHARE,
    embedding_model: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate on the task's held-out problems, and keep everything: samples in ``NAME-samples``, counts in
    ``NAME.json``. Called again, it goes on where it was interrupted; arguments as in :func:`evaluate`. Diversity is
    measured where sacrebleu is installed.

    Args:
        folder: made if it is not there.
        name: of the evaluation.
        model: what the model is called in records.

    Raises:
        ConfigError: another process is at the same evaluation, or the folder can't be written.
    """
    process = 0 if share is None else share.process
    samples = folder / f"{name}-samples"
    # Two evaluations that write at the same time would replace each other's parts; the first process holds for all.
    with locked(samples) if process == 0 else nullcontext():
        found = evaluate(
            backend,
            task,
            sampling,
            n=n,
            store=open_store(samples, backend, task, sampling, writer=process),
            share=share,
            max_error_share=max_error_share,
            with_diversity=find_spec("sacrebleu") is not None and process == 0,
            embedding_model=embedding_model,
            on_progress=on_progress,
        )
    evaluation = Evaluation({"name": name, "model": model} | found.settings, found.problems)
    if process == 0:
        write_json(folder / f"{name}.json", evaluation.to_json())
    return evaluation


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


def _entropy_kind(judged: Iterable[Sequence[Judged]], sampling: Sampling) -> EntropyKind | None:
    """What the entropies of an evaluation are; one backend gives all its samples the same."""
    samples = [sample for of_problem in judged for sample in of_problem if sample.tokens]
    if all(sample.entropy is not None for sample in samples):
        return "greedy" if sampling.is_greedy else "distribution"
    if sampling.is_greedy:  # -log p of the likeliest token estimates no entropy
        return None
    return "drawn" if all(sample.surprisal is not None for sample in samples) else None


def count(task: Task, problem: Problem, judged: Sequence[Judged]) -> ProblemResult:
    """Count the judged samples of one problem."""
    verdicts = [sample.verdict for sample in judged if sample.verdict.status != "error"]
    solutions = Counter(verdict.canonical for verdict in verdicts if verdict.correct)
    votes = task.count_votes(problem, [sample.text for sample in judged if sample.verdict.status == "incorrect"])
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
        wrong_votes=votes and votes[0],
        no_answer=votes[1] if votes else 0,
    )


def _diversity(judged: Sequence[Judged], embedding_model: str | None) -> dict[str, float | None]:
    known = [sample for sample in judged if sample.verdict.status != "error"]
    texts, correct = [sample.text for sample in known], [sample.verdict.correct for sample in known]
    return diversity(texts, correct, embedding_model=embedding_model)


def _mean_entropy(judged: Sequence[Judged]) -> float | None:
    """Over tokens, not responses."""
    entropies = [s.surprisal if s.entropy is None else s.entropy for s in judged if s.tokens]
    known = [entropy for entropy in entropies if entropy is not None]
    if not known or len(known) < len(entropies):
        return None
    return float(np.average(known, weights=[s.tokens for s in judged if s.tokens]))
