"""Running a recipe: recipe -> task, model, trainer -> run folder."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

import pandas as pd
import transformers
from accelerate import PartialState
from datasets import Dataset

from progrpo.common.environment import describe
from progrpo.common.errors import ConfigError, Interrupted, RunError
from progrpo.common.processes import a_lost_process_is_told, first_decides
from progrpo.common.progress import Progress
from progrpo.common.signals import STOPPING, stopping
from progrpo.evaluation.evaluate import Evaluation
from progrpo.recipes.build import make_task, training_problems
from progrpo.recipes.schema import Recipe
from progrpo.runs.checkpoints import check_model
from progrpo.runs.evaluation import finish
from progrpo.runs.faults import explain_faults
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import load_model
from progrpo.tasks import Problem
from progrpo.tasks.rewards import Reward, task_reward
from progrpo.trl.checkpoints import check_resumable
from progrpo.trl.fields import check_fields
from progrpo.trl.guard import NonFiniteError
from progrpo.trl.recorder import Recorder
from progrpo.trl.settings import join_processes, lora_config, trl_config
from progrpo.trl.vllm import check_vllm, reseed
from progrpo.verify import Verdict

if TYPE_CHECKING:  # TRL is imported where its trainer is used: a run on verl goes without it
    from progrpo.trl.recipe_trainer import RecipeTrainer
    from progrpo.trl.trainer import ProGRPOConfig


def train(
    recipe: Recipe,
    folder: RunFolder,
    progress: Progress,
    *,
    resume: bool = False,
) -> Evaluation:
    """Train as the recipe says, from the start or from the folder's newest good checkpoint, and evaluate at the end.

    Everything that happens is written to the folder as it happens. A run that is resumed draws the same random
    numbers, and so follows the same curve, as one that was never stopped. Several processes, as ``accelerate launch``
    starts them, each call this; ``docs/distributed.md`` says what is the same on them as on one, ``docs/survive.md``
    what each fault comes to.

    Raises:
        ConfigError: the recipe does not work out, the folder holds a run already, another run is in it, it can't be
            written, or none of its checkpoints is whole.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was left.
        RunError: what was to be stored could not be, a server is gone, a loss or gradient was no finite number, or
            another process of the run has ended.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    check_fields(recipe)
    with folder.locked(), explain_faults(folder, _server_fault):
        join_processes(recipe)
        with a_lost_process_is_told(folder.path):
            return _train(recipe, folder, progress, resume)


@contextmanager
def _refusals_are_told(recipe: Recipe) -> Iterator[None]:
    """What the libraries say of the recipe's settings when the trainer is made is for the user. An error that this
    package raises itself is a bug, and shows where."""
    try:
        yield
    except ConfigError:
        raise
    except (ImportError, OSError, TypeError, ValueError) as error:
        *_, (raised_in, _) = walk_tb(error.__traceback__)
        if raised_in.f_globals["__name__"].partition(".")[0] == "progrpo":
            raise
        said = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"the settings of recipe {recipe.name!r} can't be trained with: {said}.") from error


def _dataset(problems: list[Problem], config: "ProGRPOConfig") -> Dataset:
    """The problems as TRL takes them. It leaves out a rollout that it has too few for, and so might make no step."""
    prompts = config.generation_batch_size // config.num_generations
    if len(problems) < prompts:
        raise ConfigError(
            f"a rollout takes {prompts} different prompts (training.prompts_per_step), and there are only "
            f"{len(problems)} problems to train on; lower it, or give more."
        )
    return Dataset.from_list(problems)


def _server_fault(error: BaseException | None) -> str | None:
    """What requests, which TRL's client of a vLLM server uses, or that client says of a server that is gone."""
    while error is not None:
        if type(error).__module__.partition(".")[0] == "requests" or str(error).startswith("The vLLM server"):
            return str(error).rstrip(".")
        error = error.__cause__ or error.__context__
    return None


def _train(recipe: Recipe, folder: RunFolder, progress: Progress, resume: bool) -> Evaluation:
    from progrpo.trl.recipe_trainer import RecipeTrainer

    is_first = PartialState().is_main_process
    start = first_decides(lambda: folder.open(recipe, resume=resume, check=check_resumable))
    task = make_task(recipe)
    config = trl_config(recipe, task, folder.checkpoints)
    check_model(recipe.model.path)
    if config.use_vllm:
        first_decides(lambda: check_vllm(config, PartialState().num_processes, progress))
    model, tokenizer = load_model(recipe.model.path, recipe.model.dtype, recipe.model.attention)
    reward = task_reward(task, recipe.training.max_verifier_errors)
    environment = describe(recipe.seed)
    if folder.environment().get("packages") == environment["packages"]:  # other versions may judge otherwise
        _recall(folder, reward)
    recorder = Recorder(recipe, folder, task, reward, progress)
    dataset = _dataset(training_problems(recipe, task, tokenizer), config)
    with _refusals_are_told(recipe):
        trainer = RecipeTrainer(
            model,
            reward,
            config,
            train_dataset=dataset,
            processing_class=tokenizer,
            canonical_form=reward.canonical_form,
            on_rollout=recorder.keep_rollout,
            callbacks=[recorder],
            peft_config=lora_config(recipe),
        )
    if config.use_vllm and config.vllm_mode == "colocate":
        reseed(config, trainer.accelerator.process_index)
    trainer.keep_checkpoints = recipe.training.keep_checkpoints
    trainer.seeded_responses = recipe.training.seeded_responses
    trainer.remove_callback(transformers.PrinterCallback)
    recorder.trainer, trainer.on_step = trainer, recorder.record_step
    _check_sharding(trainer)
    if is_first:
        folder.start(recipe, environment)
        folder.note("resumed" if resume else "started", step=start)
    if start < recipe.training.steps:
        progress.stage("train", recipe.training.steps, start)
        try:
            with stopping(_ask_to_stop(recorder)):
                trainer.train(resume_from_checkpoint=str(folder.last_checkpoint()) if start else None)
        except NonFiniteError as failure:
            raise RunError(recorder.keep_failure(failure)) from failure
        if recorder.stopped_by and trainer.state.global_step < recipe.training.steps:
            stop = Interrupted(recorder.stopped_by, trainer.state.global_step)
            folder.note("stopped", step=stop.step, signal=signal.Signals(stop.signal_number).name)
            raise stop
        trainer.optimizer.state.clear()  # its memory is for the evaluation now
        whole_model: AbstractContextManager[Any] = trainer.whole_model()
    else:
        model, _ = load_model(str(folder.last_checkpoint()), recipe.model.dtype, recipe.model.attention)
        whole_model = nullcontext(model.to(trainer.accelerator.device))
    with whole_model as model:
        evaluation = finish(recipe, folder, task, model, tokenizer, progress)
    trainer.state.global_step = recipe.training.steps
    recorder.report(evaluation)
    folder.note("finished", step=recipe.training.steps)
    return evaluation


def _recall(folder: RunFolder, reward: Reward) -> None:
    """Steps after the checkpoint come again with the same responses: their verdicts are on the disk already. They hold
    for the same golds alone, so rollouts of older versions, which have no digests of their problems, are left out."""
    columns = ["problem_digest", "text", "status", "reason", "canonical"]
    for path in folder.recorded_rollouts():
        rows: list[dict[Any, Any]] = []
        with suppress(OSError, ValueError):  # a damaged file, or an older one, costs only its verdicts
            rows = pd.read_parquet(path, columns=columns).to_dict("records")
        for row in rows:
            canonical = row["canonical"] if isinstance(row["canonical"], str) else None  # null comes back as NaN
            verdict = Verdict(row["status"], row["reason"], canonical)
            reward.recall(row["problem_digest"], row["text"], verdict)


def _check_sharding(trainer: "RecipeTrainer") -> None:
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if asked and not trainer.is_fsdp_enabled:
        raise ConfigError(
            "accelerate's configuration asks for FSDP, which accelerate does not do on a CPU: every process would "
            "train a whole model; launch with --multi_gpu (DDP) there."
        )
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise ConfigError("accelerate's configuration asks for FSDP 1; set fsdp_version: 2 in its fsdp_config.")


def _ask_to_stop(recorder: "Recorder") -> Callable[[int, Any], None]:
    """The first SIGINT or SIGTERM asks for a checkpoint and an end after the step; a second one ends at once.

    With several processes a second one changes nothing: a Ctrl-C reaches each of them from the terminal and again from
    the launcher, which ends what is still there after half a minute.
    """

    def ask(number: int, frame: Any) -> None:
        recorder.stopped_by = number
        for one in STOPPING if recorder.trainer.accelerator.num_processes == 1 else ():
            signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)

    return ask
