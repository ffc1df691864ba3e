"""``progrpo inspect``"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from progrpo.common.errors import ConfigError
from progrpo.common.files import check_page, check_writable, not_writable

COLUMNS = "prompt response step group answer token_ids logps prompt_logps entropy gold".split()
"""The options that name one column each."""
_column = partial(Option, rich_help_panel="Columns, for files of another format")
_verify = partial(Option, rich_help_panel="Verdicts of progrpo's verifiers, in place of rewards")
_right = partial(Option, rich_help_panel="What counts as right")
_progrpo = partial(Option, rich_help_panel="What ProGRPO would have done")


def inspect(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        Argument(
            metavar="FILE...",
            help="Rollouts: parquet, JSON-lines or CSV files, also packed (.gz, .zst), a folder of them, a run folder.",
        ),
    ],
    prompt: Annotated[str | None, _column(help="Column of prompts.")] = None,
    response: Annotated[str | None, _column(help="Column of responses.")] = None,
    reward: Annotated[str | None, _column(help="Column of rewards, or several: accuracy:1,format:0.2.")] = None,
    step: Annotated[str | None, _column(help="Column of training steps.")] = None,
    group: Annotated[str | None, _column(help="Column that tells groups apart; by default the prompt does.")] = None,
    answer: Annotated[str | None, _column(help="Column of final answers; by default the text.")] = None,
    token_ids: Annotated[str | None, _column(help="Column of response token ids, a list each.")] = None,
    logps: Annotated[str | None, _column(help="Column of response log-probs, a list each, nats.")] = None,
    prompt_logps: Annotated[str | None, _column(help="Column of prompt log-probs; none for the first token.")] = None,
    entropy: Annotated[str | None, _column(help="Column of entropies: a mean or a list each.")] = None,
    correct_above: Annotated[float | None, _right(help="Right is a reward above this; else the run's, or 0.")] = None,
    correct_reward: Annotated[
        str | None, _right(help="Column of the reward that means right; else the run's, or --reward.")
    ] = None,
    verify: Annotated[str | None, _verify(help="A verifier, such as math_any, math, code or choice.")] = None,
    gold: Annotated[str | None, _verify(help="Column that it compares with.")] = None,
    opens_thinking: Annotated[
        bool,
        _verify(
            "--opens-thinking",
            help="The chat template ended prompts in <think>: what was cut off in that part is no answer. It need not "
            "be said with --model, or if prompts are texts.",
        ),
    ] = False,
    alpha: Annotated[float | None, _progrpo(help="Strength of the correction; else the run's, or 1.")] = None,
    low_prob_fraction: Annotated[
        float | None, _progrpo(help="Share of tokens in c(o|q); else the run's, or 0.2.")
    ] = None,
    center: Annotated[
        str | None, _progrpo(help="prompt, group or correct; else the run's, or prompt if c(q) is known.")
    ] = None,
    activation: Annotated[str | None, _progrpo(help="any_correct or mixed; else the run's, or any_correct.")] = None,
    model: Annotated[str | None, Option(help="A folder or Hugging Face id: compute missing log-probs with it.")] = None,
    groups: Annotated[int, Option(help="With --model: the number of groups whose log-probs are computed.")] = 256,
    temperature: Annotated[float, Option(help="With --model: the temperature of those log-probs.")] = 1.0,
    out: Annotated[
        Path | None,
        Option(help="The page, or a folder for it; by default inspect.html here, or in the run folder."),
    ] = None,
    corrections: Annotated[
        Path | None, Option(help="Also write each response's confidences and advantages to this parquet file.")
    ] = None,
) -> None:
    """Look at rollouts before collapse hurts: what the policy still explores, and what ProGRPO would have done.

    Reads what TRL (log_completions), verl (rollout_data_dir), prime-rl, verifiers and progrpo save. For other files,
    name the columns. An entry of a dict has a dotted name: completion.text. A row may hold one response, or one prompt
    with lists of responses and rewards.

    **Examples**

    - `progrpo inspect out/completions`
    - `progrpo inspect rollouts/*.jsonl --model Qwen/Qwen2.5-0.5B --temperature 0.7`
    - `progrpo inspect runs/countdown_cpu-grpo-seed0 --alpha 3 --center correct`
    - `progrpo inspect rollouts/ --verify math_any --gold gts`
    - `progrpo inspect mine.jsonl --prompt question --response text --reward score --logps logprobs`
    """
    page = _page(paths[0], out)  # before the files are read, which may take minutes
    if corrections is not None:
        _check_corrections(corrections)
    from progrpo.cli.progress import Bars
    from progrpo.inspection import Options, print_summary, write_corrections
    from progrpo.inspection import inspect as inspect_files
    from progrpo.pages.inspection import write_page

    options = Options(
        columns={name: context.params[name] for name in COLUMNS if context.params[name] is not None},
        rewards=reward,
        correct_above=correct_above,
        correct_reward=correct_reward,
        alpha=alpha,
        low_prob_fraction=low_prob_fraction,
        center=center,
        activation=activation,
        model=model,
        groups=groups,
        temperature=temperature,
        verify=verify,
        opens_thinking=opens_thinking,
    )
    with Bars() as bars:
        inspection = inspect_files(paths, options, bars.bar(""))
    print_summary(inspection)
    try:
        if corrections is not None:
            write_corrections(inspection, corrections)
            print(corrections)
        print(write_page(inspection, page))
    except OSError as error:
        raise not_writable(page.parent, error) from None


def _page(path: Path, out: Path | None) -> Path:
    """Where the page is written.

    Raises:
        ConfigError: it can't be written there.
    """
    page = out or (path if (path / "recipe.json").exists() else Path())
    page = page / "inspect.html" if page.is_dir() else page
    check_page(page)
    return page


def _check_corrections(file: Path) -> None:
    if file.is_dir():
        raise ConfigError(f"--corrections {str(file)!r} is a folder; give the name of a parquet file.")
    check_writable(file.parent)
