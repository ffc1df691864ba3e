"""Runs a script on several processes of this CPU, with torchrun and gloo."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def launch(script: Path, *arguments: str, processes: int) -> None:
    """Run a script on this number of processes, with the imports of these tests, and wait; an error shows its
    output."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--num_machines", "1", "--num_processes", str(processes)]
    launcher += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port())]
    environment = {"PYTHONWARNINGS": "ignore", "TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), str(script), *arguments],
        env=os.environ | environment | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
