"""Letters in responses: answers, non-answers, and attempts at several answers."""

import time

import pytest

from progrpo.verify.choice import answered_letter, verify_choice

OPTIONS = [
    "Zinc",
    "Vitamin C",
    "A rise in B",
    "I and II only",
    "-452°F",
    r"$\frac{1}{2}$ J",
    "None",
    "E = mc",
    "x",
    "o",
]

READ = [
    (r"\boxed{B}", "B"),
    (r"\boxed{b}", "B"),
    (r"\boxed B", "B"),
    (r"\fbox{B}", "B"),
    (r"\boxed{(B)}", "B"),
    (r"\boxed{(b)}", "B"),
    (r"\boxed{B.}", "B"),
    (r"\boxed{\text{B}}", "B"),
    (r"\boxed{\text{(B)}}", "B"),
    (r"\boxed{\textbf{(B)}}", "B"),
    (r"\boxed{\mathbf{\text{B}}}", "B"),
    (r"\boxed{\text{Option B}}", "B"),
    (r"\boxed{\text{The answer is B}}", "B"),
    (r"\boxed{\textbf{(B) }\ \text{Vitamin C}}", "B"),
    (r"\boxed{\text{B. Vitamin C}}", "B"),
    (r"\boxed{B: \text{Vitamin C}}", "B"),
    (r"\boxed{B)}", "B"),
    (r"$\boxed{\mathrm{A}}$", "A"),
    (r"\boxed{I}", "I"),
    ("Answer: B", "B"),
    ("Answer: b", "B"),
    ("answer:B", "B"),
    ("**Answer:** B", "B"),
    ("**Answer**: **(B)**", "B"),
    ("Answer:\n\nB", "B"),
    ("The answer is B.", "B"),
    ("The answer is (B)", "B"),
    ("The answer is: (B).", "B"),
    ("the final answer is **B**", "B"),
    ("The correct answer is option B.", "B"),
    ("The correct option is (B).", "B"),
    ("The best choice is B", "B"),
    ("The answer is (B) Vitamin C.", "B"),
    ("Answer: B. Vitamin C", "B"),
    ("Answer: B, Vitamin C", "B"),
    (r"The answer is $\boxed{B}$.", "B"),
    (r"The answer is \(B\).", "B"),
    ("Answer: C. A rise in B", "C"),
    ("Answer: (D) I and II only", "D"),
    ("Answer: E. -452°F", "E"),
    (r"Answer: (F) $\frac{1}{2}$ J", "F"),
    ("Answer: A", "A"),
    ("Answer: I", "I"),
    ("Answer: B, a vitamin", "B"),
    ("Answer: B. A vitamin is what it is.", "B"),
    # The last statement counts.
    (r"\boxed{A}, no: \boxed{B}", "B"),
    (r"Answer: A ... so \boxed{B}", "B"),
    (r"\boxed{A} is tempting. Answer: B", "B"),
    ("The answer is A.\nThe answer is B.", "B"),
    (r"<think>\boxed{A}</think> \boxed{B}", "B"),
    (r"\boxed{B} and then \boxed{", "B"),
    # Lower-case letters that are not a second answer.
    ("Answer: B, where c is the speed of light", "B"),
    ("Answer: B because a = c", "B"),
    ("Answer: B (see a table)", "B"),
    ("Answer: I. x", "I"),
    ("Answer: D. a / b", "D"),
    ("Answer: B. It is the only one left.", "B"),
]
NOT_READ = [
    "",
    "B",
    "(B)",
    "It is B.",
    r"\boxed{}",
    r"\boxed{12}",
    r"\boxed{Vitamin C}",
    r"\boxed{\text{none}}",
    r"\boxed{A or B}",
    r"\boxed{A, B}",
    r"\boxed{A,B,C,D}",
    r"\boxed{A B}",
    r"\boxed{AB}",
    r"\boxed{A/B}",
    r"\boxed{A|B}",
    r"\boxed{A\text{ or }B}",
    r"\boxed{A \lor B}",
    r"\boxed{A \quad B}",
    r"\boxed{A\\B}",
    r"\boxed{(A)(B)}",
    r"\boxed{\text{(A) and (B)}}",
    r"\boxed{\text{(a) or (b)}}",
    r"\boxed{B, no, A}",
    r"\boxed{\text{B. No wait, A}}",
    r"\boxed{\text{B, or rather A}}",
    r"\boxed{\text{B hmm A is better}}",
    r"\boxed{\text{not B}}",
    r"\boxed{\text{neither A nor B}}",
    r"\boxed{\text{either A or B}}",
    r"\boxed{A \text{ is wrong, } B}",
    r"\boxed{\{A, B\}}",
    r"\boxed{A-D}",
    r"\boxed{B or c}",
    r"\boxed{B, c}",
    r"\boxed{B/c}",
    r"\boxed{B, a}",
    r"\boxed{B, c, d}",
    r"\boxed{\text{B and c}}",
    "Answer: B (or d)",
    "Answer: B or maybe d.",
    "Answer: B is wrong",
    "Answer: (B) is not it",
    "Answer: B isn't right",
    "Answer: B cannot be it",
    "Answer: A or B",
    "Answer: A and B",
    "Answer: A, B, C, D, E, F, G, H, I, J",
    "Answer: A B C D",
    "Answer: ABCD",
    "Answer: (A), (B)",
    "Answer: B. No, A.",
    "Answer: B. Actually it is A",
    "Answer: not B",
    "Answer: one of A to D",
    "Answer: A decrease in pressure",
    "Answer: I think so",
    "The answer is a matter of taste",
    "The answer is either A or B",
    "The answer is B or possibly A",
    r"<think>\boxed{B}",
    r"\boxed{B}<think> hm",
    r"\boxed{B} Answer: A or B",
    r"\boxed{" + "(" * 2000 + "B}",
]


@pytest.mark.parametrize(("response", "letter"), READ)
def test_one_letter_is_read(response: str, letter: str) -> None:
    assert answered_letter(response, OPTIONS) == letter
    assert verify_choice(response, letter, OPTIONS).canonical == letter


@pytest.mark.parametrize("response", NOT_READ)
def test_no_letter_or_several_letters_are_not_an_answer(response: str) -> None:
    assert answered_letter(response, OPTIONS) is None
    assert not any(verify_choice(response, letter, OPTIONS).correct for letter in "ABCDEFGHIJ")


@pytest.mark.parametrize("response", [*(response for response, _ in READ), *NOT_READ])
def test_no_response_is_correct_for_two_golds(response: str) -> None:
    assert sum(verify_choice(response, letter, OPTIONS).correct for letter in "ABCDEFGHIJ") <= 1


def test_the_reason_says_what_is_wrong() -> None:
    def reason(response: str) -> str:
        return verify_choice(response, "B", OPTIONS[:4]).reason

    assert reason(r"\boxed{A}") == "the response answers A"
    assert reason(r"\boxed{E}") == "the response answers E, where the options are A to D"
    assert reason("Answer: A or B or A") == "the response answers several letters: A, B"
    assert reason("B") == r'the response answers no letter in a \boxed{} or after "Answer:"'


def test_options_are_optional() -> None:
    assert answered_letter("Answer: C") == "C"
    assert answered_letter("Answer: B. Vitamin C") is None  # only the options show that C is not a second answer


LONG = 300_000


@pytest.mark.parametrize(
    "response",
    [
        r"\boxed{" * LONG,
        "answer is " * LONG,
        "answer" + " " * LONG + "x",
        "answer" * LONG,
        "Answer: " + "(" * LONG,
        "Answer: " + " *" * LONG,
        "the best option" * LONG,
        r"\boxed{" + r"\text{" * LONG + "}",
        r"\boxed{" + "B " * LONG + "}",
        r"\boxed{B" + " , " * 300 + "!D}",
        r"\boxed{B" + ", c " * 200 + "? D}",
        "Answer: " + "the " * LONG + "B",
        "<think>" * LONG,
    ],
)
def test_the_time_grows_only_with_the_length(response: str) -> None:
    started = time.perf_counter()
    assert answered_letter(response, OPTIONS) is None
    assert time.perf_counter() - started < 10


def test_answers_of_up_to_1000_characters_are_read() -> None:
    option = "x" * 997
    assert answered_letter(rf"\boxed{{A. {option}}}", [option, "no"]) == "A"
    assert answered_letter(rf"\boxed{{A. x{option}}}", [f"x{option}", "no"]) is None
