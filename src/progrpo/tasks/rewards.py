"""Verdicts as rewards: functions in TRL's form and in verl's.

=============  ==========================================================================================
TRL            ``reward_funcs=verified_reward("math", gold="solution")``, or ``task_reward(task)``
verl           ``custom_reward_function.path=pkg://progrpo.tasks.rewards``; ``verl_row`` makes rows for it
=============  ==========================================================================================

1 for a correct response, 0 for an incorrect one. Where the verifier itself failed (``error``) the response has no
reward and takes no part in its group: None in TRL, ``verifier_error`` in verl. Such failures are logged, and past a
set share of the last responses they stop the run: rewards that go missing unseen would train on whatever is left.
"""

import hashlib
import logging
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from progrpo.tasks.base import Problem, Task
from progrpo.tasks.templates import Prompt, opens_thinking, prompt_text, response_text
from progrpo.verify import Verdict, VerifierFailedError
from progrpo.verify.registry import VERIFIERS, verify
from progrpo.verify.thinking import begin_thinking, closes_unopened

logger = logging.getLogger(__name__)

MAX_ERROR_SHARE = 0.1
ERROR_WINDOW = 512
"""The share of errors is taken over so many of the newest responses,"""
FEWEST_JUDGED = 32
"""and not before there are so many: one lost worker in the first ten responses is no trend."""


KEPT_VERDICTS = 16384
"""So many of the newest verdicts are kept: a training batch's, with a long evaluation in between."""
OF_THE_RESPONSE = frozenset({"prompt", "completion", "completion_ids", "environments"})
"""What TRL has in a row, or hands to a reward, that is no column of the problem: it differs by response or by call."""


class ErrorWatch:
    """Counts the verifier's own failures among the newest responses, and stops past a share of them.

    >>> watch = ErrorWatch(max_share=0.5)
    >>> watch.see([Verdict("incorrect", "wrong")] * 32)
    >>> watch.see([Verdict("error", "no isolation to be had")] * 40)
    Traceback (most recent call last):
    progrpo.verify.verdict.VerifierFailedError: The verifier failed on 40 of the last 72 responses, more than the \
allowed share of 0.5 (max_error_share); the last time because: no isolation to be had
    """

    def __init__(self, max_share: float = MAX_ERROR_SHARE) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_error_share must be from 0 to 1, got {max_share!r}.")
        self.max_share = max_share
        self._failed: deque[bool] = deque(maxlen=ERROR_WINDOW)

    def see(self, verdicts: Sequence[Verdict]) -> None:
        """Take more verdicts into account.

        Raises:
            VerifierFailedError: the share of errors is too high.
        """
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
    """A reward function for GRPOTrainer. Its :meth:`canonical_form` is one for
    :class:`~progrpo.trl.trainer.ProGRPOTrainer`.

    Args:
        verify_batch: of dataset rows and response texts; :meth:`progrpo.tasks.Task.verify_batch` is one.
        name: what the trainer's logs call it.
        max_error_share: how many of the newest responses, as a share, the verifier may fail on.
        opens_thinking: whether the chat template ends a prompt of messages inside of a thinking part, as DeepSeek-R1's
            does: a response that was cut off in it has no answer yet. TRL hands over messages, which don't show it.
            None, the default, lets ProGRPOTrainer say so; with another trainer, pass
            :func:`progrpo.tasks.templates.template_opens_thinking` of the tokenizer. A prompt that is text tells by
            itself.

    Each response to a problem is verified once, whoever asks and however often: the reward, :meth:`canonical_form`,
    which tells solutions apart, or :meth:`verdict`, which has the reasons. Of a response that was judged, its digest
    and its verdict are kept: those of the newest ``KEPT_VERDICTS``, and of the last batch in any case.
    """

    def __init__(
        self,
        verify_batch: Callable[[Sequence[Problem], Sequence[str]], list[Verdict]],
        name: str = "verified_reward",
        max_error_share: float = MAX_ERROR_SHARE,
        opens_thinking: bool | None = None,
    ) -> None:
        self.verify_batch = verify_batch
        self.opens_thinking = opens_thinking
        self.template_opens_thinking: bool | None = None
        """What the trainer that asks for rewards says of its template: it counts where ``opens_thinking`` is None."""
        self._has_warned = False
        self.__name__ = name
        self._watch = ErrorWatch(max_error_share)
        self._verdicts: dict[bytes, Verdict] = {}
        """By problem and text, the last used at the end."""
        self._recorded: dict[bytes, Verdict] = {}
        """By :func:`_recorded_key`, which needs no more than what is recorded."""
        self._problem_digests = _ProblemDigests()

    def problem_digest(self, row: dict[str, Any]) -> str:
        """A digest of all that the verifier knows of a dataset row's problem, the gold above all, in hex: a recorded
        verdict holds for as long as this is the same."""
        return self._problem_digests(_problem(row)).hex()

    def recall(self, problem_digest: str, prompt: str, text: str, verdict: Verdict) -> None:
        """Take a verdict that was recorded before: this response to this problem is not verified again. What the
        verifier failed at is tried again.

        Args:
            problem_digest: :meth:`problem_digest` of the row that was verified. Where the gold has changed since then,
                it is another problem.
            prompt: as text.
            text: of the response, as :meth:`response_text` returned it.
            verdict: on the response.
        """
        if verdict.status != "error":
            self._recorded[_recorded_key(problem_digest, prompt, text)] = verdict

    def __call__(
        self,
        prompts: list[Any],
        completions: list[Any],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        n = len(completions)
        per_row = {name: values for name, values in columns.items() if isinstance(values, list) and len(values) == n}
        rows = [{name: values[i] for name, values in per_row.items()} for i in range(n)]
        texts = [self.response_text(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
        self._warn_of_unopened_thinking(prompts, texts)
        verdicts = self._judge(rows, prompts, texts)
        if log_metric is not None and n:
            log_metric("verifier/errors", sum(verdict.status == "error" for verdict in verdicts) / n)
        self._watch.see(verdicts)
        return [verdict.reward for verdict in verdicts]

    def canonical_form(self, row: dict[str, Any], completion: Any) -> str | None:
        """The canonical form of a correct completion, None for any other."""
        return self.verdict(row, completion).canonical

    def verdict(self, row: dict[str, Any], completion: Any) -> Verdict:
        """The verdict on a completion (text, or messages) to the problem of a dataset row, with its prompt."""
        prompt = row.get("prompt", [])
        text = self.response_text(prompt, completion)
        return self._verdicts.get(self._key(_problem(row), text)) or self._judge([row], [prompt], [text])[0]

    def _key(self, problem: Problem, text: str) -> bytes:
        return _digest(self._problem_digests(problem), _as_bytes(text))

    def _judge(self, rows: list[dict[str, Any]], prompts: list[Any], texts: list[str]) -> list[Verdict]:
        """The verdicts on responses as the verifier reads them. What is known is not verified again, but for what the
        verifier failed at."""
        problems = [_problem(row) for row in rows]
        keys = [self._key(problem, text) for problem, text in zip(problems, texts, strict=True)]
        # A collapsed policy says the same thing many times: each is verified once.
        different = {key: i for i, key in enumerate(keys)}
        before = {key: self._known(key, rows[i], prompts[i], texts[i]) for key, i in different.items()}
        known = {key: verdict for key, verdict in before.items() if verdict is not None and verdict.status != "error"}
        missing = [key for key in different if key not in known]
        if missing:
            places = [different[key] for key in missing]
            verdicts = self.verify_batch([problems[i] for i in places], [texts[i] for i in places])
            known |= zip(missing, verdicts, strict=True)
        for key, verdict in known.items():
            self._verdicts.pop(key, None)
            self._verdicts[key] = verdict
        for key in list(self._verdicts)[: -max(KEPT_VERDICTS, len(known))]:
            del self._verdicts[key]
        return [known[key] for key in keys]

    def _known(self, key: bytes, row: dict[str, Any], prompt: Any, text: str) -> Verdict | None:
        verdict = self._verdicts.get(key)
        if verdict is None and self._recorded:
            verdict = self._recorded.get(_recorded_key(self.problem_digest(row), prompt_text(prompt), text))
        return verdict

    def response_text(self, prompt: Prompt, completion: Any) -> str:
        """A completion as the verifier reads it: with the ``<think>`` that its prompt ended in."""
        template_opens = self.template_opens_thinking if self.opens_thinking is None else self.opens_thinking
        return response_text(completion, in_thinking=opens_thinking(prompt, bool(template_opens)))

    def _warn_of_unopened_thinking(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> None:
        """Where nobody said whether the template opens a thinking part, and responses show that it did."""
        nobody_said = self.opens_thinking is None and self.template_opens_thinking is None
        if (
            nobody_said
            and not self._has_warned
            and any(
                not isinstance(prompt, str) and closes_unopened(text)
                for prompt, text in zip(prompts, texts, strict=True)
            )
        ):
            self._has_warned = True
            logger.warning(
                "%s: a response ends a thinking part that it did not begin, so the chat template seems to open it. "
                "Responses that are cut off while thinking are graded as if they had answered; give the reward "
                "opens_thinking=True.",
                self.__name__,
            )


def _problem(row: dict[str, Any]) -> Problem:
    """What the verifier knows of a problem: the same for the row of a dataset and for what TRL makes of it."""
    return {name: value for name, value in row.items() if name not in OF_THE_RESPONSE}


def _recorded_key(problem_digest: str, prompt: str, text: str) -> bytes:
    return _digest(*(_as_bytes(part) for part in (problem_digest, prompt, text)))


class _ProblemDigests:
    """Digests of problems, all their columns counted, the gold or the tests above all.

    The responses of a group come one after the other, each with its problem. To compare megabytes of tests with those
    of the row before takes a tenth of the time that hashing them takes.
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[str, bytes]] = {}

    def __call__(self, problem: Problem) -> bytes:
        parts: list[bytes] = []
        texts: dict[str, tuple[str, bytes]] = {}
        for name in sorted(problem):
            value = problem[name]
            if type(value) is str:
                before = self._before.get(name)
                texts[name] = before if before and before[0] == value else (value, _digest(_as_bytes(value)))
            parts += [_as_bytes(name), texts[name][1] if name in texts else _digest(_as_bytes(value))]
        self._before = texts
        return _digest(*parts)


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _as_bytes(value: Any) -> bytes:
    """Bytes that differ where values do; a repr leaves out the middle of long arrays."""
    if type(value) is str:
        return value.encode(errors="surrogatepass")
    try:
        return pickle.dumps(value)
    except Exception:  # what can't be pickled says so in many ways
        return repr(value).encode(errors="surrogatepass")


def task_reward(task: Task, max_error_share: float = MAX_ERROR_SHARE, *, opens_thinking: bool | None = None) -> Reward:
    """The reward function of a task, for the datasets made from its problems; arguments as in :class:`Reward`.

    >>> from progrpo.tasks import Countdown
    >>> reward = task_reward(Countdown(numbers=3))
    >>> reward(["2 3 5 : 16 ;"], ["3 + 5 = 8 , 8 * 2 = 16"], problem_id=["a"], numbers=[[2, 3, 5]], target=[16])
    [1.0]
    """
    return Reward(task.verify_batch, f"{task.name}_reward", max_error_share, opens_thinking)


def verified_reward(
    verifier: str,
    *,
    gold: str = "gold",
    max_error_share: float = MAX_ERROR_SHARE,
    opens_thinking: bool | None = None,
) -> Reward:
    """A reward function for your own dataset, in TRL's form.

    Args:
        verifier: a name of :data:`progrpo.verify.registry.VERIFIERS`, such as ``"math"`` or ``"code"``.
        gold: the dataset's column that the verifier compares with.
        max_error_share, opens_thinking: see :class:`Reward`.

    Raises:
        ValueError: an unknown verifier.

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
    """A response's reward in verl's form.

    Args:
        data_source: of the row; ``"progrpo/math"`` names the verifier ``math``.
        solution_str: the response.
        ground_truth: the gold.
        extra_info: of the row; its ``"verifier"`` counts where ``data_source`` names none.
        verifier: for data of others, set by ``custom_reward_function.reward_kwargs.verifier``; it comes first.
        max_error_share: as in :class:`Reward`, of each reward worker; ``reward_kwargs.max_error_share``.
        opens_thinking: whether the prompt ended inside of a thinking part, as DeepSeek-R1's chat template has it;
            ``reward_kwargs.opens_thinking``. By default the row's ``extra_info["opens_thinking"]`` says it.
        unused: what verl hands over beside these.

    Returns:
        ``score`` (1 or 0), ``verifier_error`` (1 where the verifier failed: such a row's score means nothing and it
        must take no part in its group), ``reason``, ``canonical`` and the row's ``problem_id``.

    Raises:
        ValueError: no verifier is named, or an unknown one.
        VerifierFailedError: the verifier failed too often.

    >>> compute_score("progrpo/math", r"So \\boxed{0.5}", "1/2")["score"]
    1.0
    """
    source, _, named = data_source.partition("/")
    name = verifier or (named if source == "progrpo" else None) or (extra_info or {}).get("verifier")
    if name is None:
        raise ValueError(
            f"data_source {data_source!r} names no verifier; set custom_reward_function.reward_kwargs.verifier to one "
            f"of {', '.join(VERIFIERS)}, or write rows with progrpo.tasks.rewards.verl_row."
        )
    _check_verifier(name)
    stop = (extra_info or {}).get("stop")
    response = solution_str.split(stop, maxsplit=1)[0] if stop else solution_str
    if (extra_info or {}).get("opens_thinking", False) if opens_thinking is None else opens_thinking:
        response = begin_thinking(response)
    verdict = verify([name], [ground_truth], [response])[0]
    _verl_watch.max_share = max_error_share
    _verl_watch.see([verdict])
    return {
        "score": verdict.reward or 0.0,
        "verifier_error": float(verdict.status == "error"),
        "reason": verdict.reason,
        "canonical": verdict.canonical or "",
        "problem_id": str((extra_info or {}).get("index", "")),
    }


def verl_row(
    task: Task, problem: Problem, *, split: str = "train", template_opens_thinking: bool = False
) -> dict[str, Any]:
    """A problem as a row of verl's datasets; :func:`compute_score` verifies its responses.

    Args:
        task: of the problem.
        problem: as the task has it.
        split: noted in the row.
        template_opens_thinking: whether the chat template that verl applies ends a prompt inside of a thinking part,
            see :func:`progrpo.tasks.templates.template_opens_thinking`.

    >>> from progrpo.tasks import Countdown
    >>> task = Countdown(numbers=3, train_size=1)
    >>> row = verl_row(task, task.train_problems()[0])
    >>> row["data_source"], row["reward_model"]["style"]
    ('progrpo/countdown', 'rule')
    """
    prompt = problem["prompt"]
    verifier = problem.get("verifier", task.verifier)
    return {
        "data_source": f"progrpo/{verifier}",
        # verl knows messages only: a text is one, for a chat template that adds nothing to it.
        "prompt": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
        "ability": task.name,
        "reward_model": {"style": "rule", "ground_truth": task.gold(problem)},
        "extra_info": {
            "split": split,
            "index": problem["problem_id"],
            "verifier": verifier,
            "stop": getattr(task, "stop", None),
            # A text is a message to verl: where the template adds nothing to it, its own end counts.
            "opens_thinking": template_opens_thinking or opens_thinking(prompt),
        },
    }
