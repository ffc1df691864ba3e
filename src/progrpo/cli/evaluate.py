"""``progrpo evaluate``"""

import sys
import tomllib
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from progrpo.cli.train import OverridesArgument, SkipBadRowsOption, overrides_with
from progrpo.common.errors import ConfigError, RunError, ServerAwayError
from progrpo.common.files import check_writable, storage_fault
from progrpo.recipes.schema import load_recipe
from progrpo.runs.checkpoints import MODEL_PARTS, check_model
from progrpo.runs.folder import RunFolder
from progrpo.verify import AnswerStyle, VerifierFailedError

if TYPE_CHECKING:
    from progrpo.evaluation.benchmarks import Benchmark
    from progrpo.evaluation.evaluate import Evaluation
    from progrpo.sampling import Backend, Sampling
    from progrpo.tasks import Task

_TaskT = TypeVar("_TaskT", bound="Task")
BASE_URL = "http://127.0.0.1:8000/v1"
BackendName = Literal["transformers", "vllm", "http"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_RUN",
            help="A run folder (its newest checkpoint), a checkpoint, a Hugging Face id, 'countdown' or 'smollm2'; "
            "with --backend http the server's name for it.",
        ),
    ],
    overrides: OverridesArgument = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(
            help="Benchmarks by name, separated by commas; progrpo benchmarks lists them. By default those of the "
            "recipe's evaluation.benchmarks, and without any its held-out problems."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Whose benchmarks or held-out problems are taken; a run has its own."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A benchmark's rows from a local file; may be given several times."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Of a benchmark's prompts: chat, base, plain, or a text with {problem} in it.")
    ] = None,
    answer_style: Annotated[
        AnswerStyle | None,
        typer.Option(
            help="Where a mathematical answer stands: boxed is the benchmarks'; any reads responses without a box too, "
            "as base models' graders do."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many problems of each benchmark.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="n: responses a problem.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of the sampling; 0 takes the likeliest token: one response a problem.")
    ] = None,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens that add up to it.")] = 1.0,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Where a response is cut off.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the sampling.")] = None,
    backend: Annotated[BackendName, typer.Option(help="Where samples come from.")] = "transformers",
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Of an OpenAI-compatible server, for --backend http; the key is $OPENAI_API_KEY. By default "
            f"{BASE_URL}."
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests to a server at the same time; by default 16.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that one answer of a server may take; by default 600.")
    ] = None,
    retries: Annotated[
        int | None, typer.Option(min=0, help="How often a server's lost answer is asked for again; by default 5.")
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds to wait for a server that has answered and went away; by default 300."),
    ] = None,
    opens_thinking: Annotated[
        bool,
        typer.Option(
            "--opens-thinking",
            help="The server's chat template ends prompts in <think>, as DeepSeek-R1's does: what is cut off in that "
            "part is no answer. The other backends read the template.",
        ),
    ] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples generated at a time by transformers.")] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of the weights; auto is what they are kept in, and the default of benchmarks.")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An argument of vLLM's LLM, e.g. tensor_parallel_size=4; repeatable."),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(help="A sentence-transformers model, by path or id: how far apart responses are in meaning."),
    ] = None,
    codeforces: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="For the benchmark codeforces: rate the model by the standings kept here; missing ones are "
            "downloaded. problems.json has the ids of rows without, ratings.json how many humans have each rating.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for samples and results; evaluations/MODEL if left out.")] = (
        None
    ),
    skip_bad_rows: SkipBadRowsOption = False,
) -> None:
    """Evaluate a model on benchmarks, or on a recipe's held-out problems: pass@k, maj@k, diversity, entropy.

    Samples are kept as they come. The same command goes on where it was interrupted, and adds to what is there when it
    is given more samples.

    **Examples**

    `progrpo evaluate countdown task.numbers=5`

    `progrpo evaluate runs/countdown_cpu-progrpo-seed0 --samples 128`

    `progrpo evaluate runs/countdown_cpu-progrpo-seed0 --temperature 0`

    `progrpo evaluate Qwen/Qwen2.5-7B --benchmarks aime24,math500 --samples 64 --backend vllm`

    `progrpo evaluate Qwen/Qwen2.5-7B --recipe qwen2.5_7b_dapo_math --backend vllm`

    `progrpo evaluate my-model --benchmarks aime24 --data aime24=aime24.jsonl --backend http`
    """
    folder = RunFolder(Path(model))
    loaded = load_recipe(
        recipe or (str(folder.recipe_file) if folder.recipe_file.exists() else "countdown_cpu"),
        overrides_with(overrides, skip_bad_rows and benchmarks is None),
    )
    if benchmarks is not None and (overrides or recipe):
        raise ConfigError("a benchmark has no recipe: leave --recipe and the overrides away, or --benchmarks.")
    benchmarks = benchmarks or ",".join(loaded.evaluation.benchmarks) or None
    if codeforces and "codeforces" not in (benchmarks or "").split(","):
        raise ConfigError("--codeforces rates the benchmark of that name: add it to --benchmarks.")
    if data and benchmarks is None:
        raise ConfigError("--data gives a benchmark its rows: name the benchmark with --benchmarks.")
    if benchmarks is None and (limit is not None or template is not None):
        raise ConfigError(
            f"{'--template' if limit is None else '--limit'} is for benchmarks: name them with --benchmarks. Of a "
            "recipe's held-out problems, task.heldout_size (or task.heldout.limit) says how many there are, and "
            "task.template how they are asked."
        )
    settings = _settings_of(
        backend,
        transformers={"batch": batch, "dtype": dtype},
        vllm={"engine": engine, "dtype": dtype},
        http={
            "base_url": base_url,
            "concurrency": concurrency,
            "timeout": timeout,
            "retries": retries,
            "patience": patience,
            "opens_thinking": opens_thinking or None,
        },
    )
    if temperature == 0 and (samples or 1) > 1:
        raise ConfigError(f"--temperature 0 gives the same response each time: leave --samples {samples} away.")
    from progrpo.sampling import Sampling

    def how(default_budget: int, default_temperature: float = 1.0) -> Sampling:
        chosen = default_temperature if temperature is None else temperature
        try:
            return Sampling(max_new_tokens or default_budget, chosen, top_p, loaded.seed if seed is None else seed)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def n(default: int) -> int:
        return 1 if temperature == 0 else samples or default

    into = out or Path("evaluations") / _file_name(model)
    check_writable(into)
    how(1)  # refuses what is out of range, before anything is loaded
    if benchmarks is None:
        from progrpo.recipes.build import make_task, response_budget

        task, section = _with_style(make_task(loaded), answer_style), loaded.evaluation
        sampling = how(response_budget(loaded, task), section.temperature)
        targets = [_Target(task.name, task, n(section.samples), sampling)]
    else:
        targets = [
            _Target(name, task, n(one.samples), how(one.max_new_tokens))
            for name, one, task in _benchmark_tasks(
                benchmarks,
                data or [],
                answer_style,
                limit=limit,
                template=template,
                skip_bad_rows=skip_bad_rows or None,
            )
        ]
    path = _model_path(model, folder) if backend != "http" else model
    defaults = {"batch": loaded.evaluation.batch, "dtype": "auto" if benchmarks else loaded.model.dtype}
    opened = _open_backend(backend, path, defaults | settings)
    try:
        _evaluate_all(targets, opened, _label(model), into, embeddings, codeforces)
    except Exception as error:
        if (reason := storage_fault(error)) is None:
            raise
        raise RunError(
            f"{str(into)!r} can't be written any more: {reason}; the samples in it are kept; make room, and give the "
            "same command again."
        ) from error


@dataclass(frozen=True)
class _Target:
    name: str
    task: "Task"
    n: int
    sampling: "Sampling"


def _evaluate_all(
    targets: list[_Target],
    backend: "Backend",
    model: str,
    into: Path,
    embeddings: str | None,
    codeforces: Path | None,
) -> None:
    """Evaluate on each target. What fails on one is reported, and stops no other.

    Raises:
        RunError: something failed, and the rest is done.
        ServerAwayError: the rest would fail too.
    """
    failed: list[str] = []
    for target in targets:
        try:
            _evaluate_one(target, backend, model, into, embeddings, codeforces)
        except ServerAwayError:
            raise
        except (ConfigError, VerifierFailedError) as error:
            if len(targets) == 1:
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


def _evaluate_one(
    target: _Target, backend: "Backend", model: str, into: Path, embeddings: str | None, codeforces: Path | None
) -> None:
    from progrpo.cli.progress import Bars
    from progrpo.evaluation.evaluate import evaluate_into

    problems = target.task.heldout_problems()
    with Bars() as bars:
        bar = bars.bar("")
        bar.stage(target.name, len(problems) * target.n)
        evaluation = evaluate_into(
            into,
            target.name,
            backend,
            target.task,
            target.sampling,
            n=target.n,
            model=model,
            embedding_model=embeddings,
            on_progress=bar.advance,
        )
    _print_results(target.name, evaluation)
    if target.name == "codeforces" and codeforces is not None:
        from progrpo.evaluation.codeforces import rate_from_folder

        counts = [(problem.samples, problem.correct) for problem in evaluation.problems]
        print(f"Codeforces rating, approximate: {rate_from_folder(problems, counts, codeforces)}")


def _print_results(name: str, evaluation: "Evaluation") -> None:
    """A row a measure, with both intervals and what they are over."""
    from rich.console import Console
    from rich.table import Table

    from progrpo.evaluation.evaluate import ENTROPY_KINDS
    from progrpo.evaluation.results import fewer_problems

    n = evaluation.samples
    fewer = fewer_problems([problem.samples for problem in evaluation.judged])
    columns = ["", "mean", "95 % over problems", "95 % over sampling only", *(["problems"] if fewer else [])]
    table = Table(*columns, box=None, pad_edge=False)
    for measure, mean in evaluation.summary().items():
        if measure.startswith("problems with "):
            continue  # a column of the table says it
        over_problems, over_sampling, problems = "", "", ""
        stem, at, _ = measure.partition("@")
        if at or measure in ("distinct", "answer_entropy", *evaluation.diversity_measures):
            asked = "avg" if stem == "avg" else measure
            found = evaluation.estimate(asked)
            problems = str(found.problems)
            over_problems = f"{found.low:.3f} to {found.high:.3f}"
            if at and not isnan((found := evaluation.sampling_estimate(asked)).low):
                found = found if stem == "distinct" else found.of_share()
                over_sampling = f"{found.low:.3f} to {found.high:.3f}"
        table.add_row(measure, f"{mean:.3f}", over_problems, over_sampling, *([problems] if fewer else []))
    console = Console()
    greedy = ", greedy (temperature 0)" if evaluation.settings["temperature"] == 0 else ""
    each = f"{'up to ' if fewer else ''}{n} samples each" if n > 1 else "1 sample each"
    console.print(f"\n[bold]{name}[/bold]: {len(evaluation.judged)} problems, {each}{greedy}")
    console.print(table)
    if fewer:
        console.print(f"The verifier failed on samples of some problems: measures at k are over {fewer}.")
    if evaluation.unjudged:
        console.print(f"No judged sample, and so in no mean: {', '.join(evaluation.unjudged)}", markup=False)
    if evaluation.diversity_measures:
        console.print("distinct_1 and _2, self_bleu: of a problem's first 8 samples, or of its first 4 correct ones")
    if (kind := evaluation.settings["entropy"]) is not None:
        console.print(f"entropy: {ENTROPY_KINDS[kind]}")
    for warning in evaluation.settings["warnings"]:
        console.print(f"Warning: {warning}", markup=False)
    if n > 1:
        console.print(f"pass@k above k = {n // 2} rests on fewer than 2 k samples: take more for a smaller error.")


def _with_style(task: "_TaskT", style: AnswerStyle | None) -> "_TaskT":
    """The task with answers read as ``--answer-style`` says."""
    from progrpo.tasks import MathTask

    if style is None:
        return task
    if not isinstance(task, MathTask):
        raise ConfigError(f"--answer-style {style} is for mathematics, and the task is {task.name}: leave it away.")
    return replace(task, answer_style=style)


def _benchmark_tasks(
    names: str, data: list[str], style: AnswerStyle | None, **options: Any
) -> list[tuple[str, "Benchmark", "Task"]]:
    """The benchmarks and their problems, all read before anything is sampled."""
    from progrpo.evaluation.benchmarks import benchmark
    from progrpo.tasks.rows import NotOnHubError

    chosen = {name.strip(): benchmark(name.strip()) for name in names.split(",")}
    files = dict(_name_and_file(text) for text in data)
    unknown = [name for name in files if name not in chosen]
    if unknown:
        raise ConfigError(f"--data names {unknown[0]!r}, which is not one of --benchmarks {names}.")
    found: list[tuple[str, Benchmark, Task]] = []
    for name, one in chosen.items():
        task = _with_style(one.task(files.get(name), **options), style)
        try:
            note = one.count_note(len(task.heldout_problems()))
        except NotOnHubError as error:
            raise ConfigError(f"{str(error).rstrip('.')}: --data {name}=FILE.") from None
        if note and options["limit"] is None:
            print(f"progrpo: {name}: {note}", file=sys.stderr)
        found.append((name, one, task))
    return found


def _name_and_file(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise ConfigError(f"--data must be of the form NAME=FILE, e.g. aime24=aime24.jsonl, got {text!r}.")
    return name, file


def _key_and_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals):
        raise ConfigError(f"--engine must be of the form KEY=VALUE, e.g. tensor_parallel_size=4, got {text!r}.")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # ValueError: TOMLDecodeError, and a number of thousands of digits
        return key, value


def _model_path(model: str, folder: RunFolder) -> str:
    """A run's newest checkpoint whose model is whole, or the model as it is named."""
    if not folder.recipe_file.exists():
        check_model(model)
        return model
    checkpoint, faults = folder.good_checkpoint(MODEL_PARTS)
    told = "; ".join(f"{damaged.name}: {reason}" for damaged, reason in faults)
    if checkpoint is None and faults:
        raise ConfigError(
            f"no checkpoint of run {model!r} can be used ({told}); put one back from a copy; one of an earlier "
            "version, without digests.json, can be named in place of the run."
        )
    if checkpoint is None:
        raise ConfigError(
            f"run {model!r} has no checkpoint yet; train it further, or evaluate the model it starts from."
        )
    if faults:
        print(
            f"progrpo: {checkpoint.name} of {model!r} is evaluated, as newer ones are damaged ({told})", file=sys.stderr
        )
    return str(checkpoint)


def _settings_of(backend: BackendName, **by_backend: dict[str, Any]) -> dict[str, Any]:
    """The options that were given for this backend; those for another one alone are refused."""
    given = {name: value for options in by_backend.values() for name, value in options.items() if value is not None}
    for option, value in given.items():
        if option not in by_backend[backend]:
            owners = " or ".join(name for name, options in by_backend.items() if option in options)
            text = "" if value is True else f" {value[0] if isinstance(value, list) else value}"
            raise ConfigError(
                f"--{option.replace('_', '-')}{text} is for --backend {owners}, and the backend is {backend}: add "
                "that, or leave it away."
            )
    return given


def _open_backend(name: BackendName, path: str, settings: dict[str, Any]) -> "Backend":
    if name == "http":
        from progrpo.sampling.http import HttpBackend

        options = ("concurrency", "timeout", "retries", "patience", "opens_thinking")
        chosen = {option: settings[option] for option in options if option in settings}
        return HttpBackend(settings.get("base_url", BASE_URL), path, **chosen)
    if name == "vllm":
        if (Path(path) / "adapter_config.json").exists():
            raise ConfigError(
                f"{path!r} holds low-rank adapters and vLLM loads whole models: leave --backend vllm away, or merge it "
                "(peft.AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER))."
            )
        from progrpo.sampling.vllm import VllmBackend

        arguments = dict(_key_and_value(text) for text in settings.get("engine", []))
        return VllmBackend(path, **({"dtype": settings["dtype"]} | arguments))
    from transformers.utils import logging

    from progrpo.sampling.models import best_device, load_model, model_digest
    from progrpo.sampling.transformers import TransformersBackend

    logging.disable_progress_bar()
    model, tokenizer = load_model(path, settings["dtype"])
    digest = f"{model_digest(path)} {model.dtype}".replace("torch.", "")
    return TransformersBackend(model.to(best_device()), tokenizer, batch=settings["batch"], model_digest=digest)


def _label(model: str) -> str:
    """What a model is called in records and on pages: a path's last part, an id as it is."""
    return Path(model).resolve().name if Path(model).exists() else model


def _file_name(model: str) -> str:
    """A folder's name for a model: ``Qwen/Qwen2.5-7B`` is ``Qwen--Qwen2.5-7B``."""
    return "--".join(part for part in Path(model).parts if part not in ("/", ".", ".."))
