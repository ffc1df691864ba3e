"""The bounds on the size of an answer, compared with the real sizes, and the time for any text."""

import math
import random
import time

import pytest

from progrpo.verify.math.size import MOST_DIGITS, TooLargeError, explosion, size

# Each text with its value, which the bound must not be below.
NUMBERS = [
    ("2^{2016}", 2**2016),
    ("2^{2^{10}}", 2**1024),
    ("2^2^2^2", 2**16),
    ("100!", math.factorial(100)),
    ("3!!", math.factorial(6)),
    ("(2+3)^{100}", 5**100),
    (r"2^{10}\cdot 3^{20}", 2**10 * 3**20),
    (r"\binom{100}{50}", math.comb(100, 50)),
    (r"\Gamma(50)", math.factorial(49)),
    ("12345", 12345),
    (r"[1,10^{90}]\cup[1,10^{100})", 10**100),
    ("{(10^{3})}^{3}", 10**9),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_the_bound_is_above_the_value_and_not_far(text: str, value: int) -> None:
    digits = math.log10(value) if value < 10**300 else len(str(value)) - 1
    assert digits - 1e-6 <= size(text).log10 <= 1.05 * digits + 2


@pytest.mark.parametrize(("text", "terms"), [("(x+1)^3(y+2)", 8), ("(a+b+c)^2", 6), ("((x+1)^2)^2", 6), ("x+y", 2)])
def test_number_of_terms(text: str, terms: int) -> None:
    assert size(text).terms == terms


def test_letters_count_as_1_and_e_as_itself() -> None:
    for text in ("x^2", "xyz", "x^{10^9}", "1^{10^9}"):
        assert size(text).log10 == 0, text
    assert size("2x").log10 == pytest.approx(math.log10(2))
    assert size("e^2").log10 == pytest.approx(2 * math.log10(math.e))
    assert size(r"\pi").log10 == pytest.approx(math.log10(math.pi))
    assert size("0.01").log10 == pytest.approx(2)  # the same as for its inverse
    assert size("2^{-3}").log10 == pytest.approx(3 * math.log10(2))


LIMITS = [
    ("10^{5000}", "10^{5001}", "a number of more than 5000 digits"),
    ("(a+b)^{499}", "(a+b)^{500}", "more than 500 terms when it is multiplied out"),
    (r"\binom{2000}{1}", r"\binom{2001}{1}", "a binomial coefficient of a number above 2000"),
    (r"{2000 \choose 1}", r"{2001 \choose 1}", "a binomial coefficient of a number above 2000"),
    ("{" * 30 + "1" + "}" * 30, "{" * 31 + "1" + "}" * 31, "more than 30 deep"),
    (r"\sqrt" * 30 + "1", r"\sqrt" * 31 + "1", "more than 30 deep"),
    (r"\sqrt{" * 30 + "1" + "}" * 30, r"\sqrt{" * 31 + "1" + "}" * 31, "more than 30 deep"),
]


@pytest.mark.parametrize(("allowed", "refused", "reason"), LIMITS)
def test_each_limit_is_exact(allowed: str, refused: str, reason: str) -> None:
    size(allowed)
    with pytest.raises(TooLargeError, match=reason):
        size(refused)


HARMLESS = [
    "x+1", r"2^{\frac{n^2}{2}}", r"2^{\sqrt{x^2+1}}", r"(x+1)^{\frac{x^2}{2}}", "2^{n(n^2+1)}", "10^{400}",
    "e^{-x^2/2}", r"(2+\sqrt3)^{2020}", r"\binom{2000}{1000}", r"\binom{n}{k}", "(x+1)^{17}",
    r"\frac{(2n)!}{n!(n+1)!}", "1500!",
    "(1+x)^{100}", r"\sum_{k=0}^{n}\binom{n}{k}", "n^{n^n}", "2^{2^{11}}", "x^{10^9}", "2^{፩!}",
    "", "^", "{", ")", "!",
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_texts_are_evaluated(text: str) -> None:
    assert explosion(text) == ""


@pytest.mark.parametrize("text", ["9^{9^{9}}", "2^{20000}", "2000!", r"\cosh(10^9)", r"\exp(\exp(\exp(100)))"])
def test_large_texts_are_not_evaluated(text: str) -> None:
    with pytest.raises(TooLargeError, match=f"more than {MOST_DIGITS} digits"):
        size(text)


def test_every_text_takes_little_time() -> None:
    pieces = [
        "2^",
        "10^",
        r"\sqrt",
        "(",
        "{",
        "x^{",
        "9!",
        r"\frac",
        "^",
        "-",
        "_",
        "!",
        "|",
        r"\exp",
        "2^{-",
        "x+",
        "1,",
    ]
    rng = random.Random(0)
    texts = [(piece * 1000)[:1000] for piece in pieces]
    texts += ["".join(rng.choices(pieces, k=300)) for _ in range(200)]
    for text in texts:
        start = time.perf_counter()
        explosion(text)
        assert time.perf_counter() - start < 0.2, text[:20]


def test_a_root_is_no_larger_than_its_argument() -> None:
    for text in (r"\sqrt{10^{50}}", r"\sqrt[3]{10^{50}}"):
        assert size(text).log10 == pytest.approx(50)


def test_signs_are_not_letters() -> None:
    assert not size(r"2\cdot 3\times 5").has_letters
    assert size(r"2\cdot 3\theta").has_letters
