"""The results of an evaluation whose problems have different numbers of judged samples."""

import json
from dataclasses import replace

import numpy as np
import pytest

from progrpo.evaluation.at_k import pass_at_k
from progrpo.evaluation.intervals import paired_difference
from progrpo.evaluation.results import Evaluation, ProblemResult, fewer_problems
from progrpo.pages.collect import Group
from progrpo.pages.measures import estimate
from progrpo.pages.summary import compare


def result(name: str, correct: int, errors: int = 0, n: int = 64) -> ProblemResult:
    judged = n - errors
    wrong = [judged - correct] if judged > correct else []
    counts = [correct] if correct else []
    return ProblemResult(name, judged, correct, errors, len(counts), None, 0.5, 10 * n, 0, counts, wrong)


WHOLE = [result(f"p{i}", i % 60) for i in range(200)]
"""200 problems of 64 samples: 12,800."""


def evaluation(*changed: ProblemResult, settings: dict[str, object] | None = None) -> Evaluation:
    by_name = {p.problem_id: p for p in WHOLE} | {p.problem_id: p for p in changed}
    return Evaluation(settings or {"samples": 64}, list(by_name.values()))


def test_the_counts_of_problems_by_k_are_shortened() -> None:
    assert fewer_problems(range(1, 8)) == (
        "6 of 7 problems from k = 2, 5 from k = 3, 4 from k = 4, 3 from k = 5, 2 from k = 6, 1 from k = 7"
    )
    assert fewer_problems(range(1, 10)) == (
        "8 of 9 problems from k = 2, 7 from k = 3, 6 from k = 4, 5 from k = 5, 4 from k = 6, 1 from k = 9"
    )


def test_one_verifier_error_does_not_affect_the_other_problems() -> None:
    before, after = evaluation().summary(), evaluation(result("p7", 7, errors=1)).summary()
    assert [k for k in after if k.startswith("pass@")] == [f"pass@{1 << i}" for i in range(7)]
    others = [float(pass_at_k(64, p.correct, 64)) for p in WHOLE if p.problem_id != "p7"]
    assert after["pass@64"] == pytest.approx(np.mean(others))
    assert after["maj@64"] == pytest.approx(sum(p.correct > 32 for p in WHOLE) / 199, abs=0.02)
    assert after["pass@32"] == pytest.approx(before["pass@32"], abs=1e-3)
    assert after["problems with 64 samples"] == 199
    assert "problems with 32 samples" not in after
    assert not any(name.startswith("problems with") for name in before)


def test_many_errors_in_one_problem_affect_only_that_problem() -> None:
    counted = evaluation(result("p7", 2, errors=61))
    summary = counted.summary()
    assert {k: n for k, n in summary.items() if k.startswith("problems with")} == {
        f"problems with {k} samples": 199 for k in (4, 8, 16, 32, 64)
    }
    assert np.isnan(counted.values("pass@4")[7])
    assert counted.values("pass@3")[7] == pass_at_k(3, 2, 3) == 1
    assert np.isnan(counted.values("pass@4")).sum() == np.isnan(counted.values("maj@4")).sum() == 1
    assert np.isnan(counted.values("distinct@4")).sum() == 1
    assert counted.estimate("pass@4").problems == 199
    assert counted.estimate("pass@3").problems == 200


def test_the_values_are_those_of_each_problem_alone() -> None:
    changed = [replace(p, samples=p.samples - i % 5, correct=min(p.correct, 60), errors=i % 5, wrong_votes=None)
               for i, p in enumerate(WHOLE)]  # fmt: skip
    counted = Evaluation({}, changed)
    for k in (1, 59, 60, 61, 64):
        wanted = [float(pass_at_k(p.samples, p.correct, k)) if p.samples >= k else np.nan for p in changed]
        assert counted.values(f"pass@{k}") == pytest.approx(wanted, nan_ok=True)
        assert counted.problems_at(k) == np.isfinite(wanted).sum()


def test_a_k_that_no_problem_has_is_refused_and_its_count_is_zero() -> None:
    counted = Evaluation({"samples": 4}, [result("a", 1, errors=1, n=4), result("b", 2, errors=2, n=4)])
    assert counted.samples == 3
    assert counted.summary()["problems with 4 samples"] == 0
    assert "pass@4" not in counted.summary()
    assert counted.summary()["avg@3"] == pytest.approx((1 / 3 + 1) / 2)
    with pytest.raises(ValueError, match="k is 4 but a problem has only"):
        counted.values("pass@4")


def test_the_json_has_the_number_of_problems_of_each_k() -> None:
    lost = replace(result("p9", 0, errors=64), wrong_votes=[])
    counted = evaluation(result("p7", 2, errors=61), lost)
    record = json.loads(json.dumps(counted.to_json(), allow_nan=False))
    assert [name for name in record["intervals"] if name.startswith("pass@")] == [f"pass@{k}" for k in range(1, 65)]
    counts = {k: record["intervals"][f"pass@{k}"]["problems"] for k in (1, 3, 4, 64)}
    assert counts == {1: 199, 3: 199, 4: 198, 64: 198}
    assert record["summary"]["unjudged problems"] == 1
    assert Evaluation.from_json(record) == counted


def test_the_interval_over_sampling_is_over_the_same_problems() -> None:
    counted = evaluation(result("p7", 2, errors=61))
    alone = Evaluation({}, [p for p in counted.problems if p.problem_id != "p7"])
    for measure in ("pass@32", "maj@32", "distinct@32"):
        assert counted.sampling_estimate(measure) == alone.sampling_estimate(measure)
        assert counted.sampling_estimate(measure).problems == 199
    assert counted.sampling_estimate("pass@2").problems == 200
    assert np.isfinite(counted.sampling_estimate("pass@2").low)
    assert np.isnan(counted.sampling_estimate("pass@3").low)  # three samples show no spread of pass@3


def test_truncated_samples_are_a_share_of_all_drawn_samples() -> None:
    """A sample on which the verifier failed was drawn, and may have been cut off."""
    one = replace(result("a", 1, errors=3, n=4), truncated=4)
    assert Evaluation({}, [one]).values("truncated").tolist() == [1.0]
    assert Evaluation({}, [one]).summary()["truncated"] == 1.0


def one(name: str, evaluation: Evaluation) -> Group:
    return Group(name=name, title=name, finals=[evaluation], samples=[])


def test_methods_are_compared_on_the_problems_with_k_samples_in_both() -> None:
    a = evaluation(result("p7", 2, errors=61))
    better = [replace(p, correct=p.correct + 4, wrong_votes=None) for p in WHOLE]
    b = evaluation(*better, result("p8", 0, errors=1))
    at_4, at_64 = (compare(one("b", b), one("a", a), f"pass@{k}") for k in (4, 64))
    assert at_4 is not None
    assert at_64 is not None
    assert (at_4.difference.problems, at_64.difference.problems) == (199, 198)
    left = [i for i in range(200) if i not in (7, 8)]
    wanted = paired_difference(b.values("pass@64")[left], a.values("pass@64")[left])
    assert at_64.difference == wanted
    assert estimate([a, b], "pass@64").problems == 198
    assert estimate([a, b], "pass@1").problems == 200
