import pytest

from progrpo.verify.registry import VERIFIERS, verify, wrong_golds


def test_exact_is_up_to_white_space() -> None:
    verdicts = verify(["exact"] * 4, ["a b"] * 4, [" a\n b ", "ab", "a b c", ""])
    assert [v.correct for v in verdicts] == [True, False, False, False]
    assert verdicts[0].canonical == "a b"


def test_each_verdict_comes_from_the_verifier_at_its_place() -> None:
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
        ("countdown", '{"numbers": [1, 2], "target": Infinity}'),
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
def test_an_unusable_gold_is_reported_before_training(verifier: str, gold: str) -> None:
    good = {"countdown": '{"numbers": [1, 2], "target": 3}', "math": "7"}.get(verifier, gold)
    reasons = wrong_golds([verifier, verifier], [gold, good])
    assert reasons[0]
    assert (reasons[1] == "") == (verifier in ("countdown", "math"))
    if verifier in VERIFIERS:  # during training, this is the verifier's failure and not the response's
        assert verify([verifier], [gold], [r"\boxed{7} <answer>7</answer> ```python\n```"])[0].status == "error"
