"""On every backend, samples begin with the thinking part that their prompt opened."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sampling.http_server import Server
from tests.tiny import tiny_qwen2, trl_template

from progrpo.evaluation.evaluate import evaluate
from progrpo.sampling import Request, Sampling
from progrpo.sampling.http import HttpBackend
from progrpo.sampling.models import load_model
from progrpo.sampling.transformers import TransformersBackend
from progrpo.tasks import Data, MathTask

SAMPLING = Sampling(max_new_tokens=20)
CHAT = [{"role": "user", "content": "1 + 1?"}]


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("openai")
    server = Server()
    yield server
    server.close()


def backend(server: Server, **settings: Any) -> HttpBackend:
    return HttpBackend(server.url, "tiny", timeout=2.0, patience=0.0, **settings)


def texts_of(backend: HttpBackend, prompt: Any, count: int) -> list[str]:
    return [sample.text for _, samples in backend.sample([Request(prompt, 0, count)], SAMPLING) for sample in samples]


CUT_OFF = r"Maybe \boxed{5}? Wait, that can't be right"
ANSWERED = r"2 and 3.</think> It is \boxed{5}."
PARSED = {"content": r"It is \boxed{5}.", "reasoning_content": "2 and 3."}


def thinking_of(*contents: Any) -> Any:
    """Chat answers with these contents, or messages, in turn."""

    def answer(handler: Any, body: dict[str, Any], right: dict[str, Any]) -> None:
        messages = [content if isinstance(content, dict) else {"content": content} for content in contents]
        choices = [
            {"index": j, "finish_reason": "stop", "message": {"role": "assistant", **messages[j % len(messages)]}}
            for j in range(body["n"])
        ]
        handler.send_json(200, {"object": "answer", "choices": choices})

    return answer


@pytest.mark.parametrize(("opens", "correct"), [(True, 1), (False, 2)])
def test_a_cut_off_thinking_part_that_the_servers_template_opened_is_not_an_answer(
    server: Server, opens: bool, correct: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.always = thinking_of(CUT_OFF, ANSWERED, CUT_OFF.replace("5", "6"))
    data = Data(preset="word_problems", limit=1)
    task = MathTask(None, data)
    problem = task.heldout_problems()[0] | {"gold": "5"}
    asked = backend(server, opens_thinking=opens)
    [result] = evaluate(asked, task, SAMPLING, n=3, problems=[problem]).problems
    assert result.correct == correct
    assert (result.wrong_votes, result.no_answer) == (([], 2) if opens else ([1], 0))
    assert ("give --opens-thinking" in caplog.text) == (not opens), "a warning says that the option is missing"
    assert asked.model_digest != backend(server, opens_thinking=not opens).model_digest, (
        "their samples are never mixed in a store"
    )


def test_behind_a_reasoning_parser_the_content_is_the_answer(server: Server) -> None:
    server.always = thinking_of(PARSED, {"content": None, "reasoning_content": CUT_OFF})
    assert texts_of(backend(server, opens_thinking=True), CHAT, 2) == [PARSED["content"], ""]


def test_a_text_that_ends_in_an_open_thinking_part_needs_no_option(server: Server) -> None:
    [text] = texts_of(backend(server), "1 + 1? <think>", 1)
    assert text.startswith("<think>\n")


@pytest.mark.parametrize(("template", "opens"), [("deepseek_r1_distill", True), ("qwen2_5", False)])
def test_a_sample_begins_with_the_thinking_part_that_its_prompt_opened(
    template: str, opens: bool, tmp_path: Path
) -> None:
    model, tokenizer = load_model(str(tiny_qwen2(tmp_path / "model", template=trl_template(template))))
    backend = TransformersBackend(model, tokenizer)
    prompts: list[Any] = [[{"role": "user", "content": "1 + 1?"}], "1 + 1? <think>\n", "1 + 1?"]
    requests = [Request(prompt, 0, 2) for prompt in prompts]
    texts = {place: [s.text for s in samples] for place, samples in backend.sample(requests, Sampling(4))}
    begins = [all(text.startswith("<think>\n") for text in texts[place]) for place in range(3)]
    assert begins == [opens, True, False]
