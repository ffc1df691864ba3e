"""Responses to read: a few groups of the first and of the newest rollout of each method, token by token."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from progrpo.core import low_probability_mask
from progrpo.pages.collect import Group, verdict_of
from progrpo.runs.folder import RunFolder
from progrpo.runs.rollouts import read_rollout

GROUPS = 6
MOST_TOKENS = 600
"""Tokens shown of a response, half of them its first and half its last: phones can't open pages of long reasoning."""
LOW_PROB_FRACTION = 0.2
"""The default of ProGRPOConfig, for recipes that leave it out."""
NUMBERS = ("reward", "prompt_confidence", "answer_confidence", "grpo_advantage", "correction", "advantage")
VERDICTS = ("right", "wrong", "not judged")

Row = dict[Any, Any]
"""A response: ``verdict``, ``text``, ``token_ids``, ``logps``, ``canonical`` and numbers."""
Decode = Callable[[int], str]


def reader(methods: Sequence[Group]) -> list[dict[str, Any]]:
    """By method and step, a few groups with their responses; empty without rollouts.

    One run of each method is read. If all methods have rollouts with the same seed, these are read, so that prompts are
    the same. At each step, prompts that are mixed (some responses right, some wrong) in most methods come first.
    """
    with_rollouts = {m.title: {run.recipe.seed: run for run in reversed(m.runs) if run.rollouts} for m in methods}
    by_seed = {title: runs for title, runs in with_rollouts.items() if runs}
    shared = set.intersection(*map(set, by_seed.values())) if by_seed else set()
    runs = {title: runs[min(shared or runs)] for title, runs in by_seed.items()}
    decoders = {title: decoder_from(run.folder, run.recipe.model.path) for title, run in runs.items()}
    views: dict[str, Any] = {t: {"title": t, "seed": run.recipe.seed, "steps": []} for t, run in runs.items()}
    for place in (0, -1):
        rows = {title: read_groups(run.folder, run.rollouts[place]["step"]) for title, run in runs.items()}
        for title, run in runs.items():
            if place == 0 or len(run.rollouts) > 1:
                settings = run.recipe.method_settings() | run.recipe.trl
                fraction = float(settings.get("low_prob_fraction", LOW_PROB_FRACTION))
                groups = [group_view(group, decoders[title], fraction) for group in choose_groups(title, rows)]
                views[title]["steps"].append({"step": run.rollouts[place]["step"], "groups": groups})
    return list(views.values())


def read_groups(folder: RunFolder, step: int) -> dict[str, list[Row]]:
    """A step's responses by prompt, from the files of all processes. Of a prompt's groups, the first one counts."""
    by_prompt: dict[str, list[Row]] = {}
    frame = read_rollout(folder.rollouts, step)
    for _, members in frame.assign(verdict=frame["reward"].map(verdict_of)).groupby("group", sort=True):
        by_prompt.setdefault(members["prompt"].iloc[0], members.to_dict("records"))
    return by_prompt


def choose_groups(method: str, by_method: dict[str, dict[str, list[Row]]]) -> list[list[Row]]:
    """A few groups of a method: prompts that all methods have come first, mixed ones first among them."""

    def rank(prompt: str) -> tuple[int, int]:
        holders = [groups[prompt] for groups in by_method.values() if prompt in groups]
        return -len(holders), -sum({"right", "wrong"} <= {row["verdict"] for row in rows} for rows in holders)

    # Prompts of the same rank stay in the file's order, so that no group is picked for how well it looks.
    return [by_method[method][prompt] for prompt in sorted(by_method[method], key=rank)[:GROUPS]]


def group_view(rows: list[Row], decode: Decode, fraction: float) -> dict[str, Any]:
    """One group as the page shows it: right responses first, and of these the most confident one first; a token is
    ``[text, probability, in T_low]``."""
    solutions: dict[str, int] = {}
    ranked = sorted(rows, key=lambda r: (VERDICTS.index(r["verdict"]), -(finite(r["answer_confidence"]) or 0.0)))
    entries = merge_same(ranked, decode, fraction, solutions)
    for entry in entries:
        row = entry.pop("row")
        p_T = np.exp(np.minimum(entry.pop("logps"), 0.0)).round(4).tolist()
        tokens = zip(entry.pop("words"), p_T, entry.pop("low"), strict=True)
        entry["tokens"] = [[word, finite(p), is_low] for word, p, is_low in tokens]
        entry["numbers"] = {name: finite(row[name]) for name in NUMBERS}
    verdicts = [row["verdict"] for row in rows]
    return {
        "prompt": rows[0]["prompt"],
        "size": len(rows),
        "right": verdicts.count("right"),
        "not_judged": verdicts.count("not judged"),
        "distinct": len(solutions),
        "responses": entries,
    }


def merge_same(rows: Sequence[Row], decode: Decode, fraction: float, solutions: dict[str, int]) -> list[Row]:
    """The different responses of a group as the page shows them, each with the first ``row`` that it stands for.

    The same tokens sampled again are one entry with a count, so that readers see how often a policy repeats itself.
    The tokens of an entry are three lists, ``words``, ``logps`` (NaN where not known) and ``low`` (in T_low), cut in
    the middle. ``solutions`` numbers the different correct solutions; new ones are added.
    """
    lengths = [0 if row["token_ids"] is None else len(row["token_ids"]) for row in rows]
    logps_BT = np.full((len(rows), max(lengths)), np.nan)
    for logps_T, row, length in zip(logps_BT, rows, lengths, strict=True):
        known = np.asarray([] if row["logps"] is None else row["logps"], dtype=np.float64)[:length]
        logps_T[: len(known)] = np.where(np.isfinite(known), known, np.nan)
    low_BT = low_tokens(logps_BT, fraction)
    merged: dict[Any, Row] = {}
    for row, length, logps_T, low_T in zip(rows, lengths, logps_BT, low_BT, strict=True):
        ids = tuple(np.asarray(row["token_ids"], dtype=np.int64).tolist()) if length else ()
        key = (row["verdict"], ids or row["text"])
        if key in merged:
            merged[key]["times"] += 1
            continue
        words, canonical = [decode(token) for token in ids], row.get("canonical")
        solved = isinstance(canonical, str) and row["verdict"] == "right"
        merged[key] = {
            "row": row,
            "verdict": row["verdict"],
            "solution": solutions.setdefault(str(canonical), len(solutions) + 1) if solved else None,
            "times": 1,
            "text": row["text"],
            "words": cut(words),
            "logps": cut(logps_T[:length].tolist()),
            "low": cut(low_T[:length].tolist()),
            "hidden": max(0, length - MOST_TOKENS),
            "gap": needs_gaps(words, row["text"]),
        }
    return list(merged.values())


def low_tokens(logps_BT: NDArray[np.float64], fraction: float) -> NDArray[np.bool_]:
    """Which tokens are in T_low, (B, T); a token whose log-prob is NaN takes no part."""
    known_BT = ~np.isnan(logps_BT)
    if not known_BT.any():
        return known_BT
    filled_BT = torch.from_numpy(np.where(known_BT, np.minimum(logps_BT, 0.0), 0.0))
    return np.asarray(low_probability_mask(filled_BT, torch.from_numpy(known_BT), low_prob_fraction=fraction))


def cut(tokens: list[Any]) -> list[Any]:
    """The first and the last half of :data:`MOST_TOKENS` tokens: the end holds the answer."""
    half = MOST_TOKENS // 2
    return tokens if len(tokens) <= MOST_TOKENS else tokens[:half] + tokens[-half:]


def decoder_from(run: RunFolder | None, model: str) -> Decode:
    """Token id -> text, by the tokenizer of the run's last checkpoint, or else of the model, never from the network.

    If no tokenizer on this machine can be read, a token is shown as its number, ``#17``.
    """
    from progrpo.sampling.models import SHIPPED

    def from_file(place: str | Path) -> Any:
        from tokenizers import Tokenizer

        # The file itself, not AutoTokenizer: it needs no model class, and reads word-level tokenizers as they are.
        return Tokenizer.from_file(str(SHIPPED.get(str(place), Path(place)) / "tokenizer.json"))

    def from_model(place: str | Path) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(place), local_files_only=True)

    places = [place for place in (run and run.last_checkpoint(), model) if place]
    for load, place in product((from_file, from_model), places):
        with suppress(Exception):  # both libraries raise many kinds of error for a missing or damaged file
            tokenizer = load(place)
            return lambda token: str(tokenizer.decode([token], skip_special_tokens=False))
    return "#{}".format


def needs_gaps(texts: Sequence[str], whole: str) -> bool:
    """Whether tokens are words that decoding joins with spaces, so that the page must set them apart."""
    start = whole.strip()[:40]
    return bool(start) and not "".join(texts).strip().startswith(start) and " ".join(texts).strip().startswith(start)


def finite(value: Any) -> float | None:
    """A finite float, or None: JSON has no NaN."""
    return float(value) if value is not None and math.isfinite(value) else None
