"""A response that was cut off in its thinking part has no answer yet, even if the prompt opened that part."""

import json
from collections.abc import Callable

import pytest

from progrpo.verify import AssertTests, CallTests
from progrpo.verify.choice import choice_gold
from progrpo.verify.code.programs import gold_of
from progrpo.verify.reasoning_gym.answers import extract_tagged_answer
from progrpo.verify.registry import count_votes, verify
from progrpo.verify.thinking import after_thinking, begin_thinking, ends_in_thinking

HEAD = 'def f(x):\n    """Return x."""\n'
RIGHT = {
    "math": (r"\boxed{5}", "5"),
    "math_answer": ("Answer: 5", "5"),
    "math_last_number": ("It is 5", "5"),
    "math_any": ("The answer is 5", "5"),
    "choice": (r"\boxed{B}", choice_gold("B", ["one", "two"])),
    "exact": ("5", "5"),
    "countdown": ("2 + 3 = 5", json.dumps({"numbers": [2, 3], "target": 5})),
    "code": ("```python\ndef f(x):\n    return x\n```", gold_of(CallTests("f", (([1], 1),)))),
    "code that completes": (
        "    return x\n",
        gold_of(AssertTests("assert f(1) == 1", setup=HEAD, entry_point="f"), prefix=HEAD, completes=True),
    ),
}
"""A right answer and its gold for each verifier."""


@pytest.mark.parametrize("name", RIGHT)
def test_an_unfinished_thinking_part_has_no_answer(name: str) -> None:
    answer, gold = RIGHT[name]
    responses = [
        answer,
        f"hm</think>{answer}",
        begin_thinking(f"Maybe\n{answer}"),
        begin_thinking(answer),
        begin_thinking(f"<think>\nMaybe\n{answer}"),
        begin_thinking(f"hm</think>{answer}"),
        begin_thinking(f"<think>hm</think>{answer}"),
    ]
    verdicts = verify([name.removesuffix(" that completes")] * len(responses), [gold] * len(responses), responses)
    assert [verdict.correct for verdict in verdicts] == [True, True, False, False, False, True, True], verdicts
    assert {verdict.status for verdict in verdicts} == {"correct", "incorrect"}


@pytest.mark.parametrize("name", ["math", "math_any", "choice", "exact"])
def test_an_unfinished_thinking_part_has_no_vote(name: str) -> None:
    answer, gold = RIGHT[name]
    assert count_votes(name, gold, [answer, begin_thinking(answer), begin_thinking(f"</think>{answer}")]) == ([2], 1)


def test_an_unfinished_thinking_part_has_no_tagged_answer() -> None:
    assert extract_tagged_answer(begin_thinking("<answer>7</answer>")) is None
    assert extract_tagged_answer(begin_thinking("hm</think><answer>7</answer>")) == "7"


@pytest.mark.parametrize(
    ("prompt", "is_open"),
    [
        ("<｜User｜>1 + 1?<｜Assistant｜><think>\n", True),
        ("Assistant: Let me solve this step by step.\n<think>", True),
        ("1 + 1?\n<think> \n\n", True),
        ("1 + 1?\n<think>\nOkay, so I", True),
        ("<think>a</think> 1 <think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("Think inside <think> and </think>, then answer.\nAssistant:", False),
        ("Begin with the tag <think> and think.\nAssistant:", False),
        ("1 + 1?", False),
        ("", False),
    ],
)
def test_prompts_that_end_in_thinking(prompt: str, is_open: bool) -> None:
    assert ends_in_thinking(prompt) == is_open


@pytest.mark.parametrize("take", [after_thinking, begin_thinking, ends_in_thinking])
@pytest.mark.parametrize("piece", ["<think>", "<think> ", "</think>", "<", " \n"])
def test_the_time_grows_only_with_the_length(take: Callable[[str], object], piece: str) -> None:
    take(piece * 100_000)
