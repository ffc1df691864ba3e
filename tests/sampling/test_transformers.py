"""The transformers backend against the model's forward pass and ``generate``."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from progrpo.common.errors import ConfigError
from progrpo.sampling import Request, Sample, Sampling, sample_seed
from progrpo.sampling.models import load_model
from progrpo.sampling.transformers import TransformersBackend, draw, token_ids
from progrpo.tasks import Countdown

TASK = Countdown(numbers=4, heldout_size=12)
PROMPTS = [problem["prompt"] for problem in TASK.heldout_problems()]
NUMBERS = "12 3 : 36 ;"  # shorter than the others


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load_model("countdown")


def draw_all(backend: TransformersBackend, requests: list[Request], sampling: Sampling) -> list[list[Sample]]:
    drawn: list[list[Sample]] = [[] for _ in requests]
    for place, samples in backend.sample(requests, sampling):
        drawn[place] += samples
    return drawn


def processed(logits_TV: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The log-probs of the sampling distribution, computed slowly and plainly."""
    rows = []
    for logits in (logits_TV / temperature).double():
        probs = logits.softmax(-1)
        kept, total = set(), 0.0
        for token in probs.argsort(descending=True).tolist():
            if total >= top_p:
                break
            kept.add(token)
            total += probs[token].item()
        rows.append([(probs[i] / total).log().item() if i in kept else -np.inf for i in range(len(probs))])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.9)])
def test_log_probs_and_entropies_are_those_of_a_forward_pass(loaded: Any, temperature: float, top_p: float) -> None:
    model, tokenizer = loaded
    prompts = [*PROMPTS[:3], NUMBERS]
    sampling = Sampling(48, temperature, top_p)
    drawn = draw_all(TransformersBackend(model, tokenizer), [Request(p, 0, 3) for p in prompts], sampling)
    assert [len(samples) for samples in drawn] == [3] * 4
    for prompt, samples in zip(prompts, drawn, strict=True):
        prompt_ids = tokenizer(prompt)["input_ids"]
        for sample in samples:
            with torch.no_grad():
                logits = model(torch.tensor([prompt_ids + sample.token_ids])).logits[0, len(prompt_ids) - 1 : -1]
            wanted = processed(logits, temperature, top_p)
            chosen = wanted.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
            entropies = -(wanted.exp() * wanted.clamp(min=-1e9)).sum(dim=1)
            assert sample.logps == pytest.approx(chosen.tolist(), abs=1e-4)
            assert sample.entropies == pytest.approx(entropies.tolist(), abs=1e-4)
            assert sample.text == tokenizer.decode(sample.token_ids, skip_special_tokens=True)
            assert sample.truncated == (sample.token_ids[-1] != tokenizer.eos_token_id)


def test_a_model_in_training_draws_without_dropout_and_goes_on_training() -> None:
    model, tokenizer = load_model("countdown")
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    requests, sampling = [Request(PROMPTS[0], 0, 4)], Sampling(8)
    expected = draw_all(TransformersBackend(model.eval(), tokenizer), requests, sampling)
    assert draw_all(TransformersBackend(model.train(), tokenizer), requests, sampling) == expected
    assert model.training


def test_a_sample_does_not_depend_on_its_batch(loaded: Any) -> None:
    sampling = Sampling(48, seed=3)
    together = draw_all(TransformersBackend(*loaded), [Request(p, 0, 9) for p in PROMPTS[:4]], sampling)
    alone = draw_all(TransformersBackend(*loaded, batch=2), [Request(PROMPTS[1], 4, 5)], sampling)
    assert [s.token_ids for s in alone[0]] == [s.token_ids for s in together[1][4:]]
    assert alone[0][0].logps == pytest.approx(together[1][4].logps, abs=1e-4)
    other = draw_all(TransformersBackend(*loaded), [Request(PROMPTS[1], 0, 9)], Sampling(48, seed=4))
    assert [s.token_ids for s in other[0]] != [s.token_ids for s in together[1]]


def test_samples_follow_the_distribution(loaded: Any) -> None:
    """The first token of 4,000 samples against the model's probabilities: chi-square at p = .001."""
    from scipy.stats import chisquare

    model, tokenizer = loaded
    samples = draw_all(TransformersBackend(model, tokenizer, batch=4000), [Request(PROMPTS[0], 0, 4000)], Sampling(1))
    with torch.no_grad():
        probs = model(**tokenizer(PROMPTS[0], return_tensors="pt")).logits[0, -1].softmax(-1).double()
    seen = Counter(sample.token_ids[0] for sample in samples[0])
    often = [token for token in range(len(probs)) if probs[token] * 4000 >= 5]
    assert len(often) >= 3
    observed = [seen[token] for token in often]
    observed.append(4000 - sum(observed))
    expected = [probs[token].item() * 4000 for token in often]
    expected.append(4000 - sum(expected))
    assert chisquare(observed, expected).pvalue > 0.001


def test_near_temperature_zero_samples_equal_generates(loaded: Any) -> None:
    model, tokenizer = loaded
    prompts = [*PROMPTS[:5], NUMBERS]
    drawn = draw_all(TransformersBackend(model, tokenizer), [Request(p, 0, 1) for p in prompts], Sampling(48, 1e-6))
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    greedy = model.generate(**inputs, do_sample=False, max_new_tokens=48)[:, inputs["input_ids"].shape[1] :]
    assert [s[0].text for s in drawn] == tokenizer.batch_decode(greedy, skip_special_tokens=True)


def test_a_prompt_is_read_once_and_an_ended_sample_leaves_the_batch(loaded: Any) -> None:
    model, tokenizer = loaded
    read: list[tuple[int, ...]] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        drawn = draw_all(TransformersBackend(model, tokenizer), [Request(p, 0, 16) for p in PROMPTS[:3]], Sampling(48))
    finally:
        hook.remove()
    assert read[0] == (3, max(len(tokenizer(p)["input_ids"]) for p in PROMPTS[:3]))
    lengths = [len(sample.token_ids) for samples in drawn for sample in samples]
    # A sample's last token is not read.
    assert read[1:] == [(sum(n > step for n in lengths), 1) for step in range(1, max(lengths))]


def test_the_batch_is_never_larger_than_asked_for(loaded: Any) -> None:
    model, tokenizer = loaded
    rows: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        requests = [Request(p, first, 7) for first, p in enumerate(PROMPTS[:4])]
        drawn = draw_all(TransformersBackend(model, tokenizer, batch=5), requests, Sampling(48))
    finally:
        hook.remove()
    assert max(rows) == 5
    assert [len(samples) for samples in drawn] == [7] * 4


def test_every_end_token_of_the_model_ends_a_response(loaded: Any) -> None:
    model, tokenizer = loaded
    comma = tokenizer.convert_tokens_to_ids(",")
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, comma]
    try:
        drawn = draw_all(TransformersBackend(model, tokenizer), [Request(p, 0, 4) for p in PROMPTS[:3]], Sampling(48))
    finally:
        model.generation_config.eos_token_id = before
    samples = [sample for of_prompt in drawn for sample in of_prompt]
    assert any(sample.token_ids[-1] == comma and not sample.truncated for sample in samples)
    assert not any(comma in sample.token_ids[:-1] for sample in samples)


def test_a_response_ends_at_the_window_and_a_prompt_that_fills_it_is_refused(loaded: Any) -> None:
    model, tokenizer = loaded
    prompt = tokenizer(PROMPTS[0])["input_ids"]
    before = model.config.max_position_embeddings
    model.config.max_position_embeddings = len(prompt) + 2
    try:
        backend = TransformersBackend(model, tokenizer)
        drawn = draw_all(backend, [Request(PROMPTS[0], 0, 4), Request(NUMBERS, 0, 4)], Sampling(48))
        assert {(len(s.token_ids), s.truncated) for s in drawn[0]} == {(2, True)}
        assert any(len(s.token_ids) > 2 for s in drawn[1])
        model.config.max_position_embeddings = len(prompt)
        with pytest.raises(ConfigError, match=f"a prompt has {len(prompt)} tokens, where the model reads 1 to"):
            draw_all(backend, [Request(PROMPTS[0], 0, 1)], Sampling(48))
    finally:
        model.config.max_position_embeddings = before


def test_the_models_mode_and_the_random_state_are_restored(loaded: Any) -> None:
    model, tokenizer = loaded
    model.train()
    state = torch.get_rng_state()
    drawn = TransformersBackend(model, tokenizer, batch=1).sample([Request(PROMPTS[0], 0, 5)], Sampling(4))
    next(drawn)
    assert not model.training
    drawn.close()
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()


def test_prompts_are_tokenised_with_their_chat_template(loaded: Any) -> None:
    _, tokenizer = loaded
    messages = [{"role": "user", "content": "1 2 : 3 ;"}]
    before = tokenizer.chat_template
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}4"
    try:
        [ids] = token_ids(tokenizer, [messages])
        rendered = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
        assert ids == rendered["input_ids"]
    finally:
        tokenizer.chat_template = before


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 1e-9])
def test_draw_inverts_the_distribution(top_p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 11, generator=generator).repeat(2000, 1)
    uniform = torch.arange(2000, dtype=torch.float64) / 2000
    ids, logps, entropies = draw(logits, uniform, temperature=0.8, top_p=top_p)
    wanted = processed(logits[:1], 0.8, top_p)[0]
    shares = torch.bincount(ids, minlength=11) / 2000
    assert shares.tolist() == pytest.approx(wanted.exp().tolist(), abs=1e-3)
    assert logps.tolist() == pytest.approx(wanted[ids].tolist(), abs=1e-5)
    known = wanted[wanted.isfinite()]
    assert entropies.tolist() == pytest.approx([-(known.exp() * known).sum().item()] * 2000, abs=1e-5)


def test_each_sample_has_its_own_stream() -> None:
    streams = [np.random.Generator(np.random.Philox(sample_seed(0, PROMPTS[0], i))).random(100) for i in range(50)]
    correlation = np.corrcoef(np.stack(streams)) - np.eye(50)
    assert np.abs(correlation).max() < 0.5
    assert np.mean(streams) == pytest.approx(0.5, abs=0.02)


def test_greedy_samples_equal_generates_with_log_probs_of_the_models_distribution(loaded: Any) -> None:
    model, tokenizer = loaded
    prompts = [*PROMPTS[:3], NUMBERS]
    requests = [Request(prompt, 0, 2) for prompt in prompts]
    drawn = draw_all(TransformersBackend(model, tokenizer), requests, Sampling(18, 0.0, seed=5))
    for prompt, (first, second) in zip(prompts, drawn, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")
        whole = model.generate(**ids, do_sample=False, max_new_tokens=18, pad_token_id=tokenizer.pad_token_id)[0]
        length = ids["input_ids"].shape[1]
        assert first.token_ids == second.token_ids == whole[length:].tolist()
        with torch.no_grad():
            logps = model(whole[None]).logits[0, length - 1 : -1].log_softmax(-1)
        np.testing.assert_allclose(first.logps, logps.max(-1).values, atol=1e-5)
        np.testing.assert_allclose(first.entropies, -(logps.exp() * logps).sum(-1), atol=1e-5)
