"""``progrpo inspect``"""

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from typer import Argument, Option

from progrpo.cli.options import options_from
from progrpo.common.errors import ConfigError
from progrpo.common.files import check_page, check_writable, not_writable

COLUMNS = ("prompt", "response", "step", "group", "answer", "token_ids", "logps", "prompt_logps", "entropy", "gold")
"""The options that name one column each."""
_column = partial(Option, None, rich_help_panel="Columns, for files of another format")
_right = partial(Option, None, rich_help_panel="What counts as right")
_verify = partial(Option, rich_help_panel="Verdicts of progrpo's verifiers, in place of rewards")
_progrpo = partial(Option, None, rich_help_panel="What ProGRPO would have done")


@dataclass(kw_only=True)
class _Options:
    """All arguments and options of ``progrpo inspect``."""

    paths: list[Path] = Argument(
        metavar="FILE...",
        help="Rollouts: parquet, JSON-lines or CSV files (also .gz, .zst), a folder of them, or a run folder.",
    )
    prompt: str | None = _column(help="Column of prompts.")
    response: str | None = _column(help="Column of responses.")
    reward: str | None = _column(help="Column of rewards, or several: accuracy:1,format:0.2.")
    step: str | None = _column(help="Column of training steps.")
    group: str | None = _column(help="Column that tells groups apart; by default the prompt does.")
    answer: str | None = _column(help="Column of final answers; by default the response's text.")
    token_ids: str | None = _column(help="Column of response token ids, a list for each response.")
    logps: str | None = _column(help="Column of response log-probs, a list for each, in nats.")
    prompt_logps: str | None = _column(help="Column of prompt log-probs, a list for each, without the first token.")
    entropy: str | None = _column(help="Column of entropies: a mean or a list for each response.")
    correct_above: float | None = _right(help="A reward above this means right; by default the run's, or 0.")
    correct_reward: str | None = _right(
        help="Column of the reward that means right; by default the run's, or all of --reward."
    )
    verify: str | None = _verify(None, help="A verifier, such as math_any, math, code or choice.")
    gold: str | None = _verify(None, help="Column of golds that the verifier compares with.")
    opens_thinking: bool = _verify(
        False,
        "--opens-thinking",
        help="The chat template ended prompts in `<think>`: a response that was cut off in that part has no answer. "
        "Not needed with --model, or if prompts are texts.",
    )
    alpha: float | None = _progrpo(help="Strength of the correction; by default the run's, or 1.")
    low_prob_fraction: float | None = _progrpo(help="Share of tokens in c(o|q); by default the run's, or 0.2.")
    center: str | None = _progrpo(help="prompt, group or correct; by default the run's, or prompt where c(q) is known.")
    activation: str | None = _progrpo(help="any_correct or mixed; by default the run's, or any_correct.")
    model: str | None = Option(None, help="Compute missing log-probs with this model: a folder, a Hugging Face id, ...")
    groups: int = Option(256, help="With --model: the number of groups whose log-probs are computed.")
    temperature: float = Option(1.0, help="With --model: the temperature of those log-probs.")
    out: Path | None = Option(None, help="The page, or its folder; by default inspect.html here, or in the run folder.")
    corrections: Path | None = Option(None, help="A parquet file for each response's confidences and advantages.")


@options_from(_Options)
def inspect(options: _Options) -> None:
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
    first = options.paths[0]
    page = options.out or (first if (first / "recipe.json").exists() else Path())
    page = page / "inspect.html" if page.is_dir() else page
    check_page(page)  # before the files are read, which may take minutes
    if options.corrections is not None:
        if options.corrections.is_dir():
            raise ConfigError(
                f"--corrections {str(options.corrections)!r} is a folder; give the name of a parquet file."
            )
        check_writable(options.corrections.parent)
    from progrpo import inspection
    from progrpo.cli.progress import Bars
    from progrpo.inspection import print_summary, write_corrections
    from progrpo.pages.inspection import write_page

    shared = [field.name for field in fields(inspection.Options) if hasattr(options, field.name)]
    chosen = inspection.Options(
        columns={name: value for name in COLUMNS if (value := getattr(options, name)) is not None},
        rewards=options.reward,
        **{name: getattr(options, name) for name in shared},
    )
    with Bars() as bars:
        result = inspection.inspect(options.paths, chosen, bars.bar(""))
    print_summary(result)
    try:
        if options.corrections is not None:
            write_corrections(result, options.corrections)
            print(options.corrections)
        print(write_page(result, page))
    except OSError as error:
        raise not_writable(page.parent, error) from None
