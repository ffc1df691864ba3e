"""Cases that text and exact arithmetic decide without algebra: lists, equations, numbers, and expressions that would
explode."""

from fractions import Fraction

import pytest

from progrpo.verify.math.comparison import conflict
from progrpo.verify.math.parts import members, number, numbers, sides, values
from progrpo.verify.math.reading import like, read
from progrpo.verify.math.size import DEEPEST, LARGEST_DETERMINANT, LONGEST_DIGITS, MOST_MEMBERS, explosion


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("+7", 7),
        ("0.50", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("1 3/4", Fraction(7, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"1\frac{3}{4}", Fraction(7, 4)),
        (r"-1\frac{3}{4}", Fraction(-7, 4)),
        (r"1\frac{-3}{4}", None),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"-0.1\overline{6}", Fraction(-1, 6)),
        (r"2.\overline{12}", Fraction(70, 33)),
        (r".\overline{3}", Fraction(1, 3)),
        ("10^8", 10**8),
        ("10^{-2}", Fraction(1, 100)),
        (r"1.6\times10^{-2}", Fraction(16, 1000)),
        (r"-3\cdot 10^{2}", -300),
        ("3*10^2", 300),
        ("7/0", None),
        ("2x", None),
        ("", None),
        ("10^{1000}", None),
        ("1" * 400, int("1" * 400)),
        ("1" * 401, None),
    ],
)
def test_plain_numbers_are_exact(text: str, value: Fraction | None) -> None:
    assert number(text) == value


def test_lists_and_equations() -> None:
    assert members("(1,2),3,{4,5},[6,7]") == ["(1,2)", "3", "{4,5}", "[6,7]"]
    assert members("1),2") == ["1)", "2"]
    assert members("") == [""]
    assert sides("x^2=2+2=4") == ["x^2", "2+2", "4"]
    assert sides("1<=x") == ["1<=x"]
    assert sides("4!=24") == ["4!", "24"]
    assert sides("x!=24") == ["x!=24"]
    for name in ("m+n", "[ABC]", r"\sin\theta", "x_1", "f(2)", "|AB|"):
        assert values([name, "5"]) == ["5"]
    for equation in ("2x", "x^2", "-x", r"\sqrt{x}", r"\ln x", "3"):
        assert values([equation, "5"]) == [equation, "5"]


def test_numbers_stand_in_one_pair_of_brackets_or_in_none() -> None:
    assert numbers("(1,0.5]") == ("(]", [1, Fraction(1, 2)])
    assert numbers("[1,2,3)") == ("[)", [1, 2, 3])
    assert numbers("2,1") == ("", [1, 2])
    for other in ("(1,x)", "(1)", "2,x", r"\{1,2\}", "(1,2),(3,4)", "(1,2", "1,2)"):
        assert numbers(other) is None


@pytest.mark.parametrize(
    ("answer", "gold", "body"),
    [
        ("y=1, x=2", "(2,1)", "(2,1)"),
        ("x=2, y=1", "(2,1)", "(2,1)"),
        ("2, 1", "(2,1)", "(2,1)"),
        ("x=1, x=2", "1,2", "1,2"),
        ("x=2, x=1", "(1,2)", "x=2,x=1"),
        ("p=2, m=1", "(2,1)", "(2,1)"),
        ("y=1, x=2", "2,1", "1,2"),
        ("x=2 or x=1", "1,2", "2,1"),
        (r"x=2 \text{ and } y=1", "(2,1)", "(2,1)"),
        ("2, 1", "[1,2]", "2,1"),
        ("2, 1", "(1,2]", "(2,1)"),
        ("2, 1", "1,2", "2,1"),
        ("2, 1", "3", "2,1"),
        ("2, 1", "(3)", "2,1"),
        ("2", "(2,1)", "2"),
        ("(2,1)", "(2,1)", "(2,1)"),
    ],
)
def test_the_answer_in_the_form_of_the_gold(answer: str, gold: str, body: str) -> None:
    assert like(read(answer), read(gold)).body == body


@pytest.mark.parametrize(
    ("answer", "gold", "reason"),
    [
        (r"5 \text{ cm}", r"5 \text{ m}", "the unit is 'cm', not 'm'"),
        (r"5 \text{ m}", r"5 \text{ m}", ""),
        ("5", r"5 \text{ m}", ""),
        (r"5 \text{ m}", "5", ""),
        ("2516_8", "2516", "the base is 8, not 10"),
        ("2516_8", "2516_9", "the base is 8, not 9"),
        ("2516_8", "2516_8", ""),
        ("2516", "2516_8", ""),
        ("y=5", "x=5", "the answer is about 'y', not 'x'"),
        ("x=5", "5", ""),
        ("x=x+1", "x+1", "the answer defines 'x' by itself"),
        ("y<3", "x<3", "the answer is about 'y', not 'x'"),
        ("x<3", "x<3", ""),
        ("(1,2)", r"\{1,2\}", "one is a set, the other an ordered pair or an interval"),
        (r"\{1,2\}", "[1,2]", "one is a set, the other an ordered pair or an interval"),
        ("(1,2)", "(1,2]", ""),
        ("16,3,1", "16,3,1,1", "the answer lists 3 things, not 4"),
        ("16,3,1,1", "16,3,1", ""),
        ("16,1,1,3", "16,3,1,1", ""),
    ],
)
def test_conflicts_that_math_verify_would_overlook(answer: str, gold: str, reason: str) -> None:
    assert conflict(read(answer), read(gold)) == reason


AT_MOST = [
    (lambda n: "9" * n, LONGEST_DIGITS - 1, "has a number of more than 300 digits"),
    (lambda n: ",".join(["1"] * (n + 1)), MOST_MEMBERS, "lists more than 200 things"),
    (lambda n: "&".join(["1"] * (n + 1)), MOST_MEMBERS, "lists more than 200 things"),
    (lambda n: r"1\pm " * n + "1", 14, "lists more than 200 things"),
    (lambda n: "(" * n + "x" + ")" * n, DEEPEST, "is nested more than 30 deep"),
    (lambda n: "{[(" * (n // 3) + "{" * (n % 3) + "x" + "}" * n, DEEPEST, "is nested more than 30 deep"),
    (lambda n: r"\sum_{k} k " * n, 2, "has more than 2 sums, products, integrals or limits"),
    (
        lambda n: r"\begin{vmatrix}" + r"\\".join("1" * n) + r"\end{vmatrix}",
        LARGEST_DETERMINANT,
        "has a determinant of more than 4 rows",
    ),
]


@pytest.mark.parametrize(("make", "most", "reason"), AT_MOST, ids=range(len(AT_MOST)))
def test_each_limit_is_exact(make, most, reason):  # type: ignore[no-untyped-def]
    assert explosion(make(most)) == ""
    assert explosion(make(most + 1)) == f"the answer {reason}"


def test_brackets_beside_each_other_are_not_deep() -> None:
    assert explosion("(x)" * (DEEPEST + 1)) == ""


def test_unfinished_answers() -> None:
    reason = "the answer leaves an integral or an infinite sum to be worked out"
    for answer in (r"\int_0^1 x^x dx", r"\oint f", r"\iint f", r"\sum_{n=1}^{\infty} \frac{1}{n}", r"\prod^{\infty} 2"):
        assert conflict(read(answer), read("0.78")) == reason
        assert conflict(read(answer), read(r"\int_0^1 f(t) dt")) == ""
    assert conflict(read(r"\sum_{n=1}^{9} n"), read("45")) == ""
    assert conflict(read("0.78"), read("0.78")) == ""
