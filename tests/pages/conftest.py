"""Tiny run folders, made by hand: no training."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pages.runs import STEPS, make_evaluation, make_recipe, make_samples, rollout

from progrpo.common.files import write_json
from progrpo.runs.folder import RunFolder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """A factory of run folders. They are complete, except for parts that a test leaves out."""

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
        samples: bool = True,
        text: str = "4 * 3 = 12",
        errors: int = 0,
        **training: float,
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
            if samples:
                make_samples(folder.evaluations / "final-samples", evaluation, text=text)
        return folder

    return make
