"""Evaluating a model on a task's held-out problems."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np

import progrpo
from progrpo.common.errors import ConfigError
from progrpo.common.files import locked, write_json
from progrpo.evaluation.diversity import diversity
from progrpo.evaluation.results import Evaluation, ProblemResult
from progrpo.evaluation.store import Judged, SampleStore
from progrpo.sampling import Backend, Request, Sample, Sampling
from progrpo.sampling.equal_samples import equal_samples
from progrpo.tasks import Problem, Task
from progrpo.tasks.rewards import MAX_ERROR_SHARE, ErrorWatch
from progrpo.verify import Verdict, VerifierFailedError

__all__ = ["ENTROPY_KINDS", "Evaluation", "ProblemResult", "count", "evaluate", "evaluate_into", "open_store"]

EntropyKind = Literal["distribution", "drawn", "greedy"]
ENTROPY_KINDS: dict[EntropyKind, str] = {
    "distribution": "mean over response tokens of the entropy of the distribution that each was drawn from, nats",
    "drawn": "mean over response tokens of -log p of the token that was drawn, nats: an estimate of the entropy",
    "greedy": "mean over response tokens of the entropy of the model's distribution at temperature 1, nats",
}
"""What an evaluation's ``settings["entropy"]`` stands for; it is None where the samples came without log-probs."""

_Waiting = tuple[Problem, list[Sample], Future[list[Verdict]]]
_T = TypeVar("_T")


class Share(Protocol):
    """One process's part of an evaluation that several processes make; :class:`progrpo.common.processes.Share` is one.

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
        max_error_share: as in :class:`progrpo.tasks.rewards.Reward`.
        with_diversity: also measure :func:`progrpo.evaluation.diversity.diversity`, which takes a while.
        embedding_model: for it.
        on_progress: called with a number of responses that are judged.

    Raises:
        VerifierFailedError: the verifier failed on too large a share of the samples, or on all.
        ConfigError: n above 1 at temperature 0; and see :class:`progrpo.sampling.Backend` and
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
    settings["entropy"] = kind
    settings["warnings"] = equal_samples(judged.values(), sampling.temperature)
    evaluation = Evaluation(settings, results)
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
    if not samples:
        return None
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
