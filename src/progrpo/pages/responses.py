"""Responses to read: a few groups of the first and of the newest rollout of each method, token by token."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from progrpo.core import low_probability_mask
from progrpo.pages.collect import MethodRuns, Run
from progrpo.runs.folder import RunFolder
from progrpo.runs.rollouts import read_rollout

GROUPS = 6
MOST_TOKENS = 600
"""Tokens shown of a response, half of them its first and half its last; a page with every token of long reasoning could
not be opened on a phone."""
LOW_PROB_FRACTION = 0.2
"""ProGRPOConfig's default, for recipes that leave it out."""
NUMBERS = ("reward", "prompt_confidence", "answer_confidence", "grpo_advantage", "correction", "advantage")

Rows = list[dict[str, Any]]
Decode = Callable[[int], str]


def reader(methods: Sequence[MethodRuns], *, groups: int = GROUPS) -> list[dict[str, Any]]:
    """By method and step, up to ``groups`` groups with their responses; empty without rollouts.

    One run a method is read: of a seed that all methods have rollouts of, where there is one, so that prompts are the
    same. At each step the prompts that are mixed (some responses right, some wrong) in the most methods come first.
    """
    runs = _runs_to_read(methods)
    by_place: dict[int, dict[str, dict[str, Rows]]] = {}
    for place in (0, -1):
        read = {name: read_groups(run.folder, run.rollout_steps[place]) for name, run in runs.items()}
        by_place[place] = {name: choose_groups(name, read, groups) for name in read}
    told = []
    for method in methods:
        if method.name not in runs:
            continue
        run = runs[method.name]
        decode, fraction = token_decoder(run), low_prob_fraction(run)
        places = [0] if len(run.rollout_steps) == 1 else [0, -1]
        steps = [
            {
                "step": run.rollout_steps[place],
                "groups": [group_view(rows, decode, fraction) for rows in by_place[place][method.name].values()],
            }
            for place in places
        ]
        told.append({"name": method.name, "title": method.title, "seed": run.recipe.seed, "steps": steps})
    return told


def _runs_to_read(methods: Sequence[MethodRuns]) -> dict[str, Run]:
    with_rollouts = {m.name: [run for run in m.runs if run.rollout_steps] for m in methods}
    with_rollouts = {name: runs for name, runs in with_rollouts.items() if runs}
    seeds = [{run.recipe.seed for run in runs} for runs in with_rollouts.values()]
    shared = set.intersection(*seeds) if seeds else set()
    chosen = {}
    for name, runs in with_rollouts.items():
        of_shared = [run for run in runs if shared and run.recipe.seed == min(shared)]
        chosen[name] = (of_shared or runs)[0]
    return chosen


def read_groups(folder: RunFolder, step: int) -> dict[str, Rows]:
    """A step's responses by prompt, from the files of all processes; of a prompt drawn twice, the first group."""
    by_prompt: dict[str, Rows] = {}
    for _, members in read_rollout(folder.rollouts, step).groupby("group", sort=True):
        rows: Rows = [{str(key): value for key, value in row.items()} for row in members.to_dict("records")]
        by_prompt.setdefault(as_text(rows[0]["prompt"]), rows)
    return by_prompt


def choose_groups(name: str, read: dict[str, dict[str, Rows]], count: int) -> dict[str, Rows]:
    """The groups of method ``name``: prompts that all methods have come first, mixed ones first among them."""

    def rank(prompt: str) -> tuple[int, int]:
        holders = [groups[prompt] for groups in read.values() if prompt in groups]
        return -len(holders), -sum(is_mixed(rows) for rows in holders)

    # sorted() keeps the file's order among equals: nothing is picked for how well it looks.
    prompts = sorted(read[name], key=rank)[:count]
    return {prompt: read[name][prompt] for prompt in prompts}


def is_mixed(rows: Rows) -> bool:
    """Whether some responses are right and some wrong."""
    verdicts = {verdict_of(row["reward"]) for row in rows}
    return {"right", "wrong"} <= verdicts


def verdict_of(reward: float | None) -> str:
    """``right`` above 0, ``wrong`` else, ``not judged`` where the verifier failed."""
    if reward is None or math.isnan(reward):
        return "not judged"
    return "right" if reward > 0 else "wrong"


def group_view(rows: Rows, decode: Decode, fraction: float) -> dict[str, Any]:
    """One group as the page shows it: right responses first, among them the most confident."""
    numbered: dict[str, int] = {}
    responses: list[dict[str, Any]] = []
    order = {"right": 0, "wrong": 1, "not judged": 2}
    # The same tokens sampled again are one entry with a count: how often a policy repeats itself is what to see.
    again: dict[tuple[str, tuple[int, ...]], Rows] = {}
    for row in sorted(rows, key=lambda r: (order[verdict_of(r["reward"])], -(_number(r["answer_confidence"]) or 0.0))):
        again.setdefault((verdict_of(row["reward"]), tuple(row["token_ids"])), []).append(row)
    for (verdict, _), same in again.items():
        canonical = same[0].get("canonical")
        known = isinstance(canonical, str) and verdict == "right"
        solution = numbered.setdefault(str(canonical), len(numbered) + 1) if known else None
        responses.append(response_view(same[0], decode, fraction) | {"solution": solution, "times": len(same)})
    verdicts = [verdict_of(row["reward"]) for row in rows]
    return {
        "prompt": as_text(rows[0]["prompt"]),
        "size": len(rows),
        "right": verdicts.count("right"),
        "not_judged": verdicts.count("not judged"),
        "distinct": len(numbered),
        "responses": responses,
    }


def response_view(row: dict[str, Any], decode: Decode, fraction: float) -> dict[str, Any]:
    """One response: its tokens as ``[text, probability, in T_low]``, its verdict, and the six numbers."""
    ids = [int(i) for i in row["token_ids"]]
    logps = [_number(value) for value in row["logps"]]
    logps = (logps + [None] * len(ids))[: len(ids)]
    low = t_low(logps, fraction)
    texts = [decode(i) for i in ids]
    tokens = [
        [text, None if logp is None else round(min(1.0, math.exp(logp)), 4), is_low]
        for text, logp, is_low in zip(texts, logps, low, strict=True)
    ]
    return {
        "tokens": cut(tokens),
        "hidden": max(0, len(tokens) - MOST_TOKENS),
        "gap": needs_gaps(texts, as_text(row["text"])),
        "text": as_text(row["text"]),
        "verdict": verdict_of(row["reward"]),
        "numbers": {name: _number(row[name]) for name in NUMBERS},
    }


def cut(tokens: list[Any]) -> list[Any]:
    """The first and the last half of :data:`MOST_TOKENS` tokens: the end holds the answer.

    >>> len(cut(list(range(1000)))), cut([1, 2])
    (600, [1, 2])
    """
    half = MOST_TOKENS // 2
    return tokens if len(tokens) <= MOST_TOKENS else tokens[:half] + tokens[-half:]


def t_low(logps: Sequence[float | None], fraction: float) -> list[bool]:
    """Which tokens are in T_low; a token without a log-prob takes no part."""
    if not logps:
        return []
    mask = torch.tensor([[value is not None for value in logps]])
    values = torch.tensor([[0.0 if value is None else min(value, 0.0) for value in logps]])
    return [bool(x) for x in low_probability_mask(values, mask, low_prob_fraction=fraction)[0]]


def low_prob_fraction(run: Run) -> float:
    """The share of tokens in T_low that the run trained with."""
    settings = run.recipe.method_settings() | run.recipe.trl
    return float(settings.get("low_prob_fraction", LOW_PROB_FRACTION))


def token_decoder(run: Run) -> Decode:
    """Token id -> text, by the run's tokenizer: see :func:`decoder_from`."""
    return decoder_from(run.tokenizers)


def decoder_from(places: Sequence[str | Path]) -> Decode:
    """Token id -> text, by the first tokenizer in these places, folders or names of models; never from the network.

    Without a tokenizer on this machine, or with damaged files of one, a token is shown as its number, ``#17``.
    """
    from progrpo.sampling.models import SHIPPED

    folders = [SHIPPED.get(str(place), Path(place)) for place in places]
    for folder in folders:
        if (folder / "tokenizer.json").is_file():
            with suppress(Exception):  # tokenizers raises no narrower one for a damaged file
                return _from_file(folder / "tokenizer.json")
    for place in places:
        with suppress(Exception):  # transformers raises many kinds, see progrpo.sampling.models.load_model
            from transformers import AutoTokenizer

            return _decode_with(AutoTokenizer.from_pretrained(str(place), local_files_only=True))
    return "#{}".format


def _decode_with(tokenizer: Any) -> Decode:
    return lambda token: str(tokenizer.decode([token]))


def _from_file(path: Path) -> Decode:
    from tokenizers import Tokenizer

    # The file itself, not AutoTokenizer: it needs no model class, and reads word-level tokenizers as they are.
    tokenizer = Tokenizer.from_file(str(path))
    return lambda token: str(tokenizer.decode([token], skip_special_tokens=False))


def needs_gaps(texts: Sequence[str], whole: str) -> bool:
    """Whether tokens are words that decoding joins with spaces, so that the page must set them apart."""
    start = whole.strip()[:40]
    return bool(start) and not "".join(texts).strip().startswith(start) and " ".join(texts).strip().startswith(start)


def as_text(value: Any) -> str:
    """A prompt or a response as text; chat messages as ``role: content`` lines."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in value)


def _number(value: Any) -> float | None:
    """A finite float, or None: JSON has no NaN."""
    return float(value) if value is not None and math.isfinite(value) else None
