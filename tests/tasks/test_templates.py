from typing import Any

import pytest
from tests.tiny import trl_template
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from progrpo.tasks.templates import check_template, prompt_text, render, response_text, template_opens_thinking

PROBLEM, INSTRUCTION = r"What is \frac{1}{2} of {x}?", r"Use \boxed{}."
EXAMPLES = [("1 + 1?", r"It is \boxed{2}.")]


def test_plain_is_the_problem_alone() -> None:
    assert render("plain", PROBLEM, INSTRUCTION, EXAMPLES) == PROBLEM


def test_base_shows_examples_above_and_ends_where_the_model_goes_on() -> None:
    assert render("base", PROBLEM, INSTRUCTION, EXAMPLES) == (
        "Problem: 1 + 1?\nSolution: It is \\boxed{2}.\n\n"
        "Problem: What is \\frac{1}{2} of {x}?\nUse \\boxed{}.\nSolution:"
    )


def test_chat_is_a_user_message_with_examples_as_earlier_turns() -> None:
    assert render("chat", PROBLEM, INSTRUCTION) == [{"role": "user", "content": f"{PROBLEM}\n\n{INSTRUCTION}"}]
    messages = render("chat", PROBLEM, INSTRUCTION, EXAMPLES)
    assert [message["role"] for message in messages if isinstance(message, dict)] == ["user", "assistant", "user"]
    assert messages[-1] == {"role": "user", "content": PROBLEM}


def test_your_own_template_keeps_its_braces_and_those_of_the_problem() -> None:
    """str.format would fail on LaTeX; filling in twice would replace braces in the problem."""
    template = "{{a}} {problem} | {instruction} {b"
    assert render(template, "{instruction}", INSTRUCTION) == r"{{a}} {instruction} | Use \boxed{}. {b"


def test_a_template_is_a_name_or_contains_the_problem() -> None:
    assert check_template("Q: {problem}") == "Q: {problem}"
    with pytest.raises(ValueError, match="must be one of plain, base, chat"):
        check_template("chatml")


def test_prompts_and_completions_as_text() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert prompt_text("a") == "a"
    assert prompt_text(messages) == "user: a\n\nassistant: b"
    assert response_text("a") == "a"
    assert response_text(messages) == "b"


def test_the_text_of_a_message_in_parts_and_of_no_message() -> None:
    image = {"type": "image", "image": b"..."}
    parts = [{"type": "text", "text": "It is "}, image, {"type": "text", "text": None}, {"type": "text", "text": "5."}]
    message = {"role": "assistant", "content": parts}
    assert response_text([message]) == "It is 5."
    assert response_text([message], in_thinking=True) == "<think>\nIt is 5."
    assert prompt_text([message]) == "assistant: It is 5."
    assert response_text([]) == ""


R1 = "deepseek_r1_distill"
OLDER_R1 = "deepseek_r1_distill before its template opened the thinking part"


@pytest.mark.parametrize(
    ("name", "arguments", "opens"),
    [
        (R1, {}, True),
        (OLDER_R1, {}, False),
        ("deepseekv3", {}, True),
        ("qwen2_5", {}, False),
        ("qwen3", {}, False),
        ("qwen3", {"enable_thinking": False}, False),
        ("qwen3_5_think", {}, True),
        ("qwen3_5_think", {"enable_thinking": False}, False),
        ("qwen3_5_nothink", {}, False),
        ("qwen3_5_nothink", {"enable_thinking": True}, True),
    ],
)
def test_which_chat_templates_open_a_thinking_part(name: str, arguments: dict[str, Any], opens: bool) -> None:
    template = trl_template(R1 if name == OLDER_R1 else name)
    if name == OLDER_R1:
        assert template.count("<think>\\n") == 1
        template = template.replace("<think>\\n", "")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0}, "?")), chat_template=template)
    assert template_opens_thinking(tokenizer, **arguments) == opens
    tokenizer.chat_template = trl_template("qwen2_5" if opens else R1)
    assert template_opens_thinking(tokenizer, template, **arguments) == opens, (
        "a given template replaces the tokenizer's own"
    )


def test_a_tokenizer_without_a_chat_template_opens_nothing() -> None:
    assert not template_opens_thinking(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0}, "?"))))
    assert not template_opens_thinking(None)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "5"}, "<think>\n5"),
        ({"content": "5", "reasoning_content": "hm"}, "5"),  # TRL has moved the thinking part out
        ({"content": "5", "thinking": "hm"}, "5"),
        ({"content": None, "reasoning_content": "hm"}, ""),
    ],
)
def test_the_text_of_a_message_begins_where_its_thinking_part_does(message: dict[str, Any], text: str) -> None:
    assert response_text([{"role": "assistant", **message}], in_thinking=True) == text
    assert response_text([{"role": "assistant", **message}]) == (message["content"] or "")
