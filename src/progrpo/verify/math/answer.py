r"""Mathematical answers: math-verify, behind our own guards.

A response's answer goes through these, cheapest first; each may decide:

1. where it stands (:func:`extract_answer`), and how long it may be;
2. text: both sides brought to one spelling, and equal;
3. exact arithmetic, where both are plain numbers, or lists or pairs of them;
4. what math-verify would overlook: units, bases, per cent signs, sets against tuples;
5. a look for expressions that would explode;
6. math-verify, in a worker process, with a deadline that this process keeps.

Whatever an answer does to the verifier is the answer's own doing and ``incorrect``. ``error`` is only a gold that can't
be read, or a worker that can't be had.
"""

import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from progrpo.common.errors import ConfigError
from progrpo.verify.extract import AnswerStyle, extract_answer, last_box
from progrpo.verify.math.guards import conflict, explosion, unfinished
from progrpo.verify.math.numbers import number, same_numbers
from progrpo.verify.math.parts import members, sides, values
from progrpo.verify.math.reading import Reading, are_equations, as_list, equation, like, read
from progrpo.verify.math.text import intervals, normalise, unstyled, words
from progrpo.verify.verdict import Verdict
from progrpo.verify.workers.pool import Outcome, WorkerPool, WorkerStartError

__all__ = [
    "AnswerStyle",
    "GoldError",
    "check_gold",
    "extract_answer",
    "verify_math",
    "verify_math_batch",
    "wrong_golds",
]

logger = logging.getLogger(__name__)

LONGEST_ANSWER = 1000
"""Characters. The longest gold of the public benchmarks has some 200."""
DEADLINE_SECONDS = 5.0
WORKERS = max(1, min(8, os.cpu_count() or 1))
CACHED_VERDICTS = 100_000


class GoldError(ValueError):
    """A gold that the verifier can't use; its text says why."""


def check_gold(gold: str) -> str:
    r"""A gold as the verifier uses it: boxed, after the real parser has read it.

    Raises:
        GoldError: it is empty, too long, or can't be read.

    >>> check_gold(r"11\sqrt2")
    '\\boxed{11\\sqrt2}'
    >>> check_gold(r"\frac{1}{")
    Traceback (most recent call last):
    progrpo.verify.math.answer.GoldError: the gold '\\frac{1}{' has unbalanced braces
    """
    reason = wrong_golds([gold])[0]
    if reason:
        raise GoldError(reason)
    return rf"\boxed{{{_content(gold)}}}"


def wrong_golds(golds: Sequence[str]) -> list[str]:
    """Why each gold can't be used, empty where it can. Plain numbers and words are not sent to a worker.

    >>> wrong_golds(["3/4", ""])
    ['', "the gold '' is empty"]
    """
    reasons = [_text_problem(gold) for gold in golds]
    to_read = [i for i, gold in enumerate(golds) if not reasons[i] and not _needs_no_reading(_content(gold))]
    outcomes = _pool().run([{"golds": _for_worker(_reading(_content(golds[i])))} for i in to_read], DEADLINE_SECONDS)
    for i, outcome in zip(to_read, outcomes, strict=True):
        if outcome.status == "deadline":
            reasons[i] = f"the gold {golds[i]!r} took more than {DEADLINE_SECONDS:g} s to read"
        elif outcome.value != "equal":
            reasons[i] = f"the gold {golds[i]!r} can't be read as mathematics"
    return reasons


def verify_math(answer: str, gold: str, *, style: AnswerStyle = "boxed") -> Verdict:
    r"""Whether a response has the right answer.

    Args:
        answer: the whole response.
        gold: the right answer in LaTeX or plain text, boxed or not.
        style: where the answer stands in the response, see :func:`extract_answer`.

    >>> verify_math(r"Half of it: \boxed{0.5}", r"\frac{1}{2}").status
    'correct'
    >>> verify_math("Half of it: 0.5", r"\frac{1}{2}").reason
    'the response has no balanced \\boxed{} after its thinking part'
    """
    return verify_math_batch([answer], [gold], style=style)[0]


def verify_math_batch(
    answers: Sequence[str], golds: Sequence[str], *, style: AnswerStyle = "boxed", seconds: float = DEADLINE_SECONDS
) -> list[Verdict]:
    """:func:`verify_math` of many responses, on all workers at once.

    Args:
        answers, golds, style: as there.
        seconds: what one comparison may take in a worker.

    Raises:
        ValueError: ``answers`` and ``golds`` differ in number.
    """
    if len(answers) != len(golds):
        raise ValueError(f"answers and golds must be as many, got {len(answers)} and {len(golds)}.")
    decided = [_verdict_on(response, gold, style) for response, gold in zip(answers, golds, strict=True)]
    pairs = {pair: None for found in decided if not isinstance(found, Verdict) for pair in found}
    compared = dict(zip(pairs, _compare(list(pairs), seconds), strict=True))
    return [
        found if isinstance(found, Verdict) else _of_all([compared[pair] for pair in found], gold)
        for found, gold in zip(decided, golds, strict=True)
    ]


def _of_all(verdicts: Sequence[Verdict], gold: str) -> Verdict:
    """The first that is not correct, or else that all are."""
    wrong = next((verdict for verdict in verdicts if not verdict.correct), None)
    return wrong or Verdict("correct", canonical=normalise(_content(gold)))


_MISSING: dict[AnswerStyle, str] = {
    "boxed": r"the response has no balanced \boxed{} after its thinking part",
    "answer": 'the response has no "Answer:" after its thinking part',
    "last_number": "the response has no number after its thinking part",
    "any": r'the response has no \boxed{}, no "Answer:" and no number after its thinking part',
}


Pairs = list[tuple[str, str]]
"""Golds and answers that have to be equal, all of them, by algebra."""


def _verdict_on(response: str, gold: str, style: AnswerStyle) -> Verdict | Pairs:
    extracted = extract_answer(response, style)
    if extracted is None:
        return Verdict("incorrect", _MISSING[style])
    try:
        return _decide(extracted, gold)
    except (ValueError, ArithmeticError, RecursionError) as error:
        # Reading must not raise, whatever the text; should it do so all the same, the other responses go on.
        logger.warning("reading the answer %r failed: %r", extracted[:200], error)
        return Verdict("incorrect", f"the answer can't be read: {error!r}")


def _decide(extracted: str, gold: str) -> Verdict | Pairs:
    """The verdict where text and exact arithmetic can tell; where algebra has to, what it has to compare."""
    problem = _text_problem(gold)
    if problem:
        return Verdict("error", problem)
    if len(extracted) > LONGEST_ANSWER:
        return Verdict("incorrect", f"the answer has {len(extracted)} characters, more than {LONGEST_ANSWER}")
    content = _content(gold)
    canonical = normalise(content)
    extracted = _without_choice(extracted, content)
    spelled = normalise(extracted)
    if not spelled:
        return Verdict("incorrect", "the answer is empty")
    if spelled == canonical:
        return Verdict("correct", canonical=canonical)
    extracted, content = as_list(extracted, content), as_list(content, extracted)
    right = _reading(content)
    said = like(read(extracted), right)
    answer_words = words(extracted)
    if (
        said == right
        or unstyled(extracted) == unstyled(content)
        or (answer_words is not None and answer_words == words(content))
    ):
        return Verdict("correct", canonical=canonical)
    overlooked = conflict(said, right)
    if overlooked:
        return Verdict("incorrect", overlooked)
    if said.body == right.body and said.is_percent == right.is_percent and not are_equations(said, right):
        return Verdict("correct", canonical=canonical)
    parts = _parts(said, right)
    if parts:
        return _on_all([_decide(part, gold) for part in parts])
    is_right = same_numbers(said, right)
    if is_right is not None:
        return Verdict("correct", canonical=canonical) if is_right else _not_equal(extracted, content)
    refused = explosion(said.body) or unfinished(said.body, right.body)
    if refused:
        return Verdict("incorrect", refused)
    # A gold that would explode can be told from others by its text alone.
    return _not_equal(extracted, content) if explosion(right.body) else [(content, extracted)]


def _parts(said: Reading, right: Reading) -> list[str]:
    """The sides of an equation that each have to be the gold; none where it is compared as a whole."""
    equated = sides(said.body)
    if len(equated) == 1 or are_equations(said, right):
        return []
    if said.is_percent:
        equated[-1] += r"\%"
    if len(sides(right.body)) == 1:
        return values(equated)
    is_chain = len(equated) > 2 and values(equated) != equated
    return [f"{equated[0]}={side}" for side in equated[1:]] if is_chain else []


def _on_all(decided: list[Verdict | Pairs]) -> Verdict | Pairs:
    """The verdict on an answer whose parts all have to be right."""
    settled = [found for found in decided if isinstance(found, Verdict)]
    wrong = next((verdict for verdict in settled if not verdict.correct), None)
    open_pairs = [pair for found in decided if not isinstance(found, Verdict) for pair in found]
    return wrong or open_pairs or settled[0]


_CHOICE = re.compile(
    r"(?:\\(?:text(?:bf)?|math(?:rm|bf)|bf)\s*\{)?\s*\(?([A-J])(?:\)|[.:](?=[\s\\}]))\s*\}?[\s\\~]*(.*)", re.DOTALL
)


_MORE_CHOICES = re.compile(r"(?<![A-Za-z])(?:or|and|[A-J][).,:]|[A-J]$)(?![A-Za-z])|^,")


def _without_choice(extracted: str, content: str) -> str:
    """``(B) 12`` says twice which choice is meant: by its letter, if the gold is one, or else by its value."""
    match = _CHOICE.fullmatch(extracted.strip())
    if match is None or not match[2] or _MORE_CHOICES.search(match[2]):
        return extracted
    is_letter = re.fullmatch("[A-Za-z]", (words(content) or "").strip()) is not None
    return match[1] if is_letter else match[2]


def _not_equal(answer: str, gold: str) -> Verdict:
    return Verdict("incorrect", f"{answer!r} is not {gold!r}")


def _compare(pairs: Sequence[tuple[str, str]], seconds: float) -> list[Verdict]:
    """Verdicts on (gold, answer) pairs from the cache, or from the workers."""
    # Looked up once: what the cache has now may have made room for others when the workers are done.
    verdicts = {pair: verdict for pair in pairs if (verdict := _cache.get(pair)) is not None}
    missing = [pair for pair in pairs if pair not in verdicts]
    if missing:
        tasks = [_task(gold, answer) for gold, answer in missing]
        try:
            outcomes = _pool().run(tasks, seconds)
        except (WorkerStartError, OSError) as error:
            verdicts |= dict.fromkeys(missing, Verdict("error", str(error)))
        else:
            fresh = {pair: _verdict(*pair, outcome, seconds) for pair, outcome in zip(missing, outcomes, strict=True)}
            verdicts |= fresh
            # What a worker had no time for, or was lost at, may go well on a machine that is less busy.
            done = {pair for pair, outcome in zip(missing, outcomes, strict=True) if outcome.status == "done"}
            _cache.put({pair: verdict for pair, verdict in fresh.items() if pair in done})
    return [verdicts[pair] for pair in pairs]


def _verdict(gold: str, answer: str, outcome: Outcome, seconds: float) -> Verdict:
    if outcome.status == "deadline":
        return Verdict("incorrect", f"comparing {answer!r} took more than {seconds:g} s")
    if outcome.status == "lost":
        return Verdict("incorrect", f"comparing {answer!r} ended its worker, twice")
    if outcome.value == "bad gold" and not _needs_no_reading(gold):
        return Verdict("error", f"the gold {gold!r} can't be read as mathematics")
    if outcome.value == "equal":
        return Verdict("correct")
    if outcome.value == "unreadable":
        return Verdict("incorrect", f"{answer!r} can't be read as mathematics")
    if outcome.value == "too large":
        return Verdict("incorrect", f"comparing {answer!r} took too much memory")
    return _not_equal(answer, gold)  # also for a gold in words, which is no mathematics and has been compared as text


class _Cache:
    """The newest verdicts, for all threads."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._verdicts: OrderedDict[tuple[str, str], Verdict] = OrderedDict()

    def get(self, pair: tuple[str, str]) -> Verdict | None:
        with self._lock:
            return self._verdicts.get(pair)

    def put(self, verdicts: dict[tuple[str, str], Verdict]) -> None:
        """Keep verdicts: not what the verifier failed at, which may go well another time."""
        with self._lock:
            self._verdicts |= {pair: v for pair, v in verdicts.items() if v.status != "error"}
            while len(self._verdicts) > self._size:
                self._verdicts.popitem(last=False)

    def after_fork(self) -> None:
        """A thread of the parent may have held the lock, in the middle of a change."""
        self._lock, self._verdicts = threading.Lock(), OrderedDict()


_cache = _Cache(CACHED_VERDICTS)


@lru_cache(maxsize=8192)
def _content(gold: str) -> str:
    r"""A gold without the box or the dollar signs around it; of ``0.56 = 56\%`` the last side."""
    inside = last_box(gold)
    content = (gold if inside is None else inside).strip().strip("$").strip()
    parts = content.split("=")
    says_twice = len({normalise(part) for part in parts}) == len(parts) > 1
    return parts[-1].strip() if says_twice and all(number(read(part).body) is not None for part in parts) else content


@lru_cache(maxsize=8192)
def _reading(content: str) -> Reading:
    return read(content)


def _task(gold: str, answer: str) -> dict[str, object]:
    """What a worker gets: per cent may be met with the sign, as a share, or without the sign."""
    right = _reading(gold)
    said = like(read(answer), right)
    if are_equations(said, right):
        return {"golds": [equation(right)], "answer": equation(said)}
    golds, answers = _for_worker(right), _for_worker(said)
    if said.is_percent and not right.is_percent:
        return {"golds": golds, "answer": answers[0], "without_percent": answers[1]}
    return {"golds": golds[:1] if said.is_percent else golds, "answer": answers[0]}


def _for_worker(reading: Reading) -> list[str]:
    """The values that an answer may stand for, in LaTeX: inequalities as intervals, per cent as a share first."""
    latex = intervals(reading.body) or reading.body
    if r"\overline" in latex and (repeating := number(latex)) is not None:
        latex = rf"\frac{{{repeating.numerator}}}{{{repeating.denominator}}}"
    if not reading.is_percent:
        return [latex]
    return [",".join(rf"\frac{{{member}}}{{100}}" for member in members(latex)), latex]


def _needs_no_reading(content: str) -> bool:
    """A gold that is compared as a number, as words, or as text alone."""
    body = _reading(content).body
    return number(body) is not None or words(content) is not None or bool(explosion(body))


@lru_cache(maxsize=8192)
def _text_problem(gold: str) -> str:
    """What is wrong with a gold's text, empty for nothing."""
    content = _content(gold)
    if not normalise(content):
        return f"the gold {gold!r} is empty"
    if len(content) > LONGEST_ANSWER:
        return f"the gold {gold[:60]!r}... has {len(content)} characters, more than {LONGEST_ANSWER}"
    braces = re.sub(r"\\.", "", content)
    return f"the gold {gold!r} has unbalanced braces" if braces.count("{") != braces.count("}") else ""


@cache
def _pool() -> WorkerPool:
    """This process's workers, started when they are first needed."""
    if find_spec("math_verify") is None:
        raise ConfigError("verifying mathematics needs math-verify: pip install 'progrpo[math]'.")
    return WorkerPool(Path(__file__).with_name("worker.py"), workers=WORKERS)


os.register_at_fork(after_in_child=_cache.after_fork)
