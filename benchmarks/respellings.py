r"""Golds respelled in ways that are right, and altered in ways that are wrong; benchmarks/math_guards.py verifies them.

This code does not use the verifier. It decides from a gold's text what the gold is, and leaves out a respelling if it
can't decide.
"""

import random
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple


class Case(NamedTuple):
    kind: str
    gold: str
    answer: str
    is_right: bool


def make_cases(golds: Sequence[str], seed: int = 0) -> list[Case]:
    """Respellings and alterations of all golds."""
    others = list(golds)
    random.Random(seed).shuffle(others)
    cases: dict[Case, None] = {}
    for gold, other in zip(golds, others, strict=True):
        cases |= {Case(kind, gold, answer, True): None for kind, answer in respellings(gold)}
        cases |= {Case(kind, gold, answer, False): None for kind, answer in alterations(gold, other)}
    return list(cases)


# -- The kinds of golds ------------------------------------------------------------------------------------------------

_COMMAND = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|\\[A-Za-z]+")
_RELATION = re.compile(r"[=<>]|\\(?:in|le|ge|leq|geq|ne|neq|equiv|approx|to|mapsto|subset|mid)(?![A-Za-z])")
_WORDS = re.compile(r"\\text|\\mathrm|\\mbox|[A-Za-z]{3,}")
_QUOTIENT = re.compile(r"(-?)\\[dt]?frac\s*(?:\{(-?\d+)\}\s*\{(\d+)\}|(\d)(\d))|(-?)(\d+)/(\d+)", re.ASCII)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:(?:,\\!|\{,\}|\\,)\d{3})+(?:\.\d+)?", re.ASCII)
_INTERVAL = re.compile(r"\\left\s*[\[(].*\\right\s*[\])]|[\[(].*[\])]", re.DOTALL)
_INTEGER = re.compile(r"(?<![\d.A-Za-z_^{])\d+(?![\d.])|(?<=[a-z]\{)\d+(?=\})", re.ASCII)


def value(gold: str) -> Fraction | None:
    """The value of a gold that is plainly a number; None for any other."""
    if _THOUSANDS.fullmatch(gold):
        gold = re.sub(r"[^\d.-]", "", gold)
    if re.fullmatch(r"-?(?:\d+\.?\d*|\.\d+)", gold, re.ASCII):
        return Fraction(gold)
    if match := _QUOTIENT.fullmatch(gold):
        sign, *parts = [part for part in match.groups() if part is not None]
        numerator, denominator = map(int, parts)
        return None if denominator == 0 else Fraction(-numerator if sign else numerator, denominator)
    return None


def split(text: str, separator: str = ",") -> list[str]:
    """The parts between the separators outside of brackets."""
    parts, depth, last = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and character == separator:
            parts.append(text[last:i].strip())
            last = i + 1
    return [*parts, text[last:].strip()]


def members(gold: str) -> list[str]:
    r"""The members of a list, or none. ``1,000`` is not a list, nor is a gold with unbalanced brackets."""
    inside = gold[2:-2].strip() if gold.startswith(r"\{") and gold.endswith(r"\}") else gold
    parts = [part.strip("$").strip() for part in split(inside)]
    is_list = len(parts) > 1 and all(parts) and not re.search(r",\s*\\!|\{,\}|\\text|\\mid|:", gold)
    is_number = re.fullmatch(r"[^\d]*\d{1,3}(?:,\d{3})+\D*", gold) is not None
    return parts if is_list and not is_number and _is_balanced(gold) else []


def _is_balanced(text: str) -> bool:
    return all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}"))


def ends(gold: str) -> list[str]:
    """The brackets and the two ends of one interval or pair; empty for anything else."""
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])\s*", "", gold).strip()
    if not re.fullmatch(r"[\[(].*[\])]", text, re.DOTALL) or len(split(text)) > 1:
        return []
    parts = split(text[1:-1])
    return [text[0], *parts, text[-1]] if len(parts) == 2 and all(parts) else []


def is_interval(gold: str) -> bool:
    r"""Whether a gold can't be a pair: it has ``\infty``, ``\cup`` or a square bracket."""
    is_bracketed = _INTERVAL.fullmatch(gold) is not None and len(members(gold)) == 0 and "," in gold
    return is_bracketed and re.search(r"\\infty|\\cup|\[|\](?!\{)", gold) is not None and "sqrt[" not in gold


def terms(text: str) -> list[str]:
    """The terms of a sum with their signs; the whole text if it is not a sum, or if this can't be decided."""
    if re.search(
        r"[,&%:;|$]|\.$|\d[eE]-?\d|\\(?:pm|mp|text|begin|infty|cup|circ|mod|pmod|dots|ldots|cdots|sum|int|lim)", text
    ):
        return [text]
    terms, depth, last = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        before = text[:i].rstrip()
        if (
            depth == 0
            and character in "+-"
            and before
            and before[-1] not in "+-*/^_=("
            and not before.endswith("times")
        ):
            terms.append(text[last:i].strip())
            last = i
    return [*terms, text[last:].strip()] if depth == 0 else [text]


def letters(gold: str) -> set[str]:
    return set(re.findall("[A-Za-z]", _COMMAND.sub("", gold)))


def equation(gold: str) -> list[str]:
    """The sides of an equation in two or more variables; empty for anything else."""
    parts = gold.split("=")
    is_plain = len(parts) == 2 and all(part.strip() for part in parts) and not re.search(r"[,<>;]|\\text|\\pm", gold)
    is_function = re.match(r"\s*[A-Za-z]\w*\s*(?:\^\{-1\})?\s*\(", gold) is not None or re.search("[A-Z]{2}", gold)
    return parts if is_plain and len({letter.lower() for letter in letters(gold)}) > 1 and not is_function else []


# -- Respellings that are right ----------------------------------------------------------------------------------------


def respellings(gold: str) -> Iterator[tuple[str, str]]:
    """Every respelling that applies to a gold, by its kind."""
    yield "as it is", gold
    for make in (_plain_number, _per_cent, _set_or_value, _typography, _order, _infinity, _equations):
        for kind, answer in make(gold):
            if answer != gold:
                yield kind, answer


def _plain_number(gold: str) -> Iterator[tuple[str, str]]:
    number = value(gold)
    if number is None:
        return
    if number.denominator > 1:
        decimal = f"{float(number):.12g}"
        if "e" not in decimal:
            yield "decimal", decimal
        sign = "-" if number < 0 else ""
        yield "fraction", rf"{sign}\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"
        yield "a/b", f"{number.numerator}/{number.denominator}"
    elif abs(number) >= 1000:
        for kind, comma in [("1,000", ","), ("1{,}000", "{,}"), (r"1,\!000", r",\!"), (r"1\,000", r"\,")]:
            yield kind, f"{number.numerator:,}".replace(",", comma)
    yield r"with \text{ cm}", rf"{gold} \text{{ cm}}"
    yield r"with ^\circ", rf"{gold}^\circ"
    yield r"with \$", rf"\${gold}"


def _per_cent(gold: str) -> Iterator[tuple[str, str]]:
    number = value(re.sub(r"\s*\\?%$", "", gold))
    if number is None:
        return
    if gold.endswith("%"):
        yield "without %", re.sub(r"\s*\\?%$", "", gold)
        yield "share of %", f"{float(number / 100):.12g}"
        yield "percent", re.sub(r"\s*\\?%$", " percent", gold)
    elif number >= 1:
        yield "with %", rf"{gold}\%"
    else:
        yield "as %", rf"{float(number * 100):.12g}\%"


def _set_or_value(gold: str) -> Iterator[tuple[str, str]]:
    free = next((name for name in "xyzwnkt" if name not in {letter.lower() for letter in letters(gold)}), None)
    if free and not _RELATION.search(gold) and not _WORDS.search(_without_commands(gold)) and not members(gold):
        yield "x=", f"{free}={gold}"
    if free and is_interval(gold):
        yield r"x\in", rf"{free}\in {gold}"
    if gold.startswith(r"\{") and gold.endswith(r"\}") and free and _is_balanced(gold):
        yield r"x\in", rf"{free} \in {gold}"


def _without_commands(text: str) -> str:
    return re.sub(r"\\(?!text|mathrm|mbox)[A-Za-z]+", " ", text)


def _typography(gold: str) -> Iterator[tuple[str, str]]:
    is_bracketed = re.search(r"[(\[]", gold) and not re.search(r"\\left|\\\\|sqrt\s*\[", gold)
    if is_bracketed and (_is_balanced(gold) or is_interval(gold)):
        yield r"\left \right", re.sub(r"([)\]])", r"\\right\1", re.sub(r"([(\[])", r"\\left\1", gold))
    if r"\left" in gold:
        yield r"no \left \right", re.sub(r"\\(?:left|right)(?![A-Za-z])\s*(?![.|\\])", "", gold)
    if re.search(r"\\frac(?![A-Za-z])", gold):
        yield r"\dfrac", re.sub(r"\\frac(?![A-Za-z])", r"\\dfrac", gold)
        yield r"\tfrac", re.sub(r"\\frac(?![A-Za-z])", r"\\tfrac", gold)
    if value(gold) is not None or re.fullmatch("[A-Za-z]{4,}", gold):
        yield r"\text{}", rf"\text{{{gold}}}"
        yield r"\mathrm{}", rf"\mathrm{{{gold}}}"
    if match := re.fullmatch(r"\\text\s*\{([^{}]*)\}", gold):
        yield r"no \text{}", match[1].strip()
    match = re.fullmatch(r"([^\\A-Za-z]+|.*\}) ?\\(?:text|mbox|mathrm)\s*\{ ?[A-Za-z ]+\}(?:\^[23])?", gold)
    if match and value(match[1].strip()) is not None:
        yield "without its unit", match[1].strip()
    if re.search(r"\d\^\{?\\circ\}?$", gold):
        yield r"without ^\circ", re.sub(r"\^\{?\\circ\}?$", "", gold)
        yield "°", re.sub(r"\^\{?\\circ\}?$", "°", gold)
    yield "$ $", f"${gold}$"
    if not re.search(r"\.\$?$", gold):
        yield "period", f"{gold}."
    if "," in gold and not re.search(r",\\!|\{,\}|\\text|\d,\d{3}(?!\d)", gold):
        yield "blanks after commas", re.sub(r",\s*", ", ", gold)
        yield "no blanks after commas", re.sub(r",\s*", ",", gold) if not re.search(r"\d,\s*\d{3}", gold) else gold


def _order(gold: str) -> Iterator[tuple[str, str]]:
    parts = terms(gold)
    if len(parts) > 1 and not _RELATION.search(gold) and not _WORDS.search(_without_commands(gold)):
        yield "reordered sum", _sum([*parts[1:], parts[0]])
    listed = members(gold)
    if listed and not any(_RELATION.search(part) for part in listed):
        yield "reordered list", ", ".join([*listed[1:], listed[0]])
        yield "list with blanks", ", ".join(listed)
        yield "list without blanks", ",".join(listed)
        if len(listed) == len(set(listed)):
            yield "list in braces", rf"\{{{', '.join(listed)}\}}"
        if len(listed) == 2:
            yield "list with and", rf"{listed[0]} \text{{ and }} {listed[1]}"
            yield "list with or", rf"{listed[0]} \text{{ or }} {listed[1]}"
    match = re.fullmatch(r"(.+)\s*\\cup\s*(.+)", gold, re.DOTALL)
    if match and is_interval(gold):
        yield "reordered union", rf"{match[2]}\cup {match[1]}"


def _sum(parts: list[str]) -> str:
    joined = "".join(part if part.startswith(("+", "-")) else f"+{part}" for part in parts)
    return joined.removeprefix("+")


def _infinity(gold: str) -> Iterator[tuple[str, str]]:
    if r"\infty" in gold:
        yield r"+\infty", re.sub(r"(?<![-+\w])(?<![-+] )\\infty", r"+\\infty", gold)
        yield "∞", re.sub(r"\\infty(?![A-Za-z])", "∞", gold)
        yield r"+\infty, x\in", r"x\in " + re.sub(r"(?<![-+\w])(?<![-+] )\\infty", r"+\\infty", gold)
        if "+" not in gold and re.search(r"\\[dt]?frac\s*1\s*2|\{1\}\{2\}", gold):
            yield "decimal ends", re.sub(r"\\[dt]?frac\s*(?:1\s*2|\{1\}\{2\})", "0.5", gold)


def _equations(gold: str) -> Iterator[tuple[str, str]]:
    sides = equation(gold)
    if not sides:
        return
    left, right = (side.strip() for side in sides)
    yield "sides swapped", f"{right}={left}"
    yield "all on one side", f"{left}-({right})=0"
    yield "doubled", f"2({left})=2({right})"
    first = terms(left)
    if len(first) > 1 and not re.search(r"\\pm|\|", gold):
        moved = _sum(first[1:])
        yield "a term moved over", f"{first[0]}={right}-({moved})"


# -- Alterations, which are wrong --------------------------------------------------------------------------------------


def alterations(gold: str, other: str) -> Iterator[tuple[str, str]]:
    """Every alteration that applies to a gold, by its kind."""
    for kind, answer in _altered(gold):
        if answer != gold:
            yield kind, answer
    if not _is_same(gold, other):
        yield "another gold", other


def _altered(gold: str) -> Iterator[tuple[str, str]]:
    number, listed, pair = value(gold), members(gold), ends(gold)
    if number:
        yield "sign", gold.removeprefix("-") if gold.startswith("-") else f"-{gold}"
        yield "hundredth", f"{float(number / 100):.12g}"
        yield "hundredfold", f"{float(number * 100):.12g}"
        if abs(number) < 1:
            yield "% of a share", rf"{gold}\%"
    elif number is None and _is_one_expression(gold):
        yield "sign", f"-({gold})"
    integers = list(_INTEGER.finditer(gold))
    if integers and not re.search(r"\\\\\s*\[|\\text|\\color|0\s*[a-z\\]", gold):
        for kind, match in [("first number off by one", integers[0]), ("last number off by one", integers[-1])]:
            yield kind, f"{gold[: match.start()]}{int(match[0]) + 1}{gold[match.end() :]}"
    if is_interval(gold):
        yield "another first bracket", re.sub(r"[\[(]", lambda m: "(" if m[0] == "[" else "[", gold, count=1)
        yield "another last bracket", gold[:-1] + ("]" if gold[-1] == ")" else ")")
        yield "infinity's sign", re.sub(r"(?<!-)\\infty", r"-\\infty", gold, count=1)
    if pair and not is_interval(gold) and pair[1] != pair[2]:
        yield "pair swapped", f"{pair[0]}{pair[2]},{pair[1]}{pair[3]}"
        yield "pair as a set", rf"\{{{pair[1]},{pair[2]}\}}"
    if listed and len(listed) == len(set(listed)):
        yield "one fewer", ", ".join(listed[1:])
        yield "one more", ", ".join([*listed, "7919"])
        if all(re.fullmatch(r"\d+", part) for part in listed):
            yield "list as one number", "".join(listed)
    if sides := equation(gold):
        yield "equation off by one", f"{sides[0]}={sides[1]}+1"
        yield "identity", "5=5"
        yield "identity of the left side", f"{sides[0]}={sides[0]}"


def _is_one_expression(gold: str) -> bool:
    """Whether a gold is an expression that differs from its negative: it has no list, word, relation, ± or ∞."""
    is_plain = re.search(r"[,=<>&|%\[\]:;]|\\(?:pm|text|in|begin|infty|circ)|circ", gold) is None
    return is_plain and _is_balanced(gold) and not _WORDS.search(_without_commands(gold))


def _is_same(gold: str, other: str) -> bool:
    """Whether two golds are, or may be, the same answer. Then neither is a wrong answer for the other."""
    first, second = value(gold), value(other)
    if first is not None and second is not None:
        return first == second
    plain = [re.sub(r"\\(?:left|right|[dt]?frac|text|mathrm|\$|!)|[\s{}$]|\\", "", text) for text in (gold, other)]
    return plain[0] == plain[1] or any(re.search(r"\\text|[A-Za-z]{3}|%|_|circ", text) for text in (gold, other))
