"""The trainer, compared with TRL's own trainer and with slow re-computations."""

import math
import warnings
from dataclasses import fields
from typing import Any

import pytest
import torch
from datasets import Dataset
from tests.reference import forward, method
from transformers import TrainerCallback

from progrpo.common.errors import ConfigError
from progrpo.core import arm_advantages
from progrpo.methods.arm import ArmOptions
from progrpo.tasks import Countdown
from progrpo.tasks.rewards import task_reward
from progrpo.trl import ProGRPOConfig, ProGRPOTrainer, Rollout
from progrpo.trl.recorder import rollout_columns
from trl import GRPOConfig, GRPOTrainer


def weights(trainer: GRPOTrainer) -> dict[str, torch.Tensor]:
    """The policy's weights by name."""
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


class Batches(TrainerCallback):
    """Keeps the rollouts that a trainer hands over."""

    def __init__(self) -> None:
        self.rollouts: list[Rollout] = []

    def __call__(self, rollout: Rollout) -> None:
        self.rollouts.append(rollout)


def logged(trainer: GRPOTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_iterations": 2, "max_steps": 4},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 8, "steps_per_generation": 4, "max_steps": 4},
        {"loss_type": "grpo", "scale_rewards": "none", "beta": 0.02, "temperature": 0.8},
        {"gradient_checkpointing": True, "bf16": True},
    ],
    ids=["aligned", "num_iterations", "accumulation", "steps_per_generation", "kl", "trl_defaults"],
)
def test_alpha_0_gives_the_weights_of_grpo_bit_for_bit(make_trainer: Any, settings: dict[str, Any]) -> None:
    if "beta" in settings:  # the reference model is loaded by its path
        settings = settings | {"model": "countdown"}
    theirs, ours = make_trainer(GRPOTrainer, **_with_path(settings)), None
    theirs.train()
    ours = make_trainer(ProGRPOTrainer, alpha=0.0, **_with_path(settings))
    before = weights(ours)
    ours.train()
    expected, got = weights(theirs), weights(ours)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert any(not torch.equal(before[name], got[name]) for name in got), "nothing was trained"


def test_alpha_changes_the_weights(make_trainer: Any) -> None:
    trained = []
    for alpha in (0.0, 1.0):
        trainer = make_trainer(alpha=alpha)
        trainer.train()
        trained.append(weights(trainer))
    assert any(not torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


@pytest.mark.parametrize("center", ["prompt", "group", "correct"])
def test_advantages_are_those_of_the_core_with_recomputed_confidences(make_trainer: Any, center: str) -> None:
    keep = Batches()
    problems = [Countdown(numbers=numbers, train_size=16).train_problems() for numbers in (3, 4)]
    trainer = make_trainer(
        alpha=0.7,
        center=center,
        temperature=0.8,
        on_rollout=keep,
        learning_rate=0.0,
        max_steps=2,
        num_generations_eval=2,  # only evaluations have this
        train_dataset=Dataset.from_list([problem for pair in zip(*problems, strict=True) for problem in pair]),
    )
    trainer.train()
    assert len(keep.rollouts) == 2
    for rollout in keep.rollouts:
        assert len({len(row["prompt"].split()) for row in rollout.rows}) == 2, "all prompts have the same length"
        assert torch.equal(rollout.groups_B, torch.arange(16) // 4)
        both = [confidences(trainer, row, ids) for row, ids in zip(rollout.rows, rollout.token_ids, strict=True)]
        c_q, c_o = ([pair[i] for pair in both] for i in range(2))
        torch.testing.assert_close(rollout.prompt_confidence_B, torch.tensor(c_q), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(rollout.answer_confidence_B, torch.tensor(c_o), atol=1e-5, rtol=1e-4)
        expected = arm_advantages(
            rollout.grpo_advantages_B,
            rollout.rewards_B,
            torch.tensor(c_q),
            torch.tensor(c_o),
            torch.arange(16) // 4,
            alpha=0.7,
            center=center,
        )
        torch.testing.assert_close(rollout.advantages_B, expected, atol=1e-5, rtol=1e-4)
        assert (rollout.rewards_B > 0).any()
        assert not torch.equal(rollout.advantages_B, rollout.grpo_advantages_B)


def confidences(trainer: GRPOTrainer, row: dict[str, Any], response: list[int]) -> tuple[float, float]:
    """c(q) and c(o|q) of one response by one plain forward pass over prompt and response."""
    prompt = trainer.processing_class(row["prompt"])["input_ids"]
    both = forward.token_logps(trainer.model, prompt, response, trainer.temperature)
    of_prompt, of_response = ((logps, [True] * len(logps)) for logps in both)
    return method.prompt_confidence(*of_prompt), method.answer_confidence(*of_response, 0.2)


def test_the_batch_and_the_completions_log_hold_the_new_advantages(make_trainer: Any) -> None:
    keep = Batches()
    trainer = make_trainer(on_rollout=keep, max_steps=1)
    seen = []
    compute_loss = trainer._compute_loss
    trainer._compute_loss = lambda model, inputs: (seen.append(inputs["advantages"]), compute_loss(model, inputs))[1]
    trainer.train()
    expected = keep.rollouts[0].advantages_B
    assert sorted(seen[0].tolist()) == sorted(expected.tolist())  # TRL shuffles the batch
    assert list(trainer._logs["advantages"]) == expected.tolist()


def test_no_forward_pass_over_responses_is_added_and_one_over_each_distinct_prompt(make_trainer: Any) -> None:
    def passes(trainer: GRPOTrainer) -> list[tuple[int, int]]:
        """The (rows, length) of every forward pass outside generation."""
        shapes: list[tuple[int, int]] = []
        fused = trainer._get_per_token_logps_and_entropies

        def count(model: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            shapes.append(tuple(input_ids.shape))
            return fused(model, input_ids, *args, **kwargs)

        trainer._get_per_token_logps_and_entropies = count
        trainer.train()
        return shapes

    theirs = passes(make_trainer(GRPOTrainer, max_steps=2))
    ours = passes(make_trainer(ProGRPOTrainer, alpha=1.0, max_steps=2))
    assert [rows for rows, _ in theirs] == [16, 16]
    assert [rows for rows, _ in ours] == [4, 16, 4, 16]  # 4 distinct prompts before each batch of 16
    prompt_length = 6  # three numbers, a colon, the target, a semicolon
    assert [length for _, length in ours[::2]] == [prompt_length, prompt_length]


def test_the_log_probs_that_trl_computed_come_first(make_trainer: Any) -> None:
    keep = Batches()
    trainer = make_trainer(on_rollout=keep, num_iterations=2, max_steps=2)
    scored = []
    generate = GRPOTrainer._generate_and_score_completions

    def spy(self: Any, inputs: Any) -> Any:
        scored.append(generate(self, inputs))
        return scored[-1]

    GRPOTrainer._generate_and_score_completions = spy
    try:
        trainer.train()
    finally:
        GRPOTrainer._generate_and_score_completions = generate
    assert torch.equal(keep.rollouts[0].logps_BT, scored[0]["old_per_token_logps"])
    assert "sampling_per_token_logps" not in scored[0], "recorded log-probs must not reach TRL's loss"


def test_each_distinct_response_is_verified_once_for_all_callers(make_trainer: Any) -> None:
    """The reward, the canonical forms and the recorder ask for verdicts, and an evaluation comes in between."""
    verified: list[tuple[str, str]] = []
    reward = task_reward(Countdown(numbers=3))
    verify_batch = reward.verify_batch

    def verify_and_count(rows: Any, texts: Any) -> Any:
        verified.extend((row["problem_id"], text) for row, text in zip(rows, texts, strict=True))
        return verify_batch(rows, texts)

    reward.verify_batch = verify_and_count
    keep = Batches()

    def record(rollout: Rollout) -> None:
        keep(rollout)
        rollout_columns(rollout, len(keep.rollouts), reward)

    trainer = make_trainer(
        reward_funcs=reward,
        canonical_form=reward.canonical_form,
        on_rollout=record,
        eval_dataset=Dataset.from_list(Countdown(numbers=3, heldout_size=8).heldout_problems()),
        eval_strategy="steps",
        eval_steps=1,
        max_steps=2,
    )
    trainer.train()
    for step, rollout in enumerate(keep.rollouts):  # as the recorder does for the batch of a step that failed
        rollout_columns(rollout, step, reward)
    responses = {
        (row["problem_id"], text)
        for rollout in keep.rollouts
        for row, text in zip(rollout.rows, rollout.completions, strict=True)
    }
    assert responses < set(verified), "the evaluations' responses are verified too"
    assert len(verified) == len(set(verified))
    assert sum(logged(trainer, "distinct_solutions")) > 0


def scripted_rollout(prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
    """The output of the user's engine: ids, log-probs, and which tokens it generated itself."""
    return {
        "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
        "completion_ids": [[20 + i % 5, 4, 21, 1] for i in range(len(prompts))],
        "logprobs": [[-0.1, -3.0 - 0.01 * i, float("nan") if i == 2 else -0.5, -0.2] for i in range(len(prompts))],
        "env_mask": [[1, 0, 1, 1]] * len(prompts),
    }


def test_an_engine_s_log_probs_are_used_without_tokens_of_tools(make_trainer: Any) -> None:
    keep = Batches()
    rewards = lambda completions, **kwargs: [float(i % 2) for i in range(len(completions))]  # noqa: E731
    trainer = make_trainer(on_rollout=keep, rollout_func=scripted_rollout, reward_funcs=rewards, max_steps=1)
    trainer.train()
    c_o = keep.rollouts[0].answer_confidence_B
    expected = torch.full((16,), math.exp(-0.5))  # T_low is one token: not the tool's, which has the lowest log-prob
    expected[2] = math.exp(-0.2)  # the engine could not score that token
    torch.testing.assert_close(c_o, expected)


def test_a_rollout_without_log_probs_is_scored_by_one_forward_pass(make_trainer: Any) -> None:
    def rollout(prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        return scripted_rollout(prompts, trainer) | {"logprobs": None, "env_mask": [[1] * 4] * len(prompts)}

    keep = Batches()
    trainer = make_trainer(rollout_func=rollout, on_rollout=keep, max_steps=1)
    trainer.train()
    starting = _unadapted(trainer)
    for row, ids, c_o in zip(
        keep.rollouts[0].rows, keep.rollouts[0].token_ids, keep.rollouts[0].answer_confidence_B.tolist(), strict=True
    ):
        assert c_o == pytest.approx(confidences(starting, row, ids)[1], abs=1e-5)


def test_rows_without_a_reward_are_left_out_of_their_group(make_trainer: Any) -> None:
    def reward(completions: list[str], **columns: Any) -> list[float | None]:
        return [None if i % 4 == 0 else float(i % 4 == 1) for i in range(len(completions))]

    keep = Batches()
    make_trainer(on_rollout=keep, reward_funcs=reward, center="group", max_steps=1).train()
    rollout = keep.rollouts[0]
    assert torch.isnan(rollout.rewards_B[::4]).all()
    assert (rollout.advantages_B[::4] == 0).all()
    corrections = (rollout.advantages_B - rollout.grpo_advantages_B).view(4, 4)
    torch.testing.assert_close(corrections.sum(1), torch.zeros(4), atol=1e-6, rtol=0)
    assert (corrections[:, 1:] != 0).all()


def test_several_reward_functions_are_weighted(make_trainer: Any) -> None:
    def first(completions: list[str], **columns: Any) -> list[float | None]:
        return [1.0 if i % 2 else None for i in range(len(completions))]

    def second(completions: list[str], **columns: Any) -> list[float]:
        return [0.5] * len(completions)

    keep = Batches()
    make_trainer(on_rollout=keep, reward_funcs=[first, second], reward_weights=[2.0, 1.0], max_steps=1).train()
    assert keep.rollouts[0].rewards_B.tolist() == [0.5, 2.5] * 8


def accuracy(completions: list[str], **columns: Any) -> list[float]:
    return [float(i % 4 == 0) for i in range(len(completions))]


def layout(completions: list[str], **columns: Any) -> list[float]:
    return [0.5] * len(completions)


@pytest.mark.parametrize("named", [False, True])
def test_the_named_reward_decides_what_is_right_beside_a_reward_for_the_format(make_trainer: Any, named: bool) -> None:
    keep = Batches()
    settings = {"correct_reward": "accuracy"} if named else {}
    trainer = make_trainer(reward_funcs=[accuracy, layout], on_rollout=keep, center="correct", max_steps=1, **settings)
    trainer.train()
    [rollout] = keep.rollouts
    right = torch.arange(16) % 4 == 0
    assert rollout.rewards_B.tolist() == [1.5, 0.5, 0.5, 0.5] * 4
    assert rollout.correct_B.tolist() == (right if named else torch.ones(16).bool()).tolist()
    assert rollout.correct_rewards_B.tolist() == ([1.0, 0.0, 0.0, 0.0] if named else [1.5, 0.5, 0.5, 0.5]) * 4
    assert [form is not None for form in rollout.canonical] == rollout.correct_B.tolist()
    moved = rollout.advantages_B != rollout.grpo_advantages_B
    assert moved[~right].any() == (not named), "a wrong response is pushed where all count as right"
    shares = {name: logged(trainer, f"groups/{name}")[0] for name in ("all_right", "mixed", "zero_variance")}
    assert shares == {"all_right": float(not named), "mixed": float(named), "zero_variance": 0.0}
    expected = arm_advantages(
        rollout.grpo_advantages_B,
        rollout.correct_rewards_B,
        rollout.prompt_confidence_B,
        rollout.answer_confidence_B,
        rollout.groups_B,
        alpha=1.0,
        center="correct",
    )
    assert torch.equal(rollout.advantages_B, expected)


def test_a_warning_says_what_counts_as_right_if_it_is_an_assumption(make_trainer: Any) -> None:
    with pytest.warns(UserWarning, match="weighted sum of accuracy, layout is above correct_above=0") as caught:
        make_trainer(reward_funcs=[accuracy, layout])
    ours = [warning for warning in caught if "correct_above" in str(warning.message)]
    assert [warning.filename for warning in ours] == [make_trainer.__code__.co_filename], "it points at the caller"
    for settings in (
        {"correct_reward": "accuracy"},
        {"alpha": 0.0},
        {"reward_weights": [1.0, 0.0]},  # the second is only logged
        {"reward_funcs": [accuracy]},
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            make_trainer(**{"reward_funcs": [accuracy, layout]} | settings)


def test_the_name_of_no_reward_function_or_of_two_is_refused(make_trainer: Any) -> None:
    with pytest.raises(ConfigError, match=r"name of one reward function \(accuracy, layout\), got 'acc'"):
        make_trainer(reward_funcs=[accuracy, layout], correct_reward="acc")
    with pytest.raises(ConfigError, match=r"\(accuracy, accuracy\), got 'accuracy'"):
        make_trainer(reward_funcs=[accuracy, accuracy], correct_reward="accuracy")


def penalty(completions: list[str], **columns: Any) -> list[float]:
    return [-float(abs(20 - len(text))) for text in completions]


def test_with_penalties_arm_warns_that_it_is_off_or_acts_above_correct_above(
    make_trainer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("progrpo.methods.arm.QUIET_STEPS", 2)
    keep = Batches()
    make_trainer(reward_funcs=penalty, on_rollout=keep, max_steps=2).train()
    assert all(torch.equal(rollout.advantages_B, rollout.grpo_advantages_B) for rollout in keep.rollouts)
    highest = max(rollout.rewards_B.max().item() for rollout in keep.rollouts)
    said = [record.getMessage() for record in caplog.records if "No group was re-weighted" in record.getMessage()]
    assert len(said) == 1
    assert f"reward was above correct_above=0, the highest was {highest:g}." in said[0]

    caplog.clear()
    keep = Batches()
    make_trainer(reward_funcs=penalty, on_rollout=keep, max_steps=2, correct_above=-5).train()
    rollout = keep.rollouts[0]
    assert rollout.correct_B.tolist() == (rollout.rewards_B > -5).tolist()
    assert 0 < rollout.correct_B.sum() < 16
    assert not torch.equal(rollout.advantages_B, rollout.grpo_advantages_B)
    make_trainer(reward_funcs=penalty, max_steps=3, alpha=0.0).train()
    assert "No group was re-weighted" not in caplog.text


def test_a_right_reward_of_nan_keeps_its_advantage(make_trainer: Any) -> None:
    def unsure(completions: list[str], **columns: Any) -> list[float | None]:
        return [None if i % 4 == 1 else float(i % 4 == 0) for i in range(len(completions))]

    keep = Batches()
    make_trainer(reward_funcs=[unsure, penalty], on_rollout=keep, max_steps=1, correct_reward="unsure").train()
    [rollout] = keep.rollouts
    unscored = torch.arange(16) % 4 == 1
    assert rollout.rewards_B.isfinite().all()
    assert torch.equal(rollout.advantages_B[unscored], rollout.grpo_advantages_B[unscored])
    assert (rollout.advantages_B != rollout.grpo_advantages_B)[~unscored].all()


def test_metrics_are_logged(make_trainer: Any) -> None:
    keep = Batches()
    trainer = make_trainer(on_rollout=keep, max_steps=2, center="prompt")
    trainer.train()
    for step, rollout in enumerate(keep.rollouts):
        correction = rollout.advantages_B - rollout.grpo_advantages_B
        right = (rollout.rewards_B > 0).view(4, 4)
        expected = {
            "confidence/prompt/mean": rollout.prompt_confidence_B.mean(),
            "confidence/answer/min": rollout.answer_confidence_B.min(),
            "confidence/answer/max": rollout.answer_confidence_B.max(),
            "correction/mean": correction.mean(),
            "correction/min": correction.min(),
            "groups/activated": right.any(1).float().mean(),
            "groups/all_right": right.all(1).float().mean(),
            "groups/all_wrong": (~right.any(1)).float().mean(),
            "groups/mixed": (right.any(1) & ~right.all(1)).float().mean(),
            "distinct_solutions": len(
                {(i // 4, form.strip()) for i, form in enumerate(rollout.completions) if rollout.rewards_B[i] > 0}
            )
            / 4,
        }
        for name, value in expected.items():
            assert logged(trainer, name)[step] == pytest.approx(float(value), abs=1e-6), name
    assert len(logged(trainer, "entropy")) == 2


def test_the_canonical_form_distinguishes_solutions(make_trainer: Any) -> None:
    trainer = make_trainer(canonical_form=lambda row, completion: "the same for all", max_steps=1)
    trainer.train()
    assert logged(trainer, "distinct_solutions") == logged(trainer, "groups/activated")


def test_evaluation_has_its_own_group_size_and_metrics(make_trainer: Any) -> None:
    problems = Dataset.from_list(Countdown(numbers=3, heldout_size=8).heldout_problems())
    trainer = make_trainer(eval_dataset=problems, num_generations_eval=2, per_device_eval_batch_size=8, max_steps=1)
    metrics = trainer.evaluate()
    assert 0 < metrics["eval_confidence/answer/mean"] <= 1
    assert metrics["eval_groups/mixed"] + metrics["eval_groups/all_right"] + metrics[
        "eval_groups/all_wrong"
    ] == pytest.approx(1.0)


def test_peft(make_trainer: Any) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    keep = Batches()
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = make_trainer(peft_config=config, on_rollout=keep, max_steps=2)
    trainer.train()
    rollout = keep.rollouts[0]  # the adapter starts as the identity: these are the base model's confidences
    assert ((rollout.answer_confidence_B > 0) & (rollout.answer_confidence_B <= 1)).all()
    c_q, c_o = confidences(_unadapted(trainer), rollout.rows[0], rollout.token_ids[0])
    assert rollout.answer_confidence_B[0].item() == pytest.approx(c_o, abs=1e-5)
    assert rollout.prompt_confidence_B[0].item() == pytest.approx(c_q, abs=1e-5)


def _unadapted(trainer: GRPOTrainer) -> Any:
    """A stand-in that has the starting model instead of the adapted one."""
    from types import SimpleNamespace

    from progrpo.sampling.models import load_model

    model, tokenizer = load_model("countdown")
    return SimpleNamespace(model=model, processing_class=tokenizer, temperature=trainer.temperature)


def test_dropout_draws_no_random_numbers_in_the_prompt_s_pass(make_trainer: Any) -> None:
    from progrpo.sampling.models import load_model

    trained = []
    for trainer_class, extra in ((GRPOTrainer, {}), (ProGRPOTrainer, {"alpha": 0.0})):
        model, _ = load_model("countdown")
        model.config.attention_dropout = 0.1
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.1
        trainer = make_trainer(trainer_class, model=model, **extra)
        trainer.train()
        trained.append(weights(trainer))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_plain_grpo_config_is_refused() -> None:
    with pytest.raises(TypeError, match="args must be a ProGRPOConfig, got GRPOConfig"):
        ProGRPOTrainer("countdown", lambda completions, **kw: [], GRPOConfig("out", bf16=False, use_cpu=True))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("alpha", -1.0, r"alpha must be a number in \[0.0, inf\), got -1.0"),
        ("alpha", float("nan"), "alpha must be a number"),
        ("low_prob_fraction", 0.0, r"low_prob_fraction must be a number in \(0.0, 1.0\], got 0.0"),
        ("correct_above", float("nan"), r"correct_above must be a number in \(-inf, inf\), got nan"),
        ("correct_reward", 3, "correct_reward must be the name of a reward, or None, got 3"),
        ("activation", "always", "activation must be one of 'any_correct', 'mixed', got 'always'"),
        ("center", "mean", "center must be one of 'prompt', 'group', 'correct', got 'mean'"),
    ],
)
def test_options_are_checked(option: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProGRPOConfig("out", bf16=False, use_cpu=True, **{option: value})


def test_every_option_of_ours_has_a_help_text() -> None:
    names = ProGRPOConfig.__annotations__ | ArmOptions.__annotations__
    ours = [field for field in fields(ProGRPOConfig) if field.name in names]
    assert {"alpha", "epsilon_high", "low_prob_fraction"} <= {field.name for field in ours}
    assert [field.name for field in ours if not field.metadata.get("help")] == []


def test_a_warning_if_log_probs_are_of_another_distribution_than_c_q(make_trainer: Any) -> None:
    engine = {"use_transformers_continuous_batching": True}
    with pytest.warns(UserWarning, match=r"which are taken after top_p=0.9, min_p=0.1, but c\(q\) is taken") as caught:
        make_trainer(top_p=0.9, min_p=0.1, **engine)
    ours = [warning for warning in caught if "c(o|q)" in str(warning.message)]
    assert [warning.filename for warning in ours] == [make_trainer.__code__.co_filename], "it points at the caller"
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    for settings in ({"top_p": 0.9}, {"top_p": 0.9, "center": "group"} | engine, engine, neutral | engine):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            make_trainer(**settings)


def _with_path(settings: dict[str, Any]) -> dict[str, Any]:
    from progrpo.sampling.models import SHIPPED

    return (
        settings | {"model": str(SHIPPED["countdown"]), "model_init_kwargs": {"dtype": "float32"}}
        if "model" in settings
        else settings
    )


def test_continuous_batching_returns_its_own_log_probs(make_trainer: Any) -> None:
    keep = Batches()
    trainer = make_trainer(
        on_rollout=keep,
        use_transformers_continuous_batching=True,
        # The default sizes of the cache are meant for a GPU's memory.
        transformers_continuous_batching_config={"num_blocks": 64, "max_batch_tokens": 256},
        max_steps=1,
        center="group",
    )
    trainer.train()
    [rollout] = keep.rollouts
    assert len(rollout.rows) == 16
    starting = _unadapted(trainer)
    for row, ids, c_o in zip(rollout.rows, rollout.token_ids, rollout.answer_confidence_B.tolist(), strict=True):
        assert c_o == pytest.approx(confidences(starting, row, ids)[1], abs=1e-4)


def test_continuous_batching_may_be_chosen_after_the_config_was_built(make_trainer: Any) -> None:
    keep = Batches()
    trainer = make_trainer(on_rollout=keep, max_steps=1, after_config=late_continuous_batching)
    trainer.train()
    starting = _unadapted(trainer)
    for row, ids, logps in zip(
        keep.rollouts[0].rows, keep.rollouts[0].token_ids, keep.rollouts[0].logps_BT, strict=True
    ):
        prompt = trainer.processing_class(row["prompt"])["input_ids"]
        _, expected = forward.token_logps(starting.model, prompt, ids, trainer.temperature)
        assert logps[: len(ids)].tolist() == pytest.approx(expected, abs=1e-4)


def late_continuous_batching(config: ProGRPOConfig) -> None:
    config.use_transformers_continuous_batching = True
    config.transformers_continuous_batching_config = {"num_blocks": 64, "max_batch_tokens": 256}


def test_an_evaluation_with_continuous_batching_counts_as_one(make_trainer: Any) -> None:
    """TRL puts the model into training mode after each of its generations, those of evaluations too."""
    keep = Batches()
    problems = Dataset.from_list(Countdown(numbers=3, heldout_size=8).heldout_problems())
    trainer = make_trainer(
        eval_dataset=problems,
        num_generations_eval=2,
        per_device_eval_batch_size=8,  # two batches
        on_rollout=keep,
        after_config=late_continuous_batching,
        max_steps=1,
    )
    trainer.train()
    assert len(keep.rollouts) == 1
    sizes: list[int] = []
    generate = trainer._generate_single_turn
    trainer._generate_single_turn = lambda ids, *args, **kwargs: (sizes.append(len(ids)), generate(ids, *args))[1]
    metrics = trainer.evaluate()
    assert sizes == [8, 8], "each batch of the evaluation is generated, and no batch of the training is taken for one"
    assert len(keep.rollouts) == 1, "on_rollout is called for training generations alone"
    assert metrics["eval_groups/mixed"] + metrics["eval_groups/all_right"] + metrics[
        "eval_groups/all_wrong"
    ] == pytest.approx(1.0)
    assert not trainer._metrics["train"].get("groups/mixed")
    assert not trainer.model.training


@pytest.mark.parametrize(
    "generation_kwargs",
    [
        {"num_beams": 2},
        {"num_beams": 2, "do_sample": False},
        {"guidance_scale": 1.5},
        {"do_sample": False},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 3},
    ],
    ids=lambda kwargs: ",".join(f"{name}={value}" for name, value in kwargs.items()),
)
def test_it_trains_with_every_setting_of_grpo(make_trainer: Any, generation_kwargs: dict[str, Any]) -> None:
    """The same weights with alpha=0, and confidences from the responses' log-probs, however tokens were chosen."""
    trained, keep = [], Batches()
    for trainer_class, extra in ((GRPOTrainer, {}), (ProGRPOTrainer, {"alpha": 0.0, "on_rollout": keep})):
        trainer = make_trainer(trainer_class, generation_kwargs=generation_kwargs, max_steps=2, **extra)
        trainer.train()
        trained.append(weights(trainer))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    first, starting = keep.rollouts[0], _unadapted(trainer)
    for row, ids, c_o in zip(first.rows, first.token_ids, first.answer_confidence_B.tolist(), strict=True):
        assert c_o == pytest.approx(confidences(starting, row, ids)[1], abs=1e-5)


def test_beam_search_by_the_model_s_own_generation_config(make_trainer: Any) -> None:
    from progrpo.sampling.models import load_model

    model, _ = load_model("countdown")
    model.generation_config.num_beams = 2
    keep = Batches()
    trainer = make_trainer(model=model, on_rollout=keep, max_steps=1)
    trainer.train()
    row, ids = keep.rollouts[0].rows[0], keep.rollouts[0].token_ids[0]
    expected = confidences(_unadapted(trainer), row, ids)[1]
    assert keep.rollouts[0].answer_confidence_B[0].item() == pytest.approx(expected, abs=1e-5)


def test_each_update_of_a_rollout_has_the_clipped_loss_of_its_ratios(make_trainer: Any) -> None:
    """Four updates per rollout, each compared with a plain forward pass and the formula, token by token."""
    keep, losses, expected, ratios = Batches(), [], [], []
    trainer = make_trainer(
        on_rollout=keep,
        per_device_train_batch_size=4,
        steps_per_generation=4,
        max_steps=4,
        epsilon_high=0.28,
        loss_type="dapo",
        learning_rate=3e-3,
    )
    compute_loss = trainer._compute_loss

    def compare(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        total, tokens = 0.0, int(inputs["num_items_in_batch"]) / 4
        for i, advantage in enumerate(inputs["advantages"].tolist()):
            prompt = inputs["prompt_ids"][i][inputs["prompt_mask"][i].bool()].tolist()
            ids = inputs["completion_ids"][i][inputs["completion_mask"][i].bool()].tolist()
            _, new = forward.token_logps(trainer.model, prompt, ids, trainer.temperature)
            for logp, old in zip(new, inputs["old_per_token_logps"][i].tolist(), strict=False):
                ratio = math.exp(logp - old)
                ratios.append(ratio)
                total -= min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage)
        expected.append(total / tokens)
        loss = compute_loss(model, inputs)
        losses.append(loss.item())
        return loss

    trainer._compute_loss = compare
    trainer.train()
    assert len(keep.rollouts) == 1
    assert losses == pytest.approx(expected, abs=1e-5)
    assert max(ratios) > 1.28
    assert min(ratios) < 0.8
    assert keep.rollouts[0].answer_confidence_B.isfinite().all()
