"""What the numbers support: the sentences at the top of a page, and the differences that they rest on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from progrpo.evaluation.intervals import Estimate, SignTest, paired_difference, sign_test
from progrpo.pages.collect import Group, MethodRuns
from progrpo.pages.measures import common_problems, estimate, known_values, samples_per_problem

BASELINE = "grpo"
LARGEST_K = 32
LAST_MEASURES = ("distinct", "coverage", "entropy")


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

    @property
    def is_clear(self) -> bool:
        """Whether the 95 % interval leaves out 0."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def seeds_agree(self) -> bool:
        """Whether no two seeds point in opposite directions."""
        return not (self.per_seed and min(self.per_seed) < 0 < max(self.per_seed))


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


def largest_k(n: int) -> int:
    """The k to report for n samples: at most 32, and at most n / 2, because k = n is only "any correct".

    >>> largest_k(64), largest_k(16), largest_k(2)
    (32, 8, 1)
    """
    return max(1, min(LARGEST_K, n // 2))


def compare(method: Group, baseline: Group, measure: str) -> Difference | None:
    """The paired difference of two methods in a measure, over the problems for which all runs know it.

    Runs of the same seed are compared with each other. With no seed in common, each method's seeds are averaged first
    and only problems are paired.
    """
    a_by_seed, b_by_seed = method.finals_by_seed, baseline.finals_by_seed
    seeds = sorted(a_by_seed.keys() & b_by_seed.keys())
    a = [a_by_seed[seed] for seed in seeds] or method.finals
    b = [b_by_seed[seed] for seed in seeds] or baseline.finals
    values = known_values([*a, *b], measure)
    if not a or not b or values is None:
        return None
    values_a, values_b = values[: len(a)], values[len(a) :]
    if not seeds:
        values_a, values_b = values_a.mean(axis=0, keepdims=True), values_b.mean(axis=0, keepdims=True)
    return Difference(
        measure,
        method,
        baseline,
        float(values_a.mean()),
        float(values_b.mean()),
        paired_difference(values_a, values_b),
        (values_a - values_b).mean(axis=1).tolist() if seeds else [],
        sign_test(values_a.mean(axis=0), values_b.mean(axis=0)),
        len(common_problems([*a, *b])),
    )


def differences(groups: Sequence[Group]) -> list[Difference]:
    """Every method or model with a final evaluation against GRPO, or against the first one if there is no GRPO."""
    finished = sorted((group for group in groups if group.finals), key=lambda group: group.name != BASELINE)
    k = _largest_k_of(groups)
    ks = sorted({1, k} | ({8} if k > 8 else set()))
    measures = (*(f"pass@{k}" for k in ks), *LAST_MEASURES)
    compared = [compare(group, finished[0], measure) for group in finished[1:] for measure in measures]
    return [difference for difference in compared if difference is not None]


def _largest_k_of(groups: Sequence[Group]) -> int:
    return largest_k(samples_per_problem([e for group in groups for e in group.finals]))


def sentences(methods: Sequence[MethodRuns]) -> list[str]:
    """One or two sentences: what is clear, and what is not."""
    if compared := sentences_compared(methods):
        return compared
    finished = [method for method in methods if method.finals]
    unfinished = [] if finished else methods
    lines = []
    for method in finished:
        runs = "one run" if len(method.finals) == 1 else f"{len(method.finals)} runs"
        lines += [sentence_alone(method, f" ({runs})", "held-out problems"), *_sentences_since_base(method)]
    for method in unfinished:
        run = max(method.runs, key=lambda run: run.last_step)
        step = max(run.evaluations, default=0)
        lines.append(f"{method.title} {run.remaining_work}")
        if step and (value := estimate([run.evaluations[step]], "pass@1")):
            lines.append(f"At step {step} its pass@1 was {value.mean:.3f} ({value.low:.3f} to {value.high:.3f}).")
    return lines


def sentences_compared(groups: Sequence[Group]) -> list[str]:
    """Each method or model against the baseline; nothing if there is only one."""
    measures = ("pass@1", f"pass@{_largest_k_of(groups)}", "distinct")
    by_method: dict[str, list[Difference]] = {}
    for d in differences(groups):
        if d.measure in measures:
            by_method.setdefault(d.method.name, []).append(d)
    return [sentence for measured in by_method.values() for sentence in _compared(measured)]


def _compared(measured: list[Difference]) -> list[str]:
    method, baseline = measured[0].method.title, measured[0].baseline.title
    clear = [d for d in measured if d.is_clear]
    unclear = [f"{d.title} ({d.interval})" for d in measured if not d.is_clear]
    lines = []
    if clear:
        lines.append(f"Against {baseline}, {method} {joined([_clear_phrase(d) for d in clear])}.")
    if unclear:
        between = "" if clear else f" between {method} and {baseline}"
        lines.append(f"There is no clear difference{between} in {joined(unclear, 'or')}.")
    lines += [_problem_by_problem(d) for d in measured if d.measure == "pass@1"]
    # An interval over problems can leave out 0 while a second seed points the other way.
    if split := [d.title for d in clear if not d.seeds_agree]:
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


def sentence_alone(group: Group, runs: str = "", problems_name: str = "problems") -> str:
    """What one method or model solves; ``runs`` says in how many runs."""
    k, problems = _largest_k_of([group]), len(common_problems(group.finals))
    first, most = estimate(group.finals, "pass@1"), estimate(group.finals, f"pass@{k}")
    if first is None or most is None:
        return f"{group.title} has a final evaluation, but no problem has a judged sample: pass@k can't be estimated."
    sentence = f"{group.title}{runs} solves {first.mean:.1%} of {problems} {problems_name} with one sample"
    if k > 1:
        fewer = f" (of the {most.problems} with so many judged samples)" if (most.problems or 0) < problems else ""
        sentence += f" and {most.mean:.1%} with the best of {k}{fewer}"
    return sentence.replace("%", " %") + "."


def _sentences_since_base(method: MethodRuns) -> list[str]:
    """pass@1 after and before training, on the problems of the first evaluation. It is unbiased, whatever n is."""
    pairs = [(run.final, run.evaluations[0]) for run in method.runs if run.final and 0 in run.evaluations]
    values = known_values([after for after, _ in pairs] + [before for _, before in pairs], "pass@1")
    if values is None:
        return []
    after, before = np.split(values, 2)
    change = paired_difference(after, before)
    start = f"On the {values.shape[1]} problems that were also evaluated before training, pass@1"
    means = f"{before.mean():.3f} before, {after.mean():.3f} after; {interval_text(change)}"
    if change.low <= 0 <= change.high:
        return [f"{start} shows no clear change ({means})."]
    return [f"{start} {'rose' if change.mean > 0 else 'fell'} ({means})."]


def text(methods: Sequence[MethodRuns]) -> str:
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
