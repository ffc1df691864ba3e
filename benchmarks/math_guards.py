r"""Verdicts on respelled and on altered golds: no right respelling is refused by a guard, no altered gold is accepted.

Example:
    python benchmarks/math_guards.py ../shared/data      # a folder with math500.jsonl, gsm8k_test.jsonl and so on
    python benchmarks/math_guards.py ../shared/data --only olympiadbench_math_en

Every gold is respelled in each way that applies to it (its decimal, ``x=``, ``x\in``, ``\left \right``, ``\dfrac``,
degrees, units, ``\text{}``, reordered sums and lists, infinities with their sign) and altered in each way that applies
(its sign, a number off by one, another bracket, another gold). All of them go through ``verify_math_batch``. The makers
know nothing of the verifier; an exception is listed with its reason, for it may also be the maker's.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

BLOCK = 1000
RESULTS = Path(__file__).parent / "results" / "math_guards.json"
COLUMNS = {
    "math500": "answer",
    "math_test_5000": "solution",
    "math_train_7474": "answer",
    "aime_1983_2023": "answer",
    "aime24": "answer",
    "aime25": "expected_answer",
    "hmmt_aime_2024_25": "expected_answer",
    "amc23": "answer",
    "minerva_math": "solution",
    "olympiadbench_math_en": "final_answer",
    "gsm8k_test": "answer",
    "gsm8k_train": "answer",
}
"""Where each file has its golds: a solution has it in its last box, GSM8K's answer after ``####``."""


class Case(NamedTuple):
    kind: str
    gold: str
    answer: str
    is_right: bool


# -- Golds -------------------------------------------------------------------------------------------------------------


def read_golds(folder: Path, only: Sequence[str] = ()) -> list[str]:
    """Each gold of the files once, in a fixed order."""
    golds: dict[str, None] = {}
    for name, column in COLUMNS.items():
        file = folder / f"{name}.jsonl"
        if file.exists() and (not only or name in only):
            for line in file.read_bytes().split(b"\n"):
                if line.strip():
                    golds |= dict.fromkeys(_gold(json.loads(line)[column], column))
    return list(golds)


def _gold(value: object, column: str) -> list[str]:
    from progrpo.verify import extract_answer

    if isinstance(value, list):  # OlympiadBench lists its answers
        value = ", ".join(str(part).strip().strip("$") for part in value)
    text = str(value)
    if column == "solution":
        text = extract_answer(text) or ""
    text = text.rpartition("####")[2].strip().strip("$").strip()
    return [text] if text else []


# -- What a gold is ----------------------------------------------------------------------------------------------------

_COMMAND = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|\\[A-Za-z]+")
_RELATION = re.compile(r"[=<>]|\\(?:in|le|ge|leq|geq|ne|neq|equiv|approx|to|mapsto|subset|mid)(?![A-Za-z])")
_WORDS = re.compile(r"\\text|\\mathrm|\\mbox|[A-Za-z]{3,}")
_QUOTIENT = re.compile(r"(-?)\\[dt]?frac\s*(?:\{(-?\d+)\}\s*\{(\d+)\}|(\d)(\d))|(-?)(\d+)/(\d+)", re.ASCII)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:(?:,\\!|\{,\}|\\,)\d{3})+(?:\.\d+)?", re.ASCII)
_INTERVAL = re.compile(r"\\left\s*[\[(].*\\right\s*[\])]|[\[(].*[\])]", re.DOTALL)
_INTEGER = re.compile(r"(?<![\d.A-Za-z_^{])\d+(?![\d.])|(?<=[a-z]\{)\d+(?=\})", re.ASCII)


def value(gold: str) -> Fraction | None:
    """The number that a gold is, if it is plainly one."""
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
    """What stands between the separators that are in no brackets."""
    parts, depth, last = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and character == separator:
            parts.append(text[last:i].strip())
            last = i + 1
    return [*parts, text[last:].strip()]


def members(gold: str) -> list[str]:
    r"""The members of a list: several, or none. ``1,000`` is none, and where the brackets are odd there are none."""
    inside = gold[2:-2].strip() if gold.startswith(r"\{") and gold.endswith(r"\}") else gold
    parts = [part.strip("$").strip() for part in split(inside)]
    is_list = len(parts) > 1 and all(parts) and not re.search(r",\\!|\{,\}|\\text|\\mid|:", gold)
    is_number = re.fullmatch(r"[^\d]*\d{1,3}(?:,\d{3})+\D*", gold) is not None
    return parts if is_list and not is_number and _is_balanced(gold) else []


def _is_balanced(text: str) -> bool:
    return all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}"))


def ends(gold: str) -> list[str]:
    """The two ends of one interval or pair in brackets, else none."""
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
    """The terms of a sum with their signs; one for what is no sum, or holds what can't be told."""
    if re.search(
        r"[,&%:;|]|\d[eE]-?\d|\\(?:pm|mp|text|begin|infty|cup|circ|mod|pmod|dots|ldots|cdots|sum|int|lim)", text
    ):
        return [text]
    found, depth, last = [], 0, 0
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
            found.append(text[last:i].strip())
            last = i
    return [*found, text[last:].strip()] if depth == 0 else [text]


def letters(gold: str) -> set[str]:
    return set(re.findall("[A-Za-z]", _COMMAND.sub("", gold)))


def equation(gold: str) -> list[str]:
    """The sides of an equation of two or more variables, else none."""
    parts = gold.split("=")
    is_plain = len(parts) == 2 and all(part.strip() for part in parts) and not re.search(r"[,<>;]|\\text|\\pm", gold)
    is_function = re.match(r"\s*[A-Za-z]\w*\s*(?:\^\{-1\})?\s*\(", gold) is not None or re.search("[A-Z]{2}", gold)
    return parts if is_plain and len(letters(gold)) > 1 and not is_function and len(terms(gold)) >= 1 else []


# -- Respellings that are right ----------------------------------------------------------------------------------------


def respellings(gold: str) -> Iterator[tuple[str, str]]:
    """Every way that applies to a gold, and the gold in it."""
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
    if re.search(r"(?<!left)(?<!right)[(\[]", gold) and r"\left" not in gold and not re.search(r"\\\\|sqrt\s*\[", gold):
        if _is_balanced(gold) or is_interval(gold):
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
    if match := re.fullmatch(r"([^\\A-Za-z]+|.*\}) ?\\(?:text|mbox|mathrm)\s*\{ ?[A-Za-z ]+\}(?:\^[23])?", gold):
        if value(match[1].strip()) is not None:
            yield "without its unit", match[1].strip()
    if re.search(r"\d\^\{?\\circ\}?$", gold):
        yield r"without ^\circ", re.sub(r"\^\{?\\circ\}?$", "", gold)
        yield "°", re.sub(r"\^\{?\\circ\}?$", "°", gold)
    yield "$ $", f"${gold}$"
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
    if match := re.fullmatch(r"(.+?)\s*\\cup\s*(.+)", gold, re.DOTALL):
        if r"\cup" not in match[2] and is_interval(gold):
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
    """Every way that applies to a gold, and what is wrong for that."""
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
    elif (
        number is None
        and re.fullmatch(r"[^,=<>&|%]*", gold)
        and not re.search(r"\\pm|\\text|\\in|\\begin|\\infty", gold)
    ):
        if not _WORDS.search(_without_commands(gold)) and not re.search(r"[\[\]:;]|circ", gold) and _is_balanced(gold):
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


def _is_same(gold: str, other: str) -> bool:
    """Whether two golds are, or may be, the same answer: then neither is wrong for the other."""
    first, second = value(gold), value(other)
    if first is not None and second is not None:
        return first == second
    plain = [re.sub(r"\\(?:left|right|[dt]?frac|text|mathrm|\$|!)|[\s{}$]|\\", "", text) for text in (gold, other)]
    return plain[0] == plain[1] or any(re.search(r"\\text|[A-Za-z]{3}|%|_|circ", text) for text in (gold, other))


# -- The sweep ---------------------------------------------------------------------------------------------------------


def make_cases(golds: Sequence[str], seed: int = 0) -> list[Case]:
    """Respellings and alterations of all golds."""
    others = list(golds)
    random.Random(seed).shuffle(others)
    cases: dict[Case, None] = {}
    for gold, other in zip(golds, others, strict=True):
        cases |= {Case(kind, gold, answer, True): None for kind, answer in respellings(gold)}
        cases |= {Case(kind, gold, answer, False): None for kind, answer in alterations(gold, other)}
    return list(cases)


_REASONS: list[tuple[str, str]] = [
    ("in what is no set", "guard: no set"),
    ("the unit is", "guard: unit"),
    ("the base is", "guard: base"),
    ("the answer is about", "guard: another name"),
    ("by means of itself", "guard: by means of itself"),
    ("one is a set", "guard: set or pair"),
    ("the answer lists", "guard: number of things"),
    ("per cent", "guard: per cent"),
    ("to be worked out", "guard: unfinished"),
    ("the answer has", "guard: too large"),
    ("the answer is nested", "guard: too large"),
    ("took more than", "deadline"),
    ("can't be read", "can't be read"),
    (" is not ", "not equal"),
]


def outcome(status: str, reason: str) -> str:
    """``right``, ``gold can't be read``, or what refused an answer."""
    if status != "incorrect":
        return "right" if status == "correct" else "gold can't be read"
    return next((name for part, name in _REASONS if part in reason), reason)


def sweep(cases: Sequence[Case], advance: Callable[[int], None] = lambda amount: None) -> dict[str, object]:
    """Counts of what became of the cases by kind, and the exceptions in full."""
    from progrpo.verify import verify_math_batch

    counts: dict[bool, dict[str, Counter[str]]] = {True: {}, False: {}}
    exceptions: dict[bool, list[dict[str, str]]] = {True: [], False: []}
    for start in range(0, len(cases), BLOCK):
        block = cases[start : start + BLOCK]
        verdicts = verify_math_batch([rf"\boxed{{{case.answer}}}" for case in block], [case.gold for case in block])
        for case, verdict in zip(block, verdicts, strict=True):
            what = outcome(verdict.status, verdict.reason)
            counts[case.is_right].setdefault(case.kind, Counter())[what] += 1
            if verdict.status != "error" and verdict.correct != case.is_right:
                exceptions[case.is_right].append(
                    {"kind": case.kind, "gold": case.gold, "answer": case.answer, "outcome": what}
                )
        advance(len(block))
    return {
        "respellings": _with_total(counts[True]),
        "alterations": _with_total(counts[False]),
        "respellings that were refused": exceptions[True],
        "alterations that were accepted": exceptions[False],
    }


def _with_total(counts: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {"all": dict(sum(counts.values(), Counter()))} | {kind: dict(counts[kind]) for kind in sorted(counts)}


def main() -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder with the benchmark rows as .jsonl files")
    parser.add_argument("--only", nargs="+", default=[], choices=list(COLUMNS), help="some of the files")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the counts and exceptions are written")
    args = parser.parse_args()
    golds = read_golds(args.folder, args.only)
    if not golds:
        parser.error(f"{args.folder} has none of the files {', '.join(COLUMNS)} with the ending .jsonl.")
    cases = make_cases(golds)
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("", total=len(cases))
        result = {"golds": len(golds), "cases": len(cases)} | sweep(cases, lambda n: progress.advance(bar, n))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({name: result[name] for name in ("golds", "cases", "respellings", "alterations")}, indent=1))
    print(f"The exceptions are in {args.out}.")


if __name__ == "__main__":
    main()
