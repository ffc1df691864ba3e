"""Running a recipe with verl (``engine = "verl"``): verl and Ray run in a process of their own, this one writes their
run down as TRL's runs are, and evaluates the model at the end.

verl's own files are in ``RUN/verl``: the problems as parquet, its checkpoints (torch pickles, which verl loads itself),
its metrics and its log. A model that verl exported is published as ``RUN/checkpoints/checkpoint-50`` (safetensors).
"""

import contextlib
import ctypes
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import transformers

from progrpo.common.environment import describe
from progrpo.common.errors import ConfigError, Interrupted, RunError
from progrpo.common.files import write_file, write_json, write_text
from progrpo.common.progress import Progress
from progrpo.common.signals import stopping
from progrpo.evaluation.equal_samples import equal_samples
from progrpo.evaluation.evaluate import Evaluation, count
from progrpo.evaluation.store import Judged
from progrpo.recipes.build import make_task, prompt_length, sampling, training_problems
from progrpo.recipes.schema import Recipe
from progrpo.runs import checkpoints
from progrpo.runs.evaluation import finish
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import best_device, load_model, load_tokenizer
from progrpo.tasks import Problem, Task
from progrpo.tasks.rewards import ErrorWatch, verl_row
from progrpo.tasks.templates import template_opens_thinking
from progrpo.verify import Verdict
from progrpo.verify.thinking import begin_thinking, ends_in_thinking
from progrpo.verl.check import VERL_VERSIONS
from progrpo.verl.settings import (
    CHAT_TEMPLATE,
    PROMPT_ITSELF,
    VerlFolder,
    is_chat,
    max_prompt_tokens,
    verl_command,
    verl_settings,
)

logger = logging.getLogger(__name__)

SUPPORTED = VERL_VERSIONS[-1]
LOOK_SECONDS = 0.5
"""Between two looks at what verl has written."""
STOP_SECONDS = 60.0
"""What verl and Ray get to end in once they are asked to; then they are killed."""
LOG_END = 200_000
"""The bytes of a log that its last error is looked for in."""
MARK = "PROGRPO_VERL_RUN"
"""The environment variable by which a run's processes are known: Ray's outlive a driver that was killed."""

TOKENIZER_FILES = ("tokenizer", "chat_template", "special_tokens", "added_tokens", "vocab", "merges")

NAMES = {
    "critic/score/mean": "reward",
    "actor/entropy": "entropy",
    "actor/pg_loss": "loss",
    "actor/grad_norm": "grad_norm",
    "actor/lr": "learning_rate",
    "actor/pg_clipfrac": "clip_ratio/region_mean",
    "actor/ppo_kl": "approx_kl",
    "response_length/mean": "completions/mean_length",
    "response_length/min": "completions/min_length",
    "response_length/max": "completions/max_length",
    "timing_s/step": "step_time",
}
"""verl's metrics that a run folder has names for. The plugin's own have them already; all others keep verl's, such as
``response_length/clip_ratio``, the share of responses as long as the longest of the step."""


def train(recipe: Recipe, folder: RunFolder, progress: Progress, *, resume: bool = False) -> Evaluation:
    """Train as the recipe says with verl, from the start or from verl's newest complete checkpoint, and evaluate.

    Raises:
        ConfigError: the recipe does not work out, verl is missing or refuses its settings, or the folder holds a run.
        Interrupted: SIGINT or SIGTERM came; verl's last checkpoint is what a resume starts from.
        RunError: verl failed; the sentence has its last error and says where its log is.
        VerifierFailedError: the verifier failed too often.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    command = verl_command(recipe, folder)
    check_settings(command)
    with folder.locked():
        return _train(recipe, folder, progress, command, resume)


def _train(recipe: Recipe, folder: RunFolder, progress: Progress, command: list[str], resume: bool) -> Evaluation:
    own, settings = VerlFolder(folder), verl_settings(recipe, folder)
    checkpoint = folder.checkpoints / f"checkpoint-{recipe.training.steps}"
    if resume and not checkpoint.is_dir():
        mend(recipe, folder, own)
        publish(recipe, folder, own)
    start = folder.open(recipe, resume=resume, check=lambda newest: _check_tracked(newest, recipe, own))
    task = make_task(recipe)
    write_data(recipe, task, own, settings)
    folder.start(recipe, describe(recipe.seed))
    if start < recipe.training.steps:
        progress.stage("train", recipe.training.steps, start)
        if start:
            command.append("trainer.val_before_train=false")  # the validation of that step was made
        else:
            shutil.rmtree(own.checkpoints, ignore_errors=True)  # incomplete ones
        _Launch(recipe, folder, task, progress, start).run(command)
    if not checkpoint.is_dir():
        raise RunError(
            f"verl ended without a checkpoint of step {recipe.training.steps}; its log is {own.log}, and "
            f"progrpo train --resume {folder.path} goes on from its last one."
        )
    model, tokenizer = load_model(str(checkpoint), recipe.model.dtype, recipe.model.attention)
    return finish(recipe, folder, task, model.to(best_device()), tokenizer, progress)


def check_settings(command: list[str]) -> None:
    """Have verl read and check the settings of a command, as it will do itself, but before Ray is started.

    Raises:
        ConfigError: verl is not installed or another version, knows a setting not, or finds it wrong.
    """
    try:
        found = version("verl")
    except PackageNotFoundError:
        raise ConfigError(
            f"engine 'verl' needs verl {SUPPORTED} in this environment: pip install 'progrpo[verl]' into one of its "
            "own (docs/verl.md), or use engine = 'trl'."
        ) from None
    if found != SUPPORTED:
        raise ConfigError(f"engine 'verl' is made for verl {SUPPORTED}, and this is {found}; install that version.")
    overrides = [override for override in command[3:] if not override.startswith("hydra.")]
    try:
        # verl tells of its platform, warns of engines that are not installed, and congratulates.
        logging.disable(logging.INFO)
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            _have_verl_check(overrides)
    except ConfigError:
        raise
    except Exception as error:  # Hydra's, OmegaConf's, verl's own assertions
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"verl {SUPPORTED} refuses the settings of this recipe: {reason}") from None
    finally:
        logging.disable(logging.NOTSET)


def _have_verl_check(overrides: list[str]) -> None:
    from hydra import compose, initialize_config_module
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides)
    validate_config(config, need_reference_policy(config), need_critic(config))
    if config.trainer.v1.trainer_mode == "progrpo":
        from progrpo.verl.check import check_plugin

        problem = check_plugin().problem
        if problem is not None:
            raise ConfigError(f"engine 'verl' needs progrpo's plugin for it: {problem}.")
        from progrpo.verl.trainer import read_options

        read_options(config)


def write_data(recipe: Recipe, task: Task, own: VerlFolder, settings: dict[str, Any]) -> None:
    """The problems as verl reads them, after a look at what it would do to their prompts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tokenizer = load_tokenizer(recipe.model.path)
    if is_chat(task) and not (settings.get(CHAT_TEMPLATE) or tokenizer.chat_template):
        raise ConfigError(
            f"model {recipe.model.path!r} has no chat template, which task.template 'chat' needs; use 'base' or "
            f"'plain', or set verl.{CHAT_TEMPLATE}."
        )
    train = training_problems(recipe, task, tokenizer)
    batch = settings["data.train_batch_size"]
    if len(train) < batch:
        raise ConfigError(
            f"there are {len(train)} training problems, fewer than the {batch} of a step (training.prompts_per_step); "
            "give more, or take fewer a step."
        )
    _check_prompts(recipe, train, settings)
    heldout = _validation_problems(recipe, task)
    if not heldout:
        raise ConfigError(
            f"no held-out problem has a prompt of at most {max_prompt_tokens(recipe)} tokens, which verl's validation "
            "needs; raise training.max_prompt_tokens."
        )
    opens = template_opens_thinking(tokenizer, settings.get(CHAT_TEMPLATE), **_template_arguments(settings))
    for path, problems, split in ((own.train_data, train, "train"), (own.validation_data, heldout, "heldout")):
        rows = [verl_row(task, problem, split=split, template_opens_thinking=opens) for problem in problems]
        with write_file(path) as beside:
            pq.write_table(pa.Table.from_pylist(rows), beside)


def _template_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """What verl gives the chat template: ``data.apply_chat_template_kwargs.enable_thinking`` is one of them."""
    name = "data.apply_chat_template_kwargs."
    return {key.lstrip("+").removeprefix(name): value for key, value in settings.items() if name in key}


def _validation_problems(recipe: Recipe, task: Task) -> list[Problem]:
    """Those of the evaluations in training; verl would cut prompts that are longer than its limit."""
    problems = task.heldout_problems()[: recipe.evaluation.problems_in_training]
    limit, tokenizer = max_prompt_tokens(recipe), load_tokenizer(recipe.model.path)
    return [problem for problem in problems if prompt_length(problem["prompt"], tokenizer) <= limit]


def _check_prompts(recipe: Recipe, problems: list[Problem], settings: dict[str, Any]) -> None:
    """Refuse prompts that verl would cut (on the left, with a warning in its log), and texts that it would change."""
    from verl.utils import hf_tokenizer

    tokenizer = hf_tokenizer(settings["actor_rollout_ref.model.path"])
    template = settings.get(CHAT_TEMPLATE)
    if template is not None:
        tokenizer.chat_template = template
    first = problems[0]["prompt"]
    if template == PROMPT_ITSELF:
        read, wanted = _token_ids(tokenizer, first), load_tokenizer(recipe.model.path)(first)["input_ids"]
        if read != wanted:
            raise ConfigError(
                f"model {recipe.model.path!r}: verl reads the first prompt as the tokens {_shown(read)}, where its "
                f"tokenizer says {_shown(wanted)}; use engine = 'trl', or a model whose tokenizer AutoTokenizer loads "
                "and adds nothing to a text."
            )
    limit, lengths = max_prompt_tokens(recipe), [len(_token_ids(tokenizer, one["prompt"])) for one in problems]
    if max(lengths) > limit:
        raise ConfigError(
            f"{sum(length > limit for length in lengths)} of {len(problems)} prompts have more than {limit} tokens "
            f"(the longest has {max(lengths)}), and verl would cut them; set training.max_prompt_tokens: what is "
            "longer is then left out."
        )


def _token_ids(tokenizer: Any, prompt: Any) -> list[int]:
    """As verl's agent loop reads a row of :func:`progrpo.tasks.rewards.verl_row`."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False))


def _shown(ids: list[int]) -> str:
    return f"{ids[:6]}{' and so on' if len(ids) > 6 else ''} ({len(ids)})"


class _Launch:
    """verl in a process of its own, and what it writes taken over into the run folder as it comes."""

    def __init__(self, recipe: Recipe, folder: RunFolder, task: Task, progress: Progress, start: int) -> None:
        self.recipe, self.folder, self.task, self.progress = recipe, folder, task, progress
        self.own = VerlFolder(folder)
        self.step = start
        self.stopped_by = 0
        self._read_to = 0
        self._watch = ErrorWatch(recipe.training.max_verifier_errors)
        self._started = time.monotonic()
        self._heldout = _validation_problems(recipe, task)

    def run(self, command: list[str]) -> None:
        """Until verl has ended, by itself or stopped by a signal; no process of its outlives the call."""
        mark = uuid.uuid4().hex
        self.own.metrics.unlink(missing_ok=True)
        shutil.rmtree(self.own.validations, ignore_errors=True)
        environment = os.environ | {MARK: mark, "PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1"}
        with self.own.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which passes it on
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (one system call)
            )
        try:
            with stopping(self._pass_on_to(process)):
                self._follow(process)
        finally:
            _end(process, mark)
        self._take_over(ended=True)
        _forget_old(self.own, self.recipe.training.keep_checkpoints)
        if self.stopped_by and self.step < self.recipe.training.steps:
            raise Interrupted(self.stopped_by, self.step)
        if process.returncode:
            raise RunError(
                f"verl failed (exit code {process.returncode}): {last_error(self.own.log)} Its log is {self.own.log}; "
                f"progrpo train --resume {self.folder.path} goes on from step "
                f"{_step_of(self.recipe, _tracked(self.own) or 0)}."
            )

    def _follow(self, process: "subprocess.Popen[bytes]") -> None:
        asked_at = None
        while True:
            try:
                process.wait(LOOK_SECONDS)
                return
            except subprocess.TimeoutExpired:
                self._take_over()
            if self.stopped_by:
                asked_at = asked_at or time.monotonic()
                if time.monotonic() - asked_at > STOP_SECONDS:
                    process.kill()

    def _pass_on_to(self, process: "subprocess.Popen[bytes]") -> Callable[[int, Any], None]:
        """The first SIGINT or SIGTERM asks verl to end; a second one is not waited for."""

        def pass_on(number: int, frame: Any) -> None:
            (process.kill if self.stopped_by else process.terminate)()
            self.stopped_by = number

        return pass_on

    def _take_over(self, ended: bool = False) -> None:
        for path in self.own.validations.glob("*.jsonl"):
            self._take_validation(path, ended)
        for line in self._new_lines():
            self._take_metrics(_step_of(self.recipe, line["step"]), line["data"])
        with contextlib.suppress(FileNotFoundError):  # verl has a newer one already and let this one go
            publish(self.recipe, self.folder, self.own)

    def _new_lines(self) -> list[dict[str, Any]]:
        if not self.own.metrics.exists():
            return []
        with self.own.metrics.open("rb") as file:
            file.seek(self._read_to)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read_to += len(whole) + len(end)
        return [json.loads(line) for line in whole.splitlines()]

    def _take_metrics(self, step: int, values: dict[str, Any]) -> None:
        if "training/global_step" not in values:
            return  # the validation before training is not a step
        seconds = round(time.monotonic() - self._started, 3)
        # JSON, and so verl's file, has null for what is not finite.
        named = {NAMES.get(name, name): value for name, value in values.items() if isinstance(value, int | float)}
        self.folder.append_metrics({"step": step, "seconds": seconds} | named)
        self.step = step
        self.progress.advance(
            self.recipe.training.updates_per_rollout,
            **{name: named[name] for name in ("reward", "entropy") if name in named},
        )
        responses = self.recipe.training.prompts_per_step * self.recipe.training.group_size
        errors = round(named.get("verifier/errors", 0.0) * responses)
        failed, judged = Verdict("error", f"see {self.own.log}"), Verdict("incorrect")
        self._watch.see([failed] * errors + [judged] * (responses - errors))

    def _take_validation(self, path: Path, ended: bool) -> None:
        """verl's validation samples as an evaluation of the run folder; after the last step comes a larger one."""
        step, section = _step_of(self.recipe, int(path.stem)), self.recipe.evaluation
        target = self.folder.evaluations / f"step-{step:06d}.json"
        if target.exists() or step >= self.recipe.training.steps:
            return
        samples = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]  # the last may be being written
        if samples and (ended or len(samples) == len(self._heldout) * section.samples_in_training):
            write_json(target, _evaluation(self.recipe, self.task, self._heldout, samples).to_json())


def _evaluation(
    recipe: Recipe, task: Task, problems: Sequence[Problem], samples: Sequence[dict[str, Any]]
) -> Evaluation:
    """Samples that verl drew and :func:`progrpo.tasks.rewards.compute_score` judged. verl keeps their text alone:
    they are tokenised again to be counted."""
    tokenizer = load_tokenizer(recipe.model.path)
    how = sampling(recipe, task)
    judged: dict[str, list[Judged]] = {problem["problem_id"]: [] for problem in problems}
    for sample in samples:
        text = begin_thinking(sample["output"]) if ends_in_thinking(sample.get("input", "")) else sample["output"]
        tokens = len(tokenizer(sample["output"], add_special_tokens=False)["input_ids"])
        truncated = tokens >= how.max_new_tokens
        one = Judged(text, _verdict(sample), min(tokens, how.max_new_tokens), None, None, None, truncated)
        judged[sample["problem_id"]].append(one)
    settings = {"task": task.name, "samples": recipe.evaluation.samples_in_training, "backend": "verl"}
    results = [count(task, problem, judged[problem["problem_id"]]) for problem in problems]
    warnings = equal_samples(judged.values(), how.temperature)
    return Evaluation(settings | asdict(how) | {"entropy": None, "warnings": warnings}, results)


def _verdict(sample: dict[str, Any]) -> Verdict:
    if sample["verifier_error"]:
        return Verdict("error", sample["reason"])
    if sample["score"] > 0:
        return Verdict("correct", canonical=sample["canonical"] or None)
    return Verdict("incorrect", sample["reason"])


def publish(recipe: Recipe, folder: RunFolder, own: VerlFolder) -> None:
    """The model of verl's newest checkpoint as ``checkpoints/checkpoint-N``: its files are linked, not copied. The
    tokenizer is the starting model's, whose chat template verl may have been told to leave aside."""
    tracked = _tracked(own)
    if tracked is None:
        return
    exported = own.checkpoints / f"global_step_{tracked}" / "actor" / "huggingface"
    target = folder.checkpoints / f"checkpoint-{_step_of(recipe, tracked)}"
    if target.exists() or not exported.is_dir():
        return
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder.checkpoints) as staging:
        written = Path(staging) / target.name
        written.mkdir()
        for file in exported.iterdir():
            if not file.name.startswith(TOKENIZER_FILES):
                _link(file, written / file.name)
        load_tokenizer(recipe.model.path).save_pretrained(written)
        checkpoints.publish(written, folder.checkpoints, recipe.training.keep_checkpoints)


def _link(file: Path, to: Path) -> None:
    try:
        os.link(file, to)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, to)


def _forget_old(own: VerlFolder, keep: int) -> None:
    """verl removes the models of old checkpoints but not all that lies beside them, and none of an earlier launch."""
    for old in sorted(own.checkpoints.glob("global_step_*"), key=_step)[:-keep]:
        shutil.rmtree(old)


def _tracked(own: VerlFolder) -> int | None:
    """The step of the checkpoint that verl last finished, by its own record: the one that it resumes from."""
    try:
        return int(own.tracker.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _step_of(recipe: Recipe, verl_step: int) -> int:
    """The optimiser steps, which a run folder counts, that a step of verl, which is a rollout, ends after."""
    return verl_step * recipe.training.updates_per_rollout


def _check_tracked(checkpoint: Path, recipe: Recipe, own: VerlFolder) -> None:
    """Raise unless verl will resume from the step of the checkpoint that the run folder goes back to."""
    tracked = _step_of(recipe, _tracked(own) or 0)
    if checkpoints.step_of(checkpoint) != tracked:
        raise ConfigError(
            f"{str(checkpoint.parent)!r} has no whole checkpoint of step {tracked}, which verl would resume from; "
            f"remove the damaged one, and progrpo makes it again from verl's."
        )


def mend(recipe: Recipe, folder: RunFolder, own: VerlFolder) -> None:
    """Before a resume: have verl resume from its newest complete checkpoint, if its record names another.

    Raises:
        ConfigError: there is none, though there was one.
    """
    tracked = _tracked(own)
    complete = {_step(path) for path in own.checkpoints.glob("global_step_*") if is_complete(path)}
    if tracked in complete or (tracked is None and not checkpoints.in_folder(folder.checkpoints)):
        return
    if not complete:
        raise ConfigError(
            f"{str(own.checkpoints)!r} has no complete checkpoint of verl any more, so the run can't go on; start it "
            "anew in another folder, from model.path = one of its checkpoints if you like."
        )
    newest = max(complete)
    logger.warning("verl's checkpoint of step %s is damaged or gone: going on from step %d.", tracked, newest)
    write_text(own.tracker, str(newest))
    for path in checkpoints.in_folder(folder.checkpoints):
        if checkpoints.step_of(path) > _step_of(recipe, newest):
            shutil.rmtree(path)


def is_complete(checkpoint: Path) -> bool:
    """Whether every process's part of verl's FSDP checkpoint is there, and none is cut short. Nothing is loaded."""
    actor = checkpoint / "actor"
    try:
        ranks = json.loads((actor / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"]
    except (OSError, ValueError, KeyError):
        return False
    names = [
        f"{part}_world_size_{ranks}_rank_{i}.pt" for part in ("model", "optim", "extra_state") for i in range(ranks)
    ]
    # torch writes ZIP files, whose directory is at their end.
    return all(zipfile.is_zipfile(path) for path in (checkpoint / "data.pt", *(actor / name for name in names)))


def _step(path: Path) -> int:
    return int(path.name.rpartition("_")[2])


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In verl's process: a run that is killed takes verl with it, which would else go on and write to its folder."""
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: "subprocess.Popen[bytes]", mark: str) -> None:
    """End verl, and whatever of its processes is left."""
    import psutil

    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    left = [other for other in psutil.process_iter() if _mark_of(other) == mark]
    for other in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            other.kill()
    psutil.wait_procs(left, timeout=10)


def _mark_of(process: Any) -> str | None:
    import psutil

    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


_ERROR = re.compile(r"^(?:[\w.]*\.)?\w*(?:Error|Exception|Interrupt|Failed)\b(?:\([\w.]*\))?: \S.*")
_BEFORE = re.compile(r"^(?:\x1b\[[0-9;]*m)*\((?:[^()]|\([^()]*\))*pid=\d+[^)]*\)(?:\x1b\[[0-9;]*m)* ?")
"""What Ray writes before a line of a worker: ``(TaskRunnerV1 pid=123)``, in colour."""


def last_error(log: Path) -> str:
    """The last line of a log that says what went wrong, as a sentence.

    Ray repeats a worker's error, wrapped: ``RayTaskError(ValueError)`` is the frame, ``ValueError: ...`` the cause.
    """
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - LOG_END, 0))
        lines = file.read().decode(errors="replace").splitlines()
    plain = [_BEFORE.sub("", line).strip() for line in lines]
    errors = [line for line in plain if _ERROR.match(line)]
    causes = [line for line in errors if "ray::" not in line and "RayTaskError" not in line]
    found = (causes or errors or [line for line in plain if line] or ["it wrote nothing."])[-1]
    return found if found.endswith(".") else f"{found}."
