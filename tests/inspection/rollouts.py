"""Rollouts made by hand or at random, as rows and as files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

NAMED = {
    "prompt": "q",
    "response": "o",
    "step": "step",
    "logps": "logps",
    "prompt_logps": "q_logps",
    "answer": "answer",
}


def random_rows(n: int = 200, *, seed: int = 0, steps: int = 5, groups: int = 6) -> list[dict[str, Any]]:
    """Ragged groups in no order, texts and answers that repeat, a few responses without a reward."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        text = f"so {rng.integers(6)} and {rng.integers(2)}"
        reward = None if rng.random() < 0.05 else float(rng.integers(0, 2) * rng.choice([0.5, 1.0]))
        rows.append(
            {
                "step": int(rng.integers(1, steps + 1)),
                "q": f"problem {rng.integers(groups)}",
                "o": text,
                "answer": text.split()[1] if rng.random() < 0.9 else None,
                "r": reward,
                "logps": (-rng.exponential(0.5, rng.integers(1, 12))).tolist(),
                "q_logps": (-rng.exponential(2.0, rng.integers(1, 5))).tolist(),
            }
        )
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path


def verl_rows(step: int, n: int = 4, seed: int = 0) -> list[dict[str, Any]]:
    """As verl's trainer writes them: json.dumps of a dict with these keys, then those of the reward function."""
    rng = np.random.default_rng(seed + step)
    rows = []
    for problem in range(3):
        for _ in range(n):
            pred = str(rng.integers(10, 13))
            row = {
                "input": f"system\nYou are a helpful assistant.\nuser\nWhat is {problem} + 11?\nassistant\n",
                "output": f"The answer is \\boxed{{{pred}}} ✓",
                "gts": str(problem + 11),
                "score": 1.0 if pred == str(problem + 11) else -1.0,
                "step": step,
                "acc": pred == str(problem + 11),
                "pred": pred,
            }
            rows.append(row)
    rng.shuffle(rows)  # a batch is balanced by length: groups are scattered
    return rows


def write_verl(folder: Path, steps: range) -> Path:
    folder.mkdir()
    for step in steps:
        lines = [json.dumps(row, ensure_ascii=False) for row in verl_rows(step)]
        (folder / f"{step}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
