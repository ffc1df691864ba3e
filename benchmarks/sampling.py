"""Samples per second: the transformers backend against lm-evaluation-harness's ``hf`` backend, in one process.

    pip install lm-eval==0.4.13
    python benchmarks/sampling.py

Both use the same SmolLM2-135M-Instruct in float32 and the same chat prompts: generated arithmetic word problems with
one worked example each. Both draw 32 samples of each prompt at temperature 0.7, with up to 128 new tokens, in batches
of 32. They take turns prompt by prompt. The harness gets 32 requests per prompt, as it makes them from ``repeats: 32``.
The result is the ratio of samples per second, with the 95 % interval from 10,000 bootstrap resamples of the prompts.
"""

import argparse
import logging
import time
import warnings
from typing import Any

import numpy as np
import torch
import transformers
from record import record

N = 32
TEMPERATURE = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    args = parser.parse_args()
    record("sampling", compare(args.prompts, args.max_new_tokens))


def compare(count: int, max_new_tokens: int) -> dict[str, Any]:
    """Time both on each prompt in turn."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from progrpo.sampling import Request, Sampling
    from progrpo.sampling.models import load_model
    from progrpo.sampling.transformers import TransformersBackend, token_ids
    from progrpo.tasks import MathTask
    from progrpo.tasks.rows import Data

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = load_model("smollm2")
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=N)
    backend = TransformersBackend(model, tokenizer, batch=N)
    train, heldout = Data(preset="word_problems", limit=8), Data(preset="word_problems", seed=1, limit=count)
    prompts = [problem["prompt"] for problem in MathTask(train, heldout, examples=1).heldout_problems()]
    kwargs = {"until": [], "do_sample": True, "temperature": TEMPERATURE, "top_k": 0, "max_gen_toks": max_new_tokens}
    ours, theirs = np.zeros(count), np.zeros(count)
    tokens = {"ours": 0, "theirs": 0}
    for i, prompt in enumerate(prompts):
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)

        def sample_ours(prompt: Any = prompt) -> None:
            drawn = backend.sample([Request(prompt, 0, N)], Sampling(max_new_tokens, TEMPERATURE))
            tokens["ours"] += sum(len(sample.token_ids) for _, samples in drawn for sample in samples)

        def sample_theirs(text: str = text) -> None:
            requests = [Instance("generate_until", {}, (text, dict(kwargs)), 0, repeats=N)] * N
            texts = harness.generate_until(requests, disable_tqdm=True)
            tokens["theirs"] += sum(len(ids) + 1 for ids in tokenizer(texts)["input_ids"])

        for run, times in [(sample_ours, ours), (sample_theirs, theirs)][:: 1 if i % 2 else -1]:
            started = time.perf_counter()
            run()
            times[i] = time.perf_counter() - started
        print(f"prompt {i + 1}/{count}: {N / ours[i]:.2f} and {N / theirs[i]:.2f} samples/s", flush=True)
    drawn = np.random.default_rng(0).integers(count, size=(10_000, count))
    low, high = np.percentile(theirs[drawn].sum(axis=1) / ours[drawn].sum(axis=1), [2.5, 97.5])
    return {
        "samples a second, ours": round(N * count / ours.sum(), 3),
        "samples a second, lm-eval hf": round(N * count / theirs.sum(), 3),
        "ratio": round(theirs.sum() / ours.sum(), 3),
        "95 %": [round(float(low), 3), round(float(high), 3)],
        "prompt tokens": round(float(np.mean([len(ids) for ids in token_ids(tokenizer, prompts)])), 1),
        "response tokens, ours": round(tokens["ours"] / N / count, 1),
        "response tokens, lm-eval hf": round(tokens["theirs"] / N / count, 1),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
