"""``progrpo compare``"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from progrpo.cli.progress import Bar, Bars
from progrpo.cli.train import OverridesArgument, RecipeArgument
from progrpo.config import Recipe, load_recipe
from progrpo.errors import ConfigError
from progrpo.files import write_json
from progrpo.run_folder import RunFolder

POLL_SECONDS = 0.5


def compare(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "grpo,progrpo",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    out: Annotated[Path | None, typer.Option(help="Folder for the runs and the page; by default runs/RECIPE.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time; by default one a core. Each takes its share.")] = 0,
) -> None:
    """Train several methods from the same start under the same budget, and show them on one page.

    Every run is a process of its own. Called again after a crash or Ctrl-C, it continues where each run stopped.

    **Examples**

    `progrpo compare countdown_cpu`

    `progrpo compare countdown_cpu --methods grpo,progrpo,progrpo_correct --seeds 0,1,2 training.steps=100`
    """
    recipes = [
        load_recipe(recipe, [*(overrides or []), f"method={method}", f"seed={seed}"])
        for seed in _split(seeds, "--seeds")
        for method in _split(methods, "--methods")
    ]
    root = out or Path("runs") / recipes[0].name
    runs = [_Run(one, RunFolder(root / one.run_name)) for one in recipes]
    for run in runs:
        run.check()
    _run_all(runs, jobs or _default_jobs(len(runs)))
    from progrpo.report import summary_text, write_page

    folders = [run.folder for run in runs]
    print(summary_text(folders))
    print(write_page(folders, root / "report.html"))


@dataclass
class _Run:
    """A run in a process of its own, watched through its run folder."""

    recipe: Recipe
    folder: RunFolder
    process: subprocess.Popen[bytes] | None = None
    read_to: int = 0
    """Up to which byte metrics.jsonl was read."""

    @property
    def log(self) -> Path:
        return self.folder.path / "train.log"

    def check(self) -> None:
        """Refuse a folder that holds something else, before anything is started."""
        if self.folder.recipe_file.exists() and self.folder.recipe() != self.recipe:
            raise ConfigError(
                f"{str(self.folder.path)!r} holds a run with other settings; remove it, or choose another --out."
            )

    def start(self, threads: int) -> None:
        if not self.folder.recipe_file.exists():
            write_json(self.folder.recipe_file, self.recipe.model_dump())
        command = [sys.executable, "-m", "progrpo", "train", "--resume", str(self.folder.path)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then asks its runs to stop.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def new_records(self) -> list[dict[str, Any]]:
        """The metrics written since the last call."""
        if not self.folder.metrics_file.exists():
            return []
        with self.folder.metrics_file.open("rb") as file:
            file.seek(self.read_to)
            lines = file.read().split(b"\n")[:-1]
        self.read_to += sum(len(line) + 1 for line in lines)
        return [json.loads(line) for line in lines]

    def failed(self) -> str:
        """The last line that a failed run printed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().split("\n")
        return lines[-1]


def _run_all(runs: list[_Run], jobs: int) -> None:
    """Run them all, so many at a time, with a bar each; if one fails or Ctrl-C comes, the others are stopped."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    waiting = [run for run in runs if not run.folder.is_finished()]
    running: dict[int, tuple[_Run, Bar]] = {}
    with Bars() as bars, _interrupted_by_sigterm():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    with run.folder.locked():
                        done = run.folder.rewind()
                    run.read_to = run.folder.metrics_file.stat().st_size if done else 0
                    bar = bars.bar(f"{run.recipe.method} seed {run.recipe.seed} ")
                    bar.stage("train", run.recipe.training.steps, done)
                    run.start(threads)
                    running[id(run)] = (run, bar)
                time.sleep(POLL_SECONDS)
                for run, bar in list(running.values()):
                    if not _watch(run, bar):
                        del running[id(run)]
        finally:
            _stop([run for run, _ in running.values()])


def _watch(run: _Run, bar: Bar) -> bool:
    """Move the run's bar on; False once the run has ended well."""
    assert run.process is not None
    code = run.process.poll()
    for record in run.new_records():
        bar.advance(1, reward=record["reward"], entropy=record["entropy"])
        if record["step"] == run.recipe.training.steps:
            bar.stage("evaluate", 1)
    if code is None:
        return True
    if code != 0:
        raise ConfigError(f"run {str(run.folder.path)!r} failed: {run.failed()} (all of it is in {run.log}).")
    bar.advance(1)
    return False


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: the runs are stopped too."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _stop(running: list[_Run]) -> None:
    """Ask the runs that still go on to leave a checkpoint, and wait for them."""
    for run in running:
        assert run.process is not None
        run.process.terminate()
    for run in running:
        assert run.process is not None
        run.process.wait()
    if running:
        print("Every run has left a checkpoint; the same command continues them.", file=sys.stderr)


def _default_jobs(runs: int) -> int:
    """One run a core on a CPU: small models gain more from that than from threads. One at a time on a GPU."""
    import torch

    return 1 if torch.cuda.is_available() else max(1, min(runs, os.cpu_count() or 1))


def _split(text: str, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or len(set(parts)) != len(parts):
        raise ConfigError(f"{option} must be different names separated by commas, got {text!r}.")
    return parts
