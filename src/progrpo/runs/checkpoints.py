"""Checkpoints that are known to be whole: sealed with a digest of every file, which is verified before they are used.

A sealed checkpoint has a file ``digests.json``::

    {"algorithm": "sha256", "files": {"model.safetensors": {"bytes": 3243688, "digest": "9f86d081884c7d65..."}, ...}}

It reveals damage by disks, copies and full file systems. It is not a signature: whoever can write the folder can seal
it again.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.common.files import sync, temporary_name, write_json

MANIFEST = "digests.json"
ALGORITHM = "sha256"
EVERYTHING = ("*",)
MODEL_PARTS = ("*config.json", "tokenizer*", "chat_template*", "model*", "adapter*")
"""The files that a model is loaded from; the others are for continuing the training."""


def publish(written: Path, folder: Path, keep: int) -> Path:
    """Seal the checkpoint ``written``, move it into ``folder``, which is on the same file system, and return its path.

    The newest ``keep`` checkpoints stay there; with 1 there is no older one to fall back to.
    """
    seal(written)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / written.name
    _remove(target)  # it exists if a step is saved twice
    written.rename(target)
    sync(folder)
    for old in in_folder(folder)[keep:]:
        _remove(old)
    return target


def seal(checkpoint: Path) -> None:
    """Write ``digests.json``, and wait until the whole checkpoint is on the disk."""
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {
        path.relative_to(checkpoint).as_posix(): {"bytes": path.stat().st_size, "digest": digest}
        for path, digest in zip(paths, _digests(paths), strict=True)
    }
    for path in paths:
        sync(path)
    write_json(checkpoint / MANIFEST, {"algorithm": ALGORITHM, "files": files})
    for path in (*checkpoint.rglob("*"), checkpoint):
        if path.is_dir():
            sync(path)


def fault(checkpoint: Path, parts: Sequence[str] = EVERYTHING) -> str | None:
    """What is wrong with a checkpoint; None if it is as it was when it was sealed.

    ``parts`` are patterns of the files that matter; the others are not read.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        sealed: dict[str, Any] = {name: (file["bytes"], file["digest"]) for name, file in manifest["files"].items()}
        algorithm = manifest["algorithm"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}: progrpo 0.1 wrote it, or it is not whole"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"its {MANIFEST} is damaged"
    if algorithm != ALGORITHM:
        return f"its {MANIFEST} names {algorithm!r}, but only {ALGORITHM} is known"
    names = [name for name in sealed if any(fnmatchcase(name, part) for part in parts)]
    for name in names:
        path, size = checkpoint / name, sealed[name][0]
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, but {size:,} were written"
    try:
        digests = _digests([checkpoint / name for name in names])
    except OSError as error:
        return f"{error.filename or 'a file'} can't be read ({error.strerror})"
    changed = [name for name, digest in zip(names, digests, strict=True) if digest != sealed[name][1]]
    return f"{changed[0]} has changed, as its {ALGORITHM} shows" if changed else None


def check_model(path: str) -> None:
    """Raise a ConfigError if a model's folder is a sealed checkpoint and is damaged; all other models pass."""
    if (Path(path) / MANIFEST).exists() and (reason := fault(Path(path), MODEL_PARTS)):
        raise ConfigError(f"checkpoint {path!r} is damaged: {reason}; take another one, or a copy of it.")


def in_folder(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first, without copies under other names."""
    paths = (path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name))
    return sorted(filter(Path.is_dir, paths), key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name: 50 in ``checkpoint-50``."""
    return int(checkpoint.name.split("-")[-1])


def set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint that can't be used, so that its name is free."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    _remove(aside)
    return checkpoint.rename(aside)


def _digests(paths: Sequence[Path]) -> list[str]:
    """The digests of files; threads help, as hashing releases the interpreter's lock."""

    def digest(path: Path) -> str:
        with path.open("rb") as content:
            return hashlib.file_digest(content, ALGORITHM).hexdigest()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return list(threads.map(digest, paths))


def _remove(folder: Path) -> None:
    """Remove a folder after renaming it: a killed process then leaves no part of a checkpoint under its name."""
    if folder.exists():
        shutil.rmtree(folder.rename(temporary_name(folder)))
