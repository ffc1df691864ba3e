import pytest

from progrpo.tasks.templates import check_template, prompt_text, render, response_text

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


def test_a_text_of_ones_own_keeps_its_braces_and_those_of_the_problem() -> None:
    """str.format would fail on LaTeX; filling in twice would fill in what a problem says."""
    template = "{{a}} {problem} | {instruction} {b"
    assert render(template, "{instruction}", INSTRUCTION) == r"{{a}} {instruction} | Use \boxed{}. {b"


def test_a_template_is_a_name_or_holds_a_problem() -> None:
    assert check_template("Q: {problem}") == "Q: {problem}"
    with pytest.raises(ValueError, match="must be one of plain, base, chat"):
        check_template("chatml")


def test_prompts_and_completions_as_text() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert prompt_text("a") == "a"
    assert prompt_text(messages) == "user: a\n\nassistant: b"
    assert response_text("a") == "a"
    assert response_text(messages) == "b"
