"""``progrpo inspect``"""

from pathlib import Path
from typing import Annotated

import typer

from progrpo.common.errors import ConfigError
from progrpo.common.files import check_page, check_writable, not_writable
from progrpo.runs.folder import RunFolder

COLUMNS = "Columns, for files of another format"
VERIFY = "Verdicts of progrpo's verifiers, in place of rewards"
RIGHT = "What counts as right"
PROGRPO = "What ProGRPO would have done"


def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Rollouts: parquet, JSON-lines or CSV files, also packed (.gz, .zst), a folder of them, a run folder.",
        ),
    ],
    prompt: Annotated[str | None, typer.Option(help="Column of prompts.", rich_help_panel=COLUMNS)] = None,
    response: Annotated[str | None, typer.Option(help="Column of responses.", rich_help_panel=COLUMNS)] = None,
    reward: Annotated[
        str | None,
        typer.Option(help="Column of rewards; several with weights: accuracy:1,format:0.2.", rich_help_panel=COLUMNS),
    ] = None,
    step: Annotated[str | None, typer.Option(help="Column of training steps.", rich_help_panel=COLUMNS)] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column that tells groups apart; by default the prompt does.", rich_help_panel=COLUMNS),
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Column of final answers; by default the text.", rich_help_panel=COLUMNS)
    ] = None,
    token_ids: Annotated[
        str | None, typer.Option(help="Column of response token ids, a list each.", rich_help_panel=COLUMNS)
    ] = None,
    logps: Annotated[
        str | None, typer.Option(help="Column of response log-probs, a list each, nats.", rich_help_panel=COLUMNS)
    ] = None,
    prompt_logps: Annotated[
        str | None,
        typer.Option(help="Column of prompt log-probs, a list each, without the first token.", rich_help_panel=COLUMNS),
    ] = None,
    entropy: Annotated[
        str | None, typer.Option(help="Column of entropies: a mean or a list each.", rich_help_panel=COLUMNS)
    ] = None,
    correct_above: Annotated[
        float | None,
        typer.Option(
            help="A response is right if its reward is above this; by default the run's, or 0.", rich_help_panel=RIGHT
        ),
    ] = None,
    correct_reward: Annotated[
        str | None,
        typer.Option(
            help="Column of the reward that means right; by default the run's, or all of --reward.",
            rich_help_panel=RIGHT,
        ),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(help="A verifier, such as math_any, math, code or choice.", rich_help_panel=VERIFY),
    ] = None,
    gold: Annotated[str | None, typer.Option(help="Column that it compares with.", rich_help_panel=VERIFY)] = None,
    opens_thinking: Annotated[
        bool,
        typer.Option(
            "--opens-thinking",
            help="The chat template ended prompts in <think>: what was cut off in that part is no answer. Prompts that "
            "are texts, and --model, tell by themselves.",
            rich_help_panel=VERIFY,
        ),
    ] = False,
    alpha: Annotated[
        float | None,
        typer.Option(help="Strength of the correction; by default the run's, or 1.", rich_help_panel=PROGRPO),
    ] = None,
    low_prob_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of tokens that c(o|q) is over; by default the run's, or 0.2.", rich_help_panel=PROGRPO
        ),
    ] = None,
    center: Annotated[
        str | None,
        typer.Option(
            help="prompt, group or correct; by default the run's, or prompt where c(q) is known.",
            rich_help_panel=PROGRPO,
        ),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(help="any_correct or mixed; by default the run's, or any_correct.", rich_help_panel=PROGRPO),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Compute missing log-probs with this model: a folder, a Hugging Face id, ...")
    ] = None,
    groups: Annotated[int, typer.Option(help="Of so many groups, with --model.")] = 256,
    temperature: Annotated[float, typer.Option(help="Of those log-probs.")] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(help="The page, or a folder for it; by default inspect.html here, or in the run folder."),
    ] = None,
    corrections: Annotated[
        Path | None, typer.Option(help="Also write each response's confidences and advantages to this parquet file.")
    ] = None,
) -> None:
    """Look at rollouts before collapse hurts: what the policy still explores, and what ProGRPO would have done.

    Reads what TRL (log_completions), verl (rollout_data_dir), prime-rl, verifiers and progrpo save; of other files,
    name the columns. An entry of a dict has a dotted name: completion.text. A row may hold one response, or one prompt
    with lists of responses and rewards.

    **Examples**

    `progrpo inspect out/completions`

    `progrpo inspect rollouts/*.jsonl --model Qwen/Qwen2.5-0.5B --temperature 0.7`

    `progrpo inspect runs/countdown_cpu-grpo-seed0 --alpha 3 --center correct`

    `progrpo inspect rollouts/ --verify math_any --gold gts`

    `progrpo inspect mine.jsonl --prompt question --response text --reward score --logps logprobs`
    """
    from progrpo.cli.progress import Bars
    from progrpo.inspection import Options, print_summary, write_corrections, write_page
    from progrpo.inspection import inspect as look

    named = {
        "prompt": prompt,
        "response": response,
        "step": step,
        "group": group,
        "answer": answer,
        "token_ids": token_ids,
        "logps": logps,
        "prompt_logps": prompt_logps,
        "entropy": entropy,
        "gold": gold,
    }
    options = Options(
        columns={field: name for field, name in named.items() if name is not None},
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
    # Before the files are read, which may take minutes.
    run = RunFolder(paths[0])
    page = out or (run.path if run.recipe_file.exists() else Path())
    page = page / "inspect.html" if page.is_dir() else page
    check_page(page)
    if corrections is not None:
        if corrections.is_dir():
            raise ConfigError(f"--corrections {str(corrections)!r} is a folder; give the name of a parquet file.")
        check_writable(corrections.parent)
    with Bars() as bars:
        found = look(paths, options, bars.bar(""))
    print_summary(found)
    try:
        if corrections is not None:
            write_corrections(found, corrections)
            print(corrections)
        print(write_page(found, page))
    except OSError as error:
        raise not_writable(page.parent, error) from None
