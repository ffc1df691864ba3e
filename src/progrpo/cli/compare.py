"""``progrpo compare``"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Option

from progrpo.cli.options import OVERRIDES, RECIPE
from progrpo.common.errors import ConfigError, RunError
from progrpo.common.files import write_json
from progrpo.common.signals import stopping

if TYPE_CHECKING:
    from progrpo.cli.progress import Bar, Bars
    from progrpo.recipes.schema import Recipe
    from progrpo.runs.folder import RunFolder

POLL_SECONDS = 0.5


def compare(
    recipe: str = RECIPE,
    overrides: list[str] | None = OVERRIDES,
    methods: str = Option("grpo,progrpo", help="Methods, separated by commas."),
    seeds: str = Option("0", help="Seeds, separated by commas."),
    out: Path | None = Option(None, help="Folder for the runs and the page; by default runs/RECIPE."),
    jobs: int = Option(0, min=0, show_default=False, help="Runs at a time, which share the cores; 0: one per core."),
) -> None:
    """Train several methods from the same start under the same budget, and show them on one page.

    Every run is a process of its own. A run that fails is reported, and the others go on; the page shows those that
    finished. After a crash, a failure or Ctrl-C, the same command continues where each run stopped.

    **Examples**

    - `progrpo compare countdown_cpu`
    - `progrpo compare countdown_cpu --methods grpo,progrpo,progrpo_correct --seeds 0,1,2 training.steps=100`
    """
    from progrpo.recipes.schema import load_recipe
    from progrpo.runs.folder import RunFolder

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
        if run.folder.recipe_file.exists() and run.folder.recipe() != run.recipe:
            raise ConfigError(f"{run.name!r} holds a run with other settings; remove it, or choose another --out.")
    if not jobs:
        import torch

        # On a CPU, small models gain more from a run on each core than from threads.
        jobs = 1 if torch.cuda.is_available() else max(1, min(len(runs), os.cpu_count() or 1))
    failures = _run_all(runs, jobs)
    finished = [run.folder for run in runs if run.name not in failures]
    if finished:
        from progrpo.pages import summary_text, write_page

        print(summary_text(finished))
        print(write_page(finished, root / "report.html"))
    if failures:
        page = "the page shows the others" if finished else "there is nothing to show"
        raise RunError(
            f"{len(failures)} of {len(runs)} runs failed ({', '.join(failures)}), and {page}; the same command goes "
            "on with what is missing."
        )


@dataclass
class _Run:
    """A run in a process of its own, watched through its run folder."""

    recipe: "Recipe"
    folder: "RunFolder"
    bytes_read: int = 0
    """How much of metrics.jsonl was read."""
    step: int = 0
    """The step of the last record that was read."""
    earlier_log: int = 0
    """The bytes of the log that earlier attempts wrote."""

    def __post_init__(self) -> None:
        self.name = str(self.folder.path)
        self.log = self.folder.path / "train.log"

    def start(self, bars: "Bars", threads: int) -> None:
        """Begin, or go on from the newest good checkpoint."""
        with self.folder.locked():
            self.step = self.folder.rewind()
        self.bytes_read = self.folder.metrics_file.stat().st_size if self.step else 0
        self.bar: Bar = bars.bar(f"{self.recipe.method} seed {self.recipe.seed} ")
        self.bar.stage("train", self.recipe.training.steps, self.step)
        if not self.folder.recipe_file.exists():
            write_json(self.folder.recipe_file, self.recipe.model_dump())
        command = [sys.executable, "-m", "progrpo", "train", "--resume", self.name]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with self.log.open("ab") as log:
            self.earlier_log = log.tell()
            # A session of its own: Ctrl-C reaches this process alone, which then asks its runs to stop.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def watch(self) -> int | None:
        """Move the bar on, and return the exit code once the run has ended."""
        code = self.process.poll()
        for record in self.new_records():
            new, self.step = record["step"] - self.step, record["step"]  # verl records rollouts of several steps
            # A step that uses an earlier step's responses has no reward of its own.
            self.bar.advance(new, **{name: record[name] for name in ("reward", "entropy") if name in record})
            if self.step == self.recipe.training.steps:
                self.bar.stage("evaluate", 1)
        if code == 0:
            self.bar.advance(1)
        return code

    def new_records(self) -> list[dict[str, Any]]:
        """The metrics written since the last call."""
        if not self.folder.metrics_file.exists():
            return []
        with self.folder.metrics_file.open("rb") as file:
            file.seek(self.bytes_read)
            lines = file.read().split(b"\n")[:-1]
        self.bytes_read += sum(len(line) + 1 for line in lines)
        return [json.loads(line) for line in lines]

    def failure(self, code: int) -> str:
        """The signal that ended a run, or the last line that it printed, and the path of its log."""
        if code < 0:
            memory = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
            return f"it was ended by {signal.Signals(-code).name}{memory} (its log is {self.log})"
        output = self.log.read_bytes()[self.earlier_log :].decode(errors="replace").strip()
        return f"{output.split(chr(10))[-1] or f'exit code {code}'} (the whole log is {self.log})"


def _run_all(runs: list[_Run], jobs: int) -> dict[str, str]:
    """Run all of them, ``jobs`` at a time, each with a bar. Ctrl-C and SIGTERM stop all of them.

    Returns:
        Why runs failed, by their folders' paths.
    """
    from progrpo.cli.progress import Bars

    threads = max(1, (os.cpu_count() or 1) // jobs)
    waiting = [run for run in runs if not run.folder.is_finished()]
    running: list[_Run] = []
    failures: dict[str, str] = {}

    def fail(run: _Run, reason: str) -> None:
        failures[run.name] = reason
        bars.console.print(f"run {run.name!r} failed: {reason}", markup=False, soft_wrap=True)

    with Bars() as bars, stopping(signal.default_int_handler):
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    try:
                        run.start(bars, threads)
                    except (ConfigError, OSError) as error:  # a folder that is damaged, or can't be written
                        fail(run, str(error))
                    else:
                        running.append(run)
                time.sleep(POLL_SECONDS)
                for run in list(running):
                    code = run.watch()
                    if code is not None:
                        running.remove(run)
                    if code:
                        fail(run, run.failure(code))
        finally:
            # The runs that still go on leave a checkpoint.
            for run in running:
                run.process.terminate()
            for run in running:
                run.process.wait()
            if running:
                print("Every run has left a checkpoint; the same command continues them.", file=sys.stderr)
    return failures


def _split(text: str, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or len(set(parts)) != len(parts):
        raise ConfigError(f"{option} must be different names separated by commas, got {text!r}.")
    return parts
