"""The schema of recipes, each a TOML file for one run. Keys that a recipe leaves out have defaults here."""

import json
import tomllib
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from progrpo.common.errors import ConfigError
from progrpo.methods import METHODS
from progrpo.tasks.rows import Data
from progrpo.tasks.templates import check_template

LARGEST = 2**31 - 1
"""The largest number of anything: torch, NumPy and Arrow count with 32 bits in places."""
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
FromZero = Annotated[int, Field(ge=0, le=LARGEST)]
AtLeastTwo = Annotated[int, Field(ge=2, le=LARGEST)]
AboveZero = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""NumPy's seeds have 32 bits."""
Template = Annotated[str, AfterValidator(check_template)]
"""The prompt template of problems: the name of a template, or a text with {problem} in it."""


def _checked_json(table: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(table, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"must hold texts, finite numbers, lists and tables ({error})") from None
    return table


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"must be one of {', '.join(METHODS)}")
    return name


Method = Annotated[str, AfterValidator(_known_method)]
"""A name of :data:`progrpo.methods.METHODS`."""
JsonTable = Annotated[dict[str, Any], AfterValidator(_checked_json)]
"""A table whose keys are not known here. It must go into the JSON file in which a run keeps its recipe."""


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused."""

    # JSON, in which a run keeps its recipe, has no infinity.
    model_config = ConfigDict(extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)


class LoraSection(Section):
    """Low-rank adapters (arXiv 2106.09685) in place of training all weights, by PEFT."""

    r: Positive = Field(64, description="the adapters' rank")
    alpha: AboveZero = Field(128.0, description="the adapters' output is scaled by alpha / r")
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | list[str] = Field("all-linear", description="'all-linear', or names: ['q_proj', 'v_proj']")


class ModelSection(Section):
    """Where training starts."""

    path: str = Field("countdown", description="'countdown' (the shipped model), a folder, or a Hugging Face id")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="the dtype of the weights; float32 on a CPU")
    attention: str | None = Field(None, description="transformers' attn_implementation, e.g. flash_attention_2")
    lora: LoraSection | None = Field(None, description="train low-rank adapters instead of all weights")


class CountdownSection(Section):
    """Countdown: problems that are generated here, with all their solutions known."""

    name: Literal["countdown"] = "countdown"
    numbers: Literal[3, 4, 5, 6] = Field(4, description="how many numbers a problem has")
    train_size: Positive = Field(8192, description="training problems, all different")
    heldout_size: Positive = Field(200, description="held-out problems, none of them a training problem")


class DatasetSection(Section):
    """The keys that all tasks over data sets have in common."""

    train: Data
    heldout: Data
    template: Template = Field("chat", description="plain, base, chat, or a text with {problem} in it")
    examples: FromZero = Field(0, description="worked examples in each prompt, from the first rows")
    skip_bad_rows: bool = Field(False, description="leave bad rows out instead of refusing them all")


class MathSection(DatasetSection):
    """Mathematics with a known answer."""

    name: Literal["math"]
    answer_style: Literal["boxed", "answer", "last_number", "any"] = "boxed"


class CodeOrChoiceSection(DatasetSection):
    """Programs with tests, or multiple-choice questions."""

    name: Literal["code", "choice"]


class JsonlSection(DatasetSection):
    """Rows that name their verifier."""

    name: Literal["jsonl"]
    template: Template = "plain"
    default_verifier: str = Field("math", description="the verifier of rows that name none")


class ReasoningGymSection(Section):
    """A data set of reasoning-gym."""

    name: Literal["reasoning_gym"]
    dataset: str = Field(description="its name, e.g. countdown or gsm_symbolic")
    config: JsonTable = Field(default_factory=dict, description="the settings of the data set")
    train_size: Positive = 2048
    heldout_size: Positive = 200
    template: Template = "chat"


TaskSection = CountdownSection | MathSection | CodeOrChoiceSection | JsonlSection | ReasoningGymSection
TASK_SECTIONS: dict[str, type[BaseModel]] = {
    name: section for section in get_args(TaskSection) for name in get_args(section.model_fields["name"].annotation)
}
"""The sections by the names of their tasks."""


class TrainingSection(Section):
    """The budget and the optimiser, the same for every method."""

    steps: Positive = Field(200, description="optimiser steps")
    prompts_per_step: Positive = Field(32, description="prompts of a rollout, which serves one step by default")
    group_size: AtLeastTwo = Field(16, description="responses to each prompt")
    updates_per_rollout: Positive = Field(
        1, description="optimiser steps a rollout, each with its share of the responses; with 1 nothing is clipped"
    )
    micro_batch: Positive | None = Field(None, description="responses of a process's forward pass; all by default")
    learning_rate: AboveZero = 1e-4
    warmup_steps: FromZero = 0
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: AboveZero = 1.0
    temperature: AboveZero = 1.0
    seeded_responses: bool = Field(
        False, description="draw each response from its own random stream: the same on any number of processes"
    )
    max_prompt_tokens: Positive | None = Field(None, description="problems with longer prompts are not trained on")
    max_response_tokens: Positive | None = Field(None, description="by default as many as the task's answers need")
    clip_low: Share = 0.2
    clip_high: Annotated[float, Field(ge=0)] = 0.28
    checkpoint_every: Positive = Field(50, description="steps between checkpoints")
    keep_checkpoints: Positive = Field(2, description="how many stay; with 1 a run can't fall back to an older one")
    max_verifier_errors: Share = Field(0.1, description="a run stops if the verifier itself fails on more responses")
    rollouts_every: Positive = Field(1, description="a rollout is written if it is the first at or after a multiple")


class EvaluationSection(Section):
    """How the policy is evaluated on the held-out problems."""

    samples: AtLeastTwo = Field(64, description="responses to each problem at the end: n of pass@k")
    every: FromZero = Field(50, description="steps between evaluations in training; 0: none")
    samples_in_training: AtLeastTwo = 32
    problems_in_training: Positive = Field(100, description="how many held-out problems, from the first")
    temperature: AboveZero = 1.0
    batch: Positive = Field(1024, description="responses generated at a time")
    benchmarks: list[str] = Field([], description="for progrpo evaluate RUN; by default the held-out problems")

    @field_validator("benchmarks")
    @classmethod
    def _known_benchmarks(cls, names: list[str]) -> list[str]:
        if names:
            from progrpo.evaluation.benchmarks import BENCHMARKS

            for name in names:
                if name not in BENCHMARKS:
                    raise ValueError(f"has {name!r}, which is not one of {', '.join(BENCHMARKS)}")
        return names


class LaunchSection(Section):
    """The machines that a recipe is written for: ``--dry-run`` plans for them and shows how to launch on them."""

    nodes: Positive = Field(1, description="machines")
    gpus_per_node: FromZero = Field(0, description="0: one process, on whatever is there")
    gpu_memory_gb: AboveZero = Field(80.0, description="memory of one GPU, in GB of 10^9 bytes")
    accelerate: str = Field("fsdp2", description="TRL: fsdp2, deepspeed_zero3, ddp, or a config file of accelerate")
    server_gpus: FromZero = Field(0, description="TRL: the first node's GPUs for trl.vllm_mode = 'server' alone")

    @property
    def processes(self) -> int:
        """The number of training processes: one for each GPU that vLLM's server does not use, or 1 without GPUs."""
        return max(self.nodes * self.gpus_per_node - self.server_gpus, 1)


class Recipe(Section):
    """A run: what ``progrpo train`` reads."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    method: Method = "progrpo"
    seed: Seed = 0
    engine: Literal["trl", "verl"] = Field("trl", description="the trainer: TRL's (on accelerate) or verl's (on Ray)")
    model: ModelSection = Field(default_factory=ModelSection)
    task: Annotated[TaskSection, Field(discriminator="name")] = Field(default_factory=CountdownSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    launch: LaunchSection = Field(default_factory=LaunchSection)
    methods: dict[Method, JsonTable] = Field(default_factory=dict, description="settings by method name")
    trl: JsonTable = Field(default_factory=dict, description="further fields of TRL's GRPOConfig, as they are")
    verl: JsonTable = Field(default_factory=dict, description="further settings of verl by their dotted names")

    @field_validator("task", mode="before")
    @classmethod
    def _default_task(cls, task: Any) -> Any:
        return {"name": "countdown"} | task if isinstance(task, dict) else task

    @model_validator(mode="after")
    def _own_method_only(self) -> "Recipe":
        """Drop the tables of other methods, which don't change the run, so that its recipe is the same without them."""
        self.methods = {name: settings for name, settings in self.methods.items() if name == self.method}
        return self

    @property
    def run_name(self) -> str:
        """``countdown_cpu-grpo-seed0``"""
        return f"{self.name}-{self.method}-seed{self.seed}"

    def method_settings(self) -> dict[str, Any]:
        """The method's settings; the recipe's own override those of METHODS."""
        return METHODS[self.method].settings | self.methods.get(self.method, {})


def builtin_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(files("progrpo") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_recipe(source: str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe from a file, or a built-in one by its name, and apply ``key=value`` overrides.

    Args:
        source: path of a TOML file, or of the ``recipe.json`` of a run, or the name of a built-in recipe.
        overrides: ``["training.steps=10", "method=grpo"]``; a value is TOML, or else text.

    Raises:
        ConfigError: the file is missing or can't be read, or it has an unknown key, a wrong type or a wrong value.

    >>> load_recipe("countdown_cpu", ["training.steps=10"]).training.steps
    10
    """
    values = _read(source)
    for override in overrides or []:
        _apply_override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_first_error(error, source)) from None


def _read(source: str) -> dict[str, Any]:
    path = builtin_recipes().get(source, Path(source))
    kind = "JSON" if path.suffix == ".json" else "TOML"
    if path.is_dir():
        again = ": continue it with --resume, or name its recipe.json" if (path / "recipe.json").exists() else ""
        raise ConfigError(f"recipe {source!r} is a {'run ' if again else ''}folder{again or ', not a TOML file'}.")
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except FileNotFoundError:
        names = ", ".join(builtin_recipes())
        raise ConfigError(f"recipe {source!r} is neither a file nor a built-in recipe ({names}).") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {source!r} can't be read: {error}.") from None
    except (ValueError, RecursionError) as error:  # from json, tomllib, or int() for thousands of digits
        raise ConfigError(f"recipe {source!r} is not valid {kind}: {error}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"recipe {source!r} must hold a JSON object, not a {type(values).__name__}.")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {override!r} is not of the form key=value, e.g. training.steps=100.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # ValueError: TOMLDecodeError, and a number of thousands of digits
        value = text
    *tables, last = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"override {override!r} goes through {table!r}, which is a value and not a table.")
    values[last] = value


def _first_error(error: ValidationError, source: str) -> str:
    """The first of pydantic's errors as one sentence, with what is allowed."""
    first = error.errors()[0]
    # A task's keys come after its name, ("task", "math", "template"), and a table's wrong name before "[key]".
    location = [str(part) for part in first["loc"] if part != "[key]"]
    key = ".".join(location[:1] + location[2:] if location[:1] == ["task"] else location)
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_of(location[:-1]))
        return f"recipe {source!r} has the unknown key {key!r}; known keys there are {allowed}."
    if first["type"] == "missing":
        return f"recipe {source!r} lacks the key {key!r}."
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        name = first["input"].get("name") if isinstance(first["input"], dict) else first["input"]
        return f"recipe {source!r}: task.name must be one of {', '.join(TASK_SECTIONS)}, got {name!r}."
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"recipe {source!r}: {key} {message}, got {first['input']!r}."


def _fields_of(location: list[str]) -> list[str]:
    """The keys that a table of a recipe may have."""
    section: type[BaseModel] = Recipe
    for part in location:
        if part in TASK_SECTIONS:
            section = TASK_SECTIONS[part]
        else:
            annotation: Any = section.model_fields[part].annotation
            section = next((one for one in get_args(annotation) if one is not NoneType), annotation)
    return list(section.model_fields)
