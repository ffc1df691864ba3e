"""Log-probs of a model match those of the sampler, and a plain forward pass."""

import copy

import numpy as np
import pytest
import torch
from tests.inspection.test_collapse import make_table

from progrpo.common.errors import ConfigError
from progrpo.inspection.score import score
from progrpo.inspection.table import MOST_RESPONSES, choose_responses
from progrpo.sampling import Request, Sampling
from progrpo.sampling.models import load_model
from progrpo.sampling.transformers import TransformersBackend

PROMPTS = ["4 2 3 : 12 ;", "11 7 2 5 : 90 ;"]


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return load_model("countdown")


def test_scores_match_those_of_the_sampler(model):
    drawn = TransformersBackend(*model).sample([Request(prompt, 0, 5) for prompt in PROMPTS], Sampling(14, 0.8, seed=1))
    samples = [samples for _, samples in sorted(drawn, key=lambda pair: pair[0])]
    prompts = [prompt for prompt, drawn in zip(PROMPTS, samples, strict=True) for _ in drawn]
    samples = [sample for drawn in samples for sample in drawn]
    pairs = [(prompt, sample.text, sample.token_ids) for prompt, sample in zip(prompts, samples, strict=True)]
    seen = []
    scores = score(*model, pairs, temperature=0.8, on_progress=seen.append)
    assert sum(seen) == len(pairs)
    for sample, scored in zip(samples, scores, strict=True):
        assert scored.token_ids == sample.token_ids
        np.testing.assert_allclose(scored.logps, sample.logps, atol=1e-4)
        np.testing.assert_allclose(scored.entropies, sample.entropies, atol=1e-4)


def test_scores_of_a_text_match_a_plain_forward_pass(model):
    lm, tokenizer = model
    (scores,) = score(lm, tokenizer, [(PROMPTS[0], "4 * 3 = 12", None)])
    prompt, response = tokenizer(PROMPTS[0])["input_ids"], tokenizer("4 * 3 = 12")["input_ids"]
    assert scores.token_ids == response
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        logps = lm(ids).logits[0, :-1].log_softmax(dim=-1).gather(1, ids[0, 1:, None]).squeeze(1)
    np.testing.assert_allclose(scores.prompt_logps + scores.logps, logps, atol=1e-5)
    assert len(scores.prompt_logps) == len(prompt) - 1


def test_chat_messages_go_through_the_template(model):
    lm, tokenizer = model
    templated = copy.deepcopy(tokenizer)
    templated.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} ;{% endif %}"
    )
    messages = [{"role": "user", "content": PROMPTS[0].removesuffix(" ;")}]
    by_template, as_text = (
        score(lm, chosen, [(prompt, "4 * 3 = 12", None)])
        for chosen, prompt in ((templated, messages), (tokenizer, PROMPTS[0]))
    )
    assert by_template == as_text


def test_tokens_that_the_model_cannot_take_are_refused(model):
    lm, tokenizer = model
    with pytest.raises(ConfigError, match="token id 5000, and the model of --model has"):
        score(lm, tokenizer, [(PROMPTS[0], "", [5000])])
    with pytest.raises(ConfigError, match="a prompt has no tokens"):
        score(lm, tokenizer, [("", "4", None)])
    with pytest.raises(ConfigError, match="the model's tokenizer has no chat template: give --model the model"):
        score(lm, tokenizer, [([{"role": "user", "content": "4"}], "4", None)])
    most = lm.config.max_position_embeddings
    with pytest.raises(ConfigError, match=f"has {most + 1} tokens, and the model of --model takes {most}"):
        score(lm, tokenizer, [("4", "", [1] * most)])


def test_whole_groups_are_chosen_at_even_distances():
    rows = [(1, group, 1.0, "a", "a") for group in range(10) for _ in range(3)]
    chosen = choose_responses(make_table(rows), 4)
    assert {rows[i][1] for i in chosen} == {0, 3, 6, 9}
    assert len(chosen) == 12
    assert choose_responses(make_table(rows), 99).tolist() == list(range(30))
    large = make_table([(1, 0, 1.0, "a", "a")] * (MOST_RESPONSES + 5))
    assert choose_responses(large, 1).tolist() == list(range(MOST_RESPONSES))
