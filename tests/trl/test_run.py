from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from progrpo.runs.folder import RunFolder
from progrpo.tasks.rewards import verified_reward
from progrpo.trl.run import _recall_verdicts

ROW = {"prompt": "2 + 3?", "problem_id": "a", "solution": "5"}
RECORDED = {"problem_id": "a", "prompt": "2 + 3?", "text": r"\boxed{5}", "status": "correct", "reason": ""}


@pytest.mark.parametrize(
    ("digest_of", "solution", "canonical"),
    [(ROW, "5", "recorded"), (ROW, "6", None), (None, "5", "5"), (None, "6", None)],
    ids=["same gold", "mended gold", "older rollout", "older rollout, mended gold"],
)
def test_a_resumed_run_takes_the_verdicts_of_the_same_golds(
    digest_of: Any, solution: str, canonical: str | None, tmp_path: Path
) -> None:
    """The data file may be mended between the end of a run and its resumption."""
    folder, reward = RunFolder(tmp_path), verified_reward("math", gold="solution")
    folder.rollouts.mkdir()
    digest = {"problem_digest": reward.problem_digest(digest_of)} if digest_of else {}
    pd.DataFrame([RECORDED | digest | {"canonical": "recorded"}]).to_parquet(
        folder.rollouts / ".step-000001-rank0.recorded", index=False
    )
    _recall_verdicts(folder, reward)
    assert reward(["2 + 3?"], [r"\boxed{5}"], problem_id=["a"], solution=[solution]) == [float(canonical is not None)]
    assert reward.canonical_form(ROW | {"solution": solution}, r"\boxed{5}") == canonical
