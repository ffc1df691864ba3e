"""vLLM's engine in this process and its server, against transformers. ``make test-vllm`` runs these tests.

The model is tiny, random and untied, in float32. Its generation_config.json is a trap: except for the end tokens, its
settings would change the sampling distribution.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.vllm_server import kill, vllm_server, wait_until_up
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TopPLogitsWarper,
)

from progrpo.common.errors import ConfigError
from progrpo.sampling import Backend, Request, Sample, Sampling
from progrpo.sampling.http import HttpBackend
from progrpo.sampling.models import load_model, model_digest
from progrpo.sampling.transformers import TransformersBackend, token_ids
from progrpo.sampling.vllm import VllmBackend

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed: make test-vllm", allow_module_level=True)

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
PROMPTS: list[Any] = [
    "1 + 2 =",
    "the sum of 12 and 7 is",
    [{"role": "user", "content": "3 * 4?"}],
    [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "5?"}],
]
REQUESTS = [Request(prompt, 0, 20) for prompt in PROMPTS]
SETTINGS = [
    Sampling(max_new_tokens=12, seed=1),
    Sampling(max_new_tokens=12, temperature=0.7, seed=2),
    Sampling(max_new_tokens=12, temperature=0.7, top_p=0.9, seed=3),
]
GREEDY = Sampling(max_new_tokens=6, temperature=0.01)
WINDOW = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    corpus = ["the sum of 12 and 7 is 19", "user: 3 * 4? assistant: two + two = 4", "0123456789 so that is it; no?"]
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<bos>", "<eos>", "<end of turn>"]
    # The alphabet is only the corpus's, so that no token is half a character, which engines decode differently.
    plain.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=96, special_tokens=specials, initial_alphabet=[]))
    plain.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=["<end of turn>"],
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():  # far from uniform, so that a wrong temperature or a wrong top_p shows
        model.lm_head.weight.mul_(12)
    model.generation_config = GenerationConfig(
        eos_token_id=[2, 3], pad_token_id=0, do_sample=True, temperature=0.3, top_k=2, top_p=0.5, repetition_penalty=1.5
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def process(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """vLLM's server, which starts while this process loads its engine."""
    log = tmp_path_factory.mktemp("server") / "log"
    with vllm_server(folder, log, "--served-model-name", "tiny") as (process, url):
        yield process, f"{url}/v1"


@pytest.fixture(scope="module")
def engine(folder: Path, process: object) -> VllmBackend:
    return VllmBackend(str(folder), dtype="float32", enforce_eager=True)


@pytest.fixture(scope="module")
def server(process: tuple[subprocess.Popen[bytes], str], engine: object) -> HttpBackend:
    running, url = process
    wait_until_up(running, url.removesuffix("/v1"))
    return HttpBackend(url, retries=1, timeout=60)


@pytest.fixture(scope="module")
def transformers(folder: Path) -> TransformersBackend:
    return TransformersBackend(*load_model(str(folder)))


def collect(backend: Backend, requests: list[Request], sampling: Sampling) -> list[list[Sample]]:
    samples: list[list[Sample]] = [[] for _ in requests]
    for place, some in backend.sample(requests, sampling):
        samples[place] += some
    return samples


def check_logps(reference: TransformersBackend, samples: list[list[Sample]], sampling: Sampling) -> float:
    """The largest difference to a forward pass of transformers over the same tokens, with its top-p."""
    worst = 0.0
    for prompt, of_prompt in zip(PROMPTS, samples, strict=True):
        (prompt_ids,) = token_ids(reference.tokenizer, [prompt])
        for sample in of_prompt:
            assert len(sample.logps) == len(sample.token_ids) > 0
            with torch.no_grad():
                logits_TV = reference.model(torch.tensor([prompt_ids + sample.token_ids])).logits[0]
            logits_TV = logits_TV[len(prompt_ids) - 1 : -1] / sampling.temperature
            if sampling.top_p < 1:
                logits_TV = TopPLogitsWarper(sampling.top_p)(torch.empty(0), logits_TV)
            logps_T = logits_TV.log_softmax(-1).gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
            worst = max(worst, float((logps_T - torch.tensor(sample.logps)).abs().max()))
    return worst


@torch.no_grad()
def smallest_lead(reference: TransformersBackend, prompt: Any) -> float:
    """The smallest lead of the likeliest token over the second in the greedy response."""
    (ids,) = token_ids(reference.tokenizer, [prompt])
    leads = []
    for _ in range(GREEDY.max_new_tokens):
        best = reference.model(torch.tensor([ids])).logits[0, -1].topk(2)
        leads.append(float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
        if ids[-1] in (2, 3):
            break
    return min(leads)


@pytest.mark.parametrize("sampling", SETTINGS, ids=["temperature 1", "temperature 0.7", "top_p 0.9"])
@pytest.mark.parametrize("kind", ["engine", "server"])
def test_log_probs_are_those_of_a_transformers_forward(
    kind: str, sampling: Sampling, transformers: TransformersBackend, request: pytest.FixtureRequest
) -> None:
    samples = collect(request.getfixturevalue(kind), REQUESTS, sampling)
    assert [len(of_prompt) for of_prompt in samples] == [20] * len(PROMPTS)
    worst = check_logps(transformers, samples, sampling)
    print(f"{kind}, {sampling}: {worst:.1e}")
    assert worst < 1e-4
    flat = [sample for of_prompt in samples for sample in of_prompt]
    ends = {sample.token_ids[-1] for sample in flat if not sample.truncated}
    # Both end tokens of the model end a response and count as tokens; at low temperatures the second is rare.
    assert ends == {2, 3} if sampling.temperature == 1 else ends <= {2, 3}
    assert {len(sample.token_ids) for sample in flat if sample.truncated} == {12}
    assert len({tuple(sample.token_ids) for sample in flat}) > 60


@pytest.mark.parametrize("sampling", SETTINGS, ids=["temperature 1", "temperature 0.7", "top_p 0.9"])
def test_engine_and_server_draw_the_same_samples(engine: VllmBackend, server: HttpBackend, sampling: Sampling) -> None:
    ours, theirs = collect(engine, REQUESTS, sampling), collect(server, REQUESTS, sampling)
    for mine, of_server in zip(chain(*ours), chain(*theirs), strict=True):
        assert (mine.text, mine.token_ids, mine.truncated) == (of_server.text, of_server.token_ids, of_server.truncated)
        assert mine.logps == pytest.approx(of_server.logps, abs=1e-5)


@pytest.mark.parametrize("kind", ["engine", "server"])
def test_a_sample_depends_on_its_index_alone(kind: str, request: pytest.FixtureRequest) -> None:
    backend, sampling = request.getfixturevalue(kind), SETTINGS[0]

    def draw(first: int, count: int) -> list[tuple[str, list[int]]]:
        return [(s.text, s.token_ids) for s in collect(backend, [Request(PROMPTS[0], first, count)], sampling)[0]]

    eight = draw(0, 8)
    assert draw(0, 4) == eight[:4]
    assert draw(4, 4) == eight[4:]
    assert draw(7, 1) == eight[7:]
    assert len(set(text for text, _ in eight)) > 4


@pytest.mark.parametrize("temperature", [GREEDY.temperature, 0.0])
def test_greedy_and_nearly_greedy_sampling_give_the_same_text_on_every_backend(
    transformers: TransformersBackend, engine: VllmBackend, server: HttpBackend, temperature: float
) -> None:
    texts: list[Any] = [f"{i} + 2 =" for i in range(16)]
    chats: list[Any] = [[{"role": "user", "content": text}] for text in texts]
    # At temperature 0.01 a lead of 0.1 in the logits is a probability of 1 - 5e-5; below that, chance may decide.
    sure = [[prompt for prompt in of if smallest_lead(transformers, prompt) > 0.1] for of in (texts, chats)]
    assert min(map(len, sure)) > 0
    requests = [Request(prompt, 0, 2 if temperature else 1) for of in sure for prompt in of]
    sampling = replace(GREEDY, temperature=temperature)
    ours, in_process, over_http = (collect(backend, requests, sampling) for backend in (transformers, engine, server))
    texts_of = [[[(s.text, s.token_ids) for s in of_prompt] for of_prompt in b] for b in (ours, in_process, over_http)]
    assert texts_of[0] == texts_of[1] == texts_of[2]
    for of_ours, *of_vllm in zip(
        ours, in_process, over_http, strict=True
    ):  # at temperature 0 they are those of temperature 1
        for samples in of_vllm:
            assert [s.logps for s in samples] == [pytest.approx(s.logps, abs=1e-3) for s in of_ours]
    print(f"{len(requests)} prompts, {len({text for of_prompt in texts_of[0] for text, _ in of_prompt})} texts")


def test_a_response_ends_where_the_window_does(engine: VllmBackend) -> None:
    (samples,) = collect(engine, [Request("1 + 2 =", 0, 30)], Sampling(max_new_tokens=1000))
    prompt = token_ids(engine.tokenizer, ["1 + 2 ="])[0]
    assert max(len(s.token_ids) for s in samples if s.truncated) == WINDOW - len(prompt)


def test_requests_that_vllm_would_change_or_refuse_are_refused(
    engine: VllmBackend, server: HttpBackend, folder: Path
) -> None:
    with pytest.raises(ConfigError, match=r"a prompt has \d+ tokens, where the model reads 1 to 63; leave it out"):
        collect(engine, [Request("1 + 2 =", 0, 1), Request("1 + " * 40, 0, 1)], GREEDY)
    with pytest.raises(ConfigError, match=r"refuses a request with 400: .*context length.*max_new_tokens"):
        collect(server, [Request("1 + " * 40, 0, 1)], GREEDY)
    with pytest.raises(ConfigError, match=r"temperature must be 0 or at least 0.01 with vLLM, got 0.001"):
        collect(engine, REQUESTS, Sampling(max_new_tokens=1, temperature=0.001))
    with pytest.raises(ConfigError, match="logprobs_mode can't be given"):
        VllmBackend(str(folder), logprobs_mode="raw_logprobs")
    with pytest.raises(ConfigError, match="model '/nowhere' can't be loaded"):
        VllmBackend("/nowhere")


def test_a_closed_generator_leaves_the_engine_idle(engine: VllmBackend) -> None:
    samples = engine.sample(REQUESTS, SETTINGS[0])
    place, some = next(samples)
    samples.close()
    assert not engine.llm.llm_engine.has_unfinished_requests()
    assert some == collect(engine, REQUESTS, SETTINGS[0])[place][: len(some)]


# These two come last: the first kills the server, and the second the engine.


def test_a_server_that_is_killed_leaves_what_came(
    process: tuple[subprocess.Popen[bytes], str], engine: VllmBackend, server: HttpBackend
) -> None:
    slow = HttpBackend(server.base_url, "tiny", concurrency=2, retries=1, timeout=60, patience=2)
    requests = [Request(f"{i} + 2 =", 0, 16) for i in range(200)]
    came = []

    def go_on() -> None:
        for place, samples in slow.sample(requests, SETTINGS[0]):
            came.append((place, samples))
            if len(came) == 5:
                kill(process[0])

    with pytest.raises(ConfigError, match=f"the server {server.base_url} went away and was not back within 2 s; "):
        go_on()
    assert 5 <= len(came) < 200
    wanted = collect(engine, [requests[place] for place, _ in came], SETTINGS[0])
    assert [[s.token_ids for s in samples] for _, samples in came] == [[s.token_ids for s in of] for of in wanted]


def test_the_shipped_word_level_model_reads_whole_numbers() -> None:
    """vLLM's tokenizer for it reads 16 as 1 and 6."""
    backend = VllmBackend("countdown", dtype="float32", enforce_eager=True)
    reference = TransformersBackend(*load_model("countdown"))
    requests = [Request(prompt, 0, 2) for prompt in ("8 4 6 : 16 ;", "12 3 : 36 ;")]
    sampling = Sampling(max_new_tokens=16, temperature=0.01)
    texts_of = [[s.text for of in collect(b, requests, sampling) for s in of] for b in (backend, reference)]
    assert texts_of[0] == texts_of[1]
    assert backend.model_digest == model_digest("countdown")
