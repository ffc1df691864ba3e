import pytest

from progrpo.verify.registry import VERIFIERS, verify, verify_exact, working, wrong_golds


@pytest.mark.parametrize(
    ("response", "equations"),
    [
        ("4 + 3 = 7", "3+4=7"),
        ("3+4=7 and then 4 + 3 = 7 again", "3+4=7"),
        ("4 - 3 = 1", "4-3=1"),
        ("3 × 4 = 12; 12 ÷ 2 = 6", "12/2=6,3*4=12"),
        (r"$3 \cdot 4 = 12$ and $\$12 - \$2 = \$10$", "12-2=10,3*4=12"),
        ("3 x 4 = 12", "3*4=12"),
        ("1,200 + 34 = 1,234", "34+1200=1234"),
        ("1 + 2 + 3 = 6", "1+2+3=6"),
        ("0.5 * 3 = 1.5", "0.5*3=1.5"),
        ("2 * 3 + 1 = 7", "2*3+1=7"),
        ("x = 7, so y = 2x + 1", ""),
        ("the answer is 7", ""),
        ("", ""),
    ],
)
def test_the_working_is_its_equations(response: str, equations: str) -> None:
    assert working(response) == equations


def test_different_workings_have_different_forms() -> None:
    forms = {working(text) for text in ("3 + 4 = 7", "4 - 3 = 1", "3 * 4 = 12", "3 + 4 = 8", "3 - 4 = 1", "2 + 5 = 7")}
    assert len(forms) == 6


def test_a_long_response_is_read_quickly() -> None:
    assert working("1 + " * 200_000) == ""
    assert working("9" * 200_000) == ""
    assert working("1+1=2 " * 50_000) == "1+1=2"


def test_exact_is_up_to_white_space() -> None:
    verdicts = verify_exact(["a b"] * 4, [" a\n b ", "ab", "a b c", ""])
    assert [v.correct for v in verdicts] == [True, False, False, False]
    assert verdicts[0].canonical == "a b"


def test_each_response_goes_to_its_own_verifier_and_comes_back_in_its_place() -> None:
    countdown = '{"numbers": [2, 3, 5], "target": 16}'
    names = ["exact", "countdown", "exact", "countdown"]
    golds = ["a", countdown, "b", "{}"]
    verdicts = verify(names, golds, ["a", "3 + 5 = 8 , 8 * 2 = 16", "a", "3 + 5 = 8"])
    assert [v.status for v in verdicts] == ["correct", "correct", "incorrect", "error"]


@pytest.mark.parametrize(
    ("verifier", "gold"),
    [
        ("countdown", "16"),
        ("countdown", "[" * 100_000),
        ("code", "[]"),
        ("code", '{"kind": "magic"}'),
        ("code", '{"kind": "stdin"}'),
        ("reasoning_gym", '{"dataset": "countdown"}'),
        ("reasoning_gym", "7"),
        ("math", r"\frac{1}{"),
        ("math", " "),
        ("unheard of", "7"),
    ],
)
def test_a_gold_that_cannot_be_used_is_told_before_training(verifier: str, gold: str) -> None:
    good = {"countdown": '{"numbers": [1, 2], "target": 3}', "math": "7"}.get(verifier, gold)
    reasons = wrong_golds([verifier, verifier], [gold, good])
    assert reasons[0]
    assert (reasons[1] == "") == (verifier in ("countdown", "math"))
    if verifier in VERIFIERS:  # and while training it is the verifier's failure, not the response's
        assert verify([verifier], [gold], [r"\boxed{7} <answer>7</answer> ```python\n```"])[0].status == "error"
