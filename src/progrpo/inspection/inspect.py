"""Rollout files in, an :class:`Inspection` out: all that the terminal and the page show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_file
from progrpo.common.progress import Progress
from progrpo.core.checks import check_number
from progrpo.inspection.collapse import Collapse, collapse, warnings
from progrpo.inspection.columns import choose_columns
from progrpo.inspection.files import RolloutFile
from progrpo.inspection.folders import find_files
from progrpo.inspection.score import Judge, Scored, score
from progrpo.inspection.summary import how_read, how_scored, what_lacks
from progrpo.inspection.table import FRACTIONS, Source, Table, choose_responses, read_rows, read_table, with_scores
from progrpo.inspection.values import as_list, response_of
from progrpo.inspection.what_if import WhatIf, what_if
from progrpo.methods.arm import ArmOptions
from progrpo.runs.folder import RunFolder
from progrpo.tasks.templates import template_opens_thinking

LONG_BYTES = 20_000_000
"""Files that are read in a second have no progress bar."""


@dataclass(frozen=True)
class Options:
    """What to look at, and how. None takes the setting of the run whose folder is inspected, else the default.

    Args:
        columns, rewards: as in :func:`progrpo.inspection.columns.choose_columns`.
        correct_reward: the column of the reward that means right; by default the weighted sum of ``rewards``.
        correct_above, alpha, low_prob_fraction, activation, center: as in :class:`progrpo.methods.arm.ArmOptions`, with
            ``center="group"`` where c(q) is not known. A run's own settings are the default only if its method has an
            alpha above 0.
        model: a model that computes missing log-probs, as :func:`progrpo.sampling.models.load_model` takes it.
        groups, temperature: the model scores so many groups, at this sampling temperature.
        verify: the name of a verifier. It compares with the column of golds, and its verdicts replace the rewards.
        opens_thinking: whether the chat template ends prompts of messages inside a thinking part. With ``model``, its
            template shows that.

    Raises:
        ConfigError: an option out of its range.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    rewards: str | None = None
    correct_above: float | None = None
    correct_reward: str | None = None
    alpha: float | None = None
    low_prob_fraction: float | None = None
    center: str | None = None
    activation: str | None = None
    model: str | None = None
    groups: int = 256
    temperature: float = 1.0
    verify: str | None = None
    opens_thinking: bool = False

    def __post_init__(self) -> None:
        try:
            ArmOptions(**self.of_arm())
            check_number("temperature", self.temperature, low=0.0, open_low=True)
            check_number("groups", self.groups, low=1)
        except ValueError as error:
            name, _, rest = str(error).partition(" ")
            raise ConfigError(f"--{name.replace('_', '-')} {rest}") from None
        if (self.verify is None) != ("gold" not in self.columns):
            raise ConfigError(
                "--verify NAME and --gold COL go together: a verifier compares with the golds of a column."
            )
        if self.verify is not None and self.rewards is not None:
            raise ConfigError("--verify replaces --reward: give one of them.")
        if self.opens_thinking and self.verify is None:
            raise ConfigError("--opens-thinking says how --verify reads responses: add --verify, or drop the option.")

    def of_arm(self) -> dict[str, Any]:
        """The options of ProGRPO that are set."""
        named = {option.name: getattr(self, option.name) for option in fields(ArmOptions)}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Inspection:
    """The numbers, and the sentences about them."""

    source: Source
    settings: ArmOptions
    table: Table
    scored: dict[int, Scored]
    """The responses that a model scored, by number."""
    decode: Callable[[int], str] | None
    """Token id -> text; None without a tokenizer."""
    collapse: Collapse
    what_if: WhatIf | None
    warnings: list[str]
    notes: list[str]
    """How the file was read, and what it lacks."""


def inspect(paths: Sequence[Path], options: Options, progress: Progress | None = None) -> Inspection:
    """Read rollouts, measure them, and work out what ProGRPO would have done.

    The paths are files or folders, see :func:`progrpo.inspection.folders.find_files`. Memory does not grow with the
    length of responses: about 120 bytes a response are kept.

    Raises:
        ConfigError: a file or an option that can't be used.

    >>> import json, tempfile
    >>> responses = (("2", 1, 0.1), ("3", 0, 2), ("two", 1, 1))
    >>> rows = [{"q": "1 + 1?", "o": text, "r": r, "lp": [-p]} for text, r, p in responses]
    >>> file = Path(tempfile.mkdtemp(), "rollouts.jsonl")
    >>> _ = file.write_text("".join(json.dumps(row) + chr(10) for row in rows))
    >>> inspection = inspect([file], Options(columns={"prompt": "q", "response": "o", "logps": "lp"}, rewards="r"))
    >>> inspection.collapse.overall["groups/mixed"], inspection.collapse.overall["distinct_solutions"]
    (1.0, 2.0)
    >>> inspection.what_if.settings.center  # there are no log-probs of prompts
    'group'
    >>> gains = inspection.what_if.progrpo_B
    >>> bool(gains[2] > gains[0])  # both are right, and the less likely one gains more
    True
    """
    files = [RolloutFile(path) for path in find_files(paths)]
    # These come before the files are read, so that a wrong name or path is reported at once.
    judge = Judge(options.verify, options.opens_thinking) if options.verify is not None else None
    model, tokenizer = _load_model(options.model) if options.model is not None else (None, None)
    settings, notes = _settings(paths[0], options, files[0].examples)
    named = dict(options.columns)
    if settings.correct_reward is not None and judge is None:
        named["correct_reward"] = settings.correct_reward
    title, columns = choose_columns(files[0].examples, named, options.rewards)
    if judge is not None and tokenizer is not None:
        judge.template_opens |= template_opens_thinking(tokenizer)
    name = paths[0].resolve().name + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    fractions = tuple(sorted({*FRACTIONS, settings.low_prob_fraction}))
    source = Source(name, files, title, columns, fractions, judge)
    size = sum(file.path.stat().st_size for file in files)
    on_bytes = _by_megabytes(progress, size) if progress and size > LONG_BYTES else None
    table = read_table(source, on_bytes, correct_above=settings.correct_above)
    notes += [*how_read(source, table), *dict.fromkeys(note for file in files for note in file.notes)]
    notes += judge.notes() if judge else []
    scored: dict[int, Scored] = {}
    if model is not None:
        scored, note = _scored(source, table, model, tokenizer, options, progress)
        table = with_scores(table, scored)
        notes.append(note)
    settings = _centred(settings, table, is_named=options.center is not None)
    measured = collapse(table, settings.low_prob_fraction)
    warned = warnings(measured, answers_are_final=columns.answer not in (None, "canonical"))
    decode = None if tokenizer is None else lambda token: str(tokenizer.decode([token]))
    changed = what_if(table, settings)
    inspection = Inspection(source, settings, table, scored, decode, measured, changed, warned, notes)
    notes += what_lacks(inspection)
    return inspection


def write_corrections(inspection: Inspection, out: Path) -> None:
    """Write a row for each response as parquet: its number, step, group, reward, c(q), c(o|q), A, correction, A~.

    ``row`` counts the responses of all files, in their order, from 0. What is not known is null.
    """
    table, changed = inspection.table, inspection.what_if
    grpo_B, progrpo_B = np.full((2, table.size), np.nan)
    if changed is not None:
        grpo_B[changed.rows_B], progrpo_B[changed.rows_B] = (changed.grpo_B, changed.progrpo_B)
    frame = pd.DataFrame(
        {
            "row": np.arange(table.size),
            "step": table.steps_B,
            "group": table.groups_B,
            "reward": table.rewards_B,
            "prompt_confidence": table.c_q_B,
            "answer_confidence": table.c_o_B(inspection.settings.low_prob_fraction),
            "grpo_advantage": grpo_B,
            "correction": progrpo_B - grpo_B,
            "advantage": progrpo_B,
        }
    )
    with write_file(out) as beside:
        frame.to_parquet(beside, index=False)


def _load_model(path: str) -> tuple[Any, Any]:
    import transformers

    from progrpo.sampling.models import load_model

    transformers.utils.logging.disable_progress_bar()
    return load_model(path)


def _scored(
    source: Source, table: Table, model: Any, tokenizer: Any, options: Options, progress: Progress | None
) -> tuple[dict[int, Scored], str]:
    """The responses of some groups as the model scores them, by number, and a sentence about them."""
    assert options.model is not None, "the model was loaded from it"
    if table.has_c_o and table.has_c_q:
        return {}, f"All log-probs are in the file: {options.model} computed none."
    rows_B = choose_responses(table, options.groups)
    rows, columns = rows_B.tolist(), source.columns
    raw = read_rows(source, rows)
    pairs = []
    for row in map(raw.__getitem__, rows):
        token_ids = as_list(row[columns.token_ids]) if columns.token_ids else None
        pairs.append((row[columns.prompt], response_of(row[columns.response]), token_ids))
    if progress is not None:
        progress.stage("log-probs", len(rows))
    advance = progress.advance if progress is not None else None
    scored = score(model, tokenizer, pairs, temperature=options.temperature, on_progress=advance)
    note = how_scored(source, table, options.model, options.temperature, rows_B)
    return dict(zip(rows, scored, strict=True)), note


def _settings(path: Path, options: Options, examples: Mapping[str, Any]) -> tuple[ArmOptions, list[str]]:
    """ProGRPO's options as the user or the run gives them, else the defaults; and a sentence if the run has a reward
    that says what is right, and its rollouts don't hold it."""
    of_run: dict[str, Any] = {}
    if (folder := RunFolder(path)).recipe_file.exists():
        recipe = folder.recipe()
        of_run = recipe.method_settings() | recipe.trl
    names = ["correct_above", "correct_reward"]
    if of_run.get("alpha", 0.0) > 0:  # for a run of GRPO, the defaults of ProGRPO are of interest
        names = [option.name for option in fields(ArmOptions)]
    settings = ArmOptions(**({name: of_run[name] for name in names if name in of_run} | options.of_arm()))
    reward = settings.correct_reward
    if options.correct_reward is not None or reward is None or reward in examples:
        return settings, []
    note = (
        f"In the run, reward {reward!r} says whether a response is right. Its rollouts don't hold that reward, so here "
        "the whole reward says so."
    )
    return replace(settings, correct_reward=None), [note]


def _centred(settings: ArmOptions, table: Table, is_named: bool) -> ArmOptions:
    """The settings, with the center ``"group"`` in place of a ``"prompt"`` for which c(q) is not known."""
    if settings.center != "prompt" or table.has_c_q:
        return settings
    if is_named and table.has_c_o:
        raise ConfigError(
            "--center prompt needs log-probs of prompts, which the file does not have; name their column with "
            "--prompt-logps, compute them with --model, or use --center group."
        )
    return replace(settings, center="group")


def _by_megabytes(progress: Progress, total: int) -> Callable[[int], None]:
    """A function that takes the bytes that were read, and reports whole megabytes."""
    progress.stage("read, MB", max(total // 1_000_000, 1))
    read = 0

    def advance(size: int) -> None:
        nonlocal read
        before, read = read, read + size
        if megabytes := read // 1_000_000 - before // 1_000_000:
            progress.advance(megabytes)

    return advance
