"""Equal samples at a temperature above 0 cause a warning, unless their prompts do not count."""

import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from tests.evaluation.test_evaluate import FakeTask
from tests.sampling import http_server as server_side
from tests.sampling.http_server import Server

from progrpo.evaluation.evaluate import equal_samples, evaluate, evaluate_into
from progrpo.evaluation.results import Evaluation
from progrpo.evaluation.store import Judged
from progrpo.sampling import Request, Sample, Sampling
from progrpo.sampling.http import HttpBackend
from progrpo.verify import Verdict

SAMPLING = Sampling(20, temperature=0.7)


class Scripted:
    """Sample i of a prompt is ``script[prompt][i]``, with this number of tokens."""

    name, model_digest = "scripted", "m"

    def __init__(self, script: dict[str, Sequence[str]], tokens: int = 0) -> None:
        self.script, self.tokens = script, tokens

    def sample(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Generator[tuple[int, list[Sample]], None, None]:
        for place, request in enumerate(requests):
            texts = self.script[str(request.prompt)][request.first : request.first + request.count]
            yield place, [Sample(text, [7] * self.tokens, []) for text in texts]


def warnings_of(script: dict[str, Sequence[str]], *, n: int = 4, tokens: int = 0) -> list[str]:
    problems = [{"problem_id": name, "prompt": name} for name in script]
    evaluation = evaluate(Scripted(script, tokens), FakeTask(), SAMPLING, n=n, problems=problems)
    warnings: list[str] = evaluation.settings["warnings"]
    return warnings


def test_a_server_that_ignores_temperature_causes_a_warning() -> None:
    server = Server()
    server.always = server_side.ignore_sampling
    problems = [{"problem_id": name, "prompt": [{"role": "user", "content": name}]} for name in ("one", "two", "six")]
    try:
        evaluation = evaluate(HttpBackend(server.url, "tiny"), FakeTask(), SAMPLING, n=4, problems=problems)
    finally:
        server.close()
    assert evaluation.settings["warnings"] == [
        "all 4 samples of 3 of 3 prompts are equal at temperature 0.7: does the server ignore the temperature, or "
        "has the policy collapsed?"
    ]
    # The server counts the tokens. No entropy was measured, so none is shown.
    assert [problem.tokens for problem in evaluation.problems] == [20, 20, 20]
    assert evaluation.settings["entropy"] is None
    assert "entropy" not in evaluation.summary()
    assert json.loads(json.dumps(evaluation.to_json(), allow_nan=False))["problems"][0]["entropy"] is None


def test_a_server_that_samples_causes_no_warning(tmp_path: Path) -> None:
    server = Server()
    problems = [{"problem_id": name, "prompt": name} for name in ("one", "two")]
    try:
        evaluation = evaluate(HttpBackend(server.url, "tiny"), FakeTask(), SAMPLING, n=4, problems=problems)
    finally:
        server.close()
    assert evaluation.settings["warnings"] == []
    assert evaluation.settings["entropy"] == "drawn"


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        ({"a": ["wrong answer"] * 4, "b": ["wrong answer"] * 3 + ["another"]}, {}),  # some prompts only
        ({"a": ["wrong answer"], "b": ["wrong answer"]}, {"n": 1}),
        ({"a": ["B"] * 4, "b": ["12"] * 4}, {}),
        ({"a": ["internationalisation"] * 4}, {"tokens": 2}),  # a token and its end
        ({"a": [""] * 4}, {}),
    ],
)
def test_prompts_that_do_not_count_cause_no_warning(script: dict[str, list[str]], settings: dict[str, Any]) -> None:
    assert warnings_of(script, **settings) == []


def test_greedy_samples_cause_no_warning() -> None:
    judged = [Judged("wrong answer", Verdict("incorrect"), 3, None, None, None, False)] * 4
    assert equal_samples([judged], 0.0) == []
    assert equal_samples([judged], 0.01)[0].startswith("all 4 samples of 1 of 1 prompts are equal at temperature 0.01:")


def test_prompts_with_single_token_answers_are_not_counted() -> None:
    script = {"a": ["wrong answer"] * 4, "b": ["B"] * 4}
    assert warnings_of(script)[0].startswith("all 4 samples of 1 of 2 prompts are equal at temperature 0.7")


def test_a_resumed_evaluation_warns_about_all_its_samples(tmp_path: Path) -> None:
    class Task(FakeTask):
        def heldout_problems(self) -> list[dict[str, Any]]:
            return [{"problem_id": "a", "prompt": "a"}]

    def go_on(texts: list[str]) -> Evaluation:
        backend = Scripted({"a": texts})
        return evaluate_into(tmp_path, "e", backend, Task(), SAMPLING, n=len(texts), model="m")

    assert go_on(["wrong answer"] * 2).settings["warnings"][0].startswith("all 2 samples")
    assert go_on(["wrong answer"] * 4).settings["warnings"][0].startswith("all 4 samples")
    assert json.loads((tmp_path / "e.json").read_text())["settings"]["warnings"][0].startswith("all 4 samples")
    assert go_on(["wrong answer"] * 4 + ["another one"]).settings["warnings"] == []
