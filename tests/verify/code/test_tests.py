"""Programs that try to pass without being right, or to do harm. With a naive runner, each would succeed."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from progrpo.verify import AssertTests, CallTests, Limits, StdinTests, Verdict, run_code_tests, run_code_tests_batch
from progrpo.verify.code import tests as code_tests
from progrpo.verify.code.sandbox import Isolation, Sandbox
from progrpo.verify.code.sandbox.inside.isolation import landlock_version
from progrpo.verify.code.tests import compare_output, isolation_level, same_value

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are isolated on Linux only")

SHORT = Limits(seconds=2.0, memory_mb=512, output_mb=1, file_mb=4)
ECHO = StdinTests((("7\n", "7\n"),))
ASSERTS = "assert double(4) == 8\nassert double(5) == 10\n"
DOUBLE = AssertTests(
    f"{ASSERTS}assert math.isclose(double(6), 12)\nassert all(map(lambda pair: double(pair[0]) == pair[1], [(7, 14)]))"
)


def run(program: str, tests: StdinTests | CallTests | AssertTests = ECHO) -> Verdict:
    return run_code_tests(program, tests, SHORT)


def test_right_programs_are_correct() -> None:
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
    "no more items": "def double(x): raise StopIteration",
    "a math of its own": "class math: isclose = lambda *a, **k: True\ndef double(x): return 0",
    "all objects": "import gc\ndef double(x): return [o for o in gc.get_objects() if 'assert' in str(o)][0]",
}  # fmt: skip


@pytest.mark.parametrize("program", FAKES.values(), ids=FAKES.keys())
def test_a_fake_does_not_pass(program: str) -> None:
    start = time.monotonic()
    assert run(program, DOUBLE).status == "incorrect"
    assert time.monotonic() - start < 2 * SHORT.seconds + 2


def test_a_script_that_asserts_nothing_is_the_tests_fault() -> None:
    assert run("def double(x): return 0", AssertTests("x = double(4)")).status == "error"


UNUSABLE = {
    "not Python": AssertTests("assert double(4) == "),
    "a setup that exits": AssertTests("assert double(4) == 8", setup="raise SystemExit(1)"),
    "a setup that fails": AssertTests("assert double(4) == 8", setup="import a_module_that_nobody_has"),
    "a function as an argument": AssertTests("assert double(lambda: 4) == 8"),
    "an argument nested too deep": CallTests("double", (([eval("[" * 150 + "]" * 150)], 8),)),
}


@pytest.mark.parametrize("tests", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable_tests_are_an_error_whatever_the_program(tests: AssertTests | CallTests) -> None:
    assert run("def double(x): return 2 * x", tests).status == "error"


def test_a_program_that_keeps_asserts_from_being_reached_is_incorrect() -> None:
    script = AssertTests("for value in doubles(4):\n    assert value == 8")
    assert run("def doubles(x): return []", script).status == "incorrect"
    assert run("def doubles(x): return [2 * x]", script).correct


def test_a_program_cannot_end_a_loop_of_the_script() -> None:
    script = AssertTests("assert list(map(double, [4])) == []")
    assert run("def double(x): raise StopIteration", script).status == "incorrect"


def test_a_program_of_the_greatest_length_is_run() -> None:
    program = "print(input())  #"
    assert run(program + "x" * (code_tests.LONGEST_PROGRAM - len(program))).correct


def test_a_decimal_is_read_up_to_a_length() -> None:
    longest = "1." + "0" * 398
    assert compare_output(longest, "1.0") == ""
    assert "not" in compare_output(longest + "0", "1.0")


OUTPUTS = {
    "right first line": "print(7); print(8)",
    "flood": "while True: print('x' * 100000)",
    "not UTF-8": "import sys\nsys.stdout.buffer.write(b'\\xff7')",
    "exit code": "print(7)\nraise SystemExit(1)",
    "nothing": "pass",
}


@pytest.mark.parametrize("program", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_wrong_outputs(program: str) -> None:
    assert run(program).status == "incorrect"


# Each prints 7, the right answer, only if its attack has succeeded.
ATTACKS = {
    "read /etc/passwd": "open('/etc/passwd').read()",
    "read an environment": "assert open('/proc/{parent}/environ').read()",
    "read any environment": "import glob; assert any(open(path).read() for path in glob.glob('/proc/*/environ'))",
    "list a home": "import os; assert os.listdir('/root')",
    "read the tests": "assert open('{secret}').read()",
    "control a device": "import fcntl; fcntl.ioctl(open('/dev/urandom'), 0x80045200, bytes(4))",  # the entropy it has
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
    "lock a file": "import os; os.chmod('{secret}', 0)",
    "date a file": "import os; os.utime('{secret}', (0, 0))",
    "mark a file": "import os; os.setxattr('{secret}', 'user.x', b'1')",
    "empty a file": "import os; os.truncate('{secret}', 0)",
    "slow the parent": "import os; os.setpriority(os.PRIO_PROCESS, {parent}, 19)",
    "move the parent": "import os; os.sched_setaffinity({parent}, [0])",
    "a signal by way of a file": "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, 8, {parent})",
    "raise a limit": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[tuple[dict[str, object], socket.socket]]:
    """The targets of the attacks: a file, a folder, this process, and a server."""
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
def test_an_attack_does_no_harm(attack: str, target: tuple[dict[str, object], socket.socket], tmp_path: Path) -> None:
    if attack == ATTACKS["control a device"] and landlock_version() < 5:
        pytest.skip("this kernel's Landlock does not know of devices")
    places, server = target
    verdict = run(aimed(attack, places))
    assert verdict.status == "incorrect", verdict
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tests.json"]


# These are not tried: they would stop this process, fill this machine, or leave something on it.
LEFT_OUT = {
    "write to the libraries", "a daemonised child", "fill the disk", "fill /dev/shm", "ptrace", "list a home",
    "raise a limit", "lock a file", "date a file", "empty a file", "slow the parent", "move the parent",
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
    done = subprocess.run([sys.executable, "-c", f"{FAKES[name]}\n{ASSERTS}"], capture_output=True, check=False)
    assert done.returncode == 0


def test_a_fork_bomb_leaves_nothing_behind() -> None:
    assert run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass").status == "incorrect"
    assert _programs() == ""


def _programs() -> str:
    """The process ids of the programs that are running."""
    helper = code_tests._sandbox._helper
    assert helper is not None
    # With namespaces, the helper is the only child of the process that was started.
    inner = _children(helper.pid) if isolation_level()[0] == Isolation.FULL else str(helper.pid)
    deadline = time.monotonic() + 5
    while (children := _children(int(inner))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return children


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_no_descriptor_and_no_process_is_left() -> None:
    run("print(7)")
    descriptors = set(os.listdir("/proc/self/fd"))
    run_code_tests_batch(["print(input())", "while True: pass", "1/0"] * 5, [ECHO] * 15, Limits(seconds=0.3), workers=4)
    assert _programs() == ""
    assert set(os.listdir("/proc/self/fd")) <= descriptors


def test_from_many_threads_and_after_a_fork() -> None:
    correct: list[bool] = []
    threads = [threading.Thread(target=lambda: correct.append(run("print(input())").correct)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert correct == [True] * 8
    script = (
        "import os\nfrom progrpo.verify import *\nfrom progrpo.verify.code.tests import _sandbox\n"
        "tests = StdinTests((('7', '7'),))\nassert run_code_tests('print(7)', tests).correct\n"
        "parents = _sandbox._socket.fileno()\nchild = os.fork()\n"
        "if child == 0 and os.path.exists(f'/proc/self/fd/{parents}'): os._exit(2)\n"
        "if child == 0: os._exit(0 if run_code_tests('print(7)', tests).correct else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\nassert run_code_tests('print(7)', tests).correct\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_below_the_minimum_isolation_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = Sandbox(layers=("rlimits",))
    monkeypatch.setattr(code_tests, "_sandbox", weak)
    try:
        verdict = run("print(7)")
        assert verdict.status == "error"
        assert "level rlimits is reached, seccomp is needed" in verdict.reason
        assert run_code_tests("print(7)", ECHO, SHORT, min_isolation=Isolation.RLIMITS).correct
    finally:
        weak.close()


def test_the_reported_isolation_is_real() -> None:
    level, missing = isolation_level()
    assert level >= Isolation.SECCOMP, missing
    if shutil.which("unshare") and "landlock" not in missing:
        namespaces = ["--user", "--mount", "--pid", "--net", "--ipc", "--fork"]
        probe = subprocess.run(["unshare", *namespaces, "true"], capture_output=True, check=False)
        assert (level == Isolation.FULL) == (probe.returncode == 0), missing


def test_at_the_full_level_a_program_has_its_own_namespaces() -> None:
    if isolation_level()[0] < Isolation.FULL:
        pytest.skip("there are no namespaces to be had here")
    if os.geteuid() != 0:
        pytest.skip("only root sees the namespaces of processes that hide themselves")
    with code_tests._sandbox.process(SHORT):
        helper = code_tests._sandbox._helper
        assert helper is not None
        inner = int(_children(helper.pid))
        program = int(_children(inner).split()[-1])
        for name, pid in (("user", inner), ("net", inner), ("ipc", inner), ("pid", inner), ("mnt", program)):
            assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name


SAY = """
import os
def say(line):
    for part in (line[i:i + 100000] for i in range(0, len(line), 100000)):
        os.write(3, part.encode())
    os.write(3, b"\\n")
    os._exit(0)
"""
# Each could take minutes or gigabytes of the judging process.
BOMBS = {
    "a fraction's exponent": 'say(\'{"value":{"fraction":"1e16000000"}}\')',
    "colliding numbers": "say('{\"value\":{\"set\":[' + ','.join(str(k * (2**61 - 1)) for k in range(40000)) + ']}}')",
    "colliding keys": 'say(\'{"value":{"dict":[\''
    " + ','.join('[%d,0]' % (k * (2**61 - 1)) for k in range(40000)) + ']}}')",
    "many containers": "say('{\"value\":[' + ','.join(['{\"deque\":[]}'] * 60000) + ']}')",
    "a long reason": 'say(\'{"raised":"x","failed":"\' + \'A\' * 900000 + \'"}\')',
    "a long description": 'say(\'{"raised":"x","description":"\' + \'A\' * 900000 + \'"}\')',
    "half a surrogate pair": "raise ValueError('\\ud800')",
    "a key that can't be written": "return {10 ** 5000: 1}",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.parametrize("tests", [CallTests("double", (([4], {"8": 1}),)), DOUBLE], ids=["call", "assert"])
def test_an_answer_cannot_attack_the_judge(bomb: str, tests: CallTests | AssertTests) -> None:
    start = time.monotonic()
    verdict = run(f"{SAY}\ndef double(x):\n    {bomb}", tests)
    assert verdict.status == "incorrect"
    assert len(verdict.reason.encode()) <= 2000
    assert time.monotonic() - start < 2 * SHORT.seconds + 2


def test_an_output_cannot_attack_the_judge() -> None:
    start = time.monotonic()
    assert compare_output("1" * 1_000_000 + "x", "0.5")
    assert compare_output("x", "1" * 1_000_000 + ".")
    assert time.monotonic() - start < 1


ORDINARY = {
    "exit": "print(input())\nexit()",
    "a thread, and the main one exits": "import sys, threading\n"
    "threading.Thread(target=lambda: print(input())).start()\nsys.exit()",
    "an exit function": "import atexit, sys\natexit.register(lambda: print(input()))\nsys.exit(0)",
    "output kept back": "import atexit, io, sys\nsys.stdout = io.StringIO()\n"
    "atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))\nprint(input())",
    "a file not closed": "f = open(1, 'w')\nf.write(input())",
    "output closed": "import sys\nprint(input())\nsys.stdout.close()",
    "asyncio": "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    print(input())\nasyncio.run(main())",
    "thirty threads": "from concurrent.futures import ThreadPoolExecutor\nimport time\n"
    "with ThreadPoolExecutor(30) as threads: list(threads.map(lambda _: time.sleep(0.02), range(60)))\nprint(input())",
    "deep recursion": "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 27)\n"
    "def deep(n): return n if n == 0 else deep(n - 1)\n"
    "t = threading.Thread(target=deep, args=(50000,)); t.start(); t.join()\nprint(input())",
    "all of stdin": "import os, sys\nprint(sys.stdin.buffer.read().decode().strip())",
    "if main": "def main(): print(input())\nif __name__ == '__main__': main()",
}


@pytest.mark.parametrize("program", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_programs_pass(program: str) -> None:
    assert run(program).correct, run(program)


IMPORTED = {
    "a guarded main": "if __name__ == '__main__':\n    import sys; sys.exit(input())",
    "its own exception": "class TooMuch(ValueError): pass",
    "itertools": "import itertools",
}


@pytest.mark.parametrize("program", IMPORTED.values(), ids=IMPORTED.keys())
def test_ordinary_functions_pass(program: str) -> None:
    error = "TooMuch" if "TooMuch" in program else "ValueError"
    double = f"def double(x):\n    if x < 0: raise {error}('negative')\n    return 2 * x\n"
    both = "def both(x):\n    import itertools\n    return itertools.chain([x], [x])"
    script = (
        "assert double(4) == 8\nassert list(both(4)) == [4, 4]\n"
        "try: double(-1)\nexcept ValueError as error: assert str(error) == 'negative'\nelse: assert False"
    )
    assert run(f"{program}\n{double}\n{both}", AssertTests(script)).correct


def test_each_case_has_the_whole_time() -> None:
    """The five cases together take longer than the limit of a single case."""
    program = (
        "import time\ndef work(x):\n    end = time.process_time() + 0.7\n    while time.process_time() < end: pass"
    )
    tests = CallTests("work", (([1], None),) * 5)
    assert run_code_tests(program, tests, Limits(seconds=3.0)).correct


def test_with_a_thousand_open_files(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limit[1]), limit[1]))
    with ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context((tmp_path / "x").open())
        assert run("print(input())").correct
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)


DOUBLED = CallTests("double", (([4], 8), ([5], 10)))
REASONS = [
    ("import os; os._exit(3)", ECHO, "case 1: the program ended with exit code 3"),
    ("\nraise KeyError('a')", ECHO, "case 1: the program ended with KeyError: 'a' (line 2)"),
    ("raise SystemExit('no')", ECHO, "case 1: the program ended with SystemExit: no"),
    ("import ctypes; ctypes.string_at(0)", ECHO, "case 1: the program crashed"),
    ("while True: pass", ECHO, "case 1: the program took more than 2 s"),
    ("import time; time.sleep(60)", ECHO, "case 1: the program took more than 2 s"),
    ("print('7' * 2_000_000)", ECHO, "case 1: the program wrote more than 1 MB"),
    ("import sys; sys.stdout.buffer.write(b'\\xff')", ECHO, "case 1: the output is not UTF-8"),
    ("print(8)", ECHO, "case 1: line 1 is '8', not '7'"),
    ("print(input(), 7)", ECHO, "case 1: line 1 is '7 7', not '7'"),
    ("print(7, 7, sep='\\n')", ECHO, "case 1: the output has 2 lines, not 1"),
    ("print('8' * 100)", ECHO, f"case 1: line 1 is {'8' * 80 + '...'!r}, not '7'"),
    ("if input() == '7': print(7)", StdinTests((("7", "7"), ("8", "8"))), "case 2: line 1 is '', not '8'"),
    (
        "x" * (code_tests.LONGEST_PROGRAM + 1),
        ECHO,
        f"the program has {code_tests.LONGEST_PROGRAM + 1} characters, more than {code_tests.LONGEST_PROGRAM}",
    ),
    ("1 / 0", DOUBLED, "the program ended with ZeroDivisionError: division by zero (line 1)"),
    ("double = 4", DOUBLED, "case 1: the program raised TypeError: 'int' object is not callable"),
    ("half = 4", DOUBLED, "case 1: the program raised NameError: the program defines no 'double'"),
    ("def double(x): return 8", DOUBLED, "case 2: returned 8"),
    ("def double(x): return 'x' * 100", DOUBLED, "case 1: returned '" + "x" * 79 + "..."),
    ("def double(x): return {8}", DOUBLED, "case 1: returned <a set>"),
    ("def double(x): return 10 ** 5000", DOUBLED, "case 1: returned a int"),
    ("def double(x):\n    raise ValueError('no')", DOUBLED, "case 1: the program raised ValueError: no (line 2)"),
    ("def double(x): exit(0)", DOUBLED, "case 1: the program raised SystemExit: 0 (line 1)"),
    ("def double(x): import os; os._exit(0)", DOUBLED, "case 1: the program ended with exit code 0"),
    ("def double(x): return 0", DOUBLE, "a test failed: AssertionError in 'assert double(4) == 8'"),
    (
        "def double(x): return 2 * x if x < 5 else 0",
        DOUBLE,
        "a test failed: AssertionError in 'assert double(5) == 10'",
    ),
    ("def double(x): raise KeyError('no')", DOUBLE, "a test failed: KeyError in 'assert double(4) == 8'"),
    ("def double(x): exit(0)", DOUBLE, "a test failed: 0"),
    (
        "def double(x): return 0",
        AssertTests("if double(4) != 8: raise SystemExit(1)\nassert double(4) == 8"),
        "a test failed: SystemExit in 'if double(4) != 8: raise SystemExit(1)'",
    ),
    ("def double(x): return 10 ** 10 ** 10", DOUBLE, "the program took more than 2 s"),
    ("half = 4", DOUBLE, "a test failed: NameError in 'assert double(4) == 8'"),
    ("1 / 0", DOUBLE, "the program ended with ZeroDivisionError: division by zero (line 1)"),
]


@pytest.mark.parametrize(("program", "tests", "reason"), REASONS, ids=range(len(REASONS)))
def test_the_reason_says_why_a_program_is_wrong(
    program: str, tests: StdinTests | CallTests | AssertTests, reason: str
) -> None:
    assert run(program, tests) == Verdict("incorrect", reason)


def test_an_object_of_the_program_is_used_from_an_assert_script() -> None:
    program = (
        "class Box:\n    def __init__(self, size): self.size = size\n"
        "    def grown(self, by=1): return Box(self.size + by)\n"
        "    def larger(self, other): return self.size > other.size\n"
    )
    script = (
        "box = Box(3)\nassert box.size == 3\nbox.size = 4\nassert box.size == 4\nassert box.grown().size == 5\n"
        "assert box.grown(by=6).larger(box)\nassert not box.larger(box.grown())\n"
        "assert list(map(Box.larger, [box], [box])) == [False]"
    )
    assert run(program, AssertTests(script)) == Verdict("correct")
    assert run(program.replace("+ by", "- by"), AssertTests(script)).reason.endswith("'assert box.grown().size == 5'")


FILES = """
import os
os.mkdir('/tmp/folder')
with open('/tmp/folder/file', 'w') as file: file.write('some text')
with open('/tmp/folder/file', 'r+') as file: file.truncate(4)
assert os.listdir('/tmp/folder') == ['file'] and open('/tmp/folder/file').read() == 'some'
os.rename('/tmp/folder/file', '/tmp/folder/other')
os.remove('/tmp/folder/other')
os.rmdir('/tmp/folder')
open('/dev/null', 'w').write('x')
assert len(open('/dev/urandom', 'rb').read(8)) == 8
print(input())
"""


def test_a_program_can_use_files_in_its_own_tmp() -> None:
    assert run(FILES) == Verdict("correct")


def test_a_preloaded_module_is_called_in_the_sandbox() -> None:
    sandbox = Sandbox(preload=("json",))
    try:
        assert sandbox.call("json:dumps", {"a": [1.5, None]}) == '{"a": [1.5, null]}'
        with pytest.raises(code_tests.ProgramFailedError, match="JSONDecodeError: Expecting value"):
            sandbox.call("json:loads", "?")
    finally:
        sandbox.close()


def test_limits_are_above_0() -> None:
    assert Limits(seconds=0.1) == Limits(0.1, 1024, 16, 16)
    for name in ("seconds", "memory_mb", "output_mb", "file_mb"):
        with pytest.raises(ValueError, match=rf"limits.{name} must be above 0, got 0\."):
            Limits(**{name: 0})


@pytest.mark.parametrize(("workers", "cores", "threads"), [(None, 2, 2), (None, 8, 3), (None, None, 1), (2, 8, 2)])
def test_the_number_of_programs_at_a_time(
    workers: int | None, cores: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def pool(number: int) -> ThreadPoolExecutor:
        started.append(number)
        return ThreadPoolExecutor(number)

    monkeypatch.setattr(code_tests, "ThreadPoolExecutor", pool)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert all(verdict.correct for verdict in run_code_tests_batch(["print(7)"] * 3, [ECHO] * 3, workers=workers))
    assert started == [threads]


def test_a_batch_needs_as_many_programs_as_tests() -> None:
    assert run_code_tests_batch([], []) == []
    with pytest.raises(ValueError, match="programs and tests must be as many, got 1 and 2"):
        run_code_tests_batch(["print(7)"], [ECHO, ECHO])
    for empty in (StdinTests(()), CallTests("double", ())):
        assert run("print(7)", empty) == Verdict("error", "there are no tests")


def test_outputs_are_compared_as_the_benchmarks_do() -> None:
    assert compare_output("1  2 \n", "1 2") == ""
    assert compare_output("0.33333333", "0.333333334") == ""
    assert compare_output("0.3334", "0.3333")
    assert compare_output("10000001", "10000002")
    assert compare_output("1\n2", "1")
    assert same_value((1, [2.0]), [1, [2.0]])
    assert not same_value(True, 1.0)
    assert not same_value(1.0, True)
    assert not same_value("1", 1)
    assert not same_value("1.0", 1.0)
    assert not same_value([1], [1, 2])
    assert not same_value(1, [1])
    assert same_value({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    assert not same_value({"a": 1, "b": 3}, {"a": 1, "b": 2})
    assert not same_value({"a": 1}, {"a": 1, "b": 2})
    assert not same_value(10**400, 1.0)
    assert same_value(1, 1.0)
    assert same_value(1.0, 1)
    assert same_value(None, None)
    assert compare_output("0", "0.0000001") == ""
    assert compare_output("1e400", "1.5")
    assert compare_output("1.0", "1")
    assert compare_output("a", "1.0")


def test_a_killed_helper_is_replaced() -> None:
    sandbox = code_tests._sandbox
    assert run("print(input())").correct
    helper = sandbox._helper
    assert helper is not None
    assert run("print(input())").correct
    assert sandbox._helper is helper
    helper.kill()
    helper.wait()
    assert run("print(input())").correct
    assert sandbox._helper is not helper


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_as_an_ordinary_user() -> None:
    """The whole sandbox works for an ordinary user too, without anything that root has opened."""
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
        # Only the verifiers, because other users may not be able to read the package's environment.
        package = Path(code_tests.__file__).parents[2]
        shutil.copytree(package / "verify", Path(folder, "progrpo", "verify"))
        Path(folder, "progrpo", "common").mkdir()
        for name in ("__init__.py", "errors.py"):
            shutil.copy(package / "common" / name, Path(folder, "progrpo", "common"))
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
