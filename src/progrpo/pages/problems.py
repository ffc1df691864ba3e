"""Problem by problem: the table's columns, and the responses of the final evaluation for the reader."""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from progrpo.core import low_probability_mask
from progrpo.evaluation.store import read_samples
from progrpo.pages.collect import Group
from progrpo.pages.responses import LOW_PROB_FRACTION, MOST_TOKENS, Rows, cut, decoder_from, needs_gaps

if TYPE_CHECKING:
    import pandas as pd

TOKEN_BUDGET = 6_000_000
"""Tokens of evaluation responses in a page: some 20 MB of it."""
STEPS_A_NAT = 100
"""Log-probs are kept to 0.01 nats, which is a probability to 1 %."""
VERDICTS = {"correct": "right", "incorrect": "wrong"}
COLUMNS = ("problem_id", "index", "prompt", "status", "tokens", "answer_confidence")


def read_responses(groups: Sequence[Group]) -> "pd.DataFrame":
    """All kept responses of the groups, without texts and tokens; ``group`` and ``run`` are places in ``groups`` and
    in the group's ``samples``."""
    import pandas as pd

    frames = [
        read_samples(samples.folder, COLUMNS).assign(group=i, run=j)
        for i, group in enumerate(groups)
        for j, samples in enumerate(group.samples)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*COLUMNS, "group", "run"])


@dataclass(frozen=True)
class Problems:
    """The problems of some groups' final evaluations, in order, with what the responses say of them."""

    ids: list[str]
    prompts: list[str]

    @classmethod
    def of(cls, groups: Sequence[Group], responses: "pd.DataFrame") -> "Problems":
        """A problem whose responses were not kept has its id for a prompt."""
        ids = list(dict.fromkeys(p.problem_id for group in groups for e in group.finals for p in e.problems))
        prompts = dict(zip(responses["problem_id"], responses["prompt"], strict=True))
        return cls(ids, [str(prompts.get(problem) or problem) for problem in ids])


def table(problems: Problems, groups: Sequence[Group], responses: "pd.DataFrame") -> dict[str, Any]:
    """The columns of the table: a list over problems each, None where a group has nothing of a problem.

    ``correct`` and ``samples`` are sums over a group's seeds, ``distinct`` their mean, ``right`` and ``wrong`` the mean
    c(o|q) of the responses with that verdict.
    """
    means = responses.groupby(["group", "problem_id", "status"])["answer_confidence"].mean().to_dict()
    columns = []
    for i, group in enumerate(groups):
        by_problem: dict[str, list[Any]] = {}
        for evaluation in group.finals:
            for result in evaluation.judged:
                by_problem.setdefault(result.problem_id, []).append(result)
        found = [by_problem.get(problem) for problem in problems.ids]
        confidences = {
            verdict: [_finite(means.get((i, problem, status))) for problem in problems.ids]
            for status, verdict in VERDICTS.items()
        }
        columns.append(
            {
                "title": group.title,
                "name": group.name,
                "correct": [sum(r.correct for r in results) if results else None for results in found],
                "samples": [sum(r.samples for r in results) if results else None for results in found],
                "distinct": [float(np.mean([r.distinct for r in results])) if results else None for results in found],
            }
            | confidences
        )
    return {"ids": problems.ids, "prompts": problems.prompts, "groups": columns}


def samples_in_page(responses: "pd.DataFrame", budget: int = TOKEN_BUDGET) -> int | None:
    """How many samples of each problem and run the page holds, the first ones; None if all.

    The same number of all, so that nothing is picked for how it looks. At least 1.
    """
    weights = responses["tokens"].clip(lower=1, upper=MOST_TOKENS)
    by_index = weights.groupby(responses["index"]).sum().sort_index().cumsum()
    fits = by_index[by_index <= budget]
    return None if len(fits) == len(by_index) else max(1, len(fits))


def chunks(problems: Problems, groups: Sequence[Group], first: int | None) -> tuple[list[str | None], list[str]]:
    """The responses by problem, each problem's as gzipped JSON in base64, and the texts of all their tokens.

    A token is two numbers: its text's place, and ``2 * round(-100 * log p) + (1 if in T_low else 0)``, or -1 where the
    log-prob is not known. Tokens sampled again in the same run are one entry with a count. Different correct solutions
    are numbered over all groups, so that a number is the same solution in each.
    """
    texts: dict[str, int] = {}
    told: dict[str, list[list[dict[str, Any]]]] = {}
    solutions: dict[str, dict[str, int]] = {}
    columns = ("problem_id", "index", "text", "status", "reason", "canonical", "tokens", "entropy")
    for i, group in enumerate(groups):
        for samples in group.samples:
            wanted = (*columns, "answer_confidence", "truncated", "token_ids", "logps")
            decode = _Texts(decoder_from(samples.tokenizers), texts)
            frame = read_samples(samples.folder, wanted, first=first)
            for problem, members in frame.groupby("problem_id", sort=False):
                numbers = solutions.setdefault(str(problem), {})
                of_problem = told.setdefault(str(problem), [[] for _ in groups])
                of_problem[i] += _responses(members.sort_values("index"), samples.label, decode, numbers)
    return [_pack(told[problem]) if problem in told else None for problem in problems.ids], list(texts)


class _Texts:
    """Token ids of one tokenizer as places in the table of texts that all share."""

    def __init__(self, decode: Any, texts: dict[str, int]) -> None:
        self._decode, self._texts = decode, texts
        self._places: dict[int, int] = {}
        self._by_id: dict[int, str] = {}

    def place(self, token: int) -> int:
        if token not in self._places:
            self._by_id[token] = self._decode(token)
            self._places[token] = self._texts.setdefault(self._by_id[token], len(self._texts))
        return self._places[token]

    def words(self, tokens: Sequence[int]) -> list[str]:
        return [self._by_id[token] for token in tokens]


def _responses(members: "pd.DataFrame", label: str, decode: _Texts, solutions: dict[str, int]) -> list[dict[str, Any]]:
    rows: Rows = [{str(name): value for name, value in row.items()} for row in members.to_dict("records")]
    codes = _codes([row["logps"] for row in rows])
    seen: dict[Any, dict[str, Any]] = {}
    for row, coded in zip(rows, codes, strict=True):
        ids = [] if row["token_ids"] is None else [int(token) for token in row["token_ids"]]
        key = (row["status"], tuple(ids) or row["text"])
        if key in seen:
            seen[key]["times"] += 1
            continue
        seen[key] = entry = {
            "verdict": VERDICTS.get(row["status"], "not judged"),
            "reason": row["reason"] or "",
            "solution": _number_of(row, solutions),
            "times": 1,
            "run": label,
            "truncated": bool(row["truncated"]),
            "numbers": {
                "answer_confidence": _finite(row["answer_confidence"]),
                "entropy": _finite(row["entropy"]),
                "length": int(row["tokens"]),
            },
        }
        if ids:
            places = [decode.place(token) for token in ids]
            known = (coded + [-1] * len(ids))[: len(ids)]
            entry |= {"words": cut(places), "codes": cut(known), "hidden": max(0, len(ids) - MOST_TOKENS)}
            entry["gap"] = needs_gaps(decode.words(ids), row["text"])
        else:
            entry["text"] = row["text"]  # a server told no tokens
    return list(seen.values())


def _number_of(row: dict[str, Any], solutions: dict[str, int]) -> int | None:
    known = row["status"] == "correct" and isinstance(row["canonical"], str)
    return solutions.setdefault(row["canonical"], len(solutions) + 1) if known else None


def _codes(logps: Sequence[Any]) -> list[list[int]]:
    """Each response's log-probs and its T_low, as :func:`chunks` says."""
    lengths = [0 if values is None else len(values) for values in logps]
    if not any(lengths):
        return [[] for _ in logps]
    logps_BT = np.full((len(logps), max(lengths)), np.nan)
    for row, values in zip(logps_BT, logps, strict=True):
        if values is not None:
            row[: len(values)] = values
    mask_BT = np.isfinite(logps_BT)
    filled_BT = torch.from_numpy(np.where(mask_BT, np.minimum(logps_BT, 0.0), 0.0))
    low_BT = low_probability_mask(filled_BT, torch.from_numpy(mask_BT), low_prob_fraction=LOW_PROB_FRACTION).numpy()
    steps_BT = np.rint(-STEPS_A_NAT * filled_BT.numpy()).astype(np.int64)
    codes_BT = np.where(mask_BT, 2 * steps_BT + low_BT, -1)
    return [row[:length].tolist() for row, length in zip(codes_BT, lengths, strict=True)]


def _pack(value: Any) -> str:
    raw = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode("ascii")


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
