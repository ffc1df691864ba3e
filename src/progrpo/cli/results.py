"""The results of an evaluation on the terminal."""

from math import isnan

from rich.console import Console
from rich.table import Table

from progrpo.evaluation.evaluate import ENTROPY_KINDS
from progrpo.evaluation.results import Evaluation, fewer_problems


def print_results(name: str, evaluation: Evaluation) -> None:
    """A row for each measure with its mean and intervals, then what a reader has to know about them."""
    n, settings = evaluation.samples, evaluation.settings
    fewer = fewer_problems([problem.samples for problem in evaluation.judged])
    console = Console()
    greedy = ", greedy (temperature 0)" if settings["temperature"] == 0 else ""
    each = f"{'up to ' if fewer else ''}{n} samples each" if n > 1 else "1 sample each"
    console.print(f"\n[bold]{name}[/bold]: {len(evaluation.judged)} problems, {each}{greedy}")
    console.print(_table(evaluation, with_problems=bool(fewer)))
    if fewer:
        console.print(f"The verifier failed on samples of some problems: measures at k are over {fewer}.")
    if evaluation.unjudged:
        console.print(
            f"These problems have no judged sample and are in no mean: {', '.join(evaluation.unjudged)}", markup=False
        )
    if evaluation.diversity_measures:
        console.print(
            "distinct_1, distinct_2 and self_bleu are of a problem's first 8 samples, or of its first 4 correct ones"
        )
    if (kind := settings["entropy"]) is not None:
        console.print(f"entropy: {ENTROPY_KINDS[kind]}")
    for warning in settings["warnings"]:
        console.print(f"Warning: {warning}", markup=False)
    if n > 1:
        console.print(f"pass@k above k = {n // 2} rests on fewer than 2 k samples: take more for a smaller error.")


def _table(evaluation: Evaluation, *, with_problems: bool) -> Table:
    columns = ["", "mean", "95 % over problems", "95 % over sampling only", *(["problems"] if with_problems else [])]
    table = Table(*columns, box=None, pad_edge=False)
    with_intervals = ("distinct", "answer_entropy", *evaluation.diversity_measures)
    for measure, mean in evaluation.summary().items():
        if measure.startswith("problems with "):
            continue  # the table has a column for it
        over_problems, over_sampling, problems = "", "", ""
        stem, at, _ = measure.partition("@")
        if at or measure in with_intervals:
            measured = "avg" if stem == "avg" else measure
            estimate = evaluation.estimate(measured)
            problems, over_problems = str(estimate.problems), f"{estimate.low:.3f} to {estimate.high:.3f}"
            if at and not isnan((sampled := evaluation.sampling_estimate(measured)).low):
                sampled = sampled if stem == "distinct" else sampled.of_share()
                over_sampling = f"{sampled.low:.3f} to {sampled.high:.3f}"
        row = [measure, f"{mean:.3f}", over_problems, over_sampling, problems]
        table.add_row(*row[: len(columns)])
    return table
