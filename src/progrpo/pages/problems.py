"""Problem by problem: the table's columns, and the responses of the final evaluation for the reader."""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from progrpo.evaluation.store import SUMMARY_COLUMNS, read_samples
from progrpo.pages.collect import Group
from progrpo.pages.figures import mark
from progrpo.pages.responses import LOW_PROB_FRACTION, MOST_TOKENS, decoder_from, finite, merge_same

TOKEN_BUDGET = 6_000_000
"""The most tokens of evaluation responses in a page. They take some 20 MB."""
STEPS_A_NAT = 100
"""Log-probs are kept to 0.01 nats, which is a probability to 1 %."""
VERDICTS = {"correct": "right", "incorrect": "wrong"}
COLUMNS = ("problem_id", "index", "prompt", "status", "tokens", "answer_confidence")
READER_COLUMNS = (*(name for name in SUMMARY_COLUMNS if name != "prompt"), "token_ids", "logps")
NUMBERS = ("answer_confidence", "entropy", "length")


def read_responses(groups: Sequence[Group]) -> pd.DataFrame:
    """All kept responses of the groups, without texts and tokens; ``group`` and ``run`` are places in ``groups`` and
    in the group's ``samples``."""
    frames = [
        read_samples(samples.folder, COLUMNS).assign(group=i, run=j)
        for i, group in enumerate(groups)
        for j, samples in enumerate(group.samples)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*COLUMNS, "group", "run"])


def prompts_by_problem(groups: Sequence[Group], responses: pd.DataFrame) -> dict[str, str]:
    """The prompts of the final evaluations' problems by id, in order; the id itself if no response was kept."""
    ids = dict.fromkeys(p.problem_id for group in groups for e in group.finals for p in e.problems)
    prompts = dict(zip(responses["problem_id"], responses["prompt"], strict=True))
    return {problem: str(prompts.get(problem) or problem) for problem in ids}


def table(prompts: Mapping[str, str], groups: Sequence[Group], responses: pd.DataFrame) -> dict[str, Any]:
    """The columns of the table. Each is a list over problems, with None where a group has nothing for a problem.

    ``correct`` and ``samples`` are sums over a group's seeds, and ``distinct`` is their mean. ``right`` and ``wrong``
    are the mean c(o|q) of the responses with that verdict.
    """
    means = responses.groupby(["group", "problem_id", "status"])["answer_confidence"].mean().to_dict()
    columns = []
    for i, group in enumerate(groups):
        results: dict[str, list[Any]] = {problem: [] for problem in prompts}
        for evaluation in group.finals:
            for result in evaluation.judged:
                results[result.problem_id].append(result)
        look = mark(group.name)
        column: dict[str, Any] = {"title": group.title, "colour": look.colour, "glyph": look.glyph}
        for name in ("correct", "samples"):
            column[name] = [sum(getattr(r, name) for r in rs) if rs else None for rs in results.values()]
        column["distinct"] = [float(np.mean([r.distinct for r in rs])) if rs else None for rs in results.values()]
        for status, verdict in VERDICTS.items():
            column[verdict] = [finite(means.get((i, problem, status))) for problem in prompts]
        columns.append(column)
    return {"ids": list(prompts), "prompts": list(prompts.values()), "groups": columns}


def samples_in_page(responses: pd.DataFrame, budget: int = TOKEN_BUDGET) -> int | None:
    """How many samples of each problem and run the page holds, always the first ones; None if all.

    The number is the same for all problems, so that no sample is picked for how it looks. It is at least 1.
    """
    weights = responses["tokens"].clip(lower=1, upper=MOST_TOKENS)
    by_index = weights.groupby(responses["index"]).sum().sort_index().cumsum()
    fits = by_index[by_index <= budget]
    return None if len(fits) == len(by_index) else max(1, len(fits))


def chunks(
    prompts: Mapping[str, str], groups: Sequence[Group], first: int | None
) -> tuple[list[str | None], list[str]]:
    """The responses by problem, each problem's as gzipped JSON in base64, and the texts of all their tokens.

    A token is two numbers: its text's place, and ``2 * round(-100 * log p) + (1 if in T_low else 0)``, or -1 where the
    log-prob is not known. Different correct solutions are numbered over all groups, so that a number is the same
    solution in each. Only the first ``first`` samples of each problem and run are there.
    """
    texts: dict[str, int] = {}
    by_problem: dict[str, list[list[dict[str, Any]]]] = {}
    solutions: dict[str, dict[str, int]] = {}
    for i, group in enumerate(groups):
        for samples in group.samples:
            decode = cache(decoder_from(samples.run, samples.model))
            frame = read_samples(samples.folder, READER_COLUMNS, first=first).rename(columns={"tokens": "length"})
            frame["verdict"] = frame["status"].map(VERDICTS).fillna("not judged")
            for problem, members in frame.sort_values("index", kind="stable").groupby("problem_id", sort=False):
                rows, numbered = members.to_dict("records"), solutions.setdefault(str(problem), {})
                for entry in merge_same(rows, decode, LOW_PROB_FRACTION, numbered):
                    row = entry.pop("row")
                    entry |= {"reason": row["reason"] or "", "run": samples.label, "truncated": bool(row["truncated"])}
                    entry["numbers"] = {name: finite(row[name]) for name in NUMBERS}
                    by_group = by_problem.setdefault(str(problem), [[] for _ in groups])
                    by_group[i].append(_with_codes(entry, texts))
    return [_pack(by_problem[problem]) if problem in by_problem else None for problem in prompts], list(texts)


def _with_codes(entry: dict[str, Any], texts: dict[str, int]) -> dict[str, Any]:
    """The entry with tokens, as :func:`chunks` says, instead of its text. An entry without tokens keeps its text."""
    words, logps_T, low_T = entry.pop("words"), np.array(entry.pop("logps")), entry.pop("low")
    if not words:  # the server sent no tokens
        return entry
    del entry["text"]
    codes_T = 2 * np.rint(-STEPS_A_NAT * np.minimum(logps_T, 0.0)) + low_T
    codes = np.nan_to_num(codes_T, nan=-1).astype(np.int64).tolist()
    return entry | {"words": [texts.setdefault(word, len(texts)) for word in words], "codes": codes}


def _pack(value: Any) -> str:
    raw = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode("ascii")
