"""The README's example runs unchanged, and everything that the README names exists."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def example() -> str:
    match = re.search(r"<!-- example -->\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    return match[1]


def test_the_example_has_20_lines_and_runs(tmp_path: Path) -> None:
    code = example()
    assert len(code.strip().split("\n")) <= 20
    shortened = code.replace("max_steps=10", "max_steps=2").replace(
        '"per_device_train_batch_size": 256', '"per_device_train_batch_size": 32'
    )
    assert shortened != code
    (tmp_path / "example.py").write_text(shortened)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "confidence/answer/mean" in done.stdout


def test_every_link_leads_somewhere() -> None:
    links = [
        (page, target)
        for page in (README, *(README.parent / "docs").rglob("*.md"))
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    assert {README} < {page for page, _ in links}
    for page, target in links:
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_tree_names_what_is_there() -> None:
    tree = README.read_text(encoding="utf-8").split("## Where things are")[1].split("## Licence")[0]
    modules, folders = re.findall(r"\b([a-z_]+\.py)\b", tree), re.findall(r"^ {6}([a-z_]+)/", tree, re.MULTILINE)
    assert modules
    assert folders
    for name in modules:
        assert list((README.parent / "src").rglob(name)), name
    for name in folders:
        assert (README.parent / "src" / "progrpo" / name).is_dir(), name
