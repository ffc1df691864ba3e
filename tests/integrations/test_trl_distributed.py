"""Two processes with gloo, groups split across them: the same advantages as on one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# accelerate has no launcher of its own for several processes on a CPU: this one is torchrun, and the backend gloo.
SCRIPT = Path(__file__).with_name("distributed_run.py")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def run(out: Path, processes: int, center: str) -> list[dict[str, Any]]:
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--num_machines", "1", "--num_processes", str(processes)]
    launcher += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port())]
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), str(SCRIPT), str(out), center],
        env=os.environ
        | {
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "TRL_EXPERIMENTAL_SILENCE": "1",
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(Path(f"{out}-rank{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize("center", ["prompt", "correct"])
def test_two_processes_have_the_advantages_of_one(tmp_path: Path, center: str) -> None:
    [one] = run(tmp_path / "one", 1, center)
    two = run(tmp_path / "two", 2, center)
    assert [len(rank["groups"]) for rank in two] == [12, 12]
    assert set(two[0]["groups"]) & set(two[1]["groups"]), "no group is split: the test shows nothing"
    for name in ("prompts", "groups"):
        assert two[0][name] + two[1][name] == one[name]
    for name in ("c_q", "c_o", "advantages"):
        assert two[0][name] + two[1][name] == pytest.approx(one[name], abs=1e-6), name
    for rank in two:
        assert rank["log"] == pytest.approx(one["log"], abs=1e-6)
        assert rank["weights"] == pytest.approx(one["weights"], rel=1e-6)
    assert len(set(one["advantages"])) > 6
