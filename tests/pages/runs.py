"""The parts of a tiny run, made by hand: an evaluation, a rollout, a recipe."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from progrpo.evaluation.results import Evaluation, ProblemResult
from progrpo.evaluation.store import SampleStore
from progrpo.recipes.schema import Recipe
from progrpo.sampling import Sample
from progrpo.verify import Verdict

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


def make_samples(folder: Path, evaluation: Evaluation, *, text: str = "4 * 3 = 12") -> None:
    """A store with the samples that an evaluation counts: right ones first and the more confident."""
    store = SampleStore(folder, {"model": "tiny"})
    for i, result in enumerate(evaluation.problems):
        samples, verdicts = [], []
        for j in range(result.samples):
            right, p = j < result.correct, 0.65 - 0.05 * j
            ids = [14, 6, 13, 3, 12 + (j // 2)]
            samples.append(Sample(text, ids, [math.log(x) for x in (0.9, p, 0.8, 0.7, 0.99)], [0.3] * 5, j == 7))
            canonical = f"({min(j, result.distinct - 1)})" if right else None
            verdicts.append(Verdict("correct" if right else "incorrect", "" if right else "not 12", canonical))
        problem = {"problem_id": result.problem_id, "prompt": f"4 {i + 1} 3 : 12 ; {text if i == 1 else ''}"}
        store.append(problem, 0, samples, verdicts)
    store.flush()


def rollout(step: int, *, text: str = "4 * 3 = 12", groups: int = 2, shift: float = 0.0) -> pd.DataFrame:
    """Groups of four responses: one all right, the others mixed, in the columns of ``runs.rollouts.COLUMNS``."""
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
