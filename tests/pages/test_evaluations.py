"""Pages of evaluations: a table of benchmarks and models."""

import json
from pathlib import Path

import pytest
from tests.pages.browser import open_page, severe, wait_for
from tests.pages.runs import HOSTILE, make_evaluation, make_samples

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_json
from progrpo.evaluation.results import Evaluation
from progrpo.pages import summary_text, write_page
from progrpo.pages.collect import collect_models
from progrpo.pages.page import assemble_models


@pytest.fixture
def make_model(tmp_path: Path):
    def make(folder: str, model: str, benchmarks: dict[str, list[int]], *, samples: bool = True, n: int = 8) -> Path:
        into = tmp_path / folder
        for name, correct in benchmarks.items():
            counted = make_evaluation(correct, n=n)
            settings = counted.settings | {"model": model, "name": name, "temperature": 1.0, "max_new_tokens": 64}
            write_json(into / f"{name}.json", Evaluation(settings, counted.problems).to_json())
            if samples:
                make_samples(into / f"{name}-samples", counted, text=HOSTILE)
        return into

    return make


def test_benchmarks_by_models(make_model):
    a = make_model("a", "base", {"aime": [0, 1, 2, 0], "maths": [1, 1, 1]})
    b = make_model("b", "tuned", {"aime": [4, 4, 8, 1], "maths": [1, 1, 1]})
    benchmarks = collect_models([a, b])
    view = assemble_models(benchmarks)
    assert view["title"] == "base and tuned on aime and maths"
    assert [row["title"] for row in view["table"]["benchmarks"][0]["rows"]] == ["base", "tuned"]
    assert view["table"]["measures"][:3] == ["avg", "pass@4", "pass@8"]
    assert view["sentences"][0].startswith("aime: Against base, tuned has a higher pass@1 (+0.437 [")
    assert view["sentences"][1].startswith("maths: There is no clear difference between tuned and base")
    assert summary_text([a, b]).split("\n") == view["sentences"]


def test_the_page_says_what_makes_evaluations_hard_to_compare(make_model):
    a = make_model("a", "base", {"aime": [0, 1], "maths": [1, 1, 1]})
    b = make_model("b", "tuned", {"aime": [4, 4, 8]}, n=16, samples=False)
    notes = " ".join(assemble_models(collect_models([a, b]))["missing"])
    assert "aime: sampled with different samples (base 8, tuned 16); distinct solutions and coverage can't be" in notes
    assert "aime: not on the same problems; differences are over the problems that they share." in notes
    assert "aime: the samples of tuned are not kept" in notes
    assert "maths: not evaluated for tuned." in notes


def test_the_page_says_how_many_problems_a_measure_at_k_is_over(make_model, tmp_path):
    """One problem of the second model lost 5 of 8 samples to the verifier, another one all of them."""
    a, b = (make_model(name, name, {"aime": [0, 1, 2, 4, 5, 6]}) for name in ("base", "tuned"))
    record = json.loads((b / "aime.json").read_text())
    record["problems"][0] |= {"samples": 3, "correct": 0, "errors": 5}
    record["problems"][1] |= {"samples": 0, "correct": 0, "errors": 8}
    write_json(b / "aime.json", Evaluation.from_json(record).to_json())
    view = assemble_models(collect_models([a, b]))
    row = view["table"]["benchmarks"][0]["rows"][1]
    over = {cell["measure"]: (cell["over"], cell["exact"][-1]) for cell in row["cells"]}
    assert over["avg"] == ("", 5)
    assert over["pass@4"] == over["pass@8"] == ("4 of 5 problems", 4)
    notes = " ".join(view["missing"])
    assert "the verifier failed on 13 samples; they are left out. Measures at k are over 4 of 5 problems from" in notes
    lost = record["problems"][1]["problem_id"]
    assert f"tuned: 1 problem has no judged sample and no part in any mean: {lost}." in notes
    assert ", on 4 of 5 problems" in view["sentences"][0]
    assert view["boards"][0]["fewer"] == ["tuned: 4 of 5 problems from k = 4"]
    curve = next(t for t in view["figures"]["pass-at-k"]["data"] if t.get("name") == "tuned")
    assert curve["x"] == list(range(1, 9))
    assert curve["text"][2:4] == [" (5 problems)", " (4 problems)"]
    results = view["tables"]["results"]
    assert dict(zip(results["header"], results["rows"][1], strict=True))["pass@8 problems"] == 4
    page = write_page([a, b], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "the curve at larger k is over the others (tuned: 4 of 5 problems from k = 4)" in page
    assert '<span class="interval">4 of 5 problems</span>' in page


def test_folders_tell_two_evaluations_of_one_model_apart(make_model):
    benchmarks = collect_models([make_model("cold", "m", {"aime": [1]}), make_model("hot", "m", {"aime": [1]})])
    assert [model.title for model in benchmarks["aime"]] == ["m (cold)", "m (hot)"]


def test_runs_and_evaluations_are_not_mixed(make_model, make_run, tmp_path):
    with pytest.raises(ConfigError, match="a page can't show both"):
        write_page([make_run("grpo"), make_model("a", "m", {"aime": [1]})], tmp_path / "r.html")


def test_the_picker_changes_every_part(browser, make_model, tmp_path):
    a = make_model("a", "<b>base</b>", {"aime": [0, 1, 2, 0], "maths": [8, 8, 1]})
    b = make_model("b", "tuned", {"aime": [4, 4, 8, 0], "maths": [1, 1, 1]})
    js = open_page(browser, write_page([a, b], tmp_path / "r.html"))
    shown = "return [...document.querySelectorAll('[data-figure]')].filter(d => d.offsetParent).map(d => d.id)"
    first = js(shown)
    filters = "return [...document.querySelectorAll('[data-key=filter]')].map(b => b.textContent)"
    assert js(filters)[2] == "By tuned only (1)"
    js("const s = document.getElementById('board'); s.value = '1'; s.dispatchEvent(new Event('change'))")
    assert js(filters)[2] == "By tuned only (0)"
    second = js(shown)
    assert not set(first) & set(second)
    wait_for(lambda: js("return document.querySelectorAll('[data-board=\"1\"] .main-svg').length") >= len(second))
    heads = "return [...document.querySelectorAll('#responses .column .caption')].map(p => p.textContent)"
    wait_for(lambda: js(heads) == ["8 of 8 right, 2 different solutions", "1 of 8 right, 1 different solution"])
    assert js("return document.querySelectorAll('main b').length") == 0
    assert severe(browser) == []


def test_files_that_are_not_evaluations_are_ignored(make_model, tmp_path):
    folder = make_model("a", "m", {"aime": [1]})
    (folder / "notes.json").write_text(json.dumps({"settings": {}}), encoding="utf-8")
    assert list(collect_models([folder])) == ["aime"]
    with pytest.raises(ConfigError, match="should be an --out of progrpo evaluate"):
        collect_models([tmp_path])
