"""Verdicts as rewards: functions in TRL's form and in verl's.

=============  ==========================================================================================
TRL            ``reward_funcs=verified_reward("math", gold="solution")``, or ``task_reward(task)``
verl           ``custom_reward_function.path=pkg://progrpo.tasks.rewards``; ``verl_row`` makes rows for it
=============  ==========================================================================================

A correct response has reward 1, an incorrect one 0. If the verifier itself failed (``error``), the response has no
reward and is left out of its group: the reward is None in TRL, and ``verifier_error`` is 1 in verl. Such failures are
logged. If their share of the newest responses is too high, they stop the run, which would otherwise train on the rest.
"""

import hashlib
import logging
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from progrpo.tasks.base import Problem, Task
from progrpo.tasks.templates import Prompt, opens_thinking, response_text
from progrpo.verify import Verdict, VerifierFailedError
from progrpo.verify.registry import VERIFIERS, verify
from progrpo.verify.thinking import begin_thinking, closes_unopened

logger = logging.getLogger(__name__)

MAX_ERROR_SHARE = 0.1
ERROR_WINDOW = 512  # the newest responses, over which the share of errors is taken
FEWEST_JUDGED = 32  # one lost worker among ten responses is not a trend
KEPT_VERDICTS = 16384  # enough to keep those of a training batch during a long evaluation
# TRL's rows and calls have these besides the columns of the problem. They differ by response or by call.
NOT_OF_THE_PROBLEM = frozenset({"prompt", "completion", "completion_ids", "environments"})
LogMetric = Callable[[str, float], None]


class ErrorWatch:
    """Counts the verifier's failures among the newest responses, and raises when their share exceeds ``max_share``.

    >>> ErrorWatch(max_share=0.5).see([Verdict("error", "the worker was lost")] * 40)
    Traceback (most recent call last):
    progrpo.verify.verdict.VerifierFailedError: The verifier failed on 40 of the last 40 responses, more than the \
allowed share of 0.5 (max_error_share); the last time because: the worker was lost
    """

    def __init__(self, max_share: float = MAX_ERROR_SHARE) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_error_share must be from 0 to 1, got {max_share!r}.")
        self.max_share = max_share
        self._failed: deque[bool] = deque(maxlen=ERROR_WINDOW)

    def see(self, verdicts: Sequence[Verdict]) -> None:
        """Count more verdicts; raises VerifierFailedError if the share of errors is too high."""
        self._failed += [verdict.status == "error" for verdict in verdicts]
        reasons = [verdict.reason for verdict in verdicts if verdict.status == "error"]
        if not reasons:
            return
        logger.warning("The verifier failed on %d of %d responses: %s", len(reasons), len(verdicts), reasons[-1])
        seen, failed = len(self._failed), sum(self._failed)
        if seen >= FEWEST_JUDGED and failed > self.max_share * seen:
            raise VerifierFailedError(
                f"The verifier failed on {failed} of the last {seen} responses, more than the allowed share of "
                f"{self.max_share} (max_error_share); the last time because: {reasons[-1]}"
            )


class Reward:
    """A reward function for GRPOTrainer. :class:`~progrpo.trl.trainer.ProGRPOTrainer` also takes its
    :meth:`canonical_form`.

    Each response to a problem is verified once, even if the reward, :meth:`canonical_form` (which tells solutions
    apart) and :meth:`verdict` (which has the reasons) all ask for its verdict. The digests and verdicts of the newest
    ``KEPT_VERDICTS`` responses are kept, and at least those of the last batch.

    ``verify_batch`` gives verdicts for dataset rows and response texts, as :meth:`progrpo.tasks.Task.verify_batch`; it
    may fail on a share ``max_error_share`` of the newest responses. ``name`` is for the trainer's logs.

    ``opens_thinking`` says whether the chat template ends a prompt of messages inside a thinking part, as DeepSeek-R1's
    does: a response that was cut off there has no answer yet. Prompts that are text show this, but TRL's messages
    don't. With None, ProGRPOTrainer finds out; with another trainer, pass
    :func:`progrpo.tasks.templates.template_opens_thinking` of the tokenizer.
    """

    def __init__(
        self,
        verify_batch: Callable[[Sequence[Problem], Sequence[str]], list[Verdict]],
        name: str = "verified_reward",
        max_error_share: float = MAX_ERROR_SHARE,
        opens_thinking: bool | None = None,
    ) -> None:
        self.verify_batch, self.opens_thinking, self.__name__ = verify_batch, opens_thinking, name
        self.template_opens_thinking: bool | None = None
        """Set by ProGRPOTrainer from its template; used if ``opens_thinking`` is None."""
        self._has_warned = False
        self._watch = ErrorWatch(max_error_share)
        # The keys of both are made from the problem's digest and the text. The first is bounded: it drops the verdicts
        # that were not used for longest.
        self._verdicts: dict[bytes, Verdict] = {}
        self._recorded: dict[bytes, Verdict] = {}
        self._last_texts: dict[str, tuple[str, bytes]] = {}

    def __call__(
        self, prompts: list[Any], completions: list[Any], log_metric: LogMetric | None = None, **columns: Any
    ) -> list[float | None]:
        n = len(completions)
        per_row = {name: values for name, values in columns.items() if isinstance(values, list) and len(values) == n}
        rows = [{name: values[i] for name, values in per_row.items()} for i in range(n)]
        texts = [self.response_text(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
        self._warn_of_unopened_thinking(prompts, texts)
        verdicts = self._judge(rows, texts)
        if log_metric is not None and n:
            log_metric("verifier/errors", sum(verdict.status == "error" for verdict in verdicts) / n)
        self._watch.see(verdicts)
        return [verdict.reward for verdict in verdicts]

    def canonical_form(self, row: dict[str, Any], completion: Any) -> str | None:
        """The canonical form of a correct completion; None for any other."""
        return self.verdict(row, completion).canonical

    def verdict(self, row: dict[str, Any], completion: Any) -> Verdict:
        """The verdict on a completion (text, or messages) to the problem of a dataset row, with its prompt."""
        text = self.response_text(row.get("prompt", []), completion)
        return self._verdicts.get(_key(self.problem_digest(row), text)) or self._judge([row], [text])[0]

    def problem_digest(self, row: dict[str, Any]) -> str:
        """A digest, in hex, of everything that the verifier knows about a row's problem, such as its gold. A recorded
        verdict is valid as long as this digest stays the same."""
        problem = sorted(_problem(row).items())
        return _digest(*(part for name, value in problem for part in (_as_bytes(name), self._part(name, value)))).hex()

    def recall(self, problem_digest: str, text: str, verdict: Verdict) -> None:
        """Take over a recorded verdict, unless it is an error, so that this response is not verified again. The
        arguments are what :meth:`problem_digest`, :meth:`response_text` and :meth:`verdict` returned."""
        if verdict.status != "error":
            self._recorded[_key(problem_digest, text)] = verdict

    def response_text(self, prompt: Prompt, completion: Any) -> str:
        """A completion as the verifier reads it, with the ``<think>`` that its prompt ended in."""
        template_opens = self.template_opens_thinking if self.opens_thinking is None else self.opens_thinking
        return response_text(completion, in_thinking=opens_thinking(prompt, bool(template_opens)))

    def _judge(self, rows: list[dict[str, Any]], texts: list[str]) -> list[Verdict]:
        """The verdicts on responses. A new response is verified once, even if a collapsed policy repeats it."""
        keys = [_key(self.problem_digest(row), text) for row, text in zip(rows, texts, strict=True)]
        places = {key: i for i, key in enumerate(keys)}
        known = {key: self._verdicts.get(key) or self._recorded.get(key) for key in places}
        judged = {key: verdict for key, verdict in known.items() if verdict is not None and verdict.status != "error"}
        missing = [key for key in places if key not in judged]
        if missing:
            problems = [_problem(rows[places[key]]) for key in missing]
            verdicts = self.verify_batch(problems, [texts[places[key]] for key in missing])
            judged |= zip(missing, verdicts, strict=True)
        for key in judged:
            self._verdicts.pop(key, None)
        self._verdicts |= judged
        for key in list(self._verdicts)[: -max(KEPT_VERDICTS, len(judged))]:
            del self._verdicts[key]
        return [judged[key] for key in keys]

    def _part(self, name: str, value: Any) -> bytes:
        """The digest of a column's value. The rows of a group share their problem, and comparing megabytes of tests
        with the previous row's takes a tenth of the time of hashing them."""
        if type(value) is not str:
            return _digest(_as_bytes(value))
        if name not in self._last_texts or self._last_texts[name][0] != value:
            self._last_texts[name] = (value, _digest(_as_bytes(value)))
        return self._last_texts[name][1]

    def _warn_of_unopened_thinking(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> None:
        """Warn once if it was not set whether the template opens a thinking part, and a response shows that it does."""
        if self._has_warned or self.opens_thinking is not None or self.template_opens_thinking is not None:
            return
        pairs = zip(prompts, texts, strict=True)
        self._has_warned = any(not isinstance(prompt, str) and closes_unopened(text) for prompt, text in pairs)
        if self._has_warned:
            logger.warning(
                "%s: a response ends a thinking part that it did not begin, so the chat template seems to open it. "
                "Responses that are cut off while thinking are graded as if they had answered; give the reward "
                "opens_thinking=True.",
                self.__name__,
            )


def _problem(row: dict[str, Any]) -> Problem:
    """The columns of a row that the verifier gets. They are the same in a dataset's row and in TRL's."""
    return {name: value for name, value in row.items() if name not in NOT_OF_THE_PROBLEM}


def _key(problem_digest: str, text: str) -> bytes:
    return _digest(_as_bytes(problem_digest), _as_bytes(text))


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _as_bytes(value: Any) -> bytes:
    """Bytes that differ if the values differ; a repr would leave out the middle of long arrays."""
    if type(value) is str:
        return value.encode(errors="surrogatepass")
    try:
        return pickle.dumps(value)
    except Exception:  # values that can't be pickled raise errors of many kinds
        return repr(value).encode(errors="surrogatepass")


def task_reward(task: Task, max_error_share: float = MAX_ERROR_SHARE, *, opens_thinking: bool | None = None) -> Reward:
    """The reward function of a task, for datasets made from its problems; see :class:`Reward` for the arguments.

    >>> from progrpo.tasks import Countdown
    >>> reward = task_reward(Countdown(numbers=3))
    >>> reward(["2 3 5 : 16 ;"], ["3 + 5 = 8 , 8 * 2 = 16"], problem_id=["a"], numbers=[[2, 3, 5]], target=[16])
    [1.0]
    """
    return Reward(task.verify_batch, f"{task.name}_reward", max_error_share, opens_thinking)


def verified_reward(
    verifier: str, *, gold: str = "gold", max_error_share: float = MAX_ERROR_SHARE, opens_thinking: bool | None = None
) -> Reward:
    """A reward function for your own dataset, in TRL's form.

    ``verifier`` is a name of :data:`progrpo.verify.registry.VERIFIERS`, such as ``"math"`` or ``"code"``; raises
    ValueError if it is not. ``gold`` is the dataset's column with the golds. :class:`Reward` has the other arguments.

    >>> reward = verified_reward("math", gold="solution")
    >>> reward(["1/2 + 1/4?"] * 2, [r"It is \\boxed{0.75}.", "0.75"], solution=["3/4", "3/4"])
    [1.0, 0.0]
    """
    _check_verifier(verifier)

    def verify_rows(rows: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        missing = next((row for row in rows if gold not in row), None)
        if missing is not None:
            raise KeyError(f"the dataset has no column {gold!r} (gold=...); it has {', '.join(missing) or 'none'}.")
        return verify([verifier] * len(rows), [str(row[gold]) for row in rows], responses)

    return Reward(verify_rows, f"{verifier}_reward", max_error_share, opens_thinking)


def _check_verifier(verifier: str) -> None:
    if verifier not in VERIFIERS:
        raise ValueError(f"verifier must be one of {', '.join(VERIFIERS)}, got {verifier!r}.")


_verl_watch = ErrorWatch()


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    verifier: str | None = None,
    max_error_share: float = MAX_ERROR_SHARE,
    opens_thinking: bool | None = None,
    **unused: Any,
) -> dict[str, Any]:
    """A response's reward in verl's form; ``custom_reward_function.reward_kwargs`` sets the keyword arguments.

    The verifier is ``verifier``, else the one that ``data_source`` names (``"progrpo/math"`` names ``math``), else
    ``extra_info["verifier"]``. ``max_error_share`` is as in :class:`Reward`, for each reward worker. ``opens_thinking``
    says whether the prompt ended inside a thinking part, as with DeepSeek-R1's chat template; by default this is the
    row's ``extra_info["opens_thinking"]``. ``unused`` are verl's other arguments.

    Returns:
        ``score`` (1 or 0), ``verifier_error`` (1 if the verifier failed: then the score means nothing, and the row must
        be left out of its group), ``reason``, ``canonical`` and the row's ``problem_id``.

    Raises:
        ValueError: no verifier is named, or the named one is unknown.
        VerifierFailedError: the verifier failed too often.

    >>> compute_score("progrpo/math", r"So \\boxed{0.5}", "1/2")["score"]
    1.0
    """
    info = extra_info or {}
    source, _, named = data_source.partition("/")
    name = verifier or (named if source == "progrpo" else None) or info.get("verifier")
    if name is None:
        raise ValueError(
            f"data_source {data_source!r} names no verifier; set custom_reward_function.reward_kwargs.verifier to one "
            f"of {', '.join(VERIFIERS)}, or write rows with progrpo.tasks.rewards.verl_row."
        )
    _check_verifier(name)
    response = solution_str.split(info["stop"], maxsplit=1)[0] if info.get("stop") else solution_str
    if info.get("opens_thinking") if opens_thinking is None else opens_thinking:
        response = begin_thinking(response)
    verdict = verify([name], [ground_truth], [response])[0]
    _verl_watch.max_share = max_error_share
    _verl_watch.see([verdict])
    return {
        "score": verdict.reward or 0.0,
        "verifier_error": float(verdict.status == "error"),
        "reason": verdict.reason,
        "canonical": verdict.canonical or "",
        "problem_id": str(info.get("index", "")),
    }


def verl_row(
    task: Task, problem: Problem, *, split: str = "train", template_opens_thinking: bool = False
) -> dict[str, Any]:
    """A problem as a row of verl's datasets; :func:`compute_score` verifies its responses. For the chat template that
    verl applies, :func:`progrpo.tasks.templates.template_opens_thinking` gives the last argument.

    >>> from progrpo.tasks import Countdown
    >>> task = Countdown(numbers=3, train_size=1)
    >>> row = verl_row(task, task.train_problems()[0])
    >>> row["data_source"], row["reward_model"]["style"]
    ('progrpo/countdown', 'rule')
    """
    prompt, verifier = problem["prompt"], problem.get("verifier", task.verifier)
    return {
        "data_source": f"progrpo/{verifier}",
        # verl knows only messages: a text becomes one, and its chat template adds nothing to it.
        "prompt": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
        "ability": task.name,
        "reward_model": {"style": "rule", "ground_truth": task.gold(problem)},
        "extra_info": {
            "split": split,
            "index": problem["problem_id"],
            "verifier": verifier,
            "stop": getattr(task, "stop", None),
            "opens_thinking": template_opens_thinking or opens_thinking(prompt),
        },
    }
