"""Making the starting model: it is reproducible, and never sees held-out problems."""

import random

import torch

from progrpo.models.warm_start import countdown_model, countdown_tokenizer, sample_batch, train
from progrpo.tasks.countdown import is_heldout


def train_briefly() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tokenizer = countdown_tokenizer()
    model = countdown_model(tokenizer)
    train(model, tokenizer, steps=4, batch_size=8, seed=0)
    return dict(model.state_dict())


def test_the_same_seed_gives_the_same_weights() -> None:
    once, again = train_briefly(), train_briefly()
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_training_sees_whole_sequences_and_no_heldout_problem() -> None:
    rng, tokenizer = random.Random(0), countdown_tokenizer()
    for _ in range(20):
        for ids in sample_batch(rng, tokenizer, 16).tolist():
            prompt, response = tokenizer.decode(ids).split(" ; ")
            numbers, target = prompt.split(" : ")
            assert not is_heldout([int(n) for n in numbers.split()], int(target))
            assert response.endswith(tokenizer.eos_token)
            assert tokenizer.unk_token_id not in ids
