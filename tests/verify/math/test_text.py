"""One spelling for many: each sign, command and form."""

import unicodedata

import pytest

from progrpo.verify.extract import extract_answer
from progrpo.verify.math.parts import intervals
from progrpo.verify.math.text import normalise, unify, unstyled, words

SAME_SPELLING = [
    *((sign, "-") for sign in "−–—"),
    ("2×3", r"2\times 3"),
    ("2·3", r"2\cdot 3"),
    ("2⋅3", r"2\cdot 3"),
    *((f"1{sign}2", "1/2") for sign in "÷∕⁄"),
    ("∞", r"\infty"),
    ("x≤1", r"x\leq 1"),
    ("x≤1", r"x\leqslant 1"),
    ("x≥1", r"x\geq 1"),
    ("x≠1", r"x\neq 1"),
    ("±1", r"\pm 1"),
    ("A∪B", r"A\cup B"),
    ("A∩B", r"A\cap B"),
    ("x∈ℝ", r"x\in\mathbb{R}"),
    ("∅", r"\varnothing"),
    ("90°", r"90^{\circ}"),
    ("90°", r"90\degree"),
    ("90°", r"90\degrees"),
    ("f′", "f'"),
    ("f’", "f'"),
    ("“x”", '"x"'),
    ("x∨y", r"x\vee y"),
    ("√2", r"\sqrt2"),
    ("√(x+1)", r"\sqrt{x+1}"),
    ("f∘g", r"f\circ g"),
    ("≈5", r"\approx 5"),
    ("N≡1", r"N\equiv 1"),
    ("⟨1,2⟩", r"\langle 1,2\rangle"),
    ("x₁²", "x_1^2"),
    ("x¹²", "x^{12}"),
    ("x₁₂", "x_{12}"),
    ("2^{2}^{3}·x", r"2^{2}^{3}\cdot x"),
    (r"1+\cdots+9", r"1+\dots+9"),
    ("½", r"\frac{1}{2}"),
    ("５", "5"),
    ("٣", "3"),
    (r"\dfrac12", r"\frac{1}{2}"),
    (r"\tfrac{1}2", r"\frac{1}{2}"),
    (r"\dbinom{5}{2}", r"\binom{5}{2}"),
    (r"x \lt 1", "x<1"),
    (r"x \gt 1", "x>1"),
    (r"\lbrace 1 \rbrace", r"\{1\}"),
    (r"1,\ldots,9", r"1,\dots,9"),
    (r"3\colon 4", "3:4"),
    (r"3{:}4", "3:4"),
    (r"a \ast b", "a*b"),
    (r"\left(1\right)", "(1)"),
    (r"\bigl(1\bigr)", "(1)"),
    (r"\displaystyle 1", "1"),
    (r"\color{red}1", "1"),
    (r"1\,\text{ }", "1"),
    (r"$1$", "1"),
    (r"\(1\)", "(1)"),
    (r"\[1\]", "[1]"),
    (r"5\%", "5%"),
    ("1,234,567", "1234567"),
    ("1{,}000", "1000"),
    (r"1\,000", "1000"),
    ("1 000", "1000"),
    (r"1 \, 000", "1000"),
    (r"1 \quad \; 2", "1 2"),
    (r"1\text{ }2", "1 2"),
    (r"\displaystyle .5", ".5"),
    (r"\left.5\right.", "5"),
    (r"f^{\prime\prime}", "f''"),
    (r"f^\prime(x)", "f'(x)"),
    ("5.", "5"),
    (r"\mathrm{x}", "x"),
    (r"\text{two}", "2"),
    ("Twenty", "20"),
    ("sqrt(2)", r"\sqrt{2}"),
    ("sqrt{2}", r"\sqrt{2}"),
    ("sqrt x", r"\sqrt{x}"),
    (r"\sqrt[3]2", r"\sqrt[3]{2}"),
    ("math.sin(x)", r"\sin(x)"),
    ("np.pi", r"\pi"),
    ("1.6e-19", r"1.6\times 10^{-19}"),
    ("2E3", r"2\times 10^{3}"),
    ("x^{2}", "x^2"),
    ("a b", "a b"),
]


@pytest.mark.parametrize(("text", "other"), SAME_SPELLING)
def test_one_spelling(text: str, other: str) -> None:
    assert normalise(text) == normalise(other)
    assert normalise(normalise(text)) == normalise(text)


OTHER_SPELLING = [
    ("1,234", "1.234"),
    ("(1,234)", "(1234)"),
    ("1,23", "123"),
    ("1 2", "12"),
    ("x^{12}", "x^12"),
    (r"\sqrt{12}", r"\sqrt12"),
    ("a b", "ab"),
    (r"\$5", "5"),
    ("5.0", "50"),
    ("e3", r"10^3"),
]


@pytest.mark.parametrize(("text", "other"), OTHER_SPELLING)
def test_different_answers_keep_different_spellings(text: str, other: str) -> None:
    assert normalise(text) != normalise(other)


@pytest.mark.parametrize("letter", "πθαβφλω")
def test_greek_letters_become_latex(letter: str) -> None:
    name = unicodedata.name(letter).removeprefix("GREEK SMALL LETTER ").lower().replace("lamda", "lambda")
    assert unify(letter) == rf"\{name} "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\text{ (B) }", "b"),
        ("(b)", "b"),
        ("B", "B"),
        ("Evelyn", "evelyn"),
        ("U.S. citizens", "us citizens"),
        ("AB", "AB"),
        ("abc", "abc"),
        (r"\text{abc}", "abc"),
        (r"\text{AB}", "ab"),
        ("Anna", "anna"),
        ("$x$", "x"),
        ("3x", None),
        ("(BC)", None),
        ("", None),
    ],
)
def test_words(text: str, expected: str | None) -> None:
    assert words(text) == expected


def test_styles_and_hours() -> None:
    assert unstyled(r"3:00 \text{ p.m.}") == unstyled("3:00 PM") != unstyled("3:00 AM")
    assert unstyled(r"\textbf{a} b") == unstyled("a b")


@pytest.mark.parametrize(
    ("text", "solutions", "variable"),
    [
        ("x<1", r"(-\infty,1)", "x"),
        ("x<=1", r"(-\infty,1]", "x"),
        (r"x\le 1", r"(-\infty,1]", "x"),
        ("x>1", r"(1,\infty)", "x"),
        ("x>=1", r"[1,\infty)", "x"),
        (r"x\ge\frac{1}{2}", r"[\frac{1}{2},\infty)", "x"),
        ("1<x", r"(1,\infty)", "x"),
        ("1>y", r"(-\infty,1)", "y"),
        ("1<=x<2", "[1,2)", "x"),
        ("2>x>=1", "[1,2)", "x"),
        (r"1<x\le 2", "(1,2]", "x"),
        ("x<1 or x>2", r"(-\infty,1)\cup(2,\infty)", "x"),
        (r"x<1\lor x>2", r"(-\infty,1)\cup(2,\infty)", "x"),
        (r"x<1\text{ or }x>2", r"(-\infty,1)\cup(2,\infty)", "x"),
        ("x<1 or y>2", None, None),
        ("x<1 or 2", None, None),
        ("1<x>2", None, None),
        ("x+y<1", None, None),
        ("1<2", None, None),
        ("x=1", None, None),
        ("xor y", None, None),
    ],
)
def test_inequalities_are_intervals(text: str, solutions: str | None, variable: str | None) -> None:
    assert intervals(text) == (None if variable is None else (variable, solutions))


@pytest.mark.parametrize(
    ("response", "style", "answer"),
    [
        (r"so \boxed{1}, no: \boxed{2}", "boxed", "2"),
        (r"\boxed{\frac{1}{2}}", "boxed", r"\frac{1}{2}"),
        (r"\boxed{\{1\}}", "boxed", r"\{1\}"),
        (r"\boxed{1} and \boxed{2", "boxed", "1"),
        (r"<think>\boxed{1}</think> 2", "boxed", None),
        ("Answer: 7", "answer", "7"),
        ("the ANSWER is 7", "answer", "7"),
        ("Answer: 6\nmore\nAnswer: 7\nbye", "answer", "7"),
        ("1 + 1\n#### 18", "answer", "18"),
        ("the answer", "answer", None),
    ],
)
def test_where_the_answer_stands(response: str, style: str, answer: str | None) -> None:
    assert extract_answer(response, style) == answer  # type: ignore[arg-type]
