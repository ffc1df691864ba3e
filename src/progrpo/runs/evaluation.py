"""The evaluation that ends a run, whichever engine trained it."""

import shutil
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.common.processes import Share, first_decides
from progrpo.common.progress import Progress
from progrpo.evaluation.evaluate import evaluate_into, open_store
from progrpo.evaluation.results import Evaluation
from progrpo.recipes.build import sampling
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import FINAL, RunFolder
from progrpo.sampling import Backend, Sampling
from progrpo.sampling.models import model_digest
from progrpo.sampling.transformers import TransformersBackend
from progrpo.tasks import Task


def finish(recipe: Recipe, folder: RunFolder, task: Task, model: Any, tokenizer: Any, progress: Progress) -> Evaluation:
    """Make the final evaluation, or continue an interrupted one, and write it with its samples to the folder."""
    digest = model_digest(str(folder.last_checkpoint()))
    backend = TransformersBackend(model, tokenizer, batch=recipe.evaluation.batch, model_digest=digest)
    section, share = recipe.evaluation, Share()
    if share.process == 0:  # no step will be repeated
        for path in folder.recorded_rollouts():
            path.unlink()
    progress.stage("evaluate", len(share.own(task.heldout_problems())) * section.samples)
    discard_samples_of_others(folder.final_samples, backend, task, sampling(recipe, task))
    return evaluate_into(
        folder.evaluations,
        FINAL,
        backend,
        task,
        sampling(recipe, task),
        n=section.samples,
        model=recipe.run_name,
        share=share,
        max_error_share=recipe.training.max_verifier_errors,
        on_progress=progress.advance,
    )


def discard_samples_of_others(samples: Path, backend: Backend, task: Task, how: Sampling) -> None:
    """Remove the samples of an interrupted evaluation if other weights drew them. A step that is repeated has the
    same weights to the last bit on this machine, but may have other weights on another machine."""

    def check() -> None:
        try:
            open_store(samples, backend, task, how)
        except ConfigError:
            shutil.rmtree(samples)

    first_decides(check)
