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
    """Ragged groups in random order, with repeated texts and answers, and a few responses without a reward."""
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
    """Rows as verl's trainer writes them: these keys, then those of the reward function."""
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


def verifiers_results(problems: int = 3, n: int = 4) -> list[dict[str, Any]]:
    """Rows as verifiers up to 0.3.0 writes them to results.jsonl, and older prime-rl to train_rollouts.jsonl."""
    return [
        {
            "example_id": problem,
            "prompt": [{"role": "user", "content": f"What is {problem} + 11?"}],
            "completion": [{"role": "assistant", "content": f"It is {problem + 11 + i % 2}."}],
            "answer": str(problem + 11),
            "info": {"source": "made up", "tokens": {"prompt": 9}},
            "reward": float(i % 2 == 0),
            "error": None,
            "timing": {"generation_ms": 12.5},
            "is_completed": True,
            "metrics": {"correct": float(i % 2 == 0)},
            "correct": float(i % 2 == 0),
        }
        for problem in range(problems)
        for i in range(n)
    ]


def verifiers_trace(problem: int, right: bool, text: str, *, tokens: bool = True, turns: int = 1) -> dict[str, Any]:
    """A record as ``verifiers.v1.Trace.to_record`` of verifiers 0.4 returns it, without what is not read here."""
    nodes: list[dict[str, Any]] = [
        {"message": {"role": "user", "content": f"What is {problem} + 11?"}, "sampled": False, "token_ids": [5, 6, 7]}
    ]
    for turn in range(turns):
        if turn:
            tool = {"role": "tool", "tool_call_id": "c1", "content": "7"}
            nodes.append({"parent": len(nodes) - 1, "message": tool, "sampled": False, "token_ids": [3]})
        sampled = {"parent": len(nodes) - 1, "message": {"role": "assistant", "content": text}, "sampled": True}
        if tokens:  # the first token, of the template, was not sampled
            sampled |= {"token_ids": [1, 20, 21], "mask": [False, True, True], "logprobs": [-0.5, -1.5 + right]}
        nodes.append(sampled)
    score = {"score": float(right), "weight": 1.0}
    return {
        "id": f"trace-{problem}-{text}-{right}",
        "task": {"type": "Sum", "data": {"idx": problem, "prompt": "..."}, "key": f"sum/{problem}", "hash": "0"},
        "agent": {"name": "agent", "trainable": True, "config": {}},
        "nodes": nodes,
        "rewards": {"right": score, "format": {"score": 1.0, "weight": 0.2}, "judge": None},
        "metrics": {"turns": float(turns)},
        "ok": True,
    }


def verifiers_episode(trace: dict[str, Any], *, step: int | None = None, work: str = "train") -> dict[str, Any]:
    """A record as ``verifiers.v1.Episode.to_record`` returns it; prime-rl adds the step."""
    episode: dict[str, Any] = {"id": f"episode-{trace['id']}", "env": {"id": "sums"}, "task": trace["task"], "ok": True}
    if step is not None:
        episode["group"] = {"id": f"{trace['task']['key']}@{step}"}
        episode["run"] = {"type": "train", "id": "run", "work": {"type": work, "step": step}}
    return episode | {"traces": [trace]}
