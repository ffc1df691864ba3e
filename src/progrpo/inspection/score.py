"""Log-probs of prompts and responses under a model, for files that don't hold them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from progrpo.common.errors import ConfigError
from progrpo.core import token_logps
from progrpo.inspection.batches import Ragged
from progrpo.inspection.table import Ints, Source, Table, confidences, padded, prompt_confidences
from progrpo.inspection.values import as_list, response_of

BATCH_BYTES = 256 << 20
"""Logits of a batch of sequences: of a vocabulary of 152k, 440 tokens at a time; of a tiny one, thousands."""
MOST_RESPONSES = 64
"""A group has at most so many responses scored."""


@dataclass(frozen=True)
class Scored:
    """One response under the model: its tokens with their log-probs and entropies, and the prompt's log-probs."""

    token_ids: list[int]
    logps: list[float]
    entropies: list[float]
    prompt_logps: list[float]
    """Of every prompt token but the first."""


def choose_responses(table: Table, groups: int) -> Ints:
    """The responses of so many groups, at even distances in the order of the files; of a large group the first."""
    n = table.n_groups
    chosen = np.unique(np.linspace(0, n - 1, min(groups, n)).round().astype(np.int64))
    rows = np.flatnonzero(np.isin(table.groups_B, chosen))
    rows = rows[np.argsort(table.groups_B[rows], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(table.groups_B[rows]) != 0])
    place = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    return np.sort(rows[place < MOST_RESPONSES])


@torch.no_grad()
def score(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[Any, str, Sequence[int] | None]],
    *,
    temperature: float = 1.0,
    on_progress: Callable[[int], None] | None = None,
) -> list[Scored]:
    """Log-probs of prompts and responses.

    A prompt of chat messages goes through the tokenizer's template, as in training; text is tokenised as it is.

    Args:
        model, tokenizer: a causal language model and its tokenizer.
        pairs: prompt, response text, and the response's token ids where they are known. A text is tokenised without
            special tokens: the end token that a response stopped with is not in its text, and has no log-prob.
        temperature: of log-probs and entropies.
        on_progress: called with the number of responses after each batch.

    Returns:
        One for each pair, in order.

    Raises:
        ConfigError: a prompt without tokens, token ids that the model does not have, or more tokens than it takes.
    """
    model.eval()
    prompts = _prompt_ids(tokenizer, [prompt for prompt, _, _ in pairs])
    responses = [
        list(ids) if ids is not None else tokenizer(text, add_special_tokens=False)["input_ids"]
        for _, text, ids in pairs
    ]
    _check(model, prompts, responses)
    whole = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    lengths = np.array([len(ids) for ids in whole], dtype=np.int64)
    flat = np.array([token for ids in whole for token in ids], dtype=np.int64)
    places = max(1, BATCH_BYTES // (4 * model.config.get_text_config().vocab_size))
    found: list[Scored | None] = [None] * len(pairs)
    for rows, tokens_BT, mask_BT in padded(Ragged(flat, lengths), places):
        ids_BT = tokens_BT.to(model.device)
        attention_mask = mask_BT.long().to(model.device)
        logits_BTV = model(input_ids=ids_BT, attention_mask=attention_mask, use_cache=False).logits
        logps_BT, entropy_BT = token_logps(logits_BTV[:, :-1], ids_BT[:, 1:], temperature=temperature)
        logps, entropies = logps_BT.float().cpu().tolist(), entropy_BT.float().cpu().tolist()
        for i, row in enumerate(rows.tolist()):
            # Place t holds the log-prob of token t + 1: the first token has nothing before it.
            start, end = len(prompts[row]) - 1, len(whole[row]) - 1
            found[row] = Scored(responses[row], logps[i][start:end], entropies[i][start:end], logps[i][:start])
        if on_progress is not None:
            on_progress(len(rows))
    return [one for one in found if one is not None]


def with_scores(table: Table, rows: Ints, scored: Sequence[Scored]) -> Table:
    """The table with what it lacks: c(q), and where log-probs of responses are missing c(o|q), entropy and lengths."""
    c_q_B = table.c_q_B.copy()
    if np.isnan(c_q_B).all():
        c_q_B[rows] = prompt_confidences(_ragged([one.prompt_logps for one in scored]), "prompt")
    if not np.isnan(table.c_o_FB).all():
        return replace(table, c_q_B=c_q_B)
    c_o_FB, entropy_B = table.c_o_FB.copy(), table.entropy_B.copy()
    c_o_FB[:, rows], _ = confidences(_ragged([one.logps for one in scored]), table.fractions, "response")
    if np.isnan(entropy_B).all():
        entropy_B[rows] = [np.mean(one.entropies) if one.entropies else np.nan for one in scored]
    return replace(table, c_q_B=c_q_B, c_o_FB=c_o_FB, entropy_B=entropy_B)


def pairs_of(source: Source, rows: Sequence[dict[str, Any]]) -> list[tuple[Any, str, Sequence[int] | None]]:
    """What :func:`score` takes, from a file's raw rows."""
    columns = source.columns
    return [
        (
            row[columns.prompt],
            response_of(row[columns.response]),
            as_list(row[columns.token_ids]) if columns.token_ids else None,
        )
        for row in rows
    ]


def _ragged(lists: Sequence[Sequence[float]]) -> Ragged:
    values = np.array([value for one in lists for value in one], dtype=np.float32)
    return Ragged(values, np.array([len(one) for one in lists], dtype=np.int64))


def _prompt_ids(tokenizer: Any, prompts: Sequence[Any]) -> list[list[int]]:
    # Where there is a tokenizer there is transformers, which files with log-probs don't need.
    from progrpo.sampling.transformers import token_ids

    if tokenizer.chat_template is None and any(isinstance(prompt, list) for prompt in prompts):
        raise ConfigError(
            "the prompts are chat messages, but the tokenizer of --model has no chat template; give the model that the "
            "responses were sampled from."
        )
    return token_ids(tokenizer, prompts)


def _check(model: Any, prompts: list[list[int]], responses: list[list[int]]) -> None:
    config = model.config.get_text_config()
    if any(not ids for ids in prompts):
        raise ConfigError("a prompt has no tokens, so that its response's first token has nothing to follow from.")
    highest = max((token for ids in responses for token in ids), default=0)
    if highest >= config.vocab_size:
        raise ConfigError(
            f"the responses hold token id {highest}, and the model of --model has {config.vocab_size} tokens; give the "
            "model that they were sampled from."
        )
    longest = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and longest > most:
        raise ConfigError(f"a prompt with its response has {longest} tokens, and the model of --model takes {most}.")
