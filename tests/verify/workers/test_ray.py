"""The verifiers inside Ray's own worker processes: in tasks, in an actor's threads, and in an asyncio actor."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from progrpo.verify import StdinTests, run_code_tests, verify_math

ray = pytest.importorskip("ray")
pytest.importorskip("math_verify")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are isolated on Linux only")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    # A socket's path can't be longer than 107 bytes, which pytest's own temporary folders often are.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        paths = [str(Path(__file__).parents[3]), *sys.path]
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            object_store_memory=80 << 20,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": ":".join(paths), "RAY_USAGE_STATS_ENABLED": "0"}},
        )
        yield
        ray.shutdown()


def verdicts(n: int) -> list[str]:
    """The verdicts on a right and a wrong answer and program; none is decided by text or cache, so all need workers."""
    tests = StdinTests(((str(n), str(n + 1)),))
    return [
        verify_math(rf"\boxed{{(x+{n})^2}}", rf"x^2+{2 * n}x+{n * n}").status,
        verify_math(rf"\boxed{{(x-{n})^2}}", rf"x^2+{2 * n}x+{n * n}").status,
        run_code_tests("print(int(input()) + 1)", tests).status,
        run_code_tests("import os; os._exit(0)", tests).status,
    ]


EXPECTED = ["correct", "incorrect"] * 2


def test_in_tasks() -> None:
    task = ray.remote(verdicts)
    assert ray.get([task.remote(n) for n in range(2, 6)], timeout=300) == [EXPECTED] * 4


def test_in_the_threads_of_an_actor() -> None:
    class Worker:
        def score(self, n: int) -> list[str]:
            return verdicts(n)

    actor: Any = ray.remote(Worker).options(max_concurrency=4).remote()
    assert ray.get([actor.score.remote(n) for n in range(2, 6)], timeout=300) == [EXPECTED] * 4


def test_in_an_asyncio_actor() -> None:
    class Worker:
        async def score(self, n: int) -> list[str]:
            inside = verdicts(n)  # in the loop's own thread, and then in another
            return inside if inside == await asyncio.to_thread(verdicts, n + 10) else []

    actor: Any = ray.remote(Worker).options(max_concurrency=4).remote()
    assert ray.get([actor.score.remote(n) for n in range(2, 5)], timeout=300) == [EXPECTED] * 3
