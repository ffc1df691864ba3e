"""Evaluating a model on a task's held-out problems."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import progrpo
from progrpo.common.errors import ConfigError
from progrpo.common.files import locked, write_json
from progrpo.evaluation.diversity import diversity
from progrpo.evaluation.results import Evaluation, ProblemResult
from progrpo.evaluation.store import Judged, SampleStore
from progrpo.sampling import Backend, Request, Sample, Sampling
from progrpo.tasks import Problem, Task
from progrpo.tasks.rewards import MAX_ERROR_SHARE, ErrorWatch
from progrpo.verify import Verdict, VerifierFailedError

if TYPE_CHECKING:
    from progrpo.common.processes import Share

ENTROPY_KINDS = {
    "distribution": "mean over response tokens of the entropy of the distribution that each was drawn from, nats",
    "drawn": "mean over response tokens of -log p of the token that was drawn, nats: an estimate of the entropy",
    "greedy": "mean over response tokens of the entropy of the model's distribution at temperature 1, nats",
}
"""The meaning of an evaluation's ``settings["entropy"]``, which is None if the samples came without log-probs."""
SHORTEST_WORD = 5  # where tokens are not known, a text of fewer characters may be a single token


def evaluate(
    backend: Backend,
    task: Task,
    sampling: Sampling,
    *,
    n: int,
    problems: Sequence[Problem] | None = None,
    store: SampleStore | None = None,
    share: "Share | None" = None,
    max_error_share: float = MAX_ERROR_SHARE,
    with_diversity: bool = False,
    embedding_model: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Sample n responses to each problem (1 at temperature 0, where all would be equal), verify and count them.

    Args:
        problems: by default the task's held-out ones.
        store: keeps the samples. Those that it holds from an interrupted evaluation are not drawn again.
        share: this process's share of the problems, if several processes evaluate together; each gets the whole
            result. A sample's seed depends on its problem and index only, so any process may evaluate a problem.
        max_error_share: as in :class:`progrpo.tasks.rewards.Reward`.
        with_diversity: also measure :func:`progrpo.evaluation.diversity.diversity`, which takes a while.
        on_progress: called with the number of responses that have been judged since the last call.

    Raises:
        VerifierFailedError: the verifier failed on too large a share of the samples, or on all.
        ConfigError: n above 1 at temperature 0; or as :class:`progrpo.sampling.Backend` and :class:`SampleStore`.
    """
    if sampling.is_greedy and n > 1:
        raise ConfigError(f"at temperature 0 all samples of a problem are the same: n must be 1, got {n}.")
    problems = task.heldout_problems() if problems is None else problems
    process_problems = problems if share is None else share.own(problems)
    judged = {problem["problem_id"]: list[Judged]() for problem in process_problems}
    if store is not None:
        judged |= {problem: samples[:n] for problem, samples in store.judged(process_problems).items()}
    report, watch = on_progress or (lambda responses: None), ErrorWatch(max_error_share)
    report(sum(map(len, judged.values())))
    try:
        for problem, samples, verdicts in _sample_and_verify(backend, task, sampling, process_problems, judged, n):
            known = judged[problem["problem_id"]]
            if store is None:
                known += map(Judged.of, samples, verdicts)
            else:
                known += store.append(problem, len(known), samples, verdicts)
            report(len(samples))
            watch.see(verdicts)
    finally:
        if store is not None:
            store.flush()
    judged = judged if share is None else share.join(judged)
    evaluation = summarize(backend.name, task, sampling, n, problems, judged)
    if not evaluation.judged:
        raise VerifierFailedError(f"The verifier failed on all {n * len(problems)} samples.")
    if with_diversity:
        results = [replace(p, diversity=_diversity(judged[p.problem_id], embedding_model)) for p in evaluation.problems]
        evaluation = replace(evaluation, problems=results)
    return evaluation


def summarize(
    backend: str, task: Task, sampling: Sampling, n: int, problems: Sequence[Problem], judged: dict[str, list[Judged]]
) -> Evaluation:
    """The evaluation of judged samples, which ``judged`` holds by problem id; the other arguments are its settings."""
    results = [count(task, problem, judged[problem["problem_id"]]) for problem in problems]
    kind = _entropy_kind([sample for samples in judged.values() for sample in samples if sample.tokens], sampling)
    if kind is None:
        results = [replace(result, entropy=None) for result in results]
    settings = {"task": task.name, "samples": n, "backend": backend} | asdict(sampling)
    warnings = equal_samples(judged.values(), sampling.temperature)
    return Evaluation(settings | {"entropy": kind, "warnings": warnings}, results)


def open_store(folder: Path, backend: Backend, task: Task, sampling: Sampling, *, writer: int = 0) -> SampleStore:
    """The store of an evaluation's samples; raises ConfigError if it holds samples that were drawn with other settings
    or judged by another version."""
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
    share: "Share | None" = None,
    max_error_share: float = MAX_ERROR_SHARE,
    embedding_model: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate on the held-out problems, and keep the samples in ``NAME-samples`` and the counts in ``NAME.json``.

    Called again, it goes on where it was interrupted. Diversity is measured if sacrebleu is installed. ``model`` is the
    model's name for the record; the other arguments are those of :func:`evaluate`. Raises ConfigError as there, or if
    another process writes the same evaluation, or the folder can't be written.
    """
    process = 0 if share is None else share.process
    samples = folder / f"{name}-samples"
    # Two evaluations that write at the same time would replace each other's parts. The first process locks for all.
    with locked(samples) if process == 0 else nullcontext():
        evaluation = evaluate(
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
    evaluation = replace(evaluation, settings={"name": name, "model": model} | evaluation.settings)
    if process == 0:
        write_json(folder / f"{name}.json", evaluation.to_json())
    return evaluation


def _sample_and_verify(
    backend: Backend,
    task: Task,
    sampling: Sampling,
    problems: Sequence[Problem],
    known: dict[str, list[Judged]],
    n: int,
) -> Iterator[tuple[Problem, list[Sample], list[Verdict]]]:
    """The missing samples with their verdicts. A thread verifies one batch while the backend draws the next."""
    counts = [len(known[problem["problem_id"]]) for problem in problems]
    missing = [(problem, first) for problem, first in zip(problems, counts, strict=True) if first < n]
    requests = [Request(problem["prompt"], first, n - first) for problem, first in missing]
    waiting: deque[tuple[Problem, list[Sample], Future[list[Verdict]]]] = deque()
    failure: BaseException | None = None
    verifying = ThreadPoolExecutor(1)

    def next_verified() -> tuple[Problem, list[Sample], list[Verdict]]:
        problem, samples, verdicts = waiting.popleft()
        return problem, samples, verdicts.result()

    try:
        with closing(backend.sample(requests, sampling)) as drawn:
            try:
                for place, samples in drawn:
                    problem, texts = missing[place][0], [sample.text for sample in samples]
                    verdicts = verifying.submit(task.verify_batch, [problem] * len(texts), texts)
                    waiting.append((problem, samples, verdicts))
                    while waiting and waiting[0][2].done():
                        yield next_verified()
            except (Exception, KeyboardInterrupt) as error:
                failure = error  # the samples drawn before it are still verified and kept
        while waiting:
            yield next_verified()
        if failure is not None:
            raise failure
    finally:
        verifying.shutdown(cancel_futures=True)


def _entropy_kind(samples: Sequence[Judged], sampling: Sampling) -> str | None:
    """Which entropy the samples have. One backend draws all of them, so all have the same kind."""
    if samples and all(sample.entropy is not None for sample in samples):
        return "greedy" if sampling.is_greedy else "distribution"
    is_drawn = samples and all(sample.surprisal is not None for sample in samples)
    # At temperature 0, -log p of the likeliest token does not estimate an entropy.
    return "drawn" if is_drawn and not sampling.is_greedy else None


def equal_samples(judged: Iterable[Sequence[Judged]], temperature: float) -> list[str]:
    """A sign that a server did not sample: a warning if the samples of each prompt are all equal; else an empty list.

    Prompts with one sample do not count, nor do prompts whose answers are a single token (two with the end token),
    because such answers are often equal. At temperature 0, equal samples are expected.

    >>> from progrpo.verify import Verdict
    >>> sample = Judged("So it is 4.", Verdict("correct"), 6, None, None, None, False)
    >>> equal_samples([[sample] * 4, [sample] * 4], 1.0)[0].partition(":")[0]
    'all 4 samples of 2 of 2 prompts are equal at temperature 1'
    >>> equal_samples([[sample] * 4], 0.0)
    []
    """
    prompts = list(judged)
    longer = [samples for samples in prompts if len(samples) > 1 and not all(map(_is_one_token, samples))]
    if temperature == 0 or not longer or any(len({sample.text for sample in samples}) > 1 for samples in longer):
        return []
    counts = sorted({len(samples) for samples in longer})
    each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [
        f"all {each} samples of {len(longer)} of {len(prompts)} prompts are equal at temperature {temperature:g}: does "
        "the server ignore the temperature, or has the policy collapsed?"
    ]


def _is_one_token(sample: Judged) -> bool:
    return sample.tokens <= 2 if sample.tokens else len(sample.text.strip()) < SHORTEST_WORD


def count(task: Task, problem: Problem, judged: Sequence[Judged]) -> ProblemResult:
    """The counts of one problem's judged samples."""
    verdicts = [sample.verdict for sample in judged if sample.verdict.status != "error"]
    solutions = Counter(verdict.canonical for verdict in verdicts if verdict.correct)
    votes = task.count_votes(problem, [sample.text for sample in judged if sample.verdict.status == "incorrect"])
    sampled = [sample for sample in judged if sample.tokens]
    entropies = [sample.surprisal if sample.entropy is None else sample.entropy for sample in sampled]
    entropy = None
    if sampled and None not in entropies:  # the mean is over tokens, not over responses
        weights = [sample.tokens for sample in sampled]
        entropy = float(np.average(np.array(entropies, dtype=np.float64), weights=weights))
    return ProblemResult(
        problem_id=problem["problem_id"],
        samples=len(verdicts),
        correct=sum(verdict.correct for verdict in verdicts),
        errors=len(judged) - len(verdicts),
        distinct=len(solutions),
        solutions=task.count_solutions(problem),
        entropy=entropy,
        tokens=sum(sample.tokens for sample in judged),
        truncated=sum(sample.truncated for sample in judged),
        solution_counts=sorted(solutions.values(), reverse=True),
        wrong_votes=votes and votes[0],
        no_answer=votes[1] if votes else 0,
    )


def _diversity(judged: Sequence[Judged], embedding_model: str | None) -> dict[str, float | None]:
    samples = [sample for sample in judged if sample.verdict.status != "error"]
    correct = [sample.verdict.correct for sample in samples]
    return diversity([sample.text for sample in samples], correct, embedding_model=embedding_model)
