"""``progrpo report``"""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of progrpo evaluate.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page; by default report.html in the first.")
    ] = None,
) -> None:
    """Write one self-contained page that shows one run or evaluation, or compares several.

    **Examples**

    `progrpo report runs/countdown_cpu-grpo-seed0`

    `progrpo report runs/*-seed0 --out comparison.html`

    `progrpo report evaluations/*`
    """
    from progrpo.report import summary_text, write_page

    print(summary_text(runs))  # a folder that is neither is named before any work
    print(write_page(runs, out or runs[0] / "report.html"))
