"""``progrpo report``"""

from pathlib import Path
from typing import Annotated

import typer

from progrpo.run_folder import RunFolder


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page; by default report.html in the first.")
    ] = None,
) -> None:
    """Write one self-contained page that shows one run, or compares several.

    **Examples**

    `progrpo report runs/countdown_cpu-grpo-seed0`

    `progrpo report runs/*-seed0 --out comparison.html`
    """
    from progrpo.report import summary_text, write_page

    folders = [RunFolder(path) for path in runs]
    for folder in folders:
        folder.recipe()  # a folder that is not a run is named before any work
    print(summary_text(folders))
    print(write_page(folders, out or folders[0].report))
