"""The files of verifiers and prime-rl: results of older releases, episodes of newer ones, and their folders."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from tests.inspection.rollouts import verifiers_episode, verifiers_results, verifiers_trace, write_jsonl

from progrpo.common.errors import ConfigError
from progrpo.inspection import Options, inspect
from progrpo.pages.inspection import assemble


def traces(step, problems=3, n=4, **more):
    """At step s, the first s responses of each group are right."""
    return [
        verifiers_trace(problem, i < step, f"It is {problem + 11 + i}, at step {step}.", **more)
        for problem in range(problems)
        for i in range(n)
    ]


def test_results_of_an_evaluation_by_verifiers(tmp_path):
    run = tmp_path / "outputs" / "evals" / "gsm8k--Qwen2.5-0.5B" / "1f2e3d4c"
    run.mkdir(parents=True)
    write_jsonl(run / "results.jsonl", verifiers_results())
    (run / "metadata.json").write_text(json.dumps({"env_id": "gsm8k", "rollouts_per_example": 4}))
    for folder in (run, run.parent, tmp_path / "outputs" / "evals"):
        inspection = inspect([folder], Options())
        assert inspection.source.title == "results of verifiers"
        assert np.bincount(inspection.table.groups_B).tolist() == [4, 4, 4]
        assert inspection.collapse.overall["reward"] == 0.5
        assert inspection.collapse.overall["distinct_answers"] == 2  # the right answer does not tell responses apart
    other = run.with_name("9a8b7c6d")
    other.mkdir()
    write_jsonl(other / "results.jsonl", verifiers_results())
    with pytest.raises(ConfigError, match=r"holds 2 runs \('.*1f2e3d4c', '.*9a8b7c6d'\); give one of them"):
        inspect([run.parent], Options())


def test_episodes_of_an_evaluation_by_verifiers(tmp_path):
    """The episodes hold no tokens, as with a server of chat messages."""
    episodes = [verifiers_episode(trace) for trace in traces(1, tokens=False)]
    failed = {name: value for name, value in episodes[0].items() if name != "traces"} | {"ok": False, "traces": []}
    write_jsonl(tmp_path / "traces.jsonl", [*episodes, failed])
    inspection = inspect([tmp_path], Options())
    assert inspection.source.title == "episodes of verifiers"
    assert np.bincount(inspection.table.groups_B).tolist() == [4, 4, 4]
    # The weighted sum; functions without a score are left out.
    assert np.unique(inspection.table.rewards_B).tolist() == [0.2, 1.2]
    assert any("Every response counts as right" in note for note in inspection.notes)
    assert any("Episodes that failed before a response was sampled are left out" in note for note in inspection.notes)
    right = inspect([tmp_path], Options(correct_reward="rewards.right"))
    assert right.collapse.overall["pass@1"] == 0.25
    shown = assemble(inspection)["reader"][0]["steps"][0]["groups"][0]
    assert shown["prompt"] == "user: What is 0 + 11?"


def check_training(inspection, steps):
    """Check three groups of four at each step; each step has one more right response in a group."""
    assert inspection.collapse.steps.tolist() == steps
    assert np.bincount(inspection.table.groups_B).tolist() == [4, 4, 4] * len(steps)
    np.testing.assert_allclose(inspection.collapse.by_step["reward"], [0.2 + step / 4 for step in steps])
    assert inspection.table.lengths_B.tolist() == [2] * inspection.table.size
    lowest = [-0.5 if reward > 1 else -1.5 for reward in inspection.table.rewards_B]
    np.testing.assert_allclose(inspection.table.c_o_B(0.2), np.exp(lowest), rtol=1e-6)
    assert inspection.what_if is not None


@pytest.mark.parametrize(
    "name",
    ["train_rollouts.jsonl", "train/all/traces.jsonl", "train/all/traces.jsonl.gz", "train/effective/traces.jsonl"],
)
def test_prime_rl_with_a_folder_per_step(name, tmp_path):
    """The folders name steps 2 and 10; the evaluations beside them are left out."""
    for step in (10, 2):
        folder = tmp_path / "run" / "rollouts" / f"step_{step}"
        path = folder / name
        path.parent.mkdir(parents=True)
        (folder / "eval" / "all").mkdir(parents=True)
        write_jsonl(folder / "eval_rollouts.jsonl", traces(3))
        write_jsonl(folder / "eval" / "all" / "traces.jsonl", traces(3))
        content = "".join(json.dumps(trace) + "\n" for trace in traces(2 if step == 2 else 3)).encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for folder in (tmp_path, tmp_path / "run", tmp_path / "run" / "rollouts"):
        inspection = inspect([folder], Options())
        assert inspection.collapse.steps.tolist() == [2, 10]
        np.testing.assert_allclose(inspection.collapse.by_step["reward"], [0.7, 0.95])
        assert inspection.table.n_groups == 6
        assert any(
            "The steps are those in the names of the files or of their folders" in note for note in inspection.notes
        )
    last = inspect([tmp_path / "run" / "rollouts" / "step_10"], Options())
    assert last.collapse.steps.tolist() == [10]


def test_prime_rl_rows_of_older_releases(tmp_path):
    for step in range(3):
        folder = tmp_path / "rollouts" / f"step_{step}"
        folder.mkdir(parents=True)
        write_jsonl(folder / "train_rollouts.jsonl", verifiers_results())
    inspection = inspect([tmp_path], Options())
    assert inspection.source.title == "results of verifiers"
    assert inspection.collapse.steps.tolist() == [0, 1, 2]
    assert inspection.table.n_groups == 9


def test_prime_rl_with_a_stream_of_episodes(tmp_path):
    """Newer releases pack finished chunks, and write the step into the episode."""
    stream = tmp_path / "monitors" / "file" / "traces" / "stream"
    stream.mkdir(parents=True)
    first = "".join(json.dumps(verifiers_episode(trace, step=1)) + "\n" for trace in traces(1)).encode()
    (stream / "00000.jsonl.zst").write_bytes(pa.compress(first, "zstd", asbytes=True))
    evaluated = [verifiers_episode(trace, step=2, work="eval") for trace in traces(4)]
    write_jsonl(stream / "00001.jsonl", [*evaluated, *(verifiers_episode(trace, step=2) for trace in traces(2))])
    (stream.parent / "stream.index.jsonl").write_text('{"id": "episode-0001", "reward": 1.0}\n')
    inspection = inspect([tmp_path], Options())
    check_training(inspection, [1, 2])
    assert "Evaluations during training are left out." in inspection.notes


def test_episodes_with_turns_tools_and_branches(tmp_path):
    trace = verifiers_trace(0, True, "I call.", turns=2)
    rewritten = {
        "message": {"role": "user", "content": "A branch that was given up."},
        "sampled": False,
        "parent": None,
    }
    trace["nodes"].insert(0, rewritten)
    for node in trace["nodes"][2:]:
        node["parent"] += 1
    judge = verifiers_trace(0, False, "Wrong!")
    judge["agent"] = {"name": "judge", "trainable": False}
    episode = verifiers_episode(trace, step=1)
    episode["traces"].append(judge)
    inspection = inspect([write_jsonl(tmp_path / "traces.jsonl", [episode])], Options())
    assert inspection.table.size == 1
    assert inspection.table.lengths_B.tolist() == [4]  # of two turns, without the tool's
    group = assemble(inspection)["reader"][0]["steps"][0]["groups"][0]
    text = "".join(token[0] for token in group["responses"][0]["tokens"])
    assert text == "assistant: I call.\ntool: 7\nassistant: I call."
    assert group["prompt"] == "user: What is 0 + 11?"
    assert "Responses of agents that are not trained are left out." in inspection.notes


def test_a_record_that_only_looks_like_an_episode_is_refused(tmp_path):
    bad = verifiers_episode(verifiers_trace(0, True, "2"), step=1)
    bad["traces"][0]["rewards"]["right"] = 1.0
    good = verifiers_episode(verifiers_trace(0, True, "2"), step=1)
    with pytest.raises(ConfigError, match=r"row 2: this looks like an episode of verifiers, but is not"):
        inspect([write_jsonl(tmp_path / "traces.jsonl", [good, bad])], Options())


def test_files_that_verifiers_writes(tmp_path):
    """Where verifiers is installed, its classes make the records and its writer writes traces.jsonl."""
    vf = pytest.importorskip("verifiers.v1", reason="verifiers is not installed")
    from verifiers.v1.utils.trace_store import write_episode

    for trace in (*traces(2), *traces(1)):
        record = vf.WireTrace.model_validate(trace | {"agent": wire_agent()})
        episode = vf.WireEpisode(task=record.task, traces=[record], ok=True)
        write_episode(tmp_path, episode)
    inspection = inspect([tmp_path], Options())
    assert inspection.source.title == "episodes of verifiers"
    assert np.bincount(inspection.table.groups_B).tolist() == [8, 8, 8]
    np.testing.assert_allclose(inspection.collapse.overall["reward"], 0.2 + 3 / 8)
    assert inspection.table.lengths_B.tolist() == [2] * 24
    assert np.isfinite(inspection.table.c_o_B(0.2)).all()


def wire_agent():
    return {"name": "agent", "trainable": True, "config": {"model": "m", "harness": {"id": "default"}}}
