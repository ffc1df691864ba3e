"""Starting isolated programs: after a fork, with fewer layers, and with their environment."""

import os
import subprocess
import sys

import pytest

from progrpo.verify.code.sandbox import Isolation, Limits, Sandbox

FORK = """
import os
from progrpo.verify.code.sandbox import Limits, Sandbox

sandbox = Sandbox(["math"])
if {started}:
    sandbox.call("math:sqrt", 4.0, Limits())
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    print("parent", sandbox.call("math:sqrt", 9.0, Limits()))
    raise SystemExit(os.waitstatus_to_exitcode(status))
print("child", sandbox.call("math:sqrt", 4.0, Limits()), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="programs are isolated on Linux alone")
@pytest.mark.parametrize("started", [False, True])
def test_parent_and_child_of_a_fork_have_a_helper_each(started: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK.format(started=started)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == ["child 2.0", "parent 3.0", ""]


@pytest.mark.skipif(sys.platform != "linux", reason="programs are isolated on Linux alone")
@pytest.mark.parametrize("layers", [("rlimits",), ("rlimits", "namespaces")])
def test_a_layer_that_is_switched_off_is_off(layers: tuple[str, ...]) -> None:
    sandbox = Sandbox(["os"], layers)
    with sandbox.process(Limits(), min_isolation=Isolation.NONE) as process:
        missing = set(process.missing)
    assert missing >= {"landlock", "seccomp", "namespaces"} - {*layers}
    namespace = sandbox.call("os:readlink", "/proc/self/ns/user", min_isolation=Isolation.NONE)
    sandbox.close()
    has_own = namespace != os.readlink("/proc/self/ns/user")
    assert has_own == ("namespaces" not in missing)


@pytest.mark.skipif(sys.platform != "linux", reason="programs are isolated on Linux alone")
@pytest.mark.parametrize(
    ("name", "value"), [("HOME", "/tmp"), ("PATH", "/nowhere"), ("LANG", "C.UTF-8"), ("USER", None)]
)
def test_the_environment_of_programs(name: str, value: str | None) -> None:
    sandbox = Sandbox(["os"])
    assert sandbox.call("os:getenv", name) == value
    sandbox.close()
