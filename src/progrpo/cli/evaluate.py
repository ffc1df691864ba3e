"""``progrpo evaluate``"""

import sys
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from typer import Argument, Option

from progrpo.cli.backends import BackendOptions, backend_settings, open_backend
from progrpo.cli.options import OVERRIDES, SKIP_BAD_ROWS, options_from, with_skip_bad_rows
from progrpo.common.errors import ConfigError, RunError, ServerAwayError
from progrpo.common.files import check_writable, storage_fault
from progrpo.verify import AnswerStyle, VerifierFailedError

if TYPE_CHECKING:
    from progrpo.sampling import Backend, Sampling
    from progrpo.tasks import Task


@dataclass(kw_only=True)
class _TargetOptions:
    """Options for what is evaluated, on what, and how it is sampled."""

    model: str = Argument(
        metavar="MODEL_OR_RUN",
        help="A run folder (its newest checkpoint), a checkpoint, a Hugging Face id, 'countdown' or 'smollm2'; with "
        "--backend http the server's name for it.",
    )
    overrides: list[str] | None = OVERRIDES
    benchmarks: str | None = Option(
        None,
        help="Benchmarks by name, separated by commas; progrpo benchmarks lists them. By default the recipe's "
        "evaluation.benchmarks or, if it has none, its held-out problems.",
    )
    recipe: str | None = Option(None, help="The recipe of the benchmarks or held-out problems; a run has its own.")
    data: list[str] | None = Option(None, metavar="NAME=FILE", help="A benchmark's rows from a local file; repeatable.")
    template: str | None = Option(
        None, help="Prompts of benchmarks: chat, base, plain, or a text with {problem} in it."
    )
    answer_style: AnswerStyle | None = Option(
        None, help="Where a mathematical answer is: boxed, as in benchmarks; any also reads one without a box."
    )
    limit: int | None = Option(None, min=1, help="How many problems of each benchmark, from the first.")
    samples: int | None = Option(None, min=1, help="n: the number of responses to each problem.")
    temperature: float | None = Option(None, help="Temperature; 0 takes the likeliest tokens and gives one response.")
    top_p: float = Option(1.0, help="Sample from the likeliest tokens whose probabilities add up to this.")
    max_new_tokens: int | None = Option(None, min=1, help="How many tokens a response may have.")
    seed: int | None = Option(None, min=0, help="The seed of the sampling.")


@dataclass(kw_only=True)
class _Options(BackendOptions, _TargetOptions):
    """All arguments and options of ``progrpo evaluate``."""

    embeddings: str | None = Option(
        None, help="A sentence-transformers model: measure how far apart responses are in meaning."
    )
    codeforces: Path | None = Option(
        None,
        metavar="FOLDER",
        help="Rate the model on the benchmark codeforces by the standings in this folder; missing ones are downloaded. "
        "In it, problems.json has the ids of rows without one, and ratings.json the number of humans with each rating.",
    )
    out: Path | None = Option(None, help="Folder for samples and results; by default evaluations/MODEL.")
    skip_bad_rows: bool = SKIP_BAD_ROWS


@options_from(_Options)
def evaluate(options: _Options) -> None:
    """Evaluate a model on benchmarks, or on a recipe's held-out problems: pass@k, maj@k, diversity, entropy.

    Samples are kept as they come. The same command goes on where it was interrupted. With a larger --samples it adds to
    the samples that are there.

    **Examples**

    - `progrpo evaluate countdown task.numbers=5`
    - `progrpo evaluate runs/countdown_cpu-progrpo-seed0 --samples 128`
    - `progrpo evaluate runs/countdown_cpu-progrpo-seed0 --temperature 0`
    - `progrpo evaluate Qwen/Qwen2.5-7B --benchmarks aime24,math500 --samples 64 --backend vllm`
    - `progrpo evaluate Qwen/Qwen2.5-7B --recipe qwen2.5_7b_dapo_math --backend vllm`
    - `progrpo evaluate my-model --benchmarks aime24 --data aime24=aime24.jsonl --backend http`
    """
    from progrpo.recipes.build import make_task, sampling
    from progrpo.recipes.schema import load_recipe

    model, benchmarks, backend = options.model, options.benchmarks, options.backend
    own_recipe = Path(model) / "recipe.json"
    recipe = load_recipe(
        options.recipe or (str(own_recipe) if own_recipe.exists() else "countdown_cpu"),
        with_skip_bad_rows(options.overrides, options.skip_bad_rows and benchmarks is None),
    )
    if benchmarks is not None and (options.overrides or options.recipe):
        raise ConfigError("a benchmark has no recipe: leave out --recipe and the overrides, or --benchmarks.")
    names = [name.strip() for name in benchmarks.split(",")] if benchmarks else recipe.evaluation.benchmarks
    _check_options(options, names)
    settings = backend_settings(options, batch=recipe.evaluation.batch, dtype="auto" if names else recipe.model.dtype)
    # The folder of Qwen/Qwen2.5-7B is Qwen--Qwen2.5-7B.
    folder_name = "--".join(part for part in Path(model).parts if part not in ("/", ".", ".."))
    into = options.out or Path("evaluations") / folder_name
    check_writable(into)
    if names:
        targets = _benchmark_targets(names, recipe.seed, options)
    else:
        task = make_task(recipe)
        targets = [_target(task.name, task, options, recipe.evaluation.samples, **asdict(sampling(recipe, task)))]
    opened = open_backend(backend, model if backend == "http" else _model_path(model), settings)
    try:
        _evaluate_all(targets, opened, into, options)
    except Exception as error:
        if (reason := storage_fault(error)) is None:
            raise
        raise RunError(
            f"{str(into)!r} can't be written any more: {reason}; the samples in it are kept; make room, and give the "
            "same command again."
        ) from error


def _check_options(options: _Options, benchmarks: list[str]) -> None:
    """Refuse options that don't go together or are out of their range, before anything is loaded."""
    if options.codeforces and "codeforces" not in benchmarks:
        raise ConfigError("--codeforces rates the benchmark of that name: add it to --benchmarks.")
    if options.data and not benchmarks:
        raise ConfigError("--data gives a benchmark its rows: name the benchmark with --benchmarks.")
    for name in ("limit", "template"):
        if getattr(options, name) is not None and not benchmarks:
            raise ConfigError(
                f"--{name} is for benchmarks: name them with --benchmarks. For a recipe's held-out problems, "
                "task.heldout_size (or task.heldout.limit) says how many there are, and task.template how they are "
                "asked."
            )
    if options.temperature == 0 and (options.samples or 1) > 1:
        raise ConfigError(f"--temperature 0 gives the same response each time: leave out --samples {options.samples}.")
    _sampling(options, max_new_tokens=1)


class _Target(NamedTuple):
    """A benchmark, or a recipe's held-out problems, and how to sample on it."""

    name: str
    task: "Task"
    n: int
    sampling: "Sampling"


def _target(name: str, task: "Task", options: _Options, samples: int, **sampling: Any) -> _Target:
    """The target as the options say, or else with so many samples and these settings of the sampling."""
    from progrpo.tasks import MathTask

    if options.answer_style is not None:
        if not isinstance(task, MathTask):
            raise ConfigError(
                f"--answer-style {options.answer_style} is for mathematics, and the task is {task.name}: leave it out."
            )
        task = replace(task, answer_style=options.answer_style)
    n = 1 if options.temperature == 0 else options.samples or samples
    return _Target(name, task, n, _sampling(options, **sampling))


def _sampling(options: _Options, **defaults: Any) -> "Sampling":
    """How to sample: as the options say, or else the defaults."""
    from progrpo.sampling import Sampling

    names = ("max_new_tokens", "temperature", "top_p", "seed")
    try:
        return Sampling(**(defaults | {name: value for name in names if (value := getattr(options, name)) is not None}))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _benchmark_targets(names: list[str], seed: int, options: _Options) -> list[_Target]:
    """The benchmarks and their problems, all read before anything is sampled."""
    from progrpo.evaluation.benchmarks import benchmark
    from progrpo.tasks.rows import NotOnHubError

    benchmarks = {name: benchmark(name) for name in names}
    files = {}
    for text in options.data or ():
        name, _, file = text.partition("=")
        if not (name and file):
            raise ConfigError(f"--data must be of the form NAME=FILE, e.g. aime24=aime24.jsonl, got {text!r}.")
        files[name] = file
    unknown = [name for name in files if name not in benchmarks]
    if unknown:
        raise ConfigError(f"--data names {unknown[0]!r}, which is not one of --benchmarks {','.join(names)}.")
    targets = []
    for name, chosen in benchmarks.items():
        skip = options.skip_bad_rows or None
        task = chosen.task(files.get(name), limit=options.limit, template=options.template, skip_bad_rows=skip)
        target = _target(name, task, options, chosen.samples, max_new_tokens=chosen.max_new_tokens, seed=seed)
        try:
            note = chosen.count_note(len(target.task.heldout_problems()))
        except NotOnHubError as error:
            raise ConfigError(f"{str(error).rstrip('.')}: --data {name}=FILE.") from None
        if note and options.limit is None:
            print(f"progrpo: {name}: {note}", file=sys.stderr)
        targets.append(target)
    return targets


def _evaluate_all(targets: list[_Target], backend: "Backend", into: Path, options: _Options) -> None:
    """Evaluate on each target. A failure on one of them is reported, and the others go on.

    Raises:
        RunError: something failed, and the rest is done.
        ServerAwayError: the rest would fail too.
    """
    failed: list[str] = []
    for target in targets:
        try:
            _evaluate_one(target, backend, into, options)
        except (ConfigError, VerifierFailedError) as error:
            if len(targets) == 1 or isinstance(error, ServerAwayError):
                raise
            failed.append(target.name)
            print(f"progrpo: {target.name}: {error}", file=sys.stderr)
    print(f"{into}: results and samples")
    if find_spec("plotly") and find_spec("jinja2") and any(into.glob("*.json")):
        from progrpo.pages import write_page

        print(write_page([into], into / "report.html"))
    if failed:
        raise RunError(
            f"{len(failed)} of {len(targets)} benchmarks could not be finished ({', '.join(failed)}; the reasons are "
            "above); the same command goes on with what is missing."
        )


def _evaluate_one(target: _Target, backend: "Backend", into: Path, options: _Options) -> None:
    from progrpo.cli.progress import Bars
    from progrpo.cli.results import print_results
    from progrpo.evaluation.evaluate import evaluate_into

    name, task, n, sampling = target
    path = Path(options.model)
    model = path.resolve().name if path.exists() else options.model  # the name in records and on pages
    problems = task.heldout_problems()
    with Bars() as bars:
        bar = bars.bar("")
        bar.stage(name, len(problems) * n)
        how: dict[str, Any] = {"model": model, "embedding_model": options.embeddings, "on_progress": bar.advance}
        evaluation = evaluate_into(into, name, backend, task, sampling, n=n, **how)
    print_results(name, evaluation)
    if name == "codeforces" and options.codeforces is not None:
        from progrpo.evaluation.codeforces import rate_from_folder

        counts = [(problem.samples, problem.correct) for problem in evaluation.problems]
        print(f"Codeforces rating, approximate: {rate_from_folder(problems, counts, options.codeforces)}")


def _model_path(model: str) -> str:
    """A run's newest checkpoint whose model is whole, or ``model`` itself if it is not a run."""
    from progrpo.runs.checkpoints import MODEL_PARTS, check_model
    from progrpo.runs.folder import RunFolder

    folder = RunFolder(Path(model))
    if not folder.recipe_file.exists():
        check_model(model)
        return model
    checkpoint, faults = folder.good_checkpoint(MODEL_PARTS)
    reasons = "; ".join(f"{damaged.name}: {reason}" for damaged, reason in faults)
    if checkpoint is None and faults:
        raise ConfigError(
            f"no checkpoint of run {model!r} can be used ({reasons}); put one back from a copy; a checkpoint of "
            "an earlier version, which has no digests.json, can be named in place of the run."
        )
    if checkpoint is None:
        raise ConfigError(
            f"run {model!r} has no checkpoint yet; train it further, or evaluate the model it starts from."
        )
    if faults:
        print(
            f"progrpo: {checkpoint.name} of {model!r} is evaluated, as newer ones are damaged ({reasons})",
            file=sys.stderr,
        )
    return str(checkpoint)
