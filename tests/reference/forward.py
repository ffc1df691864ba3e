"""The log-probs of a text by one plain forward pass, without padding, cache or batch."""

from typing import Any

import torch


@torch.no_grad()
def token_logps(
    model: Any, prompt_ids: list[int], response_ids: list[int], temperature: float
) -> tuple[list[float], list[float]]:
    """Log-probs of a prompt's tokens after the first, and of a response's, at this temperature. Without dropout."""
    training = model.training
    model.eval()
    ids = torch.tensor([prompt_ids + response_ids])
    logps = (model(ids).logits[0, :-1].float() / temperature).log_softmax(-1)
    model.train(training)
    of_tokens = logps.gather(1, ids[0, 1:, None])[:, 0].tolist()
    return of_tokens[: len(prompt_ids) - 1], of_tokens[len(prompt_ids) - 1 :]
