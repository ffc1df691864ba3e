r"""The parts of answers; tests/verify/math/test_answer.py tests the verdicts."""

import pytest

from progrpo.verify.math.reading import are_equations, as_list, like, read


@pytest.mark.parametrize(
    ("text", "body", "unit"),
    [
        (r"5\text{ million}", r"5\times 10^6", ""),
        (r"5\text{ million dollars}", r"5\times 10^6", "dollar"),
        (r"\$5\text{ million}", r"5\times 10^6", "dollar"),
        (r"\$5\text{ thousand million}", r"5\times 10^9", "dollar"),
        (r"5\text{ thousand miles}", r"5\times 10^3", "mi"),
    ],
)
def test_a_scale_keeps_its_unit(text: str, body: str, unit: str) -> None:
    assert (read(text).body, read(text).unit) == (body, unit)


@pytest.mark.parametrize(
    ("text", "body"), [(r"5\text{ / }", "5/"), (r"\text{meters}", r"\text{meters}"), (r"5\text{ and }", r"5\text{and}")]
)
def test_other_words_are_not_a_unit(text: str, body: str) -> None:
    assert (read(text).body, read(text).unit) == (body, "")


@pytest.mark.parametrize(
    ("text", "body", "base"),
    [
        (r"12\text{ base nine}", "12", "9"),
        (r"12\text{ base number nine}", "12", "9"),
        (r"12\text{ base}", "12", ""),
        (r"12\text{ base camps}", "12", ""),
    ],
)
def test_a_base_in_words(text: str, body: str, base: str) -> None:
    assert (read(text).body, read(text).base) == (body, base)


@pytest.mark.parametrize(
    ("other", "listed"),
    [("110, 70", "70, 110"), (r"\{110, 70\}", "70, 110"), (r"\{1, 2, 3\}", "70,110"), ("70110", "70,110")],
)
def test_a_comma_separates_beside_a_list_or_set_of_two(other: str, listed: str) -> None:
    assert as_list("70,110", other) == listed


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ("c=3, a=1, b=2", "(1,2,3)"),
        ("z=3, x=1, y=2", "(1,2,3)"),
        ("z=3, x=1", "(1,3)"),
        ("a_2=3, a_1=1", "(1,3)"),
        ("m=3, p=1", "(3,1)"),  # only the answer says that m comes first
        ("c=3, a=1", "(3,1)"),
    ],
)
def test_named_values_are_a_pair_in_the_order_of_the_alphabet(answer: str, body: str) -> None:
    gold = read("(1,2,3)" if body.count(",") == 2 else "(1,3)")
    assert like(read(answer), gold).body == body


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("x=1-y", "y=1-x", True),
        ("x=5", "y=1-x", False),  # the gold has an x, but the answer has no y
        ("y=5", "x=1-y", False),
        ("z=1-y", "y=1-x", False),
    ],
)
def test_equations_with_two_names(answer: str, gold: str, expected: bool) -> None:
    assert are_equations(read(answer), read(gold)) == expected
