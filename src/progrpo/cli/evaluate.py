"""``progrpo evaluate``"""

import sys
import tomllib
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from progrpo.checkpoints import MODEL_PARTS, check_model
from progrpo.cli.train import OverridesArgument, SkipBadRowsOption, overrides_with
from progrpo.config import load_recipe
from progrpo.errors import ConfigError, RunError
from progrpo.files import check_writable, storage_fault
from progrpo.run_folder import RunFolder
from progrpo.verify import AnswerStyle

if TYPE_CHECKING:
    from progrpo.evaluation.backends import Backend, Sampling
    from progrpo.evaluation.benchmarks import Benchmark
    from progrpo.evaluation.evaluate import Evaluation
    from progrpo.tasks import Task

_TaskT = TypeVar("_TaskT", bound="Task")
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
    temperature: Annotated[float | None, typer.Option(help="Of the sampling.")] = None,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens that add up to it.")] = 1.0,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Where a response is cut off.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the sampling.")] = None,
    backend: Annotated[BackendName, typer.Option(help="Where samples come from.")] = "transformers",
    base_url: Annotated[
        str, typer.Option(help="Of an OpenAI-compatible server, for --backend http; the key is $OPENAI_API_KEY.")
    ] = "http://127.0.0.1:8000/v1",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to a server at the same time.")] = 16,
    patience: Annotated[
        float, typer.Option(min=0, help="How many seconds to wait for a server that has answered and went away.")
    ] = 300.0,
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

    `progrpo evaluate runs/countdown_cpu-grpo-seed0 --samples 128`

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
    if engine and backend != "vllm":
        raise ConfigError(f"--engine {engine[0]} is an argument of vLLM: add --backend vllm.")
    if opens_thinking and backend != "http":
        raise ConfigError("--opens-thinking is for --backend http: the other backends read the model's chat template.")
    if codeforces and "codeforces" not in (benchmarks or "").split(","):
        raise ConfigError("--codeforces rates the benchmark of that name: add it to --benchmarks.")
    if data and benchmarks is None:
        raise ConfigError("--data gives a benchmark its rows: name the benchmark with --benchmarks.")
    from progrpo.evaluation.backends import Sampling

    def how(default_budget: int, default_temperature: float = 1.0) -> Sampling:
        chosen = default_temperature if temperature is None else temperature
        try:
            return Sampling(max_new_tokens or default_budget, chosen, top_p, loaded.seed if seed is None else seed)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    into = out or Path("evaluations") / _file_name(model)
    check_writable(into)
    how(1)  # refuses what is out of range, before anything is loaded
    if benchmarks is None:
        from progrpo.recipe_task import make_task, response_budget

        task, section = _with_style(make_task(loaded), answer_style), loaded.evaluation
        n = samples or section.samples
        targets = [_Target(task.name, task, n, how(response_budget(loaded, task), section.temperature))]
    else:
        targets = [
            _Target(name, task, samples or one.samples, how(one.max_new_tokens))
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
    settings = {"batch": batch or loaded.evaluation.batch, "base_url": base_url, "concurrency": concurrency}
    settings |= {"patience": patience, "opens_thinking": opens_thinking}
    settings["engine"] = dict(_key_and_value(text) for text in engine or [])
    opened = _open_backend(backend, path, dtype or ("auto" if benchmarks else loaded.model.dtype), settings)
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
    from progrpo.cli.progress import Bars
    from progrpo.evaluation.evaluate import evaluate_into

    for target in targets:
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
    print(f"{into}: results and samples")
    if find_spec("plotly") and find_spec("jinja2"):
        from progrpo.report import write_page

        print(write_page([into], into / "report.html"))


def _print_results(name: str, evaluation: "Evaluation") -> None:
    """A row a measure, with both intervals and what they are over."""
    from rich.console import Console
    from rich.table import Table

    from progrpo.evaluation.evaluate import ENTROPY_KINDS

    n = evaluation.samples
    table = Table("", "mean", "95 % over problems", "95 % over sampling only", box=None, pad_edge=False)
    for measure, mean in evaluation.summary().items():
        over_problems, over_sampling = "", ""
        stem, at, _ = measure.partition("@")
        if at or measure in ("distinct", "answer_entropy", *evaluation.diversity_measures):
            asked = "avg" if stem == "avg" else measure
            found = evaluation.estimate(asked)
            over_problems = f"{found.low:.3f} to {found.high:.3f}"
            if at and not isnan((found := evaluation.sampling_estimate(asked)).low):
                found = found if stem == "distinct" else found.of_share()
                over_sampling = f"{found.low:.3f} to {found.high:.3f}"
        table.add_row(measure, f"{mean:.3f}", over_problems, over_sampling)
    console = Console()
    console.print(f"\n[bold]{name}[/bold]: {len(evaluation.judged)} problems, {n} samples each")
    console.print(table)
    if evaluation.diversity_measures:
        console.print("distinct_1 and _2, self_bleu: of a problem's first 8 samples, or of its first 4 correct ones")
    console.print(f"entropy: {ENTROPY_KINDS[evaluation.settings['entropy']]}")
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

    chosen = {name.strip(): benchmark(name.strip()) for name in names.split(",")}
    files = dict(_name_and_file(text) for text in data)
    unknown = [name for name in files if name not in chosen]
    if unknown:
        raise ConfigError(f"--data names {unknown[0]!r}, which is not one of --benchmarks {names}.")
    found: list[tuple[str, Benchmark, Task]] = []
    for name, one in chosen.items():
        task = _with_style(one.task(files.get(name), **options), style)
        task.heldout_problems()
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
    except tomllib.TOMLDecodeError:
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


def _open_backend(name: BackendName, path: str, dtype: str, settings: dict[str, Any]) -> "Backend":
    if name == "http":
        from progrpo.evaluation.backends.http import HttpBackend

        chosen = {name: settings[name] for name in ("base_url", "concurrency", "patience", "opens_thinking")}
        return HttpBackend(model=path, **chosen)
    if name == "vllm":
        if (Path(path) / "adapter_config.json").exists():
            raise ConfigError(
                f"{path!r} holds low-rank adapters and vLLM loads whole models: leave --backend vllm away, or merge it "
                "(peft.AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER))."
            )
        from progrpo.evaluation.backends.vllm import VllmBackend

        return VllmBackend(path, dtype=dtype, **settings["engine"])
    from transformers.utils import logging

    from progrpo.evaluation.backends.transformers import TransformersBackend
    from progrpo.models import best_device, load_model, model_digest

    logging.disable_progress_bar()
    model, tokenizer = load_model(path, dtype)
    digest = f"{model_digest(path)} {model.dtype}".replace("torch.", "")
    return TransformersBackend(model.to(best_device()), tokenizer, batch=settings["batch"], model_digest=digest)


def _label(model: str) -> str:
    """What a model is called in records and on pages: a path's last part, an id as it is."""
    return Path(model).resolve().name if Path(model).exists() else model


def _file_name(model: str) -> str:
    """A folder's name for a model: ``Qwen/Qwen2.5-7B`` is ``Qwen--Qwen2.5-7B``."""
    return "--".join(part for part in Path(model).parts if part not in ("/", ".", ".."))
