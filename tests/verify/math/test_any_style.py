r"""``style="any"``: the answer in any form, compared with other readers of the same responses."""

import re
import time

import pytest

from progrpo.verify import extract_answer, verify_math, verify_math_batch

IN_ORDER = [
    (r"It is 3. \boxed{5} The answer is 4. #### 6", "5"),
    (r"\boxed{} The answer is 4. So 7.", "4"),
    ("#### 42", "42"),
    ("The answer is 5. Let me check: 2 + 3 = 5, and 1 + 1 = 2.", "5"),
    ("The answer is 3.5 m.", "3.5 m"),
    ("Final answer: x = 5", "x = 5"),
    ("**Final Answer:** $\\frac{1}{2}$", r"$\frac{1}{2}$"),
    ("**Answer**: 12", "12"),
    ("Q: 2 + 3?\nA: 5", "5"),
    ("The total is known. A: 5. Done with 6.", "5"),
    ("The answer is 3. No, wait: the answer is 5.", "5"),
    ("There are 12 apples and 7 pears.", "7"),
    ("They made 1,234,567 dollars.", "1,234,567"),
    ("There are 10{,}000 ways", "10{,}000"),
    ("It costs $.50 each", ".50"),
    (r"So $x = -\frac{1}{2}$ of it", r"-\frac{1}{2}"),
    (r"So $x = 3\frac12$, that is $3 \dfrac{1}{2}$", r"3 \dfrac{1}{2}"),
]
"""Responses with the answer in the first of the forms."""

NO_ANSWER = [
    ("The answer is certainly not equal to 5 at all.", "5"),
    ("The answer is definitely not $5$ in any case", "5"),
    ("The answer is definitely not the number $5$ in any case", "5"),
    ("The answer is not 5.", "5"),
    ("The answer is surely one that isn't 5 at all.", "5"),
    ("The answer is never equal to 5 at all.", "5"),
    ("The answer is more than 5 but I am not sure.", "5"),
    ("The answer is probably somewhat less than $5$ for them.", "5"),
    ("The answer is 5 or maybe it could also be 6.", "5"),
    ("The answer is 5 apples or maybe it could also be 6.", "5"),
    ("The answer is either 5 or 6 of the pens.", "6"),
    ("The answer is $5$ or $6$ of the pens there.", "5"),
    ("The answer is some number between 4 and 5 of them.", "5"),
    (r"\boxed{} 3 4 5", "5"),
    ("So it is 5e3 in all.", "3"),
    ("So it is 5e3 in all.", "5"),
    (r"So it is 5 \times 10^3 in all.", "3"),
]
"""Responses with a number that is not their answer."""

NOT_THERE = [
    ("DNA: 7 bases, and 4 of them differ", "4"),
    ("Take option A: 7 dollars, so 4 are left", "4"),
    ("a: 7, while b is 4", "4"),
    ("**Answer:**\n\n42", "42"),
    ("#### Step 3: add 2 and 2\nIt is 4", "4"),
    ("#### 1. Simplify\nIt is 4", "4"),
    ("#### Final result\nIt is 4", "4"),
]
"""Responses with something that only looks like a form."""

SENTENCES = [
    ("The answer is that Janet makes 18 dollars every day.", "18"),
    ("The answer is 5 because there are 3 boys.", "5"),
    ("The answer is $\\frac{3}{4}$ of the whole large cake.", r"\frac{3}{4}"),
    ("The answer is Evelyn.", "Evelyn"),
    ("The answer is Mr. Smith.", "Mr. Smith"),
    ("The final answer is therefore 8.", "8"),
    ("The answer is 3 p.m. on the day after.", "3"),
    ("The answer is 5 and not 6 like in the book.", "5"),
    ("The answer is that they need at least 5 pens.", "5"),
    ("The answer is that Ann has 5 more than Bob has.", "5"),
    ("The answer is 5 for one person or 10 for two.", "5"),
    ("So it is 5e3 in all.", "5e3"),
    ("So it is 5 eggs.", "5"),
    (r"So it is 5 \times 10^3 in all.", r"5 \times 10^3"),
    ("It is 2.5*10^{-3} m.", "2.5*10^{-3}"),
    ("The answer is $18 per day, or $126 per week in all.", "18"),
]


@pytest.mark.parametrize(("response", "answer"), IN_ORDER + NOT_THERE + SENTENCES)
def test_the_first_form_has_the_answer(response: str, answer: str) -> None:
    assert extract_answer(response, "any") == answer


@pytest.mark.parametrize(("response", "gold"), NO_ANSWER)
def test_a_denied_value_and_one_of_several_are_not_an_answer(response: str, gold: str) -> None:
    assert verify_math(response, gold, style="any").status == "incorrect"


@pytest.mark.parametrize("response", ["", "I can't say.", r"<think>Maybe \boxed{5}?", "<think>The answer is 5."])
def test_a_response_without_an_answer_is_incorrect(response: str) -> None:
    assert extract_answer(response, "any") is None
    assert verify_math(response, "5", style="any").status == "incorrect"


def test_the_thinking_part_has_no_answer() -> None:
    assert verify_math(r"<think>\boxed{4}</think> So it is 5.", "5", style="any").correct
    assert not verify_math(r"<think>\boxed{5}</think> So it is 4.", "5", style="any").correct


@pytest.mark.parametrize(
    "piece",
    [
        "answer: ",
        "the answer is . ",
        "A: ",
        "#### ",
        " ",
        "1,",
        "1",
        "1  ",
        "1/",
        "\\frac{1}",
        "$",
        "word ",
        "not ",
        "5 or ",
        "5 * ",
        "the answer is not 5 of the pens or ",
        "\\boxed{",
    ],
)
def test_the_time_grows_only_with_the_length(piece: str) -> None:
    start = time.monotonic()
    extract_answer(piece * (200_000 // len(piece)), "any")
    assert time.monotonic() - start < 5


RESPONSES = [
    # (response, gold, whether the response answers the gold)
    (r"We add them up. $2 + 3 = 5$, so the result is \boxed{5}.", "5", True),
    (r"Thus $x = \frac{1}{2}$. The answer is $\boxed{\frac12}$.", r"\frac{1}{2}", True),
    (r"So $\boxed{-3}$.", "3", False),
    ("Natalia sold 48/2 = 24 clips in May, 48 + 24 = 72 in all.\n#### 72", "72", True),
    ("Natalia sold 48/2 = 24 clips in May.\n#### 24", "72", False),
    ("Janet sells 16 - 3 - 4 = 9 eggs. She makes 9 * 2 = $18.\n#### 18", "18", True),
    ("Final Answer: The final answer is $18$. I hope it is correct.", "18", True),
    ("Final Answer: The final answer is $19$. I hope it is correct.", "18", False),
    ("The answer is 42.", "42", True),
    ("The answer is 42.", "24", False),
    ("Therefore, the answer is 1,234.", "1234", True),
    ("Therefore the answer is $3\\sqrt{2}$.", r"3\sqrt{2}", True),
    ("Therefore the answer is $3\\sqrt{3}$.", r"3\sqrt{2}", False),
    ("Answer: 17", "17", True),
    ("Answer: 17 apples", "17", True),
    ("Answer: $\\frac{7}{3}$", r"\frac{7}{3}", True),
    ("**Answer:** 0.75", r"\frac{3}{4}", True),
    ("So they have 3 + 4 = 7 pens. They give away 2, so 5 are left.", "5", True),
    ("So they have 3 + 4 = 7 pens, of which 5 are red. That makes 2 blue ones.", "2", True),
    ("First 10, then 20, then 30 dollars.", "30", True),
    ("The total is 2,500 dollars.", "2500", True),
    ("The total is 2,500 dollars.", "25", False),
    ("Let x be the number. Then 2x = 10 and x = 5.", "5", True),
    ("The value is -7.", "-7", True),
    ("The probability is 1/6.", r"\frac{1}{6}", True),
    ("It takes 3 hours. The answer is 180 minutes.", "180", True),
    ("The answer is $10^{3}$.", "1000", True),
    ("The final answer is $(3, \\frac{\\pi}{2})$.", r"\left(3, \frac{\pi}{2}\right)", True),
    ("The final answer is $(3, \\frac{\\pi}{3})$.", r"\left(3, \frac{\pi}{2}\right)", False),
    ("Hence the answer is 50%.", r"50\%", True),
    ("Hence the final answer is $x^2 + 2x + 1$.", "(x+1)^2", True),
    ("Hence the final answer is $x^2 + 2x + 2$.", "(x+1)^2", False),
    ("The answer is 6. Let me check it: 2 * 3 = 6, and not 7.", "6", True),
    ("I first thought that the answer is 6. But no, the answer is 7.", "7", True),
    ("Q: What is 2 + 2?\nA: 4", "4", True),
    ("The answer is 12 because 3 times 4 is 12.", "12", True),
    ("So the value of $x$ is $\\frac{1}{2}$.", r"\frac{1}{2}", True),
    ("I don't know.", "3", False),
    ("", "3", False),
]
"""Responses in the styles of GSM8K's, Minerva's and chat models' prompts."""


def test_the_verdicts_are_the_expected_ones() -> None:
    verdicts = verify_math_batch([r for r, _, _ in RESPONSES], [gold for _, gold, _ in RESPONSES], style="any")
    wrong = [r for (r, _, right), verdict in zip(RESPONSES, verdicts, strict=True) if verdict.correct != right]
    assert wrong == []


def test_it_judges_as_math_verify_judges_raw_text() -> None:
    """math-verify itself looks for anchors such as "final answer is", first for LaTeX and then for plain numbers."""
    math_verify = pytest.importorskip("math_verify")
    verdicts = verify_math_batch([r for r, _, _ in RESPONSES], [gold for _, gold, _ in RESPONSES], style="any")
    agreed = sum(
        verdict.correct == math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(response))
        for (response, gold, _), verdict in zip(RESPONSES, verdicts, strict=True)
    )
    assert agreed >= len(RESPONSES) - 1, f"{agreed} of {len(RESPONSES)}"


def test_it_reads_what_the_flexible_extraction_of_gsm8k_reads() -> None:
    """The filter "flexible-extract" of lm-evaluation-harness for GSM8K takes the last number of a response, without
    dollars, commas and a full stop at the end. These responses end in their answer."""
    pattern = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
    ending = [(r, gold, right) for r, gold, right in RESPONSES if gold.lstrip("-").isdigit() and pattern.search(r)]

    def flexible(response: str) -> str:
        last = pattern.findall(response)[-1]
        return re.sub(r"[$,]", "", next(filter(None, last))).removesuffix(".")

    verdicts = verify_math_batch([r for r, _, _ in ending], [gold for _, gold, _ in ending], style="any")
    differ = [
        response
        for (response, gold, _), verdict in zip(ending, verdicts, strict=True)
        if verdict.correct != (flexible(response) == gold)
    ]
    assert len(ending) >= 20
    assert differ == [
        "The answer is $10^{3}$.",
        "The answer is 6. Let me check it: 2 * 3 = 6, and not 7.",
    ]
