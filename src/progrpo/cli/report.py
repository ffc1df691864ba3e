"""``progrpo report``"""

import sys
from pathlib import Path

from typer import Argument, Option

from progrpo.common.errors import ConfigError
from progrpo.common.files import check_page


def report(
    runs: list[Path] = Argument(metavar="FOLDER...", help="Runs, folders of runs, or folders of progrpo evaluate."),
    out: Path | None = Option(
        None,
        help="The file to write. By default report.html in the folder of one run or evaluation; of several, "
        "comparison.html in the folder that holds them all, or else here.",
    ),
) -> None:
    """Write one self-contained page that shows one run or evaluation, or compares several.

    **Examples**

    - `progrpo report runs/countdown_cpu-progrpo-seed0`
    - `progrpo report runs/demo`
    - `progrpo report runs/*-seed0 --out comparison.html`
    - `progrpo report evaluations/*`
    """
    from progrpo.pages import summary_text, write_page

    folders = _folders(runs)
    if len(folders) == 1:
        page = out or folders[0] / "report.html"
    else:  # a page of several folders must not replace a run's page or that of compare
        parents = {folder.resolve().parent for folder in folders}
        page = out or (folders[0].parent if len(parents) == 1 else Path()) / "comparison.html"
    check_page(page)
    print(summary_text(folders))
    print(write_page(folders, page))


def _folders(paths: list[Path]) -> list[Path]:
    """The runs and evaluations at the paths, each once; a folder of runs stands for those in it.

    Other paths are named and left out, so that ``runs/*`` may have other things in it.

    Raises:
        ConfigError: a path does not exist, or no path has a run or an evaluation.
    """
    from progrpo.pages.collect import is_evaluation_folder

    def is_shown(path: Path) -> bool:
        return (path / "recipe.json").exists() or is_evaluation_folder(path)

    shown: dict[Path, Path] = {}
    others: list[str] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{str(path)!r} is not a run folder: it does not exist.")
        inside = [path] if is_shown(path) else sorted(filter(is_shown, path.iterdir())) if path.is_dir() else []
        for folder in inside:
            shown.setdefault(folder.resolve(), folder)
        if not inside:
            others.append(repr(str(path)))
    if not shown:
        raise ConfigError(
            f"{', '.join(others)} is not a run folder: it has no recipe.json, no run and no evaluation in it."
        )
    if others:
        print(f"progrpo: left out, because they are neither runs nor evaluations: {', '.join(others)}", file=sys.stderr)
    return list(shown.values())
