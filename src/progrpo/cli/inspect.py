"""``progrpo inspect``"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from progrpo.common.errors import ConfigError
from progrpo.common.files import check_page, check_writable, not_writable

COLUMNS = ("prompt", "response", "step", "group", "answer", "token_ids", "logps", "prompt_logps", "entropy", "gold")
"""The options that name one column each."""
SETTINGS = (
    *("correct_above", "correct_reward", "alpha", "low_prob_fraction", "center", "activation"),
    *("model", "groups", "temperature", "verify", "opens_thinking"),
)
"""The options that :class:`progrpo.inspection.Options` has too."""

_column = partial(Option, rich_help_panel="Columns, for files of another format")
_right = partial(Option, rich_help_panel="What counts as right")
_verify = partial(Option, rich_help_panel="Verdicts of progrpo's verifiers, in place of rewards")
_progrpo = partial(Option, rich_help_panel="What ProGRPO would have done")

Paths = Annotated[
    list[Path],
    Argument(
        metavar="FILE...",
        help="Rollouts: parquet, JSON-lines or CSV files, also packed (.gz, .zst), a folder of them, a run folder.",
    ),
]
Prompt = Annotated[str | None, _column(help="Column of prompts.")]
Response = Annotated[str | None, _column(help="Column of responses.")]
Reward = Annotated[str | None, _column(help="Column of rewards; several with weights: accuracy:1,format:0.2.")]
Step = Annotated[str | None, _column(help="Column of training steps.")]
Group = Annotated[str | None, _column(help="Column that tells groups apart; by default the prompt does.")]
Answer = Annotated[str | None, _column(help="Column of final answers; by default the text.")]
TokenIds = Annotated[str | None, _column(help="Column of response token ids, a list each.")]
Logps = Annotated[str | None, _column(help="Column of response log-probs, a list each, nats.")]
PromptLogps = Annotated[str | None, _column(help="Column of prompt log-probs, a list each, without the first token.")]
Entropy = Annotated[str | None, _column(help="Column of entropies: a mean or a list each.")]
CorrectAbove = Annotated[
    float | None, _right(help="A response is right if its reward is above this; by default the run's, or 0.")
]
CorrectReward = Annotated[
    str | None, _right(help="Column of the reward that means right; by default the run's, or all of --reward.")
]
Verify = Annotated[str | None, _verify(help="A verifier, such as math_any, math, code or choice.")]
Gold = Annotated[str | None, _verify(help="Column that it compares with.")]
OpensThinking = Annotated[
    bool,
    _verify(
        "--opens-thinking",
        help="The chat template ended prompts in <think>: what was cut off in that part is no answer. It need not be "
        "said with --model, or if prompts are texts.",
    ),
]
Alpha = Annotated[float | None, _progrpo(help="Strength of the correction; by default the run's, or 1.")]
LowProbFraction = Annotated[
    float | None, _progrpo(help="Share of tokens that c(o|q) is over; by default the run's, or 0.2.")
]
Center = Annotated[
    str | None, _progrpo(help="prompt, group or correct; by default the run's, or prompt where c(q) is known.")
]
Activation = Annotated[str | None, _progrpo(help="any_correct or mixed; by default the run's, or any_correct.")]
Model = Annotated[
    str | None, Option(help="Compute missing log-probs with this model: a folder, a Hugging Face id, ...")
]
Groups = Annotated[int, Option(help="With --model: the number of groups whose log-probs are computed.")]
Temperature = Annotated[float, Option(help="With --model: the temperature of those log-probs.")]
Out = Annotated[
    Path | None, Option(help="The page, or a folder for it; by default inspect.html here, or in the run folder.")
]
Corrections = Annotated[
    Path | None, Option(help="Also write each response's confidences and advantages to this parquet file.")
]


def inspect(
    context: typer.Context,
    paths: Paths,
    prompt: Prompt = None,
    response: Response = None,
    reward: Reward = None,
    step: Step = None,
    group: Group = None,
    answer: Answer = None,
    token_ids: TokenIds = None,
    logps: Logps = None,
    prompt_logps: PromptLogps = None,
    entropy: Entropy = None,
    correct_above: CorrectAbove = None,
    correct_reward: CorrectReward = None,
    verify: Verify = None,
    gold: Gold = None,
    opens_thinking: OpensThinking = False,
    alpha: Alpha = None,
    low_prob_fraction: LowProbFraction = None,
    center: Center = None,
    activation: Activation = None,
    model: Model = None,
    groups: Groups = 256,
    temperature: Temperature = 1.0,
    out: Out = None,
    corrections: Corrections = None,
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
        **{name: context.params[name] for name in SETTINGS},
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
