"""The rollout files of a path: it may be a folder of TRL, verl, prime-rl, verifiers or progrpo."""

import re
from collections.abc import Sequence
from pathlib import Path

from progrpo.common.errors import ConfigError

PACKED = (".gz", ".zst")
FOLDERS = ("rollouts", "completions", "monitors/file/traces/stream", "traces/stream", ".")
"""A run keeps its rollouts in one of these: progrpo and older prime-rl, TRL, newer prime-rl, else the folder itself."""
STEP_FILES = ("train_rollouts.jsonl", "train/all/traces.jsonl", "train/effective/traces.jsonl")
"""The files of prime-rl in a folder ``step_N``. ``effective`` lacks the groups that teach nothing, so it comes last."""
FILES = (*STEP_FILES, "*.parquet", "*.jsonl", "*.csv", "*.tsv")
PATTERNS = tuple(f"{folder}{file}" for folder in ("step_[0-9]*/", "") for file in FILES)
RESULTS = ("results.jsonl", "traces.jsonl")
"""The files of an evaluation by verifiers."""
OTHER_FILES = ("metrics.jsonl", "eval_rollouts.jsonl", "train_group_stats.jsonl")
"""These lie beside rollouts, but hold none."""
_STEP = re.compile(r"(?:^|[_-])(?:step|iteration)[_-]?(\d+)")
_PARENTS = 3


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The rollout files that the paths stand for; those of a folder are in the order of the numbers in their names.

    A folder is a run folder of progrpo or prime-rl, an output folder of TRL, or an evaluation of verifiers, or it holds
    parquet, JSON-lines or CSV files itself. The evaluations in prime-rl's folders are left out.

    Raises:
        ConfigError: a path does not exist, holds no file that can be read, or holds several runs.
    """
    return [file for path in paths for file in _files_of(path)]


def step_in_name(path: Path) -> int | None:
    """The step in the name of a file, or of one of the folders that it lies in.

    >>> step_in_name(Path("outputs/rollouts/step_12/train_rollouts.jsonl")), step_in_name(Path("rollouts.jsonl"))
    (12, None)
    """
    parents = [parent.name for parent in list(path.absolute().parents)[:_PARENTS]]
    steps = (_STEP.search(name) for name in (path.name, *parents))
    return next((int(step[1]) for step in steps if step), None)


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(
            f"{str(path)!r} does not exist; give a parquet, JSON-lines or CSV file of rollouts, or a folder."
        )
    if files := _in_folder(path):
        return files
    # `outputs` of prime-rl holds a folder for each run; `outputs/evals` of verifiers one for each model, with its runs.
    runs = [run for depth in ("*", "*/*") for run in sorted(path.glob(depth)) if run.is_dir() and _is_run(run)]
    if len(runs) > 1:
        shown = ", ".join(repr(str(run)) for run in runs[:5])
        more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
        raise ConfigError(f"folder {str(path)!r} holds {len(runs)} runs ({shown}{more}); give one of them.")
    if runs:
        return _in_folder(runs[0])
    raise ConfigError(
        f"folder {str(path)!r} holds no rollouts: no .parquet, .jsonl or .csv file in it, nor in rollouts/ (a run of "
        "progrpo or prime-rl), completions/ (TRL with log_completions=True) or monitors/file/traces/stream/ "
        "(prime-rl)."
    )


def _in_folder(path: Path) -> list[Path]:
    return next((files for name in FOLDERS if (files := _matching(path / name, PATTERNS))), [])


def _is_run(folder: Path) -> bool:
    """Whether a folder inside the one that was named is a run or an evaluation."""
    return bool(_matching(folder, RESULTS)) or any(_matching(folder / name, PATTERNS) for name in FOLDERS[:-1])


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of the first pattern that matches any; a file that is also there compressed counts once."""
    for pattern in patterns:
        by_name: dict[str, Path] = {}
        for file in (file for suffix in ("", *PACKED) for file in folder.glob(pattern + suffix)):
            if file.is_file() and not file.name.startswith((".", *OTHER_FILES)):
                by_name.setdefault(str(file).removesuffix(".gz").removesuffix(".zst"), file)
        if by_name:
            return sorted(by_name.values(), key=_natural)
    return []


def _natural(file: Path) -> list[tuple[int, str]]:
    """A key that sorts ``9.jsonl`` before ``10.jsonl``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(file))]
