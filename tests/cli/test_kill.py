"""SIGKILL at random moments of every phase: the run always resumes, ends with the same result, and scores nothing
twice."""

import random
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from tests.cli.forked import PHASES, Run, Server
from tests.cli.test_runs import metrics

from progrpo.evaluation.store import read_samples

KILLS_A_PHASE = 4
"""At least 24 kills in six phases, one after the other."""
RECIPE = [
    *("training.steps=8", "training.prompts_per_step=4", "training.group_size=8", "training.checkpoint_every=2"),
    *("task.numbers=3", "task.train_size=64", "task.heldout_size=8", "evaluation.samples=16", "evaluation.every=3"),
    *("evaluation.samples_in_training=16", "evaluation.problems_in_training=4", "evaluation.batch=16"),
]


def stored(run: Path) -> set[tuple[Any, ...]]:
    """The content of a run on disk: responses with a verdict, and samples of evaluations."""
    found: set[tuple[Any, ...]] = set()
    for path in (run / "rollouts").glob("*step-*"):
        if not path.name.endswith(".tmp"):
            rows = pd.read_parquet(path)
            found |= set(zip(rows["step"], rows["problem_id"], rows["text"], strict=True))
    for folder in (run / "evaluations").glob("*-samples"):
        rows = read_samples(folder, ("prompt", "index"))
        found |= {(folder.name, prompt, index) for prompt, index in zip(rows["prompt"], rows["index"], strict=True)}
    return found


def done(run: Run) -> list[tuple[Any, ...]]:
    """The samples that a process verified or generated."""
    return [tuple(record.values()) for record in run.log()]


def seconds_of_phases(server: Server) -> dict[str, float]:
    """How long each phase takes, from a run that is watched and not killed."""
    run = server.start("train", "countdown_cpu", *RECIPE, "--out", "watched")
    begun: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}
    seen = 0
    while not run.has_ended() or seen < len(run.marks()):
        for mark in run.marks()[seen:]:
            seen += 1
            what, _, phase = mark.partition(" ")
            if what == "begin":
                begun[phase] = time.monotonic()
            else:
                seconds.setdefault(phase, []).append(time.monotonic() - begun[phase])
        time.sleep(0.002)
    assert run.wait() == 0, run.err
    assert len(done(run)) == len(set(done(run)))
    return {phase: median(times) for phase, times in seconds.items()} | {"resume": 0.02}


def kill_in(server: Server, phase: str, name: str, wait: float, chance: random.Random) -> Run | None:
    """Start or resume a run, and kill it somewhere in a phase; None if it finished."""
    begun = f"begin {phase}"
    run_folder = server.folder / name
    is_there = (run_folder / "recipe.json").exists()
    run = server.start("train", *(["--resume", name] if is_there else ["countdown_cpu", *RECIPE, "--out", name]))
    occurrence = chance.choice((1, 1, 2)) if phase in ("rollout", "update") else 1
    if not run.wait_for(lambda: run.marks().count(begun) >= occurrence):
        assert run.wait() == 0, run.err
        return None
    time.sleep(chance.uniform(0.0, wait))
    run.kill()
    return run if run.wait() else None


def assert_same(run: Path, undisturbed: Path) -> None:
    assert metrics(run) == metrics(undisturbed)
    for path in (undisturbed / "rollouts").iterdir():
        pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(run / "rollouts" / path.name))
    for path in (undisturbed / "evaluations").glob("*.json"):
        assert (run / "evaluations" / path.name).read_text() == path.read_text()
    weights = "checkpoints/checkpoint-8/model.safetensors"
    assert (run / weights).read_bytes() == (undisturbed / weights).read_bytes()
    assert not list(run.rglob(".*.tmp"))
    assert not list(run.rglob("*.recorded"))


def test_after_a_kill_no_recorded_response_is_verified_again(forked: Server) -> None:
    recipe = [*RECIPE, "training.steps=5", "training.checkpoint_every=5", "evaluation.every=0", "evaluation.samples=2"]
    killed = forked.start("train", "countdown_cpu", *recipe, "--out", "killed")
    recorded = forked.folder / "killed" / "rollouts" / "step-000003-rank0.parquet"
    assert killed.wait_for(recorded.exists)
    killed.kill()
    killed.wait()
    before = stored(forked.folder / "killed")
    assert {step for step, _, _ in before} >= {1, 2, 3}
    resumed = forked("train", "--resume", "killed")
    verified = [one for one in done(resumed) if isinstance(one[0], int)]
    assert {step for step, _, _ in verified} <= {4, 5}, "the recorded steps came again with the same responses"
    assert not before.intersection(verified)
    assert len(verified) == len(set(verified))


def test_killed_in_every_phase_again_and_again(forked: Server) -> None:
    seconds, chance = seconds_of_phases(forked), random.Random(5)
    undisturbed = forked.folder / "watched"
    wanted = [phase for phase in PHASES if phase != "final evaluation" for _ in range(KILLS_A_PHASE)]
    chance.shuffle(wanted)
    wanted += ["final evaluation"] * KILLS_A_PHASE  # which is at the end
    hit: Counter[str] = Counter()
    number, before = 0, set[tuple[Any, ...]]()
    while wanted:
        name = f"run-{number}"
        run = kill_in(forked, wanted[0], name, seconds[wanted[0]], chance)
        if run is None:  # it has finished: start another one
            assert_same(forked.folder / name, undisturbed)
            number, before = number + 1, set()
            continue
        assert not before.intersection(done(run)), "what was stored is neither verified nor generated again"
        assert len(done(run)) == len(set(done(run)))
        before = stored(forked.folder / name)
        hit[run.phase] += 1
        if run.phase == wanted[0]:
            wanted.pop(0)
    if (forked.folder / name / "recipe.json").exists():
        last = forked("train", "--resume", name)
        assert not before.intersection(done(last))
        assert_same(forked.folder / name, undisturbed)
    print(dict(hit))
    assert all(hit[phase] >= KILLS_A_PHASE for phase in PHASES)
    assert sum(hit.values()) >= 20
