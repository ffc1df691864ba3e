"""Progress bars: step, reward, entropy, time left. On a pipe, a plain line now and then."""

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Between two lines where there is no terminal to draw a bar on.
LINE_SECONDS = 30.0


class Bars:
    """One bar for each thing that goes on at the same time; a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def bar(self, label: str) -> "Bar":
        """A new bar, named ``label``."""
        return Bar(self, label)


class Bar:
    """One bar; it is a :class:`progrpo.common.progress.Progress`."""

    def __init__(self, bars: Bars, label: str) -> None:
        self._bars, self._label = bars, label
        self._task: TaskID = bars._bars.add_task(label, total=None, values="")
        self._total = self._done = 0
        self._name = ""
        self._line_at = self._started = time.monotonic()
        self._start_done = 0

    def stage(self, name: str, total: int, completed: int = 0) -> None:
        self._name, self._total, self._done, self._start_done = name, total, completed, completed
        self._started = time.monotonic()
        self._line_at = 0.0
        self._bars._bars.reset(
            self._task, description=f"{self._label}{name}", total=total, completed=completed, values=""
        )

    def advance(self, amount: int = 1, **values: float) -> None:
        self._done += amount
        text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self._bars._bars.advance(self._task, amount)
        if text:
            self._bars._bars.update(self._task, values=text)
        now = time.monotonic()
        if not self._bars.console.is_terminal and (now - self._line_at > LINE_SECONDS or self._done >= self._total):
            self._line_at = now
            rate = (now - self._started) / max(self._done - self._start_done, 1)
            left = timedelta(seconds=round(rate * (self._total - self._done)))
            self._bars.console.print(f"{self._label}{self._name} {self._done}/{self._total}  {text}  left {left}")
