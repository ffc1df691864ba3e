"""Scores of responses: confidences from log-probs, log-probs from a model, and verdicts from a verifier."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progrpo.common.errors import ConfigError
from progrpo.core import answer_confidence, token_logps
from progrpo.inspection.values import as_text, is_message, is_null
from progrpo.tasks.templates import opens_thinking, response_text
from progrpo.verify import Verdict
from progrpo.verify.registry import VERIFIERS, verify

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PADDED_CELLS = 1 << 20
"""Lists are padded to the longest one of a piece; a piece has at most so many cells."""
BATCH_BYTES = 256 << 20
"""The most memory for the logits of a batch: with a vocabulary of 152k, a batch has 440 tokens."""


def confidences(
    logps: Sequence[NDArray[Any]], fractions: Sequence[float], name: str
) -> tuple[NDArray[np.float32], Floats]:
    """c(o|q) by low_prob_fraction (F, B), and the mean of -log p over the tokens of each list (B,), nats.

    With the log-probs of prompts, c(q) is the value at fraction 1. A log-prob that is not finite does not count, and
    without any the result is NaN.

    Raises:
        ConfigError: a log-prob of the column ``name`` is above 0.

    >>> c_o, surprisal = confidences([np.log([0.5, 0.1]), np.array([])], [0.5, 1.0], "logps")
    >>> c_o.astype(float).round(3).tolist(), surprisal.round(3).tolist()
    ([[0.1, nan], [0.224, nan]], [1.498, nan])
    """
    c_o_FB = np.full((len(fractions), len(logps)), np.nan, dtype=np.float32)
    surprisal_B = np.full(len(logps), np.nan)
    for rows, logps_BT, mask_BT in padded(logps):
        try:
            c_o = [answer_confidence(logps_BT, mask_BT, low_prob_fraction=fraction) for fraction in fractions]
        except ValueError as error:
            raise ConfigError(f"column {name!r} does not hold log-probs: {error}") from None
        c_o_FB[:, rows] = torch.stack(c_o).numpy()
        sums_B = torch.where(mask_BT, -logps_BT, 0.0).sum(dim=1, dtype=torch.float64)
        surprisal_B[rows] = (sums_B / mask_BT.sum(dim=1)).numpy()
    return c_o_FB, surprisal_B


def padded(lists: Sequence[NDArray[Any]], cells: int = PADDED_CELLS) -> Iterator[tuple[Ints, Tensor, Tensor]]:
    """Pieces of lists of similar length: the numbers of the lists, their padded values (B, T) and their mask (B, T).

    A piece has at most so many cells, unless a single list has more. A value that is not finite is masked out.
    """
    lengths = np.array([len(values) for values in lists], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    while len(order):
        longest = np.maximum(lengths[order], 1)
        # The lengths rise, so a piece of the first k lists has k * longest[k - 1] cells.
        k = max(1, int(np.searchsorted(longest * np.arange(1, len(order) + 1), cells, side="right")))
        rows, order = order[:k], order[k:]
        mask = np.arange(longest[k - 1]) < lengths[rows, None]
        values = np.zeros(mask.shape, dtype=lists[0].dtype)
        values[mask] = np.concatenate([lists[row] for row in rows])
        values_BT = torch.from_numpy(values)
        yield rows, values_BT, torch.from_numpy(mask) & values_BT.isfinite()


@dataclass(frozen=True)
class Scored:
    """One response under the model: its tokens with their log-probs and entropies, and the log-probs of the prompt."""

    token_ids: list[int]
    logps: list[float]
    entropies: list[float]
    prompt_logps: list[float]
    """Without the first token of the prompt, which has none."""


@torch.no_grad()
def score(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[Any, str, Sequence[int] | None]],
    *,
    temperature: float = 1.0,
    on_progress: Callable[[int], None] | None = None,
) -> list[Scored]:
    """Log-probs of prompts and responses under a causal language model, nats, at a temperature.

    A prompt of chat messages goes through the tokenizer's template, as in training; text is tokenised as it is.

    Args:
        pairs: prompt, response text, and the token ids of the response where they are known. A text is tokenised
            without special tokens: the end token that stopped a response is not in its text, and has no log-prob.
        on_progress: called with the number of responses after each batch.

    Raises:
        ConfigError: a prompt without tokens, token ids that the model does not have, or more tokens than it takes.
    """
    from progrpo.sampling.transformers import token_ids  # files that hold log-probs don't need transformers

    model.eval()
    remedy = "give --model the model that the responses were sampled from"
    prompts = token_ids(tokenizer, [prompt for prompt, _, _ in pairs], remedy)
    responses = [
        list(ids) if ids is not None else tokenizer(text, add_special_tokens=False)["input_ids"]
        for _, text, ids in pairs
    ]
    _check_lengths_and_ids(model, prompts, responses)
    sequences = [np.array([*prompt, *response]) for prompt, response in zip(prompts, responses, strict=True)]
    places = max(1, BATCH_BYTES // (4 * model.config.get_text_config().vocab_size))
    scored: dict[int, Scored] = {}
    for rows, tokens_BT, mask_BT in padded(sequences, places):
        ids_BT = tokens_BT.to(model.device)
        attention_mask = mask_BT.long().to(model.device)
        logits_BTV = model(input_ids=ids_BT, attention_mask=attention_mask, use_cache=False).logits
        logps_BT, entropy_BT = token_logps(logits_BTV[:, :-1], ids_BT[:, 1:], temperature=temperature)
        logps, entropies = logps_BT.float().cpu().tolist(), entropy_BT.float().cpu().tolist()
        for i, row in enumerate(rows.tolist()):
            # Place t holds the log-prob of token t + 1, because nothing stands before the first token.
            start, end = len(prompts[row]) - 1, len(sequences[row]) - 1
            scored[row] = Scored(responses[row], logps[i][start:end], entropies[i][start:end], logps[i][:start])
        if on_progress is not None:
            on_progress(len(rows))
    return [scored[row] for row in range(len(pairs))]


def _check_lengths_and_ids(model: Any, prompts: list[list[int]], responses: list[list[int]]) -> None:
    config = model.config.get_text_config()
    if any(not ids for ids in prompts):
        raise ConfigError("a prompt has no tokens, so nothing stands before the first token of its response.")
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


@dataclass
class Judge:
    """Verifies the responses of a file with the golds in one of its columns.

    Args:
        verifier: a name of :data:`progrpo.verify.registry.VERIFIERS`; ConfigError for any other.
        template_opens: whether the chat template ends a prompt of messages inside a thinking part.

    >>> judge = Judge("math_any")
    >>> verdicts = judge(["3 / 4?", "<think>"], ["The answer is 0.75.", "Maybe 3/4? Wait"], ["3/4", "3/4"])
    >>> [verdict.status for verdict in verdicts]
    ['correct', 'incorrect']
    """

    verifier: str
    template_opens: bool = False
    failures: list[str] = field(default_factory=list)
    """The reason for each response that the verifier itself failed on."""

    def __post_init__(self) -> None:
        if self.verifier not in VERIFIERS:
            raise ConfigError(f"--verify must be one of {', '.join(VERIFIERS)}, got {self.verifier!r}.")

    def __call__(self, prompts: Sequence[Any], responses: Sequence[Any], golds: Sequence[Any]) -> list[Verdict]:
        """The verdict on each response. The verifier reads the same part of a response as in training, see
        :func:`progrpo.tasks.templates.response_text`. Where a gold is null, NaN or blank, the verdict is an error."""
        texts = []
        for prompt, response in zip(prompts, responses, strict=True):
            completion = [response] if is_message(response) else response
            completion = completion if isinstance(completion, list) else as_text(completion)
            texts.append(response_text(completion, in_thinking=opens_thinking(prompt, self.template_opens)))
        known = {i: text for i, gold in enumerate(golds) if (text := _gold_text(gold)).strip()}
        judged = verify([self.verifier] * len(known), list(known.values()), [texts[i] for i in known])
        by_number = dict(zip(known, judged, strict=True))
        verdicts = [by_number.get(i, Verdict("error", "the gold is null or blank")) for i in range(len(texts))]
        self.failures += [verdict.reason for verdict in verdicts if verdict.status == "error"]
        return verdicts

    def notes(self) -> list[str]:
        """A sentence about the failures, if there are any."""
        if not self.failures:
            return []
        return [f"The verifier {self.verifier!r} failed on {len(self.failures)} responses: {self.failures[0]}"]


def _gold_text(value: Any) -> str:
    """A gold as verifiers take it: a number as its shortest text, a list or a dict as JSON, null as an empty text."""
    if is_null(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
