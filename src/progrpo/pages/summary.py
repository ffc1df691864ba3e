"""What the numbers support: the sentences at the top of a page, the differences that they rest on, and what a reader
must know before the numbers are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from progrpo.evaluation.intervals import Estimate, SignTest, paired_difference, sign_test
from progrpo.evaluation.results import Evaluation, fewer_problems
from progrpo.pages.collect import Group
from progrpo.pages.measures import LAST_MEASURES, common_problems, estimate, known_values, largest_k_of

BASELINE = "grpo"
MOST_NAMED = 5
"""The most problems without a judged sample that a note names."""


@dataclass(frozen=True)
class Difference:
    """A method or model against the baseline in one measure."""

    measure: str
    method: Group
    baseline: Group
    mean: float
    """The method's mean over the pairs."""
    baseline_mean: float
    difference: Estimate
    per_seed: list[float]
    signs: SignTest
    """On how many problems the method is ahead, seeds averaged."""
    shared: int
    """How many problems the runs share; the difference may be over fewer of them."""

    @property
    def over(self) -> str:
        """``, on 199 of 200 problems`` where a measure at k is not over all shared problems."""
        fewer = "@" in self.measure and (self.difference.problems or 0) < self.shared
        return f", on {self.difference.problems} of {self.shared} problems" if fewer else ""

    @property
    def interval(self) -> str:
        """``+0.043 [+0.010, +0.076]``, and :attr:`over`."""
        return interval_text(self.difference, 2 if self.measure == "distinct" else 3) + self.over

    @property
    def title(self) -> str:
        return "distinct correct solutions" if self.measure == "distinct" else self.measure


def signed(value: float, digits: int = 3) -> str:
    """``+0.043``, ``−0.012``: with a real minus sign.

    >>> signed(0.0434), signed(-0.01)
    ('+0.043', '−0.010')
    """
    return f"{value:+.{digits}f}".replace("-", "−")


def interval_text(value: Estimate, digits: int = 3) -> str:
    """``+0.043 [+0.010, +0.076]``."""
    return f"{signed(value.mean, digits)} [{signed(value.low, digits)}, {signed(value.high, digits)}]"


def joined(phrases: Sequence[str], last: str = "and") -> str:
    """``A, B and C``."""
    *first, final = phrases
    return f"{', '.join(first)} {last} {final}" if first else final


def is_clear(difference: Estimate) -> bool:
    """Whether the 95 % interval leaves out 0."""
    return difference.low > 0 or difference.high < 0


def compare(method: Group, baseline: Group, measure: str) -> Difference | None:
    """The paired difference of two methods in a measure, over the problems for which all runs know it.

    Runs of the same seed are compared with each other. With no seed in common, each method's seeds are averaged first
    and only problems are paired.
    """
    a_by_seed, b_by_seed = ({run.recipe.seed: run.final for run in g.runs if run.final} for g in (method, baseline))
    seeds = sorted(a_by_seed.keys() & b_by_seed.keys())
    a = [a_by_seed[seed] for seed in seeds] or method.finals
    b = [b_by_seed[seed] for seed in seeds] or baseline.finals
    values = known_values([*a, *b], measure)
    if not a or not b or values is None:
        return None
    values_a, values_b = values[: len(a)], values[len(a) :]
    if not seeds:
        values_a, values_b = values_a.mean(axis=0, keepdims=True), values_b.mean(axis=0, keepdims=True)
    means, difference = (float(values_a.mean()), float(values_b.mean())), paired_difference(values_a, values_b)
    per_seed = (values_a - values_b).mean(axis=1).tolist() if seeds else []
    signs, shared = sign_test(values_a.mean(axis=0), values_b.mean(axis=0)), len(common_problems([*a, *b]))
    return Difference(measure, method, baseline, *means, difference, per_seed, signs, shared)


def differences(groups: Sequence[Group]) -> list[Difference]:
    """Every method or model with a final evaluation against GRPO, or against the first one if there is no GRPO."""
    finished = sorted((group for group in groups if group.finals), key=lambda group: group.name != BASELINE)
    k = largest_k_of(groups)
    measures = (*(f"pass@{k}" for k in sorted({1, min(k, 8), k})), *LAST_MEASURES)
    compared = [compare(group, finished[0], measure) for group in finished[1:] for measure in measures]
    return [difference for difference in compared if difference is not None]


def sentences(groups: Sequence[Group]) -> list[str]:
    """What is clear and what is not: each method or model against the baseline, or else what the only one solves."""
    measures = ("pass@1", f"pass@{largest_k_of(groups)}", "distinct")
    by_method: dict[str, list[Difference]] = {}
    for d in differences(groups):
        if d.measure in measures:
            by_method.setdefault(d.method.name, []).append(d)
    lines = [sentence for measured in by_method.values() for sentence in _compared(measured)]
    if lines:
        return lines
    if finished := [group for group in groups if group.finals]:
        return [sentence for group in finished for sentence in _alone(group)]
    for method in groups:
        run = max(method.runs, key=lambda run: run.last_step)
        step = max(run.evaluations, default=0)
        lines.append(f"{method.title} {run.remaining_work}")
        if step and (value := estimate([run.evaluations[step]], "pass@1")):
            lines.append(f"At step {step} its pass@1 was {value.mean:.3f} ({value.low:.3f} to {value.high:.3f}).")
    return lines


def _compared(measured: list[Difference]) -> list[str]:
    method, baseline = measured[0].method.title, measured[0].baseline.title
    clear = [d for d in measured if is_clear(d.difference)]
    unclear = [f"{d.title} ({d.interval})" for d in measured if not is_clear(d.difference)]
    lines = []
    if clear:
        lines.append(f"Against {baseline}, {method} {joined([_clear_phrase(d) for d in clear])}.")
    if unclear:
        between = "" if clear else f" between {method} and {baseline}"
        lines.append(f"There is no clear difference{between} in {joined(unclear, 'or')}.")
    lines += [_problem_by_problem(d) for d in measured if d.measure == "pass@1"]
    # An interval over problems can leave out 0 while a second seed points the other way.
    if split := [d.title for d in clear if d.per_seed and min(d.per_seed) < 0 < max(d.per_seed)]:
        lines.append(f"Seeds disagree on the direction in {joined(split)}: more seeds are needed.")
    return lines


def _clear_phrase(d: Difference) -> str:
    if d.measure != "distinct":
        return f"has a {'higher' if d.difference.mean > 0 else 'lower'} {d.measure} ({d.interval})"
    if d.baseline_mean > 0:
        ratio = f"{d.mean / d.baseline_mean:.2f} times as many distinct correct solutions"
        return f"finds {ratio} ({d.mean:.2f} against {d.baseline_mean:.2f} a problem; {d.interval})"
    return f"finds distinct correct solutions where {d.baseline.title} finds none ({d.interval})"


def _problem_by_problem(d: Difference) -> str:
    signs = d.signs
    if not signs.wins + signs.losses:
        return f"They do not differ in {d.measure} on any problem."
    p = "p < 0.001" if signs.p_value < 0.001 else f"p = {signs.p_value:.3f}"
    return (
        f"Problem by problem, {d.method.title} is ahead in {d.measure} on {signs.wins}, behind on {signs.losses} and "
        f"even on {signs.ties} (exact sign test: {p})."
    )


def _alone(group: Group) -> list[str]:
    """What one method or model solves, and how a method changed its model's pass@1."""
    k, problems = largest_k_of([group]), len(common_problems(group.finals))
    first, most = estimate(group.finals, "pass@1"), estimate(group.finals, f"pass@{k}")
    if first is None or most is None:
        return [f"{group.title} has a final evaluation, but no problem has a judged sample: pass@k can't be estimated."]
    runs = "one run" if len(group.finals) == 1 else f"{len(group.finals)} runs"
    who, heldout = (f"{group.title} ({runs})", "held-out ") if group.runs else (group.title, "")
    sentence = f"{who} solves {first.mean:.1%} of {problems} {heldout}problems with one sample"
    if k > 1:
        fewer = f" (of the {most.problems} with so many judged samples)" if (most.problems or 0) < problems else ""
        sentence += f" and {most.mean:.1%} with the best of {k}{fewer}"
    lines = [sentence.replace("%", " %") + "."]
    pairs = [(run.final, run.evaluations[0]) for run in group.runs if run.final and 0 in run.evaluations]
    values = known_values([after for after, _ in pairs] + [before for _, before in pairs], "pass@1")
    if values is not None:  # on the problems of the first evaluation; pass@1 is unbiased, whatever n is
        after, before = np.split(values, 2)
        change = paired_difference(after, before)
        start = f"On the {values.shape[1]} problems that were also evaluated before training, pass@1"
        means = f"{before.mean():.3f} before, {after.mean():.3f} after; {interval_text(change)}"
        verb = ("rose" if change.mean > 0 else "fell") if is_clear(change) else "shows no clear change"
        lines.append(f"{start} {verb} ({means}).")
    return lines


def text(methods: Sequence[Group]) -> str:
    """The summary for a terminal: the sentences, and each difference with its interval and its seeds."""
    lines = sentences(methods)
    for d in differences(methods):
        seeds = f"; seed by seed {', '.join(signed(value) for value in d.per_seed)}" if d.per_seed else ""
        ratio = f" ({d.mean / d.baseline_mean:.2f} times)" if d.baseline_mean else ""
        lines.append(
            f"{d.measure:>9}  {d.method.title} {d.mean:.3f}, {d.baseline.title} {d.baseline_mean:.3f}{ratio}, "
            f"difference {interval_text(d.difference)}{d.over}{seeds}"
        )
    return "\n".join(lines)


def missing_from_runs(methods: Sequence[Group]) -> list[str]:
    """What a reader must know before the numbers of runs are compared."""
    runs, notes = [run for method in methods for run in method.runs], []
    for run in runs:
        if run.final:
            notes += _problem_notes(f"{run.label}, final evaluation", run.final)
        else:
            notes.append(f"{run.label} {run.remaining_work}")
        if not run.metrics:
            notes.append(f"{run.label}: no training metrics.")
        if not run.evaluations:
            why = " (evaluation.every is 0)" if run.recipe.evaluation.every == 0 else ""
            notes.append(f"{run.label}: no evaluations during training{why}.")
        if not run.rollouts:
            notes.append(f"{run.label}: no rollouts, so there are no responses to read.")
    left_out = {"name", "method", "seed", "methods"}
    settings = pd.json_normalize([run.recipe.model_dump(exclude=left_out) for run in runs])
    if differing := [str(key) for key in settings if settings[key].map(repr).nunique() > 1]:
        notes.append(f"The recipes differ in {', '.join(differing)}, which may be why the results differ.")
    return notes + _hard_to_compare("final evaluations", [(run.label, run.final) for run in runs if run.final])


def missing_from_models(benchmarks: Mapping[str, Sequence[Group]]) -> list[str]:
    """What a reader must know before the numbers of models are compared."""
    notes = []
    titles = dict.fromkeys(model.title for models in benchmarks.values() for model in models)
    for name, models in benchmarks.items():
        if absent := [title for title in titles if title not in {model.title for model in models}]:
            notes.append(f"{name}: not evaluated for {joined(absent)}.")
        notes += _hard_to_compare(name, [(model.title, model.finals[0]) for model in models])
        for model in models:
            notes += _problem_notes(f"{name}, {model.title}", model.finals[0])
            if not model.samples:
                notes.append(f"{name}: the samples of {model.title} are not kept, so there is nothing to read.")
    return notes


def _hard_to_compare(label: str, evaluations: Sequence[tuple[str, Evaluation]]) -> list[str]:
    """The sampling settings and the problems in which evaluations (with their titles) differ."""
    notes = []
    for key in ("samples", "temperature", "top_p", "max_new_tokens"):
        if len({repr(evaluation.settings.get(key)) for _, evaluation in evaluations}) > 1:
            by_title = ", ".join(f"{title} {evaluation.settings.get(key)}" for title, evaluation in evaluations)
            counts = "; distinct solutions and coverage can't be compared" if key == "samples" else ""
            notes.append(f"{label}: sampled with different {key} ({by_title}){counts}.")
    if len({frozenset(p.problem_id for p in evaluation.problems) for _, evaluation in evaluations}) > 1:
        notes.append(f"{label}: not on the same problems; differences are over the problems that they share.")
    return notes


def _problem_notes(label: str, evaluation: Evaluation) -> list[str]:
    """The evaluation's own warnings, and the samples and problems that were not judged."""
    notes = [f"{label}: {warning}" for warning in evaluation.settings.get("warnings", [])]
    if errors := sum(p.errors for p in evaluation.problems):
        fewer = fewer_problems([p.samples for p in evaluation.judged])
        at_k = f" Measures at k are over {fewer}." if fewer else ""
        notes.append(f"{label}: the verifier failed on {errors} samples; they are left out.{at_k}")
    if unjudged := evaluation.unjudged:
        named = ", ".join(unjudged[:MOST_NAMED]) + (", ..." if len(unjudged) > MOST_NAMED else "")
        subject = "1 problem has" if len(unjudged) == 1 else f"{len(unjudged)} problems have"
        notes.append(f"{label}: {subject} no judged sample and no part in any mean: {named}.")
    return notes
