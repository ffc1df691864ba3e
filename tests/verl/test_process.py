"""verl's process: the error that its log names, and the end of the process with everything that it started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from progrpo.runs.folder import RunFolder
from progrpo.verl.process import last_error


def test_the_last_error_is_the_cause_and_not_its_frame(tmp_path: Path) -> None:
    log = tmp_path / "verl.log"
    log.write_text(
        "\x1b[36m(TaskRunnerV1 pid=12)\x1b[0m RuntimeError: an earlier one that was caught\n"
        "Traceback (most recent call last):\n"
        "ray.exceptions.RayTaskError(torch.OutOfMemoryError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=12)\n"
        "    return forward(x)\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
        "\x1b[36m(raylet)\x1b[0m [2026-11-25] a closing remark\n"
    )
    assert last_error(log) == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    log.write_text("killed\n")
    assert last_error(log) == "killed."
    log.write_text("")
    assert last_error(log) == "it wrote nothing."


# verl's driver starts Ray, whose processes have sessions of their own and outlive it.
DRIVER = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid} ")
time.sleep(600)
"""
RUN = """
import sys
from pathlib import Path
from progrpo.runs.folder import RunFolder
from progrpo.common.errors import Interrupted
from progrpo.recipes.build import make_task
from progrpo.verl.run import VerlRun

class NoProgress:
    def stage(self, *args): ...
    def advance(self, *args, **values): ...

folder = RunFolder(Path(sys.argv[1]))
recipe = folder.recipe()
try:
    VerlRun(recipe, folder, make_task(recipe), NoProgress(), 0).run([sys.executable, "-c", sys.argv[2]])
except Interrupted as stop:
    print(stop)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a parent's death to its children")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_started_processes_end_with_the_run(number: signal.Signals, folder: RunFolder, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(folder.path), DRIVER]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().endswith(" "))
    driver, child = map(int, (tmp_path / "pids").read_text().split())
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    if number == signal.SIGKILL:
        # Nothing is left to end what Ray started: Ray's own processes watch their driver.
        wait_for(lambda: not is_alive(driver))
        os.kill(child, signal.SIGKILL)
        return
    assert output == f"Stopped by {number.name} after step 0\n"
    assert not is_alive(driver)
    assert not is_alive(child)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition did not hold within {seconds} seconds"
        time.sleep(0.05)
