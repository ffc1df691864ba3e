"""The hazards of mathematical answers. For each, some verifier in use gives the wrong verdict."""

import asyncio
import os
import signal
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from tests.verify.shared_data import shared_rows

from progrpo.verify import GoldError, check_gold, verify_math, verify_math_batch, wrong_golds
from progrpo.verify.math import answer as math_answer
from progrpo.verify.workers.pool import Outcome, WorkerPool

pytest.importorskip("math_verify")

EQUAL = [
    ("1,2", "2,1"),
    ("x=5", "5"),
    ("5", "x=5"),
    (r"\frac{1}{3}", "0.333333"),
    (r"(-\infty,1)\cup(2,\infty)", "x<1 or x>2"),
    ("(1,2)", "1<x<2"),
    ("[1,2]", r"x \in [1,2]"),
    (r"9\%", "9"),
    ("0.5", r"50\%"),
    ("2516_8", "2516"),
    ("1.6e-19", r"1.6 \times 10^{-19}"),
    ("x+y", "y+x"),
    ("(x+1)^2", "x^2+2x+1"),
    ("B", r"\text{(B)}"),
    ("10^8", "100000000"),
    (r"11\sqrt2", r"11\sqrt{2}"),
    (r"\sqrt{2}", "√2"),
    (r"\theta^2", "θ²"),
    (r"\frac{\pi}{2}", "π/2"),
    (r"\ln(x)", "ln(x)"),
    ("2", "two"),
    ("1000", "1{,}000"),
    ("1,234", "1234"),
    ("5", r"\$5"),
    (r"90^\circ", "90"),
    ("90", "90°"),
    ("2^{10}", "1024"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
    (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\begin{pmatrix}-\frac13\\ \frac23\end{pmatrix}"),
    (r"3:00 \text{ p.m.}", "3:00 p.m."),
    (r"\text{Evelyn}", "Evelyn"),
    ("5", "５"),
    ("y=2x+1", "2x+1"),
    ("5", "5=5"),
    ("5", "2+3=5"),
    ("m+n", "n+m"),
    ("10", "m+n=10"),
    ("3", "|AB|=3"),
    ("12", "[ABC]=12"),
    (r"\frac12", r"\sin\theta=\frac12"),
    (r"\frac12", r"\Pr[A]=\frac{1}{2}"),
    ("24", "4! = 24"),
    ("2^{2008}-2", "-2+2^{2008}"),
    ("2^{2016}", "4^{1008}"),
    ("2^{2004}", r"2 \cdot 2^{2003}"),
    ("10^{400}", "10^{400}+0"),
    ("B", "(B) 12"),
    ("B", r"\textbf{(B) } 12"),
    ("B", "B) 12"),
    ("B", "B. 12"),
    ("12", r"\textbf{(B)}\ 12"),
    ("5", r"\approx 5"),
    ("5.2", "≈5.2"),
    (r"2:30 \text{ p.m.}", "2:30 PM"),
    (r"2:30 \text{ p.m.}", r"2{:}30 \text{ PM}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\[4pt] 2 \end{pmatrix}"),
    ("5", r"\boldsymbol{5}"),
    ("11", r"\underline{11}"),
    ("11", r"\textcolor{red}{11}"),
    ("11", r"\color{red}{11}"),
    ("(6,31,-1)", r"\langle 6,31,-1\rangle"),
    ("y=2x+1", "2x-y+1=0"),
    ("y=2x+1", "y-2x=1"),
    ("(1,2),(3,4)", r"\{(1,2),(3,4)\}"),
    (r"\frac13", r"0.\overline{3}"),
    (r"0.\overline{3}", r"\frac13"),
    (r"0.1\overline{6}", "1/6"),
    ("5", r"\text{5 cm}"),
    (r"41^\circ", r"41^\circ\text{C}"),
    ("2516_8", "(2516)_8"),
    (r"\sqrt[3]{2}", r"\sqrt[3]2"),
    (r"2\pi k", r"2\pi k, k \in \mathbb{Z}"),
    ("28", r"N \equiv 28 \pmod{100}"),
    ("x^2+y^2=1", "2x^2+2y^2=2"),
    ("x^2+y^2=1", "y^2=1-x^2"),
    ("(2,1)", "2,1"),
    ("(2,1)", "x=2,y=1"),
    ("(2,1)", "y=1,x=2"),
    ("1,2", "x=1,x=2"),
    ("x=5", "x=5"),
    ("5", "x = 5"),
    ("f(x)=x+1", "x+1"),
    ("x<3", "x<3"),
    ("x<3", "3>x"),
    ("9", "n=9"),
    ("1", r"k=\frac{2}{2}=1"),
    (r"\frac{7}{3}", r"x+y = \frac{14}{6} = \frac{7}{3}"),
    ("-2,1", "x=-2 or x=1"),
    ("-2,1", r"x=-2 \text{ or } x=1"),
    (r"\{1,2\}", "1,2"),
    ("-1,3,3", "3,-1,3"),
    ("3", r"\text{three}"),
    (r"1\frac{1}{2}", r"\frac32"),
    (r"\frac{1}{3}E_1+\frac{2}{3}E_2", r"\frac{E_{1}+2E_{2}}{3}"),
]
INFINITE = [
    (r"[1/2,\infty)", r"[0.5,\infty)"),
    (r"[0,\infty)", r"x\in[0,\infty)"),
    (r"[0,\infty)", r"x \in [0, +\infty)"),
    (r"(-\infty,1)\cup(2,\infty)", r"x\in(2,+\infty)\cup(-\infty,1)"),
    (r"(-\infty,1)\cup(2,\infty)", r"x\in\left(-\infty,1\right)\cup\left(2,\infty\right)"),
    (r"(-\infty,\infty)", r"x\in(-∞,∞)"),
    (r"\infty", r"+\infty"),
    (r"\infty", "infinity"),
    (r"\{1,2\}", r"x \in \{1, 2\}"),
]
STYLES = [
    (r"\frac{14}{3}", r"\boldsymbol{\frac{14}{3}}"),
    (r"\frac{\sqrt{2}}{2}", r"\mathbf{\dfrac{\sqrt{2}}{2}}"),
    ("4.5e33", "4.5e33."),
    ("26", "2(13)"),
    (r"c^2(\gamma^2-1)", r"(\gamma^2-1)c^2"),
    (r"n \equiv 28 \pmod{100}", r"28 \pmod{100}"),
    ("6,6,5", "5,6,6"),
    (r"\frac13, 2", "2, 0.333333"),
    (r"111, \! 111, \! 111", r"111,\!111,\!111"),
    ("5", r"10(\frac12)"),
    ("3x+3", "3(x+1)"),
    (r"\frac{1}{2004!}", r"x=\frac{1}{2004!}"),
    ("(1,2)", r"\{(1,2)\}"),
    (r"\{(1,2)\}", "(1,2)"),
    (r"A=\frac{a^2}{2}", r"A=0.5a^2"),
]
LISTED = [
    ("81, 256", "256, 81"),
    ("81, 256", "81,256"),
    ("81, 256", r"81,\ 256"),
    ("81, 256", r"\{81, 256\}"),
    ("81, 256", "x=81, x=256"),
    ("81, 256", r"x = 81 \text{ or } x = 256"),
    ("70,110", "70, 110"),
    ("70,110", r"110^\circ, 70^\circ"),
    ("98,118,122,142", "142, 98, 118, 122"),
    ("10, 100", "100, 10"),
    ("100, 200", r"200 \text{ and } 100"),
    ("100, 200", "100 or 200"),
    ("0, 100", "0,100"),
    ("0, 100", "100,0"),
    ("1, 250, 2", "1,250, 2"),
    (r"\$1,500, \$2,500", r"\$2500, \$1500"),
    (r"0.125", "0,125"),
    ("-5, 120", "120, -5"),
    ("(81, 256)", "(81,256)"),
    ("1,000", "1000"),
    ("1,000", "1 000"),
    ("1000", "(1,000)"),
    ("(1,000, 3)", "(1000,3)"),
    ("1,000, 2", "2, 1000"),
    ("1,250, 2", "2, 1250"),
    ("1,7,103", "103, 1, 7"),
    ("11111111100", r"11,\! 111,\! 111,\! 100"),
    (r"\frac{12}{5525}", r"\frac{12}{5,525}"),
    ("5, 5120", "5,120, 5"),
]
PER_CENT = [
    ("25", r"25\%"),
    (r"25\%", "25"),
    ("12.5", "12.5 percent"),
    ("25", r"2500\%"),
    ("0.25", r"25\%"),
    (r"25\%", "0.25"),
    (r"\frac{1}{4}", r"25\%"),
    (r"\frac{1}{4}", r"p=0.25=25\%"),
    ("25, 50", r"25\%, 50\%"),
    (r"25\%, 50\%", r"50\%, 25\%"),
    (r"50\sqrt{2}", r"50\sqrt{2}\%"),
    (r"50\sqrt{2}\%", r"\frac{\sqrt{2}}{2}"),
    (r"0.56 = 56\%", r"56\%"),
]
EQUATIONS = [
    ("2x+4y-3=0", r"y=-\frac12x+\frac34"),
    (r"y=-\frac12x+\frac34", "2x+4y-3=0"),
    ("2x+4y-3=0", "4x+8y=6"),
    ("2x+4y-3=0", "3-2x=4y"),
    ("2x+4y-3=0", r"y=\frac{3-2x}{4}=-\frac{x}{2}+\frac34"),
    ("x+y=1", "y=1-x"),
    ("x+y=1", "x=1-y"),
    ("y=1-x", "x+y=1"),
    ("y=1-x", "x=1-y"),
    ("y=2x", "2x=y"),
    ("x-3z=0", "x=3z"),
    ("xy=1", r"y=\frac{1}{x}"),
    (r"\frac{x^2}{16}-\frac{y^2}{9}=1", "9x^2-16y^2=144"),
    ("x^2+y^2=13", r"y^2=13-x^2"),
    (r"T=\frac{t}{2}", r"T=0.5t"),
]
SPACED = [
    *(("1000", spelling) for spelling in (r"1 \, 000", r"1 \; 000", "1 ~ 000", r"1\ 000", r"1\,000", "1~000")),
    (r"\frac52", r"2\ \ \frac12"),
    (r"\frac52", "2 1/2"),
    (r"(\frac52,3)", "(2 1/2, 3)"),
    ("2,1", r"1{,}\, 2"),
    (r"2^3\cdot 3^5", "2^3 3^5"),
    ("40", "2^{3} 5"),
    (r"\frac{\ln 3}{\ln 2}", r"\log_2 3"),
    (".5", r"\displaystyle .5"),
    ("0.5", r"\textstyle.5"),
    ("5", r"\left.5\right."),
]
PRIMES = [
    ("f'(x)", r"f^{\prime}(x)"),
    ("1+f'(x)", r"f^\prime(x)+1"),
    (r"2f^{\prime}(x)", "f'(x)+f'(x)"),
    ("6", "f'(3)=2(3)=6"),
    ("2x", "f'(x)=2x"),
    (r"5\text{ feet}", "5'"),
    ("5'", "5"),
    (r"30\text{ minutes}", "30'"),
]
PAIRS_BY_NAME = [
    ("(2,1)", "p=2,m=1"),
    ("(2,1)", "b=1,a=2"),
    ("(1,3)", "z=3,x=1"),
    ("(4,5)", "x_2=5,x_1=4"),
]
PARTS_AND_SCALES = [
    ("3/4", r"3\text{ fourths}"),
    ("0.3", "3 tenths"),
    ("3/5", r"3\text{ fifths of the cake}"),
    ("12", r"12\text{ fifth graders}"),
    ("5000000000", r"5\text{ thousand million}"),
    ("5000000", r"5\text{ million dollars}"),
    (r"5\text{ ft}^2", r"5\text{ feet squared}"),
    (r"5\text{ ft}^2", r"5\text{ squared feet}"),
    ("5", r"5\text{ squared units}"),
    ("5", "5 cubic meters"),
    ("5", r"5\text{ points}"),
    ("5", r"5\text{ times}"),
    ("45", r"45\text{ base units}"),
    ("1", r"1\text{ over par}"),
    ("12_7", r"12\text{ base seven}"),
    ("5", r"5\text{ seconds}"),
]
CHANGED_BY_WORDS = [
    *(("5", f"5 {words}") for words in ("squared", "sqrt two", "imaginary", "halves", "point two")),
    *(("5", rf"5\text{{ {words}}}") for words in ("cubed", "factorial", "tenths", "minus three", "plus C")),
    *(("5", rf"5\text{{ {words}}}") for words in ("times two", "divided by two")),
    ("3", r"3\text{ fourths}"),
    ("3", "3 tenths"),
    ("10", "10 minus three"),
    ("12", r"12\text{ base seven}"),
    ("9", r"9\text{ modulo seven}"),
    ("1", "1 over two"),
    ("5000", r"5\text{ thousand million}"),
    (r"5\text{ miles}", r"5\text{ furlongs}"),
]
BESIDE_EACH_OTHER = [
    *(("12", spelling) for spelling in (r"1 \quad 2", r"1 \; 2", "1 ~ 2", r"x = 1 \quad 2", r"1\text{ }2")),
    ("42", r"4\ \ 2"),
    ("3100", r"3 \quad 100"),
    ("3", "1 2"),
    ("3", "x=1 2"),
    ("30", "10 20"),
    ("6", "1 2 3"),
    ("7", "3 4"),
    ("6x", "2x 3"),
    ("3x", "x 3"),
    ("2", "7 - 2 3"),
    ("(3,3)", "(1 2, 3)"),
]
WITHOUT_A_SIGN = [
    ("5", r"\displaystyle .5"),
    ("f(x)", "f'(x)"),
    ("f'(x)", "f(x)"),
    ("f(x)", "f''(x)"),
    ("f(x)", r"f^{\prime}(x)"),
    ("f(x)+g'(x)", "f'(x)+g(x)"),
    ("y", "y'"),
    ("AB", "A'B'"),
    ("5", "5'"),
]
NO_SUCH_PAIR = [
    ("(2,1)", "p=1,m=2"),
    ("(1,2)", "x=1,x=2"),
]
WORD_GOLDS = ["north", "true", "and", "or", "sin", "cos", "tan", "ln", "exp", r"\text{or}", r"0.\overline{3}"]
DIFFERENT = [
    ("5", "1,2,3,4,5"),
    ("(1,2)", "(2,1)"),
    ("[0,1]", "(0,1)"),
    ("5", "5 or 6"),
    ("5", "x=5, y=6"),
    (r"\frac13", "0.333"),
    ("2516_8", "2516_9"),
    ("2516", "2516_9"),
    (r"5\text{ cm}", r"5\text{ m}"),
    ("1.6e-19", "9.1e-31"),
    (r"\{1,2\}", "(1,2)"),
    ("5", r"\pm 5"),
    ("I_1", "I_2"),
    ("1.5", "1.50001"),
    ("5", "x^2=5"),
    ("5", "2x=5"),
    ("5", "-x=5"),
    ("5", "x+1=5"),
    ("5", "3=5"),
    ("5", "6=7=5"),
    ("5", "x=4=5"),
    ("5", r"x \in 5"),
    (r"\frac12", r"3=\frac12"),
    (r"\sqrt2", r"x^2=\sqrt2"),
    ("x+1", "0=x+1"),
    ("x+1", "x=x+1"),
    ("x=5", "2x=5"),
    ("x=5", "-x=5"),
    ("y = 2x - 13", "2y = 2x - 13"),
    ("f(x)=x+1", "2f(x)=x+1"),
    ("f(x)=x+1", "x=x+1"),
    ("k=1", "0=1"),
    (r"x=\sqrt2", r"x^2=\sqrt2"),
    ("x^2+1=0", "x^2+2=0"),
    ("x^2+1=0", "e^x=0"),
    ("SRMC=LRMC", "2SRMC=LRMC"),
    ("(1,2)", "y=1,x=2"),
    ("(2,1)", "1,2"),
    ("16,3,1,1", "16,3,1"),
    ("-1,3,3", "-1,3"),
    ("1000000", "999999.5"),
    ("100", "99.9999"),
    ("x<3", "y<3"),
    ("1<x<3", "1<y<3"),
    ("x+7", r"2^{\frac{n^2}{2}}"),
    ("x+1", "2^{፩!}"),
    ("x+1", r"\int_0^1 x^x dx"),
    ("B", "(C) 12"),
    ("12", "(B) 13"),
    (r"0.\overline{3}", "0.3"),
    ("5", r"\boldsymbol{6}"),
    (r"2:30 \text{ p.m.}", "2:30 AM"),
    (r"2:30 \text{ p.m.}", "3:30 PM"),
    ("(1,2),(3,4)", r"\{(1,2),(4,3)\}"),
    ("y=2x+1", "2x-y=1"),
    ("B", "(B) or (C)"),
    ("B", "(B), (C)"),
    (r"11\sqrt2", "11"),
    ("2^{10}", "2"),
    ("1,2", "1.2"),
    ("81, 256", "81256"),
    ("81256", "81, 256"),
    ("81, 256", "81"),
    ("81, 256", "81, 257"),
    ("10, 100", "10100"),
    ("-5, 120", "-5120"),
    ("(81,256)", "(256,81)"),
    ("(81,256)", "81256"),
    ("1,000", "1, 0"),
    ("(1,250)", "1250"),
    ("1,000, 2", "10002"),
    ("125", "0,125"),
    ("1000", "1, 000"),
    ("25", "0.25"),
    ("0.25", r"0.25\%"),
    (r"\frac{\sqrt2}{2}", r"\frac{\sqrt{2}}{2}\%"),
    ("25", r"0.25\%"),
    (r"25\%", r"0.25\%"),
    (r"25\text{ cm}", r"25\%"),
    (r"25\%", r"25\text{ cm}"),
    (r"25\%", "2500"),
    ("25, 50", r"25\%, 51\%"),
    ("25, 50", r"0.25\%, 0.5\%"),
    ("2x+4y-3=0", "2x+4y+3=0"),
    ("2x+4y-3=0", r"y=-\frac12x-\frac34"),
    ("2x+4y-3=0", "x=5"),
    ("2x+4y-3=0", "z=5"),
    ("2x+4y-3=0", "5=5"),
    ("2x+4y-3=0", "x=x"),
    ("2x+4y-3=0", "0=0"),
    ("2x+4y-3=0", "2x+4y-3=2x+4y-3"),
    ("2x+4y-3=0", "2x+4y-3=5"),
    ("2x+4y-3=0", r"y=\frac{3-2x}{4}=-\frac{x}{2}"),
    ("x+y=1", "y=1+x"),
    ("x+y=1", "1"),
    ("x+y=1", "1-x"),
    ("x^2=4", "4"),
    ("x^2=4", "x=2"),
    ("xy=0", "0"),
    ("x+y=1", "z=1-x"),
    ("y=1-x", "x=y-1"),
    ("y=1-x", "x=1-x"),
    ("xy=0", "x=0"),
    ("x=0", "xy=0"),
    ("xy=x", "y=1"),
    ("x^2=y^2", "x=y"),
    ("y=x", "x^2=y^2"),
    ("x^2+y^2=1", r"y=\sqrt{1-x^2}"),
    ("x^2=1", "x=1"),
    ("x=5", "y=5"),
    ("x=5", "5=x+y"),
    ("5=5", "x=5"),
    ("x=x", "y=y"),
    (r"[0,\infty)", r"x\in(0,\infty)"),
    (r"[0,\infty)", r"x\in[0,-\infty)"),
    (r"[0,\infty)", r"[0,\infty"),
    (r"[0,\infty)", r"[0,\infty]"),
    (r"(-\infty,0]", r"[-\infty,0]"),
    (r"-\frac{2010012}{2010013}", r"-\frac{2010013}{2010013}"),
    (r"\frac{1}{29,\!322,\!216}", "1/29322217"),
    ("15", "2(13)"),
    (r"c^2(\gamma^2-1)", r"c^2(\gamma^2-2)"),
    ("x+1", r"\frac{x}{0}"),
    (r"28 \pmod{100}", r"28 \pmod{10}"),
    (r"n \equiv 1 (\bmod 4)", r"n \equiv 1 (\bmod 5)"),
    ("6,6,5", "5,5,6"),
    (r"\frac13, 2", "2, 0.333"),
    (r"\infty", r"-\infty"),
    (r"-\infty", r"+\infty"),
    (r"\infty", "5"),
    (r"\frac12", r"x\in\frac12"),
    ("5", r"x\in5"),
    (r"\sqrt2", r"x\in\sqrt2"),
]
BLOW_UPS = [
    "9^9^9^9",
    "9^{9^{9^{9}}}",
    "10^8!",
    "100000000!",
    "(x+y+z+w+1)^60",
    r"\{" + ",".join(map(str, range(3000))) + r"\}",
    r"\binom{100000000}{50000000}",
    "(" * 200 + "1" + ")" * 200,
    r"(1+x)^{900}(1-x)^{900}",
    "((x+1)^{99})^{99}",
    r"\left(x+\frac{1}{x}\right)^{900}",
    r"\binom{10^6}{500000}",
    r"{100000000 \choose 50000000}",
    r"\Gamma(10^9)",
    "|3|^{10^9}",
    r"\exp(\exp(\exp(100)))",
    "5^{(x-x)+99999999}",
    r"\pi^{10^9}",
    "0.5^{-10^9}",
    r"\frac{1}{9^{9^9}}",
    "((3!)!)!!",
    r"\sin(9^{9^9})",
    r"\int_0^1 x^x dx",
    r"\sum_{n=1}^{\infty}\frac{\sin n}{n^3}",
    "9" * 900,
]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [*EQUAL, *INFINITE, *STYLES, *LISTED, *PER_CENT, *EQUATIONS, *SPACED, *PRIMES, *PAIRS_BY_NAME, *PARTS_AND_SCALES],
)
def test_equal_answers_are_correct(gold: str, answer: str) -> None:
    assert verify_math(rf"\boxed{{{answer}}}", gold).correct, verify_math(rf"\boxed{{{answer}}}", gold)


@pytest.mark.parametrize(
    ("gold", "answer"), [*DIFFERENT, *BESIDE_EACH_OTHER, *WITHOUT_A_SIGN, *NO_SUCH_PAIR, *CHANGED_BY_WORDS]
)
def test_different_answers_are_incorrect(gold: str, answer: str) -> None:
    assert verify_math(rf"\boxed{{{answer}}}", gold).status == "incorrect"


def test_blow_ups_are_refused_at_once() -> None:
    verify_math(r"\boxed{x+1}", "1+x")
    start = time.monotonic()
    verdicts = verify_math_batch([rf"\boxed{{{answer}}}" for answer in BLOW_UPS], ["x+1"] * len(BLOW_UPS))
    assert time.monotonic() - start < 3  # one deadline is 5 s
    assert {verdict.status for verdict in verdicts} == {"incorrect"}
    assert all(verdict.reason.startswith("the answer") for verdict in verdicts)


def test_an_unforeseen_blow_up_meets_the_deadline_and_changes_no_other_verdict(monkeypatch: Any) -> None:
    monkeypatch.setattr("progrpo.verify.math.answer.explosion", lambda text: "")
    answers = [r"\boxed{9^{9^{9}}x}", *(rf"\boxed{{{n}+x}}" for n in range(20))]
    start = time.monotonic()
    verdicts = verify_math_batch(answers, ["x+7"] * len(answers), seconds=1.0)
    assert time.monotonic() - start < 10
    assert [i for i, verdict in enumerate(verdicts) if verdict.correct] == [8]
    assert verdicts[0].status == "incorrect"


@pytest.mark.parametrize(
    "response",
    ["There are 11 apples", "", r"\boxed{11", r"<think>\boxed{11}", r"<think>\boxed{11}</think> so 11", r"\boxed{}"],
)
def test_an_answer_counts_only_in_its_place(response: str) -> None:
    assert verify_math(response, "11").status == "incorrect"


def test_the_last_box_counts() -> None:
    assert verify_math(r"\boxed{3} no, \boxed{4}", "4").correct
    assert not verify_math(r"\boxed{4} no, \boxed{3}", "4").correct


def test_code_in_an_answer_is_not_run(tmp_path: Any) -> None:
    target = tmp_path / "touched"
    for code in (f"__import__('os').system('touch {target}')", f"open('{target}','w')"):
        assert verify_math(rf"\boxed{{{code}}}", "x+1").status == "incorrect"
    assert not target.exists()


def test_a_bad_gold_is_an_error_that_names_it() -> None:
    assert [bool(reason) for reason in wrong_golds(["7", "", r"\frac{1}{", "t(0,4]"])] == [False, True, True, True]
    with pytest.raises(GoldError, match="is empty"):
        check_gold(" ")
    assert verify_math(r"\boxed{7}", r"\frac{1}{").status == "error"
    with pytest.raises(GoldError, match=r"has 1001 characters, more than 1000"):
        check_gold("1+" * 500 + "1")


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        (Outcome("deadline"), "incorrect", "comparing 'x+1' took more than 5 s"),
        (Outcome("lost", 1), "incorrect", "comparing 'x+1' ended its worker, twice"),
        (Outcome("done", "bad gold"), "error", "the gold 'x+2' can't be read as mathematics"),
        (Outcome("done", "equal"), "correct", ""),
        (Outcome("done", "unreadable"), "incorrect", "'x+1' can't be read as mathematics"),
        (Outcome("done", "too large"), "incorrect", "comparing 'x+1' took too much memory"),
        (Outcome("done", "different"), "incorrect", "'x+1' is not 'x+2'"),
    ],
)
def test_the_verdict_of_each_outcome(outcome: Outcome, status: str, reason: str) -> None:
    verdict = math_answer._verdict("x+2", "x+1", outcome, 5.0)
    assert (verdict.status, verdict.reason) == (status, reason)


@pytest.mark.parametrize("gold", WORD_GOLDS)
def test_a_gold_that_passes_the_load_check_makes_no_answer_an_error(gold: str) -> None:
    answers = ["7", r"\frac{x}{2}", "xyz", "(1,2)", "west"]
    assert wrong_golds([gold]) == [""]
    verdicts = verify_math_batch([rf"\boxed{{{answer}}}" for answer in [*answers, gold]], [gold] * 6)
    assert [verdict.status for verdict in verdicts] == ["incorrect"] * 5 + ["correct"]


def test_a_repeating_decimal_as_a_gold_is_compared_by_algebra() -> None:
    assert verify_math(r"\boxed{\sqrt{1/9}}", r"0.\overline{3}").correct


def test_from_many_threads() -> None:
    verdicts: dict[int, bool] = {}

    def check(n: int) -> None:
        verdicts[n] = (
            verify_math(rf"\boxed{{{n}+a}}", f"a+{n}").correct and not verify_math(rf"\boxed{{{n}-a}}", "b").correct
        )

    threads = [threading.Thread(target=check, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert verdicts == dict.fromkeys(range(8), True)


def test_inside_an_asyncio_loop() -> None:
    async def work() -> list[bool]:
        direct = verify_math(r"\boxed{b+31}", "31+b").correct
        others = (asyncio.to_thread(verify_math, rf"\boxed{{b+{n}}}", f"{n}+b") for n in (32, 33))
        return [direct, *(verdict.correct for verdict in await asyncio.gather(*others))]

    assert asyncio.run(work()) == [True] * 3


def test_an_alarm_of_the_caller_is_left_alone() -> None:
    """math-verify's own timeouts would cancel it, and fail off the main thread."""
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rang.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 60)
        assert verify_math(r"\boxed{(c+1)^2}", "c^2+2c+1").correct
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(0.1)
        assert rang == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_deadline_may_be_a_fraction_of_seconds() -> None:
    assert verify_math_batch([r"\boxed{(d+1)^2}"], ["d^2+2d+1"], seconds=1.5)[0].correct


@pytest.mark.parametrize(
    ("file", "gold", "solution"),
    [
        ("math500.jsonl", "answer", "solution"),
        ("aime_1983_2023.jsonl", "answer", "solution"),
        ("aime24.jsonl", "answer", "solution"),
    ],
)
def test_golds_agree_with_their_own_solutions(file: str, gold: str, solution: str) -> None:
    rows = [row for row in shared_rows(file) if "boxed" in str(row[solution])]
    verdicts = verify_math_batch([row[solution] for row in rows], [str(row[gold]) for row in rows])
    assert [row[gold] for row, verdict in zip(rows, verdicts, strict=True) if not verdict.correct] == []


@pytest.mark.parametrize(
    ("file", "gold", "text"),
    [
        ("gsm8k_test.jsonl", lambda row: row["answer"].rpartition("####")[2].strip(), lambda row: row["answer"]),
        ("olympiadbench_math_en.jsonl", lambda row: row["final_answer"][0], lambda row: row["final_answer"][0]),
        ("amc23.jsonl", lambda row: str(row["answer"]), lambda row: str(row["answer"])),
        ("aime25.jsonl", lambda row: row["expected_answer"], lambda row: row["expected_answer"]),
    ],
)
def test_golds_agree_with_their_own_answers(file: str, gold: Any, text: Any) -> None:
    """GSM8K's solutions end in ``#### 18``; the others have a final answer and no solution with a box."""
    rows = shared_rows(file)
    style = "answer" if "gsm8k" in file else "boxed"
    texts = [text(row) if style == "answer" else rf"\boxed{{{text(row).strip('$')}}}" for row in rows]
    golds = [gold(row) for row in rows]
    unreadable = [i for i, reason in enumerate(wrong_golds(golds)) if reason]
    assert len(unreadable) <= (2 if "olympiad" in file else 0)
    verdicts = verify_math_batch(texts, golds, style=style)
    wrong = [i for i, verdict in enumerate(verdicts) if not verdict.correct and i not in unreadable]
    assert wrong == []


def test_many_verifications_leak_nothing() -> None:
    def verify_thousand(start: int) -> None:
        numbers = range(start, start + 1000)
        golds = [f"{n}+a" for n in numbers]
        assert all(v.correct for v in verify_math_batch([rf"\boxed{{a+{n}}}" for n in numbers], golds))

    verify_thousand(0)
    before = len(os.listdir("/proc/self/fd"))
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    processes = len(children.read_text().split())
    for n in range(1, 4):
        verify_thousand(1000 * n)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(children.read_text().split()) == processes


@pytest.mark.parametrize(
    ("answer", "right"),
    [("0.5", True), ("50", True), (r"50\%", True), ("5000", False), ("0.005", False), (r"0.5\%", False)],
)
def test_an_answer_to_a_gold_in_per_cent_may_be_the_share_or_lack_the_sign(answer: str, right: bool) -> None:
    assert verify_math(rf"\boxed{{{answer}}}", r"50\%").correct == right


@pytest.mark.parametrize(("gold", "right"), [("1", True), ("1, 25", True), (r"\sqrt{1}", True), ("0.5, 25", False)])
def test_an_answer_to_a_gold_of_one_or_more_may_have_a_per_cent_sign(gold: str, right: bool) -> None:
    answer = ", ".join(rf"{member}\%" for member in gold.split(", "))
    assert verify_math(rf"\boxed{{{answer}}}", gold).correct == right


def compare(golds: str, status: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(status, value)
    with monkeypatch.context() as replaced:
        replaced.setattr(WorkerPool, "run", lambda pool, tasks, seconds: [outcome] * len(tasks))
        math_answer._compare([(f"{gold}+1", "2") for gold in golds], 5.0)


def test_the_cache_keeps_the_newest_verdicts_and_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_answer, "_cached", OrderedDict())
    monkeypatch.setattr(math_answer, "CACHED_VERDICTS", 2)
    compare("abc", "done", "different", monkeypatch)
    compare("d", "done", "bad gold", monkeypatch)
    assert list(math_answer._cached) == [("b+1", "2"), ("c+1", "2")]


@pytest.mark.parametrize("status", ["deadline", "lost"])
def test_a_stalled_comparison_is_made_again(monkeypatch: pytest.MonkeyPatch, status: Any) -> None:
    monkeypatch.setattr(math_answer, "_cached", OrderedDict())
    with monkeypatch.context() as stalled:
        stalled.setattr(WorkerPool, "run", lambda pool, tasks, seconds: [Outcome(status)] * len(tasks))
        assert verify_math(r"\boxed{(x+11)^2}", "x^2+22x+121").status == "incorrect"
    assert verify_math(r"\boxed{(x+11)^2}", "x^2+22x+121").correct


def test_a_verdict_that_the_cache_drops_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_answer, "_cached", OrderedDict())
    monkeypatch.setattr(math_answer, "CACHED_VERDICTS", 1)
    assert verify_math(r"\boxed{\frac{\sqrt{4}}{3}}", r"\frac{2}{3}").correct
    first, second = verify_math_batch(
        [r"\boxed{\frac{\sqrt{4}}{3}}", r"\boxed{\frac{\sqrt{4}}{5}}"], [r"\frac{2}{3}", r"\frac{2}{3}"]
    )
    assert first.correct
    assert second.status == "incorrect"
