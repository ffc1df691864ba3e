"""Responses that each have their own random stream."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from progrpo.sampling.models import load_model
from progrpo.trl.generation import OwnStreams, own_streams, record_logps, with_processor

ROWS = 12


@pytest.fixture(scope="module")
def model_and_prompts() -> tuple[Any, Any, dict[str, torch.Tensor]]:
    model, tokenizer = load_model("countdown")
    prompts = [f"{i + 1} {i + 2} 3 : {i + 6} ;" for i in range(ROWS)]
    return model.eval(), tokenizer, tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")


def sample(model: Any, tokenizer: Any, inputs: dict[str, torch.Tensor], rows: range, key: int, **how: Any) -> list[str]:
    part = {name: tensor[rows.start : rows.stop] for name, tensor in inputs.items() if name != "token_type_ids"}
    how = {"temperature": 1.0, "top_p": 1.0} | how
    config = GenerationConfig(do_sample=True, max_new_tokens=14, top_k=0, pad_token_id=tokenizer.pad_token_id, **how)
    config.eos_token_id = model.generation_config.eos_token_id
    processor = OwnStreams(own_streams(rows, 0, key), how["temperature"], how["top_p"])
    with with_processor(model, processor), torch.no_grad():
        ids = model.generate(**part, generation_config=config)
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.5, "top_p": 0.9}])
def test_a_row_is_the_same_at_every_place_in_the_batch(model_and_prompts: Any, how: dict[str, float]) -> None:
    torch.manual_seed(0)
    together = sample(*model_and_prompts, range(ROWS), 1, **how)
    torch.manual_seed(1)
    apart = [text for i in (0, 5) for text in sample(*model_and_prompts, range(i, 5 if i == 0 else ROWS), 1, **how)]
    assert apart == together
    assert sample(*model_and_prompts, range(ROWS), 2, **how) != together, "another step draws anew"


def test_tokens_are_drawn_from_the_model_s_distribution(model_and_prompts: Any) -> None:
    """First tokens of many rows against the model's own probabilities: within five standard errors."""
    model, tokenizer, inputs = model_and_prompts
    n, temperature = 4000, 3.0
    one = {name: tensor[:1] for name, tensor in inputs.items() if name != "token_type_ids"}
    with torch.no_grad():
        probs = torch.softmax(model(**one).logits[0, -1].double() / temperature, dim=-1)
        processor = OwnStreams(own_streams(range(n), 7), temperature, 1.0)
        many = {name: tensor.expand(n, -1) for name, tensor in one.items()}
        config = GenerationConfig(
            do_sample=True, max_new_tokens=1, top_k=0, temperature=temperature, pad_token_id=tokenizer.pad_token_id
        )
        with with_processor(model, processor), record_logps(model, temperature=temperature) as record:
            ids = model.generate(**many, generation_config=config)[:, -1]
    shares = torch.bincount(ids, minlength=len(probs)) / n
    error = (probs * (1 - probs) / n).sqrt() + 1 / n
    assert ((shares - probs).abs() < 5 * error).all()
    assert (shares > 0.05).sum() > 1, "the distribution is not a single token"
    # What is recorded is the log-prob under the model, not under the processor's certainty.
    torch.testing.assert_close(record.logps_BT[:, 0].double(), probs.log()[ids], rtol=0, atol=1e-5)


def test_the_model_is_not_changed(model_and_prompts: Any) -> None:
    model = model_and_prompts[0]
    before = dict(model.__dict__)
    sample(*model_and_prompts, range(2), 1)
    assert "generate" not in model.__dict__
    assert model.__dict__.keys() == before.keys()
