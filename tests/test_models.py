"""The shipped model: what it is, where it starts, and that a missing one is named."""

import hashlib
import re

import pytest

from progrpo.config import ConfigError
from progrpo.evaluation.evaluate import evaluate
from progrpo.models import SHIPPED, load_model
from progrpo.tasks import Countdown
from progrpo.warm_start import countdown_model, countdown_tokenizer


def test_the_shipped_model_is_a_small_qwen2_and_the_one_that_its_card_describes() -> None:
    model, tokenizer = load_model("countdown")
    assert model.config.architectures == ["Qwen2ForCausalLM"]
    assert 0.5e6 < model.num_parameters() < 1.5e6
    file = SHIPPED["countdown"] / "model.safetensors"
    assert file.stat().st_size < 5_000_000
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert re.search(digest, (file.parent / "README.md").read_text(encoding="utf-8"))
    made = countdown_tokenizer()
    assert made.get_vocab() == tokenizer.get_vocab()
    assert tokenizer("12 3 : 36 ;")["input_ids"] == made("12 3 : 36 ;")["input_ids"]
    assert countdown_model(made).num_parameters() == model.num_parameters()


def test_it_starts_where_the_comparison_needs_it() -> None:
    """Pass@1 between .2 and .35 and Pass@32 above .95 with 4 numbers; here on 100 problems, 40 samples each."""
    model, tokenizer = load_model("countdown")
    task = Countdown(numbers=4, heldout_size=100)
    evaluation, _ = evaluate(model, tokenizer, task, n=40, max_new_tokens=task.max_response_tokens)
    summary = evaluation.summary()
    assert 0.2 < summary["pass@1"] < 0.35
    assert summary["pass@32"] > 0.95
    assert summary["coverage"] > 0.5


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ConfigError, match="model '/nowhere' can't be loaded; give a shipped model"):
        load_model("/nowhere")
