"""Log-probs and entropies of sampled tokens, in chunks, so that no upcast copy of all logits exists at once."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from progrpo.core.checks import check_axes, check_number
from progrpo.core.masking import at_least_float32

# 1,024 x 152k float32 logits (Qwen2.5's vocabulary) take 0.6 GB; smaller chunks only add kernel launches.
CHUNK_TOKENS = 1024


def token_logps(
    logits_BTV: Tensor,
    tokens_BT: Tensor,
    *,
    temperature: float = 1.0,
    chunk_tokens: int = CHUNK_TOKENS,
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""Log-prob of each token and entropy of its distribution, from logits.

    .. math:: \log \pi(o_t) = \frac{z_{o_t}}{\tau} - \log \sum_v e^{z_v / \tau}, \qquad
              H_t = -\sum_v \pi(v) \log \pi(v)

    Args:
        logits_BTV: logits that predict each token, shape (B, T, V). The caller shifts them.
        tokens_BT: integer token ids in [0, V), shape (B, T). A masked-out token may have any valid id.
        temperature: tau, above 0. Log-probs of the rollout need its sampling temperature.
        chunk_tokens: how many tokens are computed at a time, in float32 at least. The backward pass recomputes them.
        with_entropy: False saves the time that the entropy takes; the returned entropy is then NaN.

    Returns:
        ``(logps_BT, entropy_BT)``, shape (B, T), in nats; float64 for float64 logits, float32 for all others. Gradients
        flow through both.

    >>> logps, entropy = token_logps(torch.zeros(1, 2, 4), torch.tensor([[0, 3]]))
    >>> logps.exp(), entropy.exp()
    (tensor([[0.2500, 0.2500]]), tensor([[4., 4.]]))
    """
    return token_logps_from_hidden(
        logits_BTV, None, tokens_BT, temperature=temperature, chunk_tokens=chunk_tokens, with_entropy=with_entropy
    )


def token_logps_from_hidden(
    hidden_BTD: Tensor,
    head_VD: Tensor | None,
    tokens_BT: Tensor,
    *,
    bias_V: Tensor | None = None,
    temperature: float = 1.0,
    chunk_tokens: int = CHUNK_TOKENS,
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor]:
    """As :func:`token_logps`, from the last hidden states and the LM head, without the (B, T, V) logits.

    Args:
        hidden_BTD: hidden states that predict each token, shape (B, T, D).
        head_VD: the LM head's weight, shape (V, D); None if ``hidden_BTD`` already holds logits.
        bias_V: the LM head's bias, shape (V,), if it has one.

    The other arguments and the result are those of :func:`token_logps`.

    >>> hidden, head = torch.ones(1, 1, 2), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    >>> token_logps_from_hidden(hidden, head, torch.tensor([[1]]))[0].exp()
    tensor([[0.5000]])
    """
    check_number("temperature", temperature, low=0.0, open_low=True)
    check_number("chunk_tokens", chunk_tokens, low=1)
    _check_inputs(hidden_BTD, head_VD, tokens_BT)

    def chunk_logps(hidden_CD: Tensor, tokens_C: Tensor) -> tuple[Tensor, Tensor]:
        logits_CV = hidden_CD if head_VD is None else torch.nn.functional.linear(hidden_CD, head_VD, bias_V)
        logps_CV = (at_least_float32(logits_CV) / temperature).log_softmax(dim=1)
        logps_C = logps_CV.gather(1, tokens_C[:, None]).squeeze(1)
        if not with_entropy:
            return logps_C, torch.full_like(logps_C, torch.nan)
        # A forbidden token (logit -inf) has probability 0 and adds 0 to the entropy, not 0 * -inf = NaN.
        return logps_C, -(logps_CV.exp() * logps_CV.masked_fill(logps_CV == -torch.inf, 0.0)).sum(dim=1)

    chunks = zip(hidden_BTD.flatten(0, 1).split(chunk_tokens), tokens_BT.flatten().split(chunk_tokens), strict=True)
    if torch.is_grad_enabled():
        results = [checkpoint(chunk_logps, *chunk, use_reentrant=False) for chunk in chunks]
    else:
        results = [chunk_logps(*chunk) for chunk in chunks]
    logps, entropies = zip(*results, strict=True)
    return torch.cat(logps).view(tokens_BT.shape), torch.cat(entropies).view(tokens_BT.shape)


def _check_inputs(hidden_BTD: Tensor, head_VD: Tensor | None, tokens_BT: Tensor) -> None:
    name = "logits_BTV" if head_VD is None else "hidden_BTD"
    check_axes(name, hidden_BTD)
    check_axes("tokens_BT", tokens_BT, f"{name} without its last axis", hidden_BTD.new_empty(hidden_BTD.shape[:2]))
    if head_VD is not None and (head_VD.dim() != 2 or head_VD.shape[1] != hidden_BTD.shape[2]):
        raise ValueError(f"head_VD must have shape (V, {hidden_BTD.shape[2]}), got {tuple(head_VD.shape)}.")
    vocabulary = hidden_BTD.shape[2] if head_VD is None else head_VD.shape[0]
    if tokens_BT.dtype.is_floating_point or tokens_BT.dtype == torch.bool:
        raise TypeError(f"tokens_BT must hold integer token ids, got {tokens_BT.dtype}.")
    if tokens_BT.numel() == 0:
        return
    lowest, highest = torch.stack(tokens_BT.aminmax()).tolist()  # one wait for the device, not two
    if lowest < 0 or highest >= vocabulary:
        raise ValueError(
            f"tokens_BT must hold ids in [0, {vocabulary}), got {lowest}..{highest}; replace the id of masked-out "
            "tokens (-100, say) with 0."
        )
