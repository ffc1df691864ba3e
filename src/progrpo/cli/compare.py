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
from progrpo.common.errors import ConfigError, RunError
from progrpo.common.files import write_json
from progrpo.recipes.schema import Recipe, load_recipe
from progrpo.runs.folder import RunFolder

POLL_SECONDS = 0.5


def compare(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "grpo,progrpo",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    out: Annotated[Path | None, typer.Option(help="Folder for the runs and the page; by default runs/RECIPE.")] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Runs at the same time; 0: one a core. Each takes its share.", show_default=False)
    ] = 0,
) -> None:
    """Train several methods from the same start under the same budget, and show them on one page.

    Every run is a process of its own. One that fails is reported, and stops no other; the page shows those that
    finished. Called again after a crash, a failure or Ctrl-C, it continues where each run stopped.

    **Examples**

    `progrpo compare countdown_cpu`

    `progrpo compare countdown_cpu --methods grpo,progrpo,progrpo_correct --seeds 0,1,2 training.steps=100`
    """
    recipes = [
        load_recipe(recipe, [*(overrides or []), f"method={method}", f"seed={seed}"])
        for seed in _split(seeds, "--seeds")
        for method in _split(methods, "--methods")
    ]
    if len({one.run_name for one in recipes}) < len(recipes):
        raise ConfigError(f"--seeds {seeds!r} names a seed twice; give each once.")
    root = out or Path("runs") / recipes[0].name
    runs = [_Run(one, RunFolder(root / one.run_name)) for one in recipes]
    for run in runs:
        run.check()
    failures = _run_all(runs, jobs or _default_jobs(len(runs)))
    if finished := [run.folder for run in runs if str(run.folder.path) not in failures]:
        from progrpo.pages import summary_text, write_page

        print(summary_text(finished))
        print(write_page(finished, root / "report.html"))
    if failures:
        page = "the page is of the others" if finished else "there is nothing to show"
        raise RunError(
            f"{len(failures)} of {len(runs)} runs failed ({', '.join(failures)}), and {page}; the same command goes "
            "on with what is missing."
        )


@dataclass
class _Run:
    """A run in a process of its own, watched through its run folder."""

    recipe: Recipe
    folder: RunFolder
    process: subprocess.Popen[bytes] | None = None
    read_to: int = 0
    """Up to which byte metrics.jsonl was read."""
    step: int = 0
    """That the last record read is of."""
    logged_before: int = 0
    """Bytes of the log that are of earlier attempts."""

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
            self.logged_before = log.tell()
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

    def why_it_failed(self, code: int) -> str:
        """The signal that ended a run, or the last line that it printed, and where all of it is."""
        if code < 0:
            want = ", as the system does for want of memory" if -code == signal.SIGKILL else ""
            return f"it was ended by {signal.Signals(-code).name}{want} (its log is {self.log})"
        said = self.log.read_bytes()[self.logged_before :].decode(errors="replace").strip()
        return f"{said.split(chr(10))[-1] or f'exit code {code}'} (all of it is in {self.log})"


def _run_all(runs: list[_Run], jobs: int) -> dict[str, str]:
    """Run them all, so many at a time, with a bar each. If Ctrl-C comes, all are stopped.

    Returns:
        Why runs failed, by their folders' paths.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    waiting = [run for run in runs if not run.folder.is_finished()]
    running: dict[str, tuple[_Run, Bar]] = {}
    failures: dict[str, str] = {}
    with Bars() as bars, _interrupted_by_sigterm():

        def fails(run: _Run, why: str) -> None:
            failures[str(run.folder.path)] = why
            bars.console.print(f"run {str(run.folder.path)!r} failed: {why}", markup=False, soft_wrap=True)

        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    try:
                        running[str(run.folder.path)] = (run, _start(run, bars, threads))
                    except (ConfigError, OSError) as error:  # a folder that is damaged, or can't be written
                        fails(run, str(error))
                time.sleep(POLL_SECONDS)
                for name, (run, bar) in list(running.items()):
                    code = _watch(run, bar)
                    if code is not None:
                        del running[name]
                    if code:
                        fails(run, run.why_it_failed(code))
        finally:
            _stop([run for run, _ in running.values()])
    return failures


def _start(run: _Run, bars: Bars, threads: int) -> Bar:
    with run.folder.locked():
        done = run.folder.rewind()
    run.read_to, run.step = run.folder.metrics_file.stat().st_size if done else 0, done
    bar = bars.bar(f"{run.recipe.method} seed {run.recipe.seed} ")
    bar.stage("train", run.recipe.training.steps, done)
    run.start(threads)
    return bar


def _watch(run: _Run, bar: Bar) -> int | None:
    """Move the run's bar on; its exit code once it has ended."""
    assert run.process is not None
    code = run.process.poll()
    for record in run.new_records():
        # A step on an earlier step's responses has no reward of its own, one that could not be scored has none at all.
        new, run.step = record["step"] - run.step, record["step"]  # verl records a rollout, which may be several steps
        bar.advance(new, **{name: record[name] for name in ("reward", "entropy") if name in record})
        if record["step"] == run.recipe.training.steps:
            bar.stage("evaluate", 1)
    if code == 0:
        bar.advance(1)
    return code


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
