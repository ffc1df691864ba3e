"""Training with a real vLLM engine in the trainer's process. ``make test-vllm`` runs this.

The model is the shipped one (Qwen2, untied) in float32, on a CPU; colocate.py has what TRL and vLLM need for this.
Every log-prob from vLLM is compared with a forward pass of transformers with the weights of that moment.
"""

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tests.reference import forward, method
from tests.vllm_server import vllm_server, wait_until_up
from transformers import TopPLogitsWarper

from progrpo.recipes.schema import Recipe, load_recipe
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import SHIPPED, load_model
from progrpo.tasks import Countdown
from progrpo.trl import ProGRPOTrainer, Rollout
from progrpo.trl import run as training
from progrpo.trl.run import RecipeTrainer
from trl import GRPOTrainer

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed: make test-vllm", allow_module_level=True)

from tests.trl.colocate import run_on_cpu, sync_weights
from tests.trl.launch import launch
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

VLLM: dict[str, Any] = {"use_vllm": True, "vllm_mode": "colocate"}
FRACTION = 0.2


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    run_on_cpu(monkeypatch)


@dataclass
class Step:
    """A generation: the adapter's results, and those of a plain forward pass with the weights of that moment."""

    rollout: Rollout
    prompt_logps: list[list[float]]
    response_logps: list[list[float]]
    batch: dict[str, torch.Tensor]
    """The batch that TRL's loss gets."""

    @property
    def vllm_logps(self) -> list[list[float]]:
        return unpadded(self.batch["sampling_per_token_logps"], self.batch["completion_mask"])


def unpadded(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> list[list[float]]:
    return [values[mask].tolist() for values, mask in zip(values_BT, mask_BT.bool(), strict=True)]


def confidence(logps: list[float]) -> float:
    return method.answer_confidence(logps, [True] * len(logps), FRACTION)


def worst(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """The largest difference of two tokens' log-probs."""
    both = [pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a, b, strict=True)]
    return max(abs(a - b) for a, b in both)


class Watch:
    """``make_trainer``, with every training generation kept as a :class:`Step`."""

    def __init__(self, make_trainer: Callable[..., Any]) -> None:
        self.make_trainer = make_trainer
        self.steps: list[Step] = []

    def __call__(self, **settings: Any) -> Any:
        trainer = self.make_trainer(ProGRPOTrainer, on_rollout=self._keep, **VLLM | settings)
        score = trainer._generate_and_score_completions

        def score_and_keep(inputs: Any) -> dict[str, Any]:
            batch = score(inputs)
            if trainer.model.training:
                self.steps[-1].batch = {k: v.clone() for k, v in batch.items() if isinstance(v, torch.Tensor)}
            return batch

        trainer._generate_and_score_completions = score_and_keep
        self.trainer = trainer
        return trainer

    def _keep(self, rollout: Rollout) -> None:
        tokenize = self.trainer.processing_class
        prompts = [tokenize(row["prompt"])["input_ids"] for row in rollout.rows]
        logps = [
            forward.token_logps(self.trainer.model, prompt, response, self.trainer.temperature)
            for prompt, response in zip(prompts, rollout.token_ids, strict=True)
        ]
        self.steps.append(Step(rollout, [p for p, _ in logps], [r for _, r in logps], {}))


@pytest.fixture
def watch(make_trainer: Callable[..., Any]) -> Watch:
    return Watch(make_trainer)


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("correction", [True, False], ids=["corrected", "uncorrected"])
def test_vllm_s_confidences_are_the_trainer_s_at_every_step(watch: Watch, temperature: float, correction: bool) -> None:
    trainer = watch(max_steps=6, temperature=temperature, alpha=0.7, vllm_importance_sampling_correction=correction)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    assert len(watch.steps) == 6
    for number, step in enumerate(watch.steps):
        rollout = step.rollout
        assert worst(step.vllm_logps, step.response_logps) < 1e-4
        expected = torch.tensor([confidence(logps) for logps in step.response_logps])
        of_vllm = torch.tensor([confidence(logps) for logps in step.vllm_logps])
        print(f"step {number + 1}: {(of_vllm - expected).abs().max():.1e}")
        torch.testing.assert_close(of_vllm, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(rollout.answer_confidence_B, expected, atol=1e-4, rtol=0)
        c_q = torch.tensor([method.prompt_confidence(logps, [True] * len(logps)) for logps in step.prompt_logps])
        torch.testing.assert_close(rollout.prompt_confidence_B, c_q, atol=1e-4, rtol=0)
        # With the correction, TRL scores the responses itself, and its log-probs are used; without it, vLLM's are used.
        source = "old_per_token_logps" if correction else "sampling_per_token_logps"
        assert torch.equal(rollout.logps_BT, step.batch[source])
        assert ("old_per_token_logps" in step.batch) == correction
        advantages = method.arm_advantages(
            rollout.grpo_advantages_B.tolist(),
            rollout.rewards_B.tolist(),
            c_q.tolist(),
            of_vllm.tolist(),
            [i // 4 for i in range(16)],
            alpha=0.7,
            activation="any_correct",
            center="prompt",
        )
        torch.testing.assert_close(step.batch["advantages"], torch.tensor(advantages), atol=1e-4, rtol=0)
        assert logged(trainer, "confidence/answer/mean")[number] == pytest.approx(expected.mean().item(), abs=1e-4)
        assert logged(trainer, "confidence/prompt/mean")[number] == pytest.approx(c_q.mean().item(), abs=1e-4)
    assert any((step.rollout.rewards_B > 0).any() for step in watch.steps)
    assert any(not torch.equal(before[name], weight) for name, weight in trainer.model.named_parameters())


def test_weights_that_vllm_does_not_get_are_noticed(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows that the test above can fail: without the transfer of weights after each update, only the first step
    agrees."""
    syncs = []

    def first_only(generation: VLLMGeneration) -> None:
        if not syncs:
            sync_weights(generation)
        syncs.append(generation)

    monkeypatch.setattr(VLLMGeneration, "sync_weights", first_only)
    watch(max_steps=3).train()
    differences = [worst(step.vllm_logps, step.response_logps) for step in watch.steps]
    assert len(syncs) == 3
    assert differences[0] < 1e-4
    assert min(differences[1:]) > 1e-2


@pytest.mark.parametrize("correction", [True, False], ids=["corrected", "uncorrected"])
def test_alpha_0_gives_the_weights_of_grpo_bit_for_bit(make_trainer: Any, correction: bool) -> None:
    settings = VLLM | {"vllm_importance_sampling_correction": correction, "vllm_importance_sampling_clip_max": 1.000001}
    theirs = make_trainer(GRPOTrainer, **settings)
    before = {name: weight.detach().clone() for name, weight in theirs.model.named_parameters()}
    theirs.train()
    ours = make_trainer(ProGRPOTrainer, alpha=0.0, **settings)
    ours.train()
    for (name, expected), (_, got) in zip(theirs.model.named_parameters(), ours.model.named_parameters(), strict=True):
        assert torch.equal(expected, got), name
    assert any(not torch.equal(before[name], weight) for name, weight in theirs.model.named_parameters())
    for name in ("reward", "loss", "sampling/importance_sampling_ratio/min", "sampling/sampling_logp_difference/max"):
        assert logged(theirs, name) == logged(ours, name)
    # Such a narrow bound masks sequences, so TRL's correction really has an effect in this comparison.
    assert ("sampling/importance_sampling_ratio/min" in ours.state.log_history[0]) == correction
    if correction:
        assert min(logged(ours, "sampling/importance_sampling_ratio/min")) == 0.0


def test_only_the_advantages_of_the_batch_are_changed(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    of_trl: list[dict[str, Any]] = []
    score = GRPOTrainer._generate_and_score_completions

    def score_and_keep(trainer: Any, inputs: Any) -> dict[str, Any]:
        of_trl.append(score(trainer, inputs))
        of_trl[-1] = dict(of_trl[-1])
        return dict(of_trl[-1])

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", score_and_keep)
    watch(max_steps=1).train()
    theirs, ours = of_trl[0], watch.steps[0].batch
    assert {"importance_sampling_ratio", "sampling_per_token_logps", "old_per_token_logps"} <= ours.keys()
    different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert different == ["advantages"]


@pytest.mark.parametrize("correction", [True, False], ids=["corrected", "uncorrected"])
def test_top_p_truncates_vllm_s_log_probs_alone(watch: Watch, correction: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        trainer = watch(max_steps=2, top_p=0.8, vllm_importance_sampling_correction=correction)
    assert any("after top_p=0.8, but c(q)" in str(warning.message) for warning in caught) != correction
    trainer.train()
    step = watch.steps[0]
    warp, truncated = TopPLogitsWarper(0.8), []
    reference, _ = load_model("countdown")
    for row, ids in zip(step.rollout.rows, step.rollout.token_ids, strict=True):
        prompt = trainer.processing_class(row["prompt"])["input_ids"]
        with torch.no_grad():
            logits_TV = reference(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        logps_TV = warp(torch.empty(0), logits_TV).log_softmax(-1)
        truncated.append(logps_TV.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist())
    assert worst(step.vllm_logps, truncated) < 1e-4
    assert worst(step.vllm_logps, step.response_logps) > 1e-2
    source = step.response_logps if correction else truncated
    expected = torch.tensor([confidence(logps) for logps in source])
    torch.testing.assert_close(step.rollout.answer_confidence_B, expected, atol=1e-4, rtol=0)


def test_tokens_that_vllm_could_not_score_do_not_count(watch: Watch) -> None:
    trainer = watch(max_steps=2, vllm_importance_sampling_correction=False)
    generate = trainer.vllm_generation.generate

    def without_some(*args: Any, **kwargs: Any) -> Any:
        prompt_ids, completion_ids, logps, token_ids = generate(*args, **kwargs)
        logps[0][1] = [None]  # TRL's value for vLLM's NaN
        logps[1] = [[None]] * len(logps[1])
        return prompt_ids, completion_ids, logps, token_ids

    trainer.vllm_generation.generate = without_some
    trainer.train()
    assert len(watch.steps) == 2
    for step in watch.steps:
        c_o, expected = step.rollout.answer_confidence_B, step.response_logps
        assert c_o[0].item() == pytest.approx(confidence(expected[0][:1] + expected[0][2:]), abs=1e-4)
        assert math.isnan(c_o[1].item())
        assert c_o[2].item() == pytest.approx(confidence(expected[2]), abs=1e-4)
        assert step.rollout.advantages_B[1] == step.rollout.grpo_advantages_B[1]
        assert step.rollout.advantages_B.isfinite().all()


def test_one_generation_for_several_updates(watch: Watch) -> None:
    """The weights of the later updates are not those of the log-probs in the batch."""
    trainer = watch(max_steps=8, per_device_train_batch_size=8, steps_per_generation=2, num_iterations=2)
    trainer.train()
    assert len(watch.steps) == 2
    for step in watch.steps:
        assert worst(step.vllm_logps, step.response_logps) < 1e-4
        expected = torch.tensor([confidence(logps) for logps in step.response_logps])
        torch.testing.assert_close(step.rollout.answer_confidence_B, expected, atol=1e-4, rtol=0)


def test_evaluation(watch: Watch) -> None:
    problems = Dataset.from_list(Countdown(numbers=3, heldout_size=8).heldout_problems())
    trainer = watch(
        eval_dataset=problems, num_generations_eval=2, per_device_eval_batch_size=8, eval_strategy="steps", eval_steps=1
    )
    trainer.train()
    assert len(watch.steps) == 3  # evaluations are not handed to on_rollout
    for name in ("eval_confidence/answer/mean", "eval_confidence/prompt/mean"):
        assert all(0 < value <= 1 for value in logged(trainer, name))
        assert len(set(logged(trainer, name))) == 3  # each with the weights of its step
    for step in watch.steps:
        assert worst(step.vllm_logps, step.response_logps) < 1e-4


def test_an_adapter_is_merged_for_vllm_and_taken_out_again(watch: Watch) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = watch(peft_config=config, max_steps=4, learning_rate=2e-2)
    base = {name: w.detach().clone() for name, w in trainer.model.named_parameters() if not w.requires_grad}
    trainer.train()
    for step in watch.steps:
        assert worst(step.vllm_logps, step.response_logps) < 1e-4
    starting, _ = load_model("countdown")
    last = watch.steps[-1].rollout
    prompt = trainer.processing_class(last.rows[0]["prompt"])["input_ids"]
    _, of_base = forward.token_logps(starting, prompt, last.token_ids[0], trainer.temperature)
    assert worst([of_base], [watch.steps[-1].response_logps[0]]) > 1e-2, "the adapter learned nothing"
    for name, weight in trainer.model.named_parameters():
        if not weight.requires_grad:
            torch.testing.assert_close(weight.detach(), base[name], atol=1e-5, rtol=0)


def test_two_processes_with_an_engine_each(tmp_path: Path) -> None:
    launch(Path(__file__).with_name("colocate_run.py"), str(tmp_path), processes=2)
    rollouts = pd.concat([pd.read_parquet(tmp_path / f"rank{rank}.parquet") for rank in range(2)])
    assert worst(list(rollouts["logps"]), list(rollouts["plain_logps"])) < 1e-4
    rollouts = rollouts.sort_values(["step", "rank"], kind="stable")
    assert len(rollouts) == 3 * 12
    for _, rows in rollouts.groupby("step"):
        assert rows.groupby("group")["prompt"].nunique().tolist() == [1, 1, 1]
        assert rows.groupby("group")["rank"].nunique().tolist() == [1, 2, 1], "no group is split: it shows nothing"
        assert rows.groupby("rank")["text"].apply(tuple).nunique() == 2, "the engines draw alike"
        advantages = method.arm_advantages(
            list(rows["grpo_advantage"]),
            list(rows["reward"]),
            [method.prompt_confidence(list(logps), [True] * len(logps)) for logps in rows["plain_prompt_logps"]],
            [confidence(list(logps)) for logps in rows["plain_logps"]],
            list(rows["group"]),
            alpha=1.0,
            activation="any_correct",
            center="prompt",
        )
        assert list(rows["advantage"]) == pytest.approx(advantages, abs=1e-4)


def test_a_server_s_log_probs_are_the_trainer_s(watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's server mode without the transfer of weights, which needs NCCL: the policy stays the same as the
    server's."""
    monkeypatch.setattr(VLLMClient, "init_communicator", lambda client, device: None)
    monkeypatch.setattr(VLLMGeneration, "sync_weights", lambda generation: None)
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    with vllm_server(SHIPPED["countdown"], tmp_path / "log", "--max-logprobs", "-1") as (process, url):
        wait_until_up(process, url)
        for correction in (True, False):
            settings = {"vllm_server_base_url": url, "vllm_importance_sampling_correction": correction}
            watch(vllm_mode="server", learning_rate=0.0, temperature=0.7, max_steps=2, **settings).train()
    assert len(watch.steps) == 4
    for step in watch.steps:
        assert worst(step.vllm_logps, step.response_logps) < 1e-4
        expected = torch.tensor([confidence(logps) for logps in step.response_logps])
        torch.testing.assert_close(step.rollout.answer_confidence_B, expected, atol=1e-4, rtol=0)
    assert torch.equal(watch.steps[-1].rollout.logps_BT, watch.steps[-1].batch["sampling_per_token_logps"])


class Silent:
    """A silent progress. With ``stops``, it stops after a step, like a Ctrl-C at the worst moment."""

    def __init__(self, stops: int = 0) -> None:
        self.stops, self.name, self.done = stops, "", 0

    def stage(self, name: str, total: int, completed: int = 0) -> None:
        self.name, self.done = name, completed

    def advance(self, amount: int = 1, **values: float) -> None:
        self.done += amount
        if self.name == "train" and self.done == self.stops:
            raise KeyboardInterrupt


def recipe(*overrides: str) -> Recipe:
    small = ["training.steps=4", "training.prompts_per_step=4", "training.group_size=4", "training.checkpoint_every=2"]
    small += ["task.numbers=3", "task.train_size=64", "task.heldout_size=8", "evaluation.samples=4"]
    small += ["evaluation.every=2", "evaluation.problems_in_training=4", "evaluation.samples_in_training=4"]
    return load_recipe("countdown_cpu", [*small, "trl.use_vllm=true", *overrides])


def metrics(folder: RunFolder) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "step_time")} for line in lines]


def test_a_recipe_that_is_stopped_and_resumed_is_the_undisturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "check_vllm", lambda *args: None)  # it refuses a CPU, which colocate.py supports
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    evaluation = training.train(recipe(), whole, Silent())
    assert 0 <= evaluation.summary()["pass@1"] <= 1
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe(), stopped, Silent(stops=3))
    assert stopped.last_checkpoint().name == "checkpoint-2"
    training.train(recipe(), stopped, Silent(), resume=True)
    assert [line["step"] for line in metrics(whole)] == [1, 2, 3, 4]
    assert metrics(stopped) == metrics(whole)
    assert all(line["sampling/sampling_logp_difference/max"] < 1e-4 for line in metrics(whole))
    weights = [load_file(run.last_checkpoint() / "model.safetensors") for run in (whole, stopped)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_vllm_draws_with_the_recipe_s_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When vLLM starts, it seeds this process with the number of its engine."""
    monkeypatch.setattr(training, "check_vllm", lambda *args: None)
    seeds = []
    train = RecipeTrainer.train

    def look_and_train(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        seeds.append(torch.initial_seed())
        return train(trainer, *args, **kwargs)

    monkeypatch.setattr(RecipeTrainer, "train", look_and_train)
    training.train(recipe("seed=5", "training.steps=1", "evaluation.every=0"), RunFolder(tmp_path / "run"), Silent())
    assert seeds == [5]


def test_without_a_gpu_a_recipe_is_refused_in_one_sentence(tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "progrpo", "train", "countdown_cpu", "trl.use_vllm=true"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert (
        "progrpo: trl.use_vllm needs a GPU: without one, TRL can't hand new weights to vLLM; remove it" in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("recipe.json"))
