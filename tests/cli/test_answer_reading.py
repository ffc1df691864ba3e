"""How ``progrpo evaluate`` reads responses: the answer style, and whether they begin inside a thinking part."""

import json
from typing import Any

import pytest
from tests.sampling.http_server import Server


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--opens-thinking",), "--opens-thinking is for --backend http"),
        (("--answer-style", "any"), "is for mathematics, and the task is countdown: leave it out"),
        (("--answer-style", "some"), "'some' is not one of"),
    ],
)
def test_bad_input_gets_a_sentence(cli: Any, arguments: tuple[str, ...], message: str) -> None:
    failed = cli("evaluate", "countdown", *arguments, code=2)
    assert message in failed.err
    assert "Traceback" not in failed.err


ANSWERS = ["The answer is 5.", r"Maybe \boxed{5}? Wait, that can't be right", r"Hm.</think> So \boxed{5}.", "5 or 7"]


def answer_in_turn(handler: Any, body: dict[str, Any], right: dict[str, Any]) -> None:
    choices = [
        {"index": j, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWERS[j % len(ANSWERS)]}}
        for j in range(body["n"])
    ]
    handler.send_json(200, {"object": "answer", "choices": choices})


@pytest.mark.parametrize(
    ("options", "correct"),
    [
        ((), 2),
        (("--answer-style", "any"), 3),
        (("--opens-thinking",), 1),
        (("--opens-thinking", "--answer-style", "any"), 1),
    ],
)
def test_how_the_responses_of_a_server_are_read(cli: Any, options: tuple[str, ...], correct: int) -> None:
    rows = [{"problem": "What is 2 + 3?", "answer": "5"}]
    (cli.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = Server()
    try:
        server.always = answer_in_turn
        cli(
            *("evaluate", "tiny", "--backend", "http", "--base-url", server.url, "--benchmarks", "aime24"),
            *("--data", "aime24=rows.jsonl", "--samples", "4", "--out", "e", *options),
        )
    finally:
        server.close()
    [problem] = json.loads((cli.folder / "e" / "aime24.json").read_text())["problems"]
    assert problem["correct"] == correct
