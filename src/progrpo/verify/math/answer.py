r"""Mathematical answers: math-verify, behind our own guards.

An answer goes through these steps, the cheapest first, until one of them decides:

1. finding the answer in the response (:func:`extract_answer`), and checking its length;
2. comparing both sides as text, in one spelling;
3. looking for what math-verify would overlook: units, bases, per-cent signs, sets against tuples;
4. exact arithmetic, if both are plain numbers, or lists or pairs of them;
5. looking for expressions that would explode;
6. math-verify, in a worker process, with a deadline that this process enforces.

If an answer makes the verifier fail, the verdict is ``incorrect``. It is ``error`` only if a gold cannot be read or a
worker cannot be started.
"""

import logging
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from progrpo.common.errors import ConfigError
from progrpo.verify.extract import LONGEST_ANSWER, AnswerStyle, extract_answer, last_box
from progrpo.verify.math.comparison import RELATIVE, conflict, forms, same_numbers
from progrpo.verify.math.parts import intervals, members, number, sides, values
from progrpo.verify.math.reading import Reading, are_equations, as_list, equation, like, read
from progrpo.verify.math.size import explosion
from progrpo.verify.math.text import normalise, unstyled, words
from progrpo.verify.verdict import Verdict
from progrpo.verify.workers.pool import Outcome, WorkerPool, WorkerStartError

logger = logging.getLogger(__name__)

DEADLINE_SECONDS = 5.0
WORKERS = max(1, min(8, os.cpu_count() or 1))
CACHED_VERDICTS = 100_000

Pair = tuple[str, str]
"""A gold and an answer that algebra has to compare."""


class GoldError(ValueError):
    """A gold that the verifier cannot use; its text says why."""


def check_gold(gold: str) -> str:
    r"""A gold as the verifier uses it, in a box. The parser of the verifier has to be able to read it.

    Raises:
        GoldError: it is empty, too long, or cannot be read.

    >>> check_gold(r"11\sqrt2")
    '\\boxed{11\\sqrt2}'
    """
    if reason := wrong_golds([gold])[0]:
        raise GoldError(reason)
    return rf"\boxed{{{_content(gold)}}}"


def wrong_golds(golds: Sequence[str]) -> list[str]:
    """For each gold, why it cannot be used; empty if it can. Plain numbers and words are not sent to a worker.

    >>> wrong_golds(["3/4", ""])
    ['', "the gold '' is empty"]
    """
    reasons = [_text_problem(gold) for gold in golds]
    to_read = [i for i, gold in enumerate(golds) if not reasons[i] and not _needs_no_reading(_content(gold))]
    tasks = [{"pairs": [(_latex(read(_content(golds[i]))), None, False)]} for i in to_read]
    for i, outcome in zip(to_read, _pool().run(tasks, DEADLINE_SECONDS), strict=True):
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
    """:func:`verify_math` of many responses, on all workers at once. One comparison may take so many ``seconds``.

    Raises:
        ValueError: ``answers`` and ``golds`` differ in number.
    """
    if len(answers) != len(golds):
        raise ValueError(f"answers and golds must be as many, got {len(answers)} and {len(golds)}.")
    decisions = [_decide_response(answer, gold, style) for answer, gold in zip(answers, golds, strict=True)]
    pairs = {pair: None for decision in decisions if not isinstance(decision, Verdict) for pair in decision}
    compared = _compare(list(pairs), seconds)
    verdicts = []
    for decision, gold in zip(decisions, golds, strict=True):
        parts = [decision] if isinstance(decision, Verdict) else [compared[pair] for pair in decision]
        wrong = next((verdict for verdict in parts if not verdict.correct), None)
        verdicts.append(wrong or Verdict("correct", canonical=normalise(_content(gold))))
    return verdicts


Decision = Verdict | list[Pair]
"""A verdict that is not correct, or the pairs that algebra has to find equal. Without pairs, the answer is right."""

_MISSING: dict[AnswerStyle, str] = {
    "boxed": r"the response has no balanced \boxed{} after its thinking part",
    "answer": 'the response has no "Answer:" after its thinking part',
    "last_number": "the response has no number after its thinking part",
    "any": r'the response has no \boxed{}, no "Answer:" and no number after its thinking part',
}


def _decide_response(response: str, gold: str, style: AnswerStyle) -> Decision:
    answer = extract_answer(response, style)
    if answer is None:
        return Verdict("incorrect", _MISSING[style])
    try:
        if problem := _text_problem(gold):
            return Verdict("error", problem)
        if len(answer) > LONGEST_ANSWER:
            return Verdict("incorrect", f"the answer has {len(answer)} characters, more than {LONGEST_ANSWER}")
        return _decide(answer, _content(gold))
    except (ValueError, ArithmeticError, RecursionError) as error:
        # Reading should never raise, whatever the text. If it does so anyway, the other responses must not suffer.
        logger.warning("reading the answer %r failed: %r", answer[:200], error)
        return Verdict("incorrect", f"the answer can't be read: {error!r}")


def _decide(answer: str, gold: str) -> Decision:
    answer = _without_choice(answer, gold)
    if not normalise(answer):
        return Verdict("incorrect", "the answer is empty")
    if normalise(answer) == normalise(gold):
        return []
    answer_text, gold_text = as_list(answer, gold), as_list(gold, answer)
    right = read(gold_text)
    said = like(read(answer_text), right)
    answer_words = words(answer_text)
    is_same_text = unstyled(answer_text) == unstyled(gold_text)
    if said == right or is_same_text or (answer_words is not None and answer_words == words(gold_text)):
        return []
    if reason := conflict(said, right):
        return Verdict("incorrect", reason)
    if said.body == right.body and said.is_percent == right.is_percent and not are_equations(said, right):
        return []
    if parts := _parts(said, right):
        decisions = [_decide(part, gold) for part in parts]
        wrong = next((decision for decision in decisions if isinstance(decision, Verdict)), None)
        return wrong or [pair for decision in decisions if not isinstance(decision, Verdict) for pair in decision]
    is_right = same_numbers(said, right)
    if is_right is not None:
        return [] if is_right else _not_equal(answer_text, gold_text)
    if reason := explosion(said.body):
        return Verdict("incorrect", reason)
    # A gold that would explode is compared as text alone.
    return _not_equal(answer_text, gold_text) if explosion(right.body) else [(gold_text, answer_text)]


def _parts(answer: Reading, gold: Reading) -> list[str]:
    """The sides of an equation that each have to be the gold; empty if it is compared as a whole."""
    equated = sides(answer.body)
    if len(equated) == 1 or are_equations(answer, gold):
        return []
    if answer.is_percent:
        equated[-1] += r"\%"
    if len(sides(gold.body)) == 1:
        return values(equated)
    is_chain = len(equated) > 2 and values(equated) != equated
    return [f"{equated[0]}={side}" for side in equated[1:]] if is_chain else []


_CHOICE = re.compile(
    r"(?s)(?:\\(?:text(?:bf)?|math(?:rm|bf)|bf)\s*\{)?\s*\(?([A-J])(?:\)|[.:](?=[\s\\}]))\s*\}?[\s\\~]*(.*)"
)
_MORE_CHOICES = re.compile(r"(?<![A-Za-z])(?:or|and|[A-J][).,:]|[A-J]$)(?![A-Za-z])|^,")


def _without_choice(answer: str, gold: str) -> str:
    """``(B) 12`` gives an option's letter and value: the letter counts if the gold is a letter, otherwise the value."""
    match = _CHOICE.fullmatch(answer.strip())
    if match is None or not match[2] or _MORE_CHOICES.search(match[2]):
        return answer
    is_letter = re.fullmatch("[A-Za-z]", (words(gold) or "").strip()) is not None
    return match[1] if is_letter else match[2]


def _not_equal(answer: str, gold: str) -> Verdict:
    return Verdict("incorrect", f"{answer!r} is not {gold!r}")


@lru_cache(maxsize=8192)
def _content(gold: str) -> str:
    r"""A gold without the box or the dollar signs around it, and only the last side of one such as ``0.56 = 56\%``."""
    inside = last_box(gold)
    content = (gold if inside is None else inside).strip().strip("$").strip()
    parts = content.split("=")
    says_twice = len({normalise(part) for part in parts}) == len(parts) > 1
    return parts[-1].strip() if says_twice and all(number(read(part).body) is not None for part in parts) else content


@lru_cache(maxsize=8192)
def _text_problem(gold: str) -> str:
    """What is wrong with a gold's text; empty if nothing is."""
    content = _content(gold)
    if not normalise(content):
        return f"the gold {gold!r} is empty"
    if len(content) > LONGEST_ANSWER:
        return f"the gold {gold[:60]!r}... has {len(content)} characters, more than {LONGEST_ANSWER}"
    braces = re.sub(r"\\.", "", content)
    return f"the gold {gold!r} has unbalanced braces" if braces.count("{") != braces.count("}") else ""


def _needs_no_reading(content: str) -> bool:
    """Whether a gold is compared as a number, as words, or as text alone."""
    body = read(content).body
    return number(body) is not None or words(content) is not None or bool(explosion(body))


_cached: OrderedDict[Pair, Verdict] = OrderedDict()
"""The newest verdicts, for all threads. Its operations are atomic: there is no lock that a fork could leave locked."""


@cache
def _pool() -> WorkerPool:
    """This process's workers, started when they are first needed."""
    if find_spec("math_verify") is None:
        raise ConfigError("verifying mathematics needs math-verify: pip install 'progrpo[math]'.")
    return WorkerPool(Path(__file__).with_name("worker.py"), workers=WORKERS)


def _compare(pairs: Sequence[Pair], seconds: float) -> dict[Pair, Verdict]:
    """Verdicts on pairs, from the cache or from the workers."""
    # Each pair is looked up only once, because the cache may drop a verdict while the workers are busy.
    verdicts = {pair: verdict for pair in pairs if (verdict := _cached.get(pair)) is not None}
    missing = [pair for pair in pairs if pair not in verdicts]
    if not missing:
        return verdicts
    tasks = [_task(gold, answer) for gold, answer in missing]
    try:
        outcomes = _pool().run(tasks, seconds)
    except (WorkerStartError, OSError) as error:
        return verdicts | dict.fromkeys(missing, Verdict("error", str(error)))
    for pair, outcome in zip(missing, outcomes, strict=True):
        verdicts[pair] = verdict = _verdict(*pair, outcome, seconds)
        # A comparison that missed its deadline, lost its worker or was an error may succeed next time.
        if outcome.status == "done" and verdict.status != "error":
            _cached[pair] = verdict
    while len(_cached) > CACHED_VERDICTS:
        _cached.popitem(last=False)
    return verdicts


def _task(gold: str, answer: str) -> dict[str, object]:
    """The task of a worker, see :mod:`progrpo.verify.math.worker`."""
    right = read(gold)
    said = like(read(answer), right)
    if are_equations(said, right):
        pairs = [(equation(right), equation(said), False)]
    else:
        pairs = [
            (_latex(right, gold_divisor), _latex(said, divisor), needs_large_gold)
            for divisor, gold_divisor, needs_large_gold in forms(said, right)
        ]
    return {"pairs": pairs, "relative": float(RELATIVE)}


def _latex(reading: Reading, divisor: int = 1) -> str:
    """LaTeX for math-verify: inequalities become intervals, repeating decimals fractions; list members are divided."""
    solutions = intervals(reading.body)
    latex = solutions[1] if solutions else reading.body
    if r"\overline" in latex and (repeating := number(latex)) is not None:
        latex = rf"\frac{{{repeating.numerator}}}{{{repeating.denominator}}}"
    return latex if divisor == 1 else ",".join(rf"\frac{{{member}}}{{{divisor}}}" for member in members(latex))


def _verdict(gold: str, answer: str, outcome: Outcome, seconds: float) -> Verdict:
    """The verdict on a worker's reply. A gold in words is not mathematics: its text was compared before."""
    reply = outcome.value if outcome.status == "done" else outcome.status
    if reply == "equal":
        return Verdict("correct")
    if reply == "bad gold" and not _needs_no_reading(gold):
        return Verdict("error", f"the gold {gold!r} can't be read as mathematics")
    reasons = {
        "deadline": f"comparing {answer!r} took more than {seconds:g} s",
        "lost": f"comparing {answer!r} ended its worker, twice",
        "unreadable": f"{answer!r} can't be read as mathematics",
        "too large": f"comparing {answer!r} took too much memory",
    }
    return Verdict("incorrect", reasons[reply]) if reply in reasons else _not_equal(answer, gold)
