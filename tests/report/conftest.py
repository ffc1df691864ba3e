"""Tiny run folders, made by hand: no training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from progrpo.config import Recipe
from progrpo.evaluation.evaluate import Evaluation, ProblemResult
from progrpo.files import write_json
from progrpo.run_folder import RunFolder

STEPS = 4
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;"


def make_evaluation(
    correct: list[int], *, n: int = 8, distinct: list[int] | None = None, errors: int = 0
) -> Evaluation:
    """One problem for each number of correct samples."""
    distinct = distinct or [min(c, 2) for c in correct]
    return Evaluation(
        {"task": "countdown", "samples": n},
        [
            ProblemResult(f"p{i}", n, c, errors if i == 0 else 0, d, 4, 0.2 + 0.01 * i, 100)
            for i, (c, d) in enumerate(zip(correct, distinct, strict=True))
        ],
    )


def rollout(step: int, *, text: str = "4 * 3 = 12", groups: int = 2, shift: float = 0.0) -> pd.DataFrame:
    """Groups of four responses: one all right, the others mixed, in the columns of ``rollout_frame``."""
    rows = []
    for group in range(groups):
        for i in range(4):
            right = group == 0 or i < 2
            logps = [math.log(0.9), math.log(0.05 + 0.2 * i), math.log(0.8), math.log(0.7), math.log(0.99)]
            row = {
                "step": step,
                "group": group,
                "problem_id": f"p{group}",
                "prompt": f"4 {group + 1} 3 : 12 ;",
                "text": text,
                "canonical": "(3*4)" if right else None,
                "token_ids": [14, 6, 13, 3, 22 + i],
                "logps": logps,
                "reward": float(right),
                "prompt_confidence": 0.1,
                "answer_confidence": 0.05 + 0.2 * i,
                "grpo_advantage": 0.5 if right else -0.5,
                "correction": shift,
                "advantage": (0.5 if right else -0.5) + shift,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def make_recipe(method: str, seed: int, **training: Any) -> Recipe:
    values = {"name": "tiny", "method": method, "seed": seed, "training": {"steps": STEPS} | training}
    return Recipe.model_validate(values)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """A factory of run folders: everything is there unless it is left out."""

    def make(
        method: str = "grpo",
        seed: int = 0,
        *,
        correct: list[int] | None = None,
        distinct: list[int] | None = None,
        final: bool = True,
        metrics: int = STEPS,
        evaluations: bool = True,
        rollouts: bool = True,
        text: str = "4 * 3 = 12",
        errors: int = 0,
        **training: Any,
    ) -> RunFolder:
        correct = [0, 2, 4, 6, 8, 3] if correct is None else correct
        folder = RunFolder(tmp_path / f"{method}-s{seed}")
        folder.start(make_recipe(method, seed, **training), {"python": "3.11", "packages": {"torch": "2"}})
        for step in range(1, metrics + 1):
            shares = {"groups/all_right": 0.25, "groups/all_wrong": 0.25, "groups/mixed": 0.5}
            confidence = {"confidence/prompt/mean": 0.1, "confidence/answer/mean": 0.3 + 0.01 * seed}
            values = {"reward": 0.1 * step, "entropy": 0.5 - 0.01 * step, "distinct_solutions": 2.0}
            folder.append_metrics({"step": step} | values | shares | confidence)
        if evaluations:
            for step in (0, 2):
                evaluation = make_evaluation([1, 1, 2], n=4)
                write_json(folder.evaluations / f"step-{step:06d}.json", evaluation.to_json())
        if rollouts:
            folder.rollouts.mkdir()
            for step in (1, STEPS):
                frame = rollout(step, text=text, shift=0.0 if method == "grpo" else -0.1)
                frame.to_parquet(folder.rollouts / f"step-{step:06d}-rank0.parquet", index=False)
        if final:
            evaluation = make_evaluation(correct, distinct=distinct, errors=errors)
            write_json(folder.evaluations / "final.json", evaluation.to_json())
        return folder

    return make
