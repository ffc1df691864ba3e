"""``progrpo evaluate``"""

from pathlib import Path
from typing import Annotated

import typer

from progrpo.cli.train import OverridesArgument, SkipBadRowsOption, overrides_with
from progrpo.config import Recipe, load_recipe
from progrpo.errors import ConfigError
from progrpo.run_folder import RunFolder


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL_OR_RUN", help="A run folder, a checkpoint, a Hugging Face id, or 'countdown'."),
    ],
    overrides: OverridesArgument = None,
    recipe: Annotated[str, typer.Option(help="The recipe whose task is evaluated; a run folder has its own.")] = (
        "countdown_cpu"
    ),
    out: Annotated[Path | None, typer.Option(help="Also write the evaluation as JSON to this file.")] = None,
    skip_bad_rows: SkipBadRowsOption = False,
) -> None:
    """Evaluate a model, or a run's newest checkpoint, on held-out problems: pass@k, solutions, coverage, entropy.

    **Examples**

    `progrpo evaluate countdown task.numbers=5`

    `progrpo evaluate runs/countdown_cpu-grpo-seed0 evaluation.samples=128 --out 128.json`
    """
    loaded, path = _what(model, recipe, overrides_with(overrides, skip_bad_rows))
    from progrpo.cli.progress import Bars
    from progrpo.evaluation.backends.transformers import TransformersBackend
    from progrpo.files import write_json
    from progrpo.models import load_model
    from progrpo.training import evaluate_heldout, make_task

    lm, tokenizer = load_model(path, loaded.model.dtype)
    backend = TransformersBackend(lm, tokenizer, batch=loaded.evaluation.batch)
    with Bars() as bars:
        evaluation = evaluate_heldout(loaded, make_task(loaded), backend, bars.bar(""))
    print(f"{path}: {len(evaluation.judged)} problems, {evaluation.samples} samples each; 95 % intervals over problems")
    for name, value in evaluation.summary().items():
        interval = str(evaluation.estimate(name)) if name.startswith(("pass@", "distinct")) else f"{value:.3f}"
        print(f"{name:>10}  {interval}")
    if out is not None:
        write_json(out, evaluation.to_json())
        print(out)


def _what(model: str, recipe: str, overrides: list[str]) -> tuple[Recipe, str]:
    """The recipe to evaluate by and the model to load."""
    folder = RunFolder(Path(model))
    if not folder.recipe_file.exists():
        return load_recipe(recipe, overrides), model
    checkpoint = folder.last_checkpoint()
    if checkpoint is None:
        raise ConfigError(
            f"run {model!r} has no checkpoint yet; train it further, or evaluate the model it starts from."
        )
    return load_recipe(str(folder.recipe_file), overrides), str(checkpoint)
