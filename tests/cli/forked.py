"""Runs of the command line in processes that are forked from one that has imported everything: they start at once,
report their phase, and can be killed in the middle of it. The package itself does not know about this.

As a script, this is the process that is forked. A line of JSON on stdin starts a run; the answer is the run's process
id and, when it has ended, its exit code.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PHASES = ("resume", "rollout", "update", "checkpoint", "evaluation", "final evaluation")


class Run:
    """A run, which may have ended."""

    def __init__(self, server: "Server", pid: int, folder: Path, number: int) -> None:
        self._server, self.pid = server, pid
        self._out, self._err, self._marks, self._log = (folder / f"{name}-{number}" for name in FILES)
        self.code: int | None = None

    def marks(self) -> list[str]:
        """The marks so far: ``begin rollout``, ``end rollout``, ..."""
        return self._marks.read_text().splitlines() if self._marks.exists() else []

    def log(self) -> list[dict[str, Any]]:
        """The responses that were verified (in training) and generated (in evaluations)."""
        lines = self._log.read_text().split("\n")[:-1] if self._log.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def phase(self) -> str:
        """The innermost phase that the run is in, or was killed in."""
        under_way: list[str] = []
        for mark in self.marks():
            what, _, phase = mark.partition(" ")
            under_way = [*under_way, phase] if what == "begin" else under_way[:-1]
        return under_way[-1] if under_way else "between"

    def wait(self) -> int:
        if self.code is None:
            self.code = self._server.answer()
        return self.code

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> bool:
        """Wait until a condition is true; False if the run ends before."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            if self.has_ended():
                return condition()
            time.sleep(0.002)
        return True

    def has_ended(self) -> bool:
        return self.code is not None or not Path(f"/proc/{self.pid}").exists()

    def kill(self, number: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Server:
    """``server.start("train", ...)`` runs ``progrpo train ...`` in ``folder``; one at a time.

    Args:
        folder: also of what the runs print.
        watched: whether a run tells its phases and what it scores; its evaluations store every batch at once then.
        environment: of all runs.
    """

    def __init__(self, folder: Path, watched: bool = True, **environment: str) -> None:
        self.folder, self._watched, self._number = folder, watched, 0
        self._running: Run | None = None
        settings = {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "HF_HUB_OFFLINE": "1",
        } | environment
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder,
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == 1, "it has one thread: more would not survive a fork"

    def answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def start(
        self, *arguments: str, patch: str = "", folder: Path | None = None, environment: dict[str, str] | None = None
    ) -> Run:
        """Args: ``patch`` is Python that the forked process executes first; ``folder`` and ``environment`` are the
        run's own."""
        assert self._process.stdin is not None
        if self._running is not None and self._running.code is None:  # a failed test left it running
            self._running.kill()
            self._running.wait()
        self._number += 1
        files = [str(self.folder / f"{name}-{self._number}") for name in FILES]
        job = [files, arguments, patch, str(folder or self.folder), environment or {}, self._watched]
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        self._running = Run(self, self.answer(), self.folder, self._number)
        return self._running

    def __call__(self, *arguments: str, code: int = 0, **kwargs: Any) -> Run:
        run = self.start(*arguments, **kwargs)
        assert run.wait() == code, f"exit code {run.code}\n{run.out}\n{run.err}"
        return run

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


FILES = ("out", "err", "marks", "log")


def serve() -> None:
    """The script."""
    import progrpo.pages
    import progrpo.trl.run  # noqa: F401 - what takes seconds

    print(threading.active_count(), flush=True)
    for line in sys.stdin:
        files, arguments, patch, folder, environment, watched = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.chdir(folder)
            os.environ.update(environment)
            _run(files, arguments, patch, watched)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(files: list[str], arguments: list[str], patch: str, watched: bool) -> None:
    for name, descriptor in zip(files, (1, 2, None, None), strict=True):
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if descriptor is not None:
            os.dup2(handle, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 0
    try:
        if watched:
            _tell(Path(files[2]), Path(files[3]))
        exec(patch, {})
        sys.argv = ["progrpo", *arguments]
        from progrpo.cli import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell(marks: Path, log: Path) -> None:  # noqa: PLR0915 - a list of what is watched
    """Record the run's phases, and every sample that is scored or generated."""
    import progrpo.evaluation.evaluate as evaluation
    from progrpo.evaluation import store
    from progrpo.runs import evaluation as run_evaluation
    from progrpo.runs.folder import RunFolder
    from progrpo.sampling.transformers import TransformersBackend
    from progrpo.tasks.rewards import Reward
    from progrpo.tasks.templates import prompt_text
    from progrpo.trl import recorder
    from progrpo.trl import run as training
    from progrpo.trl.run import RecipeTrainer

    store.FLUSH_SECONDS = 0.0  # every batch of an evaluation is stored at once: a kill then finds some stored
    lines = [os.open(path, os.O_WRONLY | os.O_APPEND) for path in (marks, log)]

    def mark(text: str) -> None:
        os.write(lines[0], f"{text}\n".encode())

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        mark(f"begin {name}")
        yield
        mark(f"end {name}")

    def within(name: str, owner: Any, method: str) -> None:
        original = getattr(owner, method)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with phase(name):
                return original(*args, **kwargs)

        setattr(owner, method, wrapped)

    within("resume", RunFolder, "rewind")
    within("rollout", RecipeTrainer, "_generate_and_score_completions")
    within("checkpoint", RecipeTrainer, "_save_checkpoint")
    within("evaluation", recorder.Recorder, "_evaluate")
    within("final evaluation", training, "finish")
    compute_loss, log_and_save = RecipeTrainer.compute_loss, RecipeTrainer._maybe_log_save_evaluate

    def begin_update(*args: Any, **kwargs: Any) -> Any:
        mark("begin update")
        return compute_loss(*args, **kwargs)

    def end_update(*args: Any, **kwargs: Any) -> Any:
        mark("end update")
        return log_and_save(*args, **kwargs)

    RecipeTrainer.compute_loss = begin_update
    RecipeTrainer._maybe_log_save_evaluate = end_update

    def record(**what: Any) -> None:
        os.write(lines[1], (json.dumps(what) + "\n").encode())

    create, reward = Reward.__init__, Reward.__call__
    open_store, sample = evaluation.open_store, TransformersBackend.sample
    scored = threading.local()

    def create_and_watch(self: Any, verify_batch: Any, *args: Any, **kwargs: Any) -> None:
        """Record every verification, also those for canonical forms and for the recorder, which come after the
        reward's."""

        def verify_and_record(rows: Any, texts: Any) -> Any:
            for row, text in zip(rows, texts, strict=True):
                record(step=scored.step, problem=row["problem_id"], text=text)
            return verify_batch(rows, texts)

        create(self, verify_and_record, *args, **kwargs)

    def score(self: Any, prompts: Any, completions: Any, trainer_state: Any = None, **kwargs: Any) -> Any:
        scored.step = trainer_state.global_step + 1
        return reward(self, prompts, completions, trainer_state=trainer_state, **kwargs)

    evaluated = threading.local()

    def open_and_note(folder: Path, *args: Any, **kwargs: Any) -> Any:
        evaluated.name = folder.name
        return open_store(folder, *args, **kwargs)

    def sample_and_record(self: Any, requests: Any, sampling: Any) -> Any:
        for request in requests:
            for index in range(request.first, request.first + request.count):
                record(evaluation=evaluated.name, prompt=prompt_text(request.prompt), index=index)
        return sample(self, requests, sampling)

    Reward.__init__, Reward.__call__ = create_and_watch, score
    evaluation.open_store = recorder.open_store = run_evaluation.open_store = open_and_note
    TransformersBackend.sample = sample_and_record


if __name__ == "__main__":
    serve()
