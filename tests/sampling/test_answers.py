"""Answers of a server, without the server."""

import json

import pytest
from pydantic import ValidationError

from progrpo.sampling.answers import Answer, fault, one_line


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("no.", "no"),
        ({"error": {"message": "too\nlong"}}, "too long"),
        ({"detail": "not here"}, "not here"),
        ({"other": 1}, '{"other": 1}'),
        ("", "nothing"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 300 + " "),
    ],
)
def test_a_servers_message_becomes_one_line(body: object, message: str) -> None:
    assert one_line(body) == message


def test_choices_are_sorted_cut_at_a_gap_and_at_most_as_many_as_requested() -> None:
    choices = [{"index": i, "finish_reason": "stop", "text": str(i)} for i in (3, 1, 0)]
    answer = Answer.model_validate_json(json.dumps({"choices": choices}))
    assert [sample.text for sample in answer.samples(8)] == ["0", "1"]
    assert [sample.text for sample in answer.samples(1)] == ["0"]


def test_the_reason_for_a_broken_answer_names_the_choice() -> None:
    with pytest.raises(ValidationError) as raised:
        Answer.model_validate_json('{"choices": [{"index": 0, "finish_reason": "abort", "text": "a"}]}')
    assert fault(raised.value) == "choices.0: Value error, its finish_reason is abort"
