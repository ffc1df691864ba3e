"""Workers that are killed, lost or recycled, and parents that fork or end."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from progrpo.verify.workers.pool import Outcome, WorkerPool, WorkerStartError

SCRIPT = """
import os, signal, sys, time

def handle(task):
    what, value = task
    if what == "sleep":
        time.sleep(value)
    if what == "hold the interpreter":  # one call of C, which no signal handler written in Python interrupts
        sum(range(10**11))
    if what == "end":
        os._exit(value)
    if what == "end once" and not os.path.exists(value):
        open(value, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "count and end":
        open(value, "a").write("x")
        os._exit(1)
    if what == "touch":
        open(value, "w").close()
    if what == "wait for":
        while not os.path.exists(value):
            time.sleep(0.01)
    if what == "memory":
        value = len(bytearray(value))
    if what == "print":
        print("[true]")
        sys.stdout.flush()
    return os.getpid() if what == "pid" else value
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def pool(script: Path) -> Iterator[WorkerPool]:
    made = WorkerPool(script, workers=2, memory_mb=512)
    yield made
    made.close()


def done(*values: Any) -> list[Outcome]:
    return [Outcome("done", value) for value in values]


def test_answers_come_in_order(pool: WorkerPool) -> None:
    assert pool.run([], 1) == []
    assert pool.run([["sleep", 0.2], ["x", {"a": "é\n"}], ["print", 3]], 10) == done(0.2, {"a": "é\n"}, 3)


def test_a_deadline_costs_its_own_time_only(pool: WorkerPool) -> None:
    pool.run([["x", 0]] * 2, 10)
    start = time.monotonic()
    outcomes = pool.run([["hold the interpreter", 0], ["sleep", 30], *(["x", n] for n in range(20))], 0.5)
    assert time.monotonic() - start < 5
    assert outcomes == [Outcome("deadline")] * 2 + done(*range(20))


def test_a_lost_worker_is_replaced_and_its_task_tried_again(pool: WorkerPool, tmp_path: Path) -> None:
    outcomes = pool.run([["end once", str(tmp_path / "first")], ["end", 7], ["x", 1]], 10)
    assert outcomes == [Outcome("done", str(tmp_path / "first")), Outcome("lost", 7), Outcome("done", 1)]


def test_a_task_may_take_its_whole_time(pool: WorkerPool) -> None:
    assert pool.run([["sleep", 2.5]], 30) == done(2.5)


def test_a_task_is_tried_twice_and_no_more(pool: WorkerPool, tmp_path: Path) -> None:
    assert pool.run([["count and end", str(tmp_path / "tries")]], 10) == [Outcome("lost", 1)]
    assert (tmp_path / "tries").read_text() == "xx"


def test_no_more_workers_are_taken_than_there_are_tasks(pool: WorkerPool, tmp_path: Path) -> None:
    """One of two workers stays free for another thread, whose task ends the wait of the first one."""
    file, outcomes = str(tmp_path / "touched"), []
    waiting = threading.Thread(target=lambda: outcomes.extend(pool.run([["wait for", file]], 10)))
    waiting.start()
    while pool._slots.qsize() == 2:
        time.sleep(0.01)
    assert pool.run([["touch", file]], 10) == done(file)
    waiting.join()
    assert outcomes == done(file)


def test_memory_is_bounded(pool: WorkerPool) -> None:
    assert pool.run([["memory", 1 << 30], ["memory", 1 << 20]], 10) == [Outcome("lost", 1), Outcome("done", 1 << 20)]


def test_a_worker_is_replaced_after_so_many_tasks(script: Path) -> None:
    pool = WorkerPool(script, workers=1, recycle_after=3)
    pids = [outcome.value for outcome in pool.run([["pid", 0]] * 9, 10)]
    assert [len(set(pids[i : i + 3])) for i in (0, 3, 6)] == [1, 1, 1]
    assert len(set(pids)) == 3
    pool.close()


def test_a_worker_that_was_killed_while_it_waited_is_replaced(pool: WorkerPool) -> None:
    (pid,) = (outcome.value for outcome in pool.run([["pid", 0]], 10))
    os.kill(pid, signal.SIGKILL)
    assert pool.run([["x", 1]], 10) == done(1)


def test_a_script_that_does_not_load_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1/0")
    with pytest.raises(WorkerStartError, match=r"broken\.py did not start"):
        WorkerPool(tmp_path / "broken.py", workers=1).run([1], 1)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        WorkerPool(tmp_path / "broken.py", workers=0)


def test_each_worker_has_two_attempts_to_start(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    (tmp_path / "late.py").write_text(
        f"starts = open({str(starts)!r}, 'a+')\nstarts.write('x')\nstarts.seek(0)\n"
        "if len(starts.read()) <= 3: raise SystemExit(1)\ndef handle(task): return task\n"
    )
    pool = WorkerPool(tmp_path / "late.py", workers=2)
    assert pool.run([1, 2], 10) == done(1, 2)
    pool.close()
    assert len(starts.read_text()) >= 4


def test_the_successor_of_a_late_worker_does_the_next_task(script: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "touched")
    pool = WorkerPool(script, workers=1)
    assert pool.run([["wait for", file], ["touch", file]], 6) == done(file, file)
    pool.close()


def test_more_threads_than_workers(pool: WorkerPool) -> None:
    outcomes: dict[int, list[Outcome]] = {}

    def work(n: int) -> None:
        outcomes[n] = pool.run([["x", n], ["sleep", 0.05], ["x", n]], 10)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == {n: done(n, 0.05, n) for n in range(6)}


def test_inside_an_asyncio_loop(pool: WorkerPool) -> None:
    async def work() -> list[Outcome]:
        direct = pool.run([["x", 1]], 10)
        others = await asyncio.gather(*(asyncio.to_thread(pool.run, [["x", n]], 10) for n in (2, 3)))
        return direct + [outcome for outcomes in others for outcome in outcomes]

    assert asyncio.run(work()) == done(1, 2, 3)


AFTER_FORK = """
import os, sys
from pathlib import Path
from progrpo.verify.workers.pool import WorkerPool
pool = WorkerPool(Path(sys.argv[1]), workers=1)
mine = pool.run([["pid", 0]], 10)[0].value
[pipe] = [worker.stdout for worker in pool._slots.queue if worker is not None]
child = os.fork()
if child == 0:
    if os.path.exists(f"/proc/self/fd/{pipe}"):
        os._exit(2)
    theirs = pool.run([["pid", 0]], 10)[0].value
    pool.close()
    os._exit(0 if theirs != mine else 1)
assert os.waitpid(child, 0)[1] == 0
assert pool.run([["pid", 0]], 10)[0].value == mine
"""


def test_after_a_fork_parent_and_child_have_their_own_workers(script: Path) -> None:
    subprocess.run([sys.executable, "-c", AFTER_FORK, str(script)], check=True, timeout=60)


KILLED = """
import os, signal, sys
from pathlib import Path
from progrpo.verify.workers.pool import WorkerPool
pool = WorkerPool(Path(sys.argv[1]), workers=2)
print(*(o.value for o in pool.run([["pid", 0]] * 40, 10)), flush=True)
pool.run([["sleep", 60]], 90)
"""


def test_workers_end_soon_after_a_parent_that_was_killed(script: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = {int(pid) for pid in parent.stdout.readline().split()}
        parent.kill()
    assert pids
    deadline = time.monotonic() + 10
    while (left := [pid for pid in pids if _is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="file descriptors are counted in /proc")
def test_no_process_and_no_file_is_left(script: Path) -> None:
    open_files, processes = len(os.listdir("/proc/self/fd")), _children()
    pool = WorkerPool(script, workers=2, recycle_after=50)
    for _ in range(5):
        pool.run([["sleep", 9], ["end", 1], *(["x", n] for n in range(300))], 0.2)
    assert _children() > processes
    pool.close()
    assert len(os.listdir("/proc/self/fd")) == open_files
    assert not _children() - processes


def _children() -> set[str]:
    """This process's children, which may include the pools of other tests."""
    threads = Path("/proc/self/task").iterdir()
    return {pid for thread in threads for pid in (thread / "children").read_text().split()}
