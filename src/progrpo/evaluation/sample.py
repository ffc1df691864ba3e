"""Sampling responses from a model, with the log-prob and the entropy of every token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from progrpo.integrations.generation import record_logps
from progrpo.tasks.templates import Prompt


@dataclass(frozen=True)
class Sample:
    """One response: its text, and per token its id, its log-prob and the entropy it was drawn with (nats)."""

    text: str
    token_ids: list[int]
    logps: list[float]
    entropies: list[float]


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    n: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 1024,
    on_progress: Callable[[int], None] | None = None,
) -> list[list[Sample]]:
    """n responses to each prompt from a transformers model.

    Args:
        model, tokenizer: a causal language model and its tokenizer, which must have a pad token and pad on the left.
        prompts: plain texts, or messages, which the tokenizer's chat template wraps.
        n: responses a prompt.
        max_new_tokens: where a response is cut off.
        temperature: of the sampling; log-probs and entropies are at it too.
        seed: of the sampling. The random state outside is left as it was.
        batch: responses generated at a time.
        on_progress: called with the number of responses after each batch.

    Returns:
        A list of n samples for each prompt, in order.
    """
    samples: list[list[Sample]] = []
    prompts_per_batch = max(1, batch // n)
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            for start in range(0, len(prompts), prompts_per_batch):
                chunk = list(prompts[start : start + prompts_per_batch])
                samples += _sample_batch(model, tokenizer, chunk, n, max_new_tokens, temperature)
                if on_progress is not None:
                    on_progress(len(chunk) * n)
    finally:
        model.train(training)
    return samples


def _sample_batch(
    model: Any, tokenizer: Any, prompts: list[Prompt], n: int, max_new_tokens: int, temperature: float
) -> list[list[Sample]]:
    inputs = _tokenize(tokenizer, prompts).to(model.device)
    with record_logps(model, temperature=temperature) as record:
        ids_BT = model.generate(
            **inputs,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            num_return_sequences=n,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            disable_compile=True,
        )[:, inputs["input_ids"].shape[1] :]
    logps, entropies = record.logps_BT.tolist(), record.entropy_BT.tolist()
    samples = []
    for i, ids in enumerate(ids_BT.tolist()):
        length = ids.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in ids else len(ids)
        text = tokenizer.decode(ids[:length], skip_special_tokens=True)
        samples.append(Sample(text, ids[:length], logps[i][:length], entropies[i][:length]))
    return [samples[i : i + n] for i in range(0, len(samples), n)]


def _tokenize(tokenizer: Any, prompts: list[Prompt]) -> Any:
    """As TRL does: a chat template brings its own special tokens, the tokenizer adds them to plain text."""
    options = {"return_tensors": "pt", "padding": True, "return_token_type_ids": False}
    if all(isinstance(prompt, str) for prompt in prompts):
        return tokenizer(prompts, **options)
    texts = [tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True) for prompt in prompts]
    return tokenizer(texts, add_special_tokens=False, **options)
