"""The HTTP backend against a server on a real socket, behaving and misbehaving."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("openai")

from tests.sampling import http_server as server_side
from tests.sampling.http_server import Server

from progrpo.common.errors import ConfigError
from progrpo.sampling import Backend, Request, Sample, Sampling, sample_seed
from progrpo.sampling.http import HttpBackend

SAMPLING = Sampling(max_new_tokens=20, temperature=0.7, top_p=0.9, seed=3)
CHAT = [{"role": "user", "content": "1 + 1?"}]


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    threads = threading.active_count()
    server = Server()
    yield server
    server.close()
    deadline = time.monotonic() + 2
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads, threading.enumerate()


def backend(server: Server, **settings: Any) -> HttpBackend:
    return HttpBackend(server.url, "tiny", **{"timeout": 2.0, "retries": 2, "patience": 0.0} | settings)


def expected(prompt: Any, first: int, count: int, ids: bool = True) -> list[Sample]:
    texts = [str(sample_seed(SAMPLING.seed, prompt, i)) for i in range(first, first + count)]
    return [Sample(text, [int(d) for d in text] if ids else [], [-(int(d) + 1) / 10 for d in text]) for text in texts]


def collect(backend: HttpBackend, requests: list[Request]) -> list[list[Sample]]:
    samples: list[list[Sample]] = [[] for _ in requests]
    for place, some in backend.sample(requests, SAMPLING):
        assert some
        samples[place] += some
    return samples


def one_each(backend: HttpBackend, prompts: str = "pqr") -> Iterator[tuple[int, list[Sample]]]:
    return backend.sample([Request(prompt, 0, 1) for prompt in prompts], SAMPLING)


def test_text_is_continued_and_messages_are_answered(server: Server) -> None:
    asked: Backend = backend(server, concurrency=1)
    requests = [Request("1 + 1 =", 0, 3), Request(CHAT, 5, 2)]
    assert collect(asked, requests) == [expected("1 + 1 =", 0, 3), expected(CHAT, 5, 2)]
    (text_path, text_body), (chat_path, chat_body) = server.requests
    shared = {"model": "tiny", "max_tokens": 20, "temperature": 0.7, "top_p": 0.9}
    assert text_path == "/v1/completions"
    assert text_body.items() >= (shared | {"prompt": "1 + 1 =", "n": 3, "logprobs": 1}).items()
    assert text_body["seed"] == sample_seed(3, "1 + 1 =", 0)
    assert chat_path == "/v1/chat/completions"
    assert chat_body.items() >= (shared | {"messages": CHAT, "n": 2, "logprobs": True}).items()
    assert chat_body["seed"] == sample_seed(3, CHAT, 5)
    # The request sets what the server would otherwise read from the model's generation_config.json.
    assert text_body.items() >= {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0}.items()


def test_a_sample_depends_on_its_index_alone(server: Server) -> None:
    whole = collect(backend(server, concurrency=1), [Request("p", 0, 40)])
    assert [body["n"] for _, body in server.requests] == [16, 16, 8]
    parts = collect(backend(server), [Request("p", 0, 7), Request("p", 7, 33)])
    assert whole == [expected("p", 0, 40)] == [parts[0] + parts[1]]


def test_a_cut_off_response_is_marked(server: Server) -> None:
    server.script.append(server_side.changed(lambda choices: choices[1].update(finish_reason="length")))
    samples = collect(backend(server), [Request("p", 0, 2)])[0]
    assert [sample.truncated for sample in samples] == [False, True]


def test_the_only_model_is_found_and_several_are_listed(server: Server) -> None:
    assert HttpBackend(server.url).model == "tiny"
    server.models = ["tiny", "large"]
    with pytest.raises(ConfigError, match=r"one model \(it has 'tiny', 'large'\); name one as model"):
        HttpBackend(server.url)
    server.models = []
    with pytest.raises(ConfigError, match=r"one model \(it has none\)"):
        HttpBackend(server.url)


def test_the_digest_differs_by_server_and_model(server: Server) -> None:
    digests = [HttpBackend(url, name).model_digest for url in (server.url, "http://b/v1") for name in ("a", "b")]
    assert len(set(digests)) == 4
    assert HttpBackend(server.url, "a").model_digest == digests[0]
    assert HttpBackend("http://b", "a").model_digest == HttpBackend("http://b/v1/", "a").model_digest


def test_the_key_is_sent_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(backend(server, api_key="secret"), [Request("p", 0, 1)])
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    collect(backend(server), [Request("p", 0, 1)])
    assert server.keys == ["Bearer secret", "Bearer from the environment"]
    with pytest.raises(ConfigError, match="api_key, must be printable ASCII") as raised:
        backend(server, api_key="secret\n")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("path", ["p", CHAT], ids=["text", "chat"])
def test_a_server_that_refuses_extensions_is_asked_without_them(server: Server, path: Any) -> None:
    server.always = server_side.refuse_extras
    server.seconds = 0.05  # then all of the first four requests are refused before one is answered
    asked = backend(server, concurrency=4)
    requests = [Request(path, i, 1) for i in range(8)]
    assert collect(asked, requests) == [expected(path, i, 1, ids=False) for i in range(8)]
    assert len(server.requests) == 4 + 8
    assert collect(asked, requests[:1]) == [expected(path, 0, 1, ids=False)]
    assert len(server.requests) == 4 + 8 + 1


def test_ids_may_be_listed_with_the_log_probs(server: Server) -> None:
    """llama.cpp does so."""

    def move(choices: list[dict[str, Any]]) -> None:
        ids = choices[0].pop("token_ids")
        for token, i in zip(choices[0]["logprobs"]["content"], ids, strict=True):
            token["id"] = i

    server.script.append(server_side.changed(move))
    assert collect(backend(server), [Request(CHAT, 0, 1)]) == [expected(CHAT, 0, 1)]


def test_a_server_may_give_no_log_probs(server: Server) -> None:
    server.script.append(server_side.changed(lambda choices: choices[0].update(logprobs=None)))
    (sample,) = collect(backend(server), [Request("p", 0, 1)])[0]
    assert sample.logps == []
    assert sample.text == str(sample_seed(3, "p", 0))


@pytest.mark.parametrize("path", ["p", CHAT], ids=["text", "chat"])
def test_usage_counts_the_tokens_if_they_are_not_listed(server: Server, path: Any) -> None:
    server.always = server_side.ignore_sampling
    (samples,) = collect(backend(server), [Request(path, 0, 20)])
    assert [(sample.tokens, sample.logps, sample.token_ids) for sample in samples] == [(5, [], [])] * 20


@pytest.mark.parametrize(
    ("texts", "usage", "tokens"),
    [
        (["a" * 9, "b" * 29, ""], {"completion_tokens": 41}, [10, 30, 1]),  # shared by length, the end token included
        (["a", "b", "c"], {"completion_tokens": 10}, [3, 3, 4]),  # the shares add up
        (["a", "b"], None, [0, 0]),
        (["a", "b"], {}, [0, 0]),
        (["a", "b"], {"completion_tokens": "many"}, [0, 0]),
        (["a", "b"], ["strange"], [0, 0]),
    ],
)
def test_choices_share_the_tokens_that_usage_counts(
    server: Server, texts: list[str], usage: Any, tokens: list[int]
) -> None:
    def answer(handler: Any, body: dict[str, Any], right: dict[str, Any]) -> None:
        choices = [{"index": i, "finish_reason": "stop", "text": text} for i, text in enumerate(texts)]
        handler.send_json(200, right | {"choices": choices, "usage": usage})

    server.script.append(answer)
    (samples,) = collect(backend(server), [Request("p", 0, len(texts))])
    assert [sample.tokens for sample in samples] == tokens
    assert len(server.requests) == 1


def test_listed_tokens_come_before_usage(server: Server) -> None:
    def answer(handler: Any, body: dict[str, Any], right: dict[str, Any]) -> None:
        handler.send_json(200, right | {"usage": {"completion_tokens": 1000}})

    server.script.append(answer)
    assert collect(backend(server), [Request("p", 0, 2)]) == [expected("p", 0, 2)]


def test_an_answer_that_ended_in_its_reasoning_has_no_text(server: Server) -> None:
    thought = {"message": {"content": None, "reasoning": "hm"}, "finish_reason": "length"}
    server.script.append(server_side.changed(lambda choices: choices[0].update(thought)))
    (sample,) = collect(backend(server), [Request(CHAT, 0, 1)])[0]
    assert (sample.text, sample.truncated) == ("", True)
    assert sample.logps == expected(CHAT, 0, 1)[0].logps


# Which answers are asked for again


@pytest.mark.parametrize(
    "misbehave",
    [
        server_side.drop,
        server_side.cut_off,
        server_side.cut_json,
        server_side.status(429, "slow down", Retry_After="0.1"),
        server_side.status(500, "oh"),
        server_side.status(503, "loading"),
        server_side.changed(lambda choices: choices.clear()),
        server_side.changed(lambda choices: choices[0].pop("text")),
        server_side.changed(lambda choices: choices[1].update(text=None)),
        server_side.changed(lambda choices: choices[1].update(finish_reason=None)),
        server_side.changed(lambda choices: choices[1].update(finish_reason="abort")),
        server_side.changed(lambda choices: choices[1]["logprobs"]["token_logprobs"].pop()),
        server_side.changed(lambda choices: choices[0]["logprobs"]["token_logprobs"].__setitem__(0, None)),
        server_side.changed(lambda choices: choices[0]["logprobs"]["token_logprobs"].__setitem__(0, float("nan"))),
        server_side.changed(lambda choices: choices[1]["token_ids"].pop()),
        lambda handler, body, right: handler.send_bytes(200, b"<html>"),
        lambda handler, body, right: handler.send_json(200, {"error": "not now"}),
    ],
    ids=(
        "dropped body_cut_off json_cut 429 500 503 no_choices no_text null_text no_finish_reason aborted "
        "a_log_prob_less null_log_prob nan_log_prob an_id_less html no_answer"
    ).split(),
)
@pytest.mark.usefixtures("_no_waiting")
def test_a_lost_or_broken_answer_is_asked_for_again(server: Server, misbehave: server_side.Misbehaviour) -> None:
    server.script.append(misbehave)
    assert collect(backend(server), [Request("p", 2, 2)]) == [expected("p", 2, 2)]
    assert len(server.requests) == 2
    assert server.requests[0][1] == server.requests[1][1]


@pytest.mark.parametrize(("code", "is_waited_for"), [(502, True), (503, True), (504, True), (500, False)])
def test_a_server_that_is_gone_behind_a_proxy_is_waited_for(
    server: Server, code: int, is_waited_for: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("progrpo.sampling.http.SECONDS_BETWEEN_CALLS", 0.01)
    patient = backend(server, retries=0, patience=30.0)
    assert collect(patient, [Request("p", 0, 1)]) == [expected("p", 0, 1)]  # now it has answered before
    server.script += [server_side.status(code, "away")] * 3
    if is_waited_for:
        assert collect(patient, [Request("p", 1, 1)]) == [expected("p", 1, 1)]
        assert len(server.requests) == 1 + 3 + 1
    else:
        with pytest.raises(ConfigError, match=str(code)):
            collect(patient, [Request("p", 1, 1)])


@pytest.mark.parametrize("misbehave", [server_side.stall, server_side.trickle])
def test_a_stalled_answer_is_asked_for_again(server: Server, misbehave: server_side.Misbehaviour) -> None:
    server.script.append(misbehave)
    assert collect(backend(server, timeout=0.4), [Request("p", 0, 2)]) == [expected("p", 0, 2)]
    assert len(server.requests) == 2
    assert 0.4 <= server.times[1] - server.times[0] < 2


def test_it_obeys_retry_after(server: Server) -> None:
    server.script.append(server_side.status(429, "slow down", Retry_After="1.5"))
    collect(backend(server), [Request("p", 0, 1)])
    assert 1.5 <= server.times[1] - server.times[0] < 2.5


def test_it_waits_longer_each_time(server: Server) -> None:
    server.script.extend([server_side.cut_json] * 2)
    collect(backend(server), [Request("p", 0, 1)])
    first, second, third = server.times
    assert 0.37 <= second - first < 0.74 <= third - second < 1.6  # OpenAI's client shortens waits by up to a quarter


def test_missing_choices_are_requested_with_their_seeds(server: Server) -> None:
    server.script.append(server_side.changed(lambda choices: choices.__delitem__(slice(3, None))))
    server.script.append(server_side.changed(lambda choices: choices.pop(1)))
    assert collect(backend(server), [Request("p", 0, 8)]) == [expected("p", 0, 8)]
    asked = [(body["n"], body["seed"] - sample_seed(3, "p", 0)) for _, body in server.requests]
    assert asked == [(8, 0), (5, 3), (4, 4)]


def test_a_server_that_ignores_n_is_asked_once_for_each_sample(server: Server) -> None:
    server.always = server_side.changed(lambda choices: choices.__delitem__(slice(1, None)))
    assert collect(backend(server), [Request("p", 0, 18)]) == [expected("p", 0, 18)]
    assert len(server.requests) == 18


def test_choices_may_come_in_any_order_and_more_than_asked_for(server: Server) -> None:
    def more(handler: Any, body: dict[str, Any], right: dict[str, Any]) -> None:
        right["choices"] += [server_side.choice(handler.path, body, body["n"])]
        handler.send_json(200, right | {"choices": right["choices"][::-1]})

    server.always = more
    assert collect(backend(server), [Request("p", 0, 20)]) == [expected("p", 0, 20)]
    assert len(server.requests) == 2


# When it gives up


@pytest.mark.parametrize(
    ("misbehave", "message"),
    [
        (server_side.drop, r"the last time: no connection \(Server disconnected"),
        (server_side.cut_off, r"the last time: no connection \("),
        (server_side.cut_json, r"the last time: a broken answer \(Invalid JSON"),
        (server_side.status(429, "slow down", Retry_After="0.1"), "the last time: 429: slow down;"),
        (server_side.status(500, "engine\nis dead."), "the last time: 500: engine is dead;"),
        (server_side.stall, r"the last time: no complete answer within the timeout of 0.3 s;"),
        (
            server_side.changed(lambda choices: choices[0]["logprobs"]["token_logprobs"].pop()),
            r"a broken answer \(choices.0: Value error, it has \d+ tokens and \d+ log-probs\)",
        ),
    ],
    ids="dropped body_cut_off json_cut 429 500 stalled a_log_prob_less".split(),
)
@pytest.mark.usefixtures("_no_waiting")
def test_it_gives_up_after_its_retries_and_yields_what_came(
    server: Server, misbehave: server_side.Misbehaviour, message: str
) -> None:
    server.script.extend([server_side.well, misbehave, misbehave])
    came: list[Any] = []
    with pytest.raises(ConfigError, match=message) as raised:
        came.extend(one_each(backend(server, retries=1, concurrency=1, timeout=0.3)))
    assert came == [(0, expected("p", 0, 1))]
    assert len(server.requests) == 1 + 2
    text = str(raised.value)
    assert text.startswith(f"the server {server.url} gave no complete answer when asked up to 2 times; ")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (401, "set OPENAI_API_KEY .* to the right key"),
        (403, "to a key that may do this"),
        (404, "ends in /v1"),
        (400, "length, max_new_tokens"),
        (422, "max_new_tokens"),
    ],
)
def test_a_refusal_is_final(server: Server, code: int, advice: str) -> None:
    server.script.extend([server_side.well, server_side.status(code, "the prompt is too long")])
    came: list[Any] = []
    with pytest.raises(ConfigError, match=f"refuses a request with {code}: the prompt is too long.*{advice}"):
        came.extend(one_each(backend(server, concurrency=1)))
    assert came == [(0, expected("p", 0, 1))]
    assert len(server.requests) == 2


def test_a_first_refusal_is_tried_again_without_the_extensions(server: Server) -> None:
    server.always = server_side.status(400, "the prompt is too long")
    with pytest.raises(ConfigError, match="refuses a request with 400: the prompt is too long"):
        collect(backend(server), [Request("p", 0, 1)])
    assert ["return_token_ids" in body for _, body in server.requests] == [True, False]


def test_requests_under_way_are_finished(server: Server) -> None:
    server.always = server_side.by_prompt(p=server_side.late, q=server_side.status(401, "who are you"))
    came: list[Any] = []
    with pytest.raises(ConfigError, match="401"):
        came.extend(one_each(backend(server, concurrency=2)))
    assert came == [(0, expected("p", 0, 1))]
    assert len(server.requests) == 2


def test_a_server_that_is_not_there_is_reported(server: Server) -> None:
    server.close()
    with pytest.raises(ConfigError, match=r"no connection \(.*(refused|attempts failed)"):
        HttpBackend(server.url, timeout=2, retries=1)
    with pytest.raises(ConfigError, match="asked once; the last time: no connection"):
        collect(backend(server, retries=0), [Request("p", 0, 1)])


# Many at once


def test_concurrency_limits_the_requests_under_way(server: Server) -> None:
    server.seconds = 0.05
    requests = [Request("p", i, 1) for i in range(12)]
    assert collect(backend(server, concurrency=3), requests) == [expected("p", i, 1) for i in range(12)]
    assert server.most_under_way == 3
    assert len(server.requests) == 12


def test_a_requests_samples_come_in_order_if_its_pieces_do_not(server: Server) -> None:
    first = sample_seed(SAMPLING.seed, "p", 0)
    server.always = lambda handler, body, right: (server_side.late if body["seed"] == first else server_side.well)(
        handler, body, right
    )
    came = list(backend(server, concurrency=4).sample([Request("p", 0, 40), Request("q", 0, 1)], SAMPLING))
    assert [place for place, _ in came] == [1, 0]
    assert came[1][1] == expected("p", 0, 40)


def test_requests_go_on_while_the_caller_works(server: Server) -> None:
    samples = backend(server, concurrency=1).sample([Request("p", i, 1) for i in range(5)], SAMPLING)
    next(samples)
    deadline = time.monotonic() + 5
    while len(server.requests) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(server.requests) == 5
    samples.close()


@pytest.mark.parametrize("ended_by", [None, KeyboardInterrupt])
def test_a_closed_generator_sends_no_more_and_leaves_nothing_behind(server: Server, ended_by: Any) -> None:
    server.always = server_side.by_prompt(q=server_side.stall, r=server_side.stall)
    threads = set(threading.enumerate())
    samples = one_each(backend(server, concurrency=2, timeout=30), "pqrstu")
    assert next(samples) == (0, expected("p", 0, 1))
    while len(server.requests) < 3:
        time.sleep(0.01)
    started = time.monotonic()
    if ended_by is None:
        samples.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            samples.throw(ended_by)
    assert time.monotonic() - started < 1
    assert not [t for t in set(threading.enumerate()) - threads if "portal" in t.name]
    time.sleep(0.1)
    assert len(server.requests) == 3


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from progrpo.sampling import Request, Sampling
from progrpo.sampling.http import HttpBackend
backend = HttpBackend(sys.argv[1], "tiny", concurrency=2, timeout=30)
for place, _ in backend.sample([Request(prompt, 0, 1) for prompt in "pqrstu"], Sampling(5)):
    print(place, flush=True)
"""


def test_ctrl_c_ends_it_while_answers_are_waited_for(server: Server) -> None:
    server.always = server_side.by_prompt(q=server_side.stall, r=server_side.stall)
    command = [sys.executable, "-c", INTERRUPTED, server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        time.sleep(0.2)  # it is waiting for the next answer by now
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    assert len(server.requests) == 3


def test_it_works_inside_a_running_event_loop(server: Server) -> None:
    """A notebook has one."""
    import asyncio

    async def inside() -> list[list[Sample]]:
        return collect(HttpBackend(server.url), [Request("p", 0, 2)])

    assert asyncio.run(inside()) == [expected("p", 0, 2)]


def test_no_requests_are_sent_for_no_samples(server: Server) -> None:
    assert collect(backend(server), []) == []
    assert collect(backend(server), [Request("p", 0, 0)]) == [[]]
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base_url must start with http:// or https:// and name a host"),
        ({"base_url": "http://"}, "base_url must start"),
        ({"base_url": "http://me:secret@host/v1"}, "base_url must hold no user name"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"timeout": 0.0}, "timeout must be a number of seconds above 0, got 0.0"),
        ({"timeout": float("nan")}, "timeout"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
    ],
)
def test_the_error_names_an_argument_out_of_range(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as raised:
        HttpBackend(**{"base_url": "http://host/v1", "model": "m"} | arguments)
    assert "secret" not in str(raised.value)


def test_greedy_decoding_is_requested(server: Server) -> None:
    list(backend(server).sample([Request("p", 0, 1)], Sampling(8, 0.0)))
    [(_, body)] = server.requests
    assert (body["temperature"], body["top_p"], body["n"]) == (0.0, 1.0, 1)
