"""Progress bars: step, reward, entropy, time left. Without a terminal, a plain line is printed now and then."""

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_SECONDS = 30.0
"""Seconds between two lines where there is no terminal to draw a bar on."""
SPEED_SECONDS = 3600.0
"""The time left is estimated from what was done in the last hour: a step may take minutes."""


class Bars(Progress):
    """A context manager with one bar for each thing that goes on at the same time."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            speed_estimate_period=SPEED_SECONDS,
            disable=not console.is_terminal,
        )

    def bar(self, label: str) -> "Bar":
        """A new bar, named ``label``."""
        return Bar(self, label)


class Bar:
    """One bar; it is a :class:`progrpo.common.progress.Progress`."""

    def __init__(self, bars: Bars, label: str) -> None:
        self._bars, self._label = bars, label
        self._task = bars.add_task(label, total=None, values="")
        self._line_at = 0.0

    def stage(self, name: str, total: int, completed: int = 0) -> None:
        """Begin a stage, such as ``train``, of which ``completed`` of ``total`` are done."""
        self._line_at = 0.0
        self._bars.reset(self._task, description=f"{self._label}{name}", total=total, completed=completed, values="")

    def advance(self, amount: int = 1, **values: float) -> None:
        """Move on by ``amount``; ``values`` are the newest metrics."""
        text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self._bars.advance(self._task, amount)
        if text:
            self._bars.update(self._task, values=text)
        task, now = self._bars.tasks[self._task], time.monotonic()
        if not self._bars.console.is_terminal and (now - self._line_at > LINE_SECONDS or task.finished):
            self._line_at = now
            left = "" if task.time_remaining is None else f"  left {timedelta(seconds=round(task.time_remaining))}"
            self._bars.console.print(f"{task.description} {task.completed:.0f}/{task.total or 0:.0f}  {text}{left}")
