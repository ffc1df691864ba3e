"""Makes the shipped countdown model: ``python -m progrpo.models.warm_start OUT`` makes the same file again.

A Qwen2 model of 0.9 million parameters learns random correct solutions. Its loss covers the prompt too, so that the
prompt's confidence c(q) means something. It sees only problems outside the held-out tenth. The result depends on the
seed and, in its last bits, on the processor and the number of threads (two).
"""

import argparse
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from progrpo.common.files import write_folder
from progrpo.tasks.countdown import is_heldout, prompt_text, random_problem, steps_text
from progrpo.verify.countdown import MAX_VALUE, OPERATORS

STEPS, BATCH_SIZE, SEED = 3500, 128, 0
SPECIAL = ("<pad>", "<eos>", "<unk>")
# Most of the training goes to the size that the default recipe trains on.
SIZE_WEIGHTS = {3: 0.1, 4: 0.7, 5: 0.15, 6: 0.05}


def countdown_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per number, operator and mark; it splits text at white space.

    >>> countdown_tokenizer()("5 3 : 15 ;")["input_ids"]
    [15, 13, 8, 25, 9]
    """
    words = [*SPECIAL, *OPERATORS, "=", ",", ":", ";", *map(str, range(MAX_VALUE + 1))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def countdown_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """An untrained model of the Qwen2 architecture, 0.9 million parameters."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def sample_batch(rng: random.Random, tokenizer: PreTrainedTokenizerFast, batch_size: int) -> torch.Tensor:
    """Token ids of problems of one size, each with a random correct solution; shape (B, T), without padding."""
    size = rng.choices(list(SIZE_WEIGHTS), weights=list(SIZE_WEIGHTS.values()))[0]
    texts: list[str] = []
    while len(texts) < batch_size:
        numbers, target, steps = random_problem(rng, size)
        if not is_heldout(numbers, target):
            texts.append(f"{prompt_text(numbers, target)} {steps_text(steps)} {tokenizer.eos_token}")
    return torch.tensor(tokenizer(texts)["input_ids"])


def train(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, steps: int, batch_size: int, seed: int
) -> None:
    """Train on whole sequences, with warm-up and linear decay of the learning rate."""
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = LambdaLR(optimizer, lambda step: min(1.0, step / 100) * (1 - step / steps * 0.95))
    for step in range(1, steps + 1):
        ids_BT = sample_batch(rng, tokenizer, batch_size)
        loss = model(input_ids=ids_BT, labels=ids_BT).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{steps}  loss {loss.item():.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the countdown starting model.")
    parser.add_argument("out", type=Path, help="folder to write the model and its tokenizer to")
    out = parser.parse_args().out
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    tokenizer = countdown_tokenizer()
    model = countdown_model(tokenizer)
    train(model, tokenizer, steps=STEPS, batch_size=BATCH_SIZE, seed=SEED)
    with write_folder(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(out)


if __name__ == "__main__":
    main()
