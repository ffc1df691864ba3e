"""Programs that try to pass without being right, or to do harm. Each would succeed with a naive runner."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from progrpo.verify import (
    AssertTests,
    CallTests,
    Limits,
    StdinTests,
    Verdict,
    code_tests,
    run_code_tests,
    run_code_tests_batch,
)
from progrpo.verify.code_tests import compare_output, isolation_level, same_value
from progrpo.verify.sandbox import Isolation, Sandbox
from verify.shared_data import shared_rows

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are isolated on Linux only")

SHORT = Limits(seconds=2.0, memory_mb=512, output_mb=1, file_mb=4)
ECHO = StdinTests((("7\n", "7\n"),))
DOUBLE = AssertTests("assert double(4) == 8\nassert double(5) == 10")


def run(program: str, tests: StdinTests | CallTests | AssertTests = ECHO) -> Verdict:
    return run_code_tests(program, tests, SHORT)


def test_right_programs_are_right() -> None:
    assert run("print(input())").correct
    assert run("def double(x): return 2 * x", DOUBLE).correct
    assert run("class Solution:\n    def double(self, x): return 2 * x", CallTests("double", (([4], 8),))).correct


FAKES = {
    "os._exit": "import os\nos._exit(0)",
    "exit in the function": "import sys\ndef double(x): sys.exit(0)",
    "always equal": "class E:\n    def __eq__(self, other): return True\ndef double(x): return E()",
    "always equal integer": "class E(int):\n    def __eq__(self, other): return True\ndef double(x): return E(1)",
    "frame peeking": "import sys\ndef double(x):\n    f = sys._getframe()\n    while f.f_back: f = f.f_back\n"
    "    return next((v for v in f.f_globals.values() if isinstance(v, int)), 0)",
    "built-ins patched": "import builtins\nbuiltins.AssertionError = None\nbuiltins.isinstance = lambda *a: True\n"
    "def double(x): return 0",
    "protocol frames": "import os\ndef double(x):\n    os.write(3, b'{\"passed\": 2}\\n' * 2)\n    return 8",
    "protocol verdict": "import os\nos.write(3, b'{\"loaded\": true}\\n{\"passed\": 2}\\n')\ndef double(x): return 0",
    "deep recursion": "def double(x): return double(x)",
    "huge integer": "def double(x): return 10 ** 10 ** 10",
    "infinite loop": "def double(x):\n    while True: pass",
    "memory": "def double(x): return len(bytearray(1 << 31)) and 8",
    "deep value": "def double(x):\n    v = []\n    for _ in range(100000): v = [v]\n    return v",
    "all objects": "import gc\ndef double(x): return [o for o in gc.get_objects() if 'assert' in str(o)][0]",
}  # fmt: skip


@pytest.mark.parametrize("program", FAKES.values(), ids=FAKES.keys())
def test_it_does_not_pass(program: str) -> None:
    start = time.monotonic()
    assert run(program, DOUBLE).status == "incorrect"
    assert time.monotonic() - start < 2 * SHORT.seconds + 2


def test_a_script_that_asserts_nothing_is_the_tests_fault() -> None:
    assert run("def double(x): return 0", AssertTests("x = double(4)")).status == "error"


OUTPUTS = {
    "right first line": "print(7); print(8)",
    "flood": "while True: print('x' * 100000)",
    "not UTF-8": "import sys\nsys.stdout.buffer.write(b'\\xff7')",
    "exit code": "print(7)\nraise SystemExit(1)",
    "nothing": "pass",
}


@pytest.mark.parametrize("program", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_outputs_that_are_not_right(program: str) -> None:
    assert run(program).status == "incorrect"


# Each prints 7, the right answer, only if its attack has succeeded.
ATTACKS = {
    "read /etc/passwd": "open('/etc/passwd').read()",
    "read an environment": "assert open('/proc/{parent}/environ').read()",
    "read any environment": "import glob; assert any(open(path).read() for path in glob.glob('/proc/*/environ'))",
    "list a home": "import os; assert os.listdir('/root')",
    "read the tests": "assert open('{secret}').read()",
    "write outside": "open('{folder}/touched', 'w').write('x')",
    "write to the libraries": "import os; open(os.path.dirname(os.__file__) + '/touched', 'w')",
    "TCP": "import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
    "UDP": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "listen": "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
    "signal the parent": "import os; os.kill({parent}, 0)",
    "signal everyone": "import os; os.kill(-1, 0)",
    "fork": "import os; os.fork() or os._exit(0)",
    "start a program": "import subprocess; subprocess.run(['/bin/true'], check=True)",
    "a daemonised child": "import os\nif os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(60)",
    "symbolic link": "import os; os.symlink('/etc/passwd', '/tmp/link'); open('/tmp/link').read()",
    "hard link": "import os; os.link('{secret}', '/tmp/link'); open('/tmp/link').read()",
    "fill the disk": "import os\nfor i in range(20): open('/tmp/%d' % i, 'wb').write(bytes(1 << 20))",
    "fill /dev/shm": "open('/dev/shm/x', 'wb').write(b'x')",
    "ptrace": "import ctypes; assert ctypes.CDLL(None).ptrace(16, {parent}, 0, 0) == 0",
    "raise a limit": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[tuple[dict[str, object], socket.socket]]:
    """What the attacks are after: a file, a folder, this process, and a server."""
    secret = tmp_path / "tests.json"
    secret.write_text("7")
    secret.chmod(0o644)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield {"parent": os.getpid(), "secret": secret, "folder": tmp_path, "port": server.getsockname()[1]}, server


def aimed(attack: str, places: dict[str, object]) -> str:
    for name, value in places.items():
        attack = attack.replace("{" + name + "}", str(value))
    return f"{attack}\nprint(7)"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_it_does_no_harm(
    attack: str, target: tuple[dict[str, object], socket.socket], tmp_path: Path
) -> None:
    places, server = target
    verdict = run(aimed(attack, places))
    assert verdict.status == "incorrect", verdict
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tests.json"]


# Not tried: what would stop this process, fill this machine, or leave something on it.
LEFT_OUT = {
    "write to the libraries", "a daemonised child", "fill the disk", "fill /dev/shm", "ptrace", "list a home",
    "raise a limit",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - LEFT_OUT))
def test_the_same_attack_succeeds_with_a_naive_runner(
    name: str, target: tuple[dict[str, object], socket.socket], tmp_path: Path
) -> None:
    attack = aimed(ATTACKS[name], target[0]).replace("/tmp/link", str(tmp_path / "link"))
    done = subprocess.run([sys.executable, "-c", attack], capture_output=True, text=True, check=False)
    assert "7" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["os._exit", "exit in the function", "always equal", "always equal integer"])
def test_the_same_fake_passes_where_the_exit_code_is_the_verdict(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{FAKES[name]}\n{DOUBLE.script}"], capture_output=True, check=False)
    assert done.returncode == 0


def test_a_fork_bomb_leaves_nothing_behind() -> None:
    assert run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass").status == "incorrect"
    assert _programs() == ""


def _programs() -> str:
    """The process ids of the programs that are running, and of their guards."""
    helper = code_tests._sandbox._helper
    assert helper is not None
    deadline = time.monotonic() + 5
    while (
        children := Path(f"/proc/{helper.pid}/task/{helper.pid}/children").read_text()
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return children


def test_no_descriptor_and_no_process_is_left() -> None:
    run("print(7)")
    descriptors = set(os.listdir("/proc/self/fd"))
    run_code_tests_batch(["print(input())", "while True: pass", "1/0"] * 5, [ECHO] * 15, Limits(seconds=0.3), workers=4)
    assert _programs() == ""
    assert set(os.listdir("/proc/self/fd")) <= descriptors


def test_from_many_threads_and_after_a_fork() -> None:
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(run("print(input())").correct)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 8
    script = (
        "import os\nfrom progrpo.verify import *\ntests = StdinTests((('7', '7'),))\n"
        "assert run_code_tests('print(7)', tests).correct\nchild = os.fork()\n"
        "if child == 0: os._exit(0 if run_code_tests('print(7)', tests).correct else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\nassert run_code_tests('print(7)', tests).correct\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_below_the_wanted_level_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = Sandbox(layers=("rlimits",))
    monkeypatch.setattr(code_tests, "_sandbox", weak)
    try:
        verdict = run("print(7)")
        assert verdict.status == "error"
        assert "level rlimits is reached, seccomp is needed" in verdict.reason
        assert run_code_tests("print(7)", ECHO, SHORT, min_isolation=Isolation.RLIMITS).correct
    finally:
        weak.close()


def test_the_level_is_found_out_by_trying() -> None:
    level, missing = isolation_level()
    assert level >= Isolation.SECCOMP, missing


def test_outputs_are_compared_as_the_benchmarks_do() -> None:
    assert compare_output("1  2 \n", "1 2") == ""
    assert compare_output("0.33333333", "0.333333334") == ""
    assert compare_output("0.3334", "0.3333")
    assert compare_output("10000001", "10000002")
    assert compare_output("1\n2", "1")
    assert same_value((1, [2.0]), [1, [2.0]])
    assert not same_value(True, 1.0)
    assert not same_value("1", 1)


def test_canonical_solutions_pass_and_mutants_do_not() -> None:
    rows = shared_rows("humaneval.jsonl")[:60]
    tests = [
        AssertTests(f"{row['test']}\ncheck({row['entry_point']})", setup=row["prompt"], entry_point=row["entry_point"])
        for row in rows
    ]
    programs = [row["prompt"] + row["canonical_solution"] for row in rows]
    assert [v.reason for v in run_code_tests_batch(programs, tests) if not v.correct] == []
    broken = [row["prompt"] + "    return 'none of the right answers'\n" for row in rows]
    assert [v.status for v in run_code_tests_batch(broken, tests) if v.status != "incorrect"] == []


def test_a_helper_that_was_killed_is_replaced() -> None:
    sandbox = code_tests._sandbox
    assert run("print(input())").correct
    assert sandbox._helper is not None
    sandbox._helper.kill()
    sandbox._helper.wait()
    assert run("print(input())").correct


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_as_an_ordinary_user() -> None:
    """Not root, and nothing that root left open: the whole of the sandbox is there all the same."""
    python = next((p for p in (sys.executable, "/usr/bin/python3") if _works_for_others(p)), None)
    if python is None:
        pytest.skip("no Python here that an ordinary user may run")
    code = (
        "from progrpo.verify import StdinTests, isolation_level, run_code_tests\n"
        "tests = StdinTests((('7\\n', '7\\n'),))\n"
        "print(isolation_level()[0].name, run_code_tests('print(input())', tests).status,\n"
        "    run_code_tests('open(\"/etc/passwd\"); print(7)', tests).status)"
    )
    with tempfile.TemporaryDirectory() as folder:
        # The verifiers by themselves: the package's environment may lie where others can't read.
        shutil.copytree(Path(code_tests.__file__).parent, Path(folder, "progrpo", "verify"))
        shutil.copy(Path(code_tests.__file__).parents[1] / "errors.py", Path(folder, "progrpo"))
        Path(folder, "progrpo", "__init__.py").touch()
        Path(folder).chmod(0o755)
        environment = {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        done = _as_nobody([python, "-c", code], environment)
    assert done.stdout.split() == [isolation_level()[0].name, "correct", "incorrect"], done.stderr


def _as_nobody(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, user=65534, group=65534, extra_groups=(), cwd="/", env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def _works_for_others(python: str) -> bool:
    try:
        return _as_nobody([python, "-c", "import json, sys; assert sys.version_info >= (3, 11)"], {}).returncode == 0
    except OSError:
        return False
