"""In TRL's real trainers, a response that is cut off in a thinking part that the chat template opened gets no
reward."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tests.tiny import tiny_qwen2, trl_template

from progrpo.sampling.models import load_model
from progrpo.tasks.rewards import verified_reward
from progrpo.tasks.templates import template_opens_thinking
from progrpo.trl import ProGRPOTrainer, Rollout
from trl import GRPOTrainer

CUT_OFF = r"Maybe \boxed{5}? Wait, that can't be right"
RESPONSES = [CUT_OFF, r"2 and 3.</think> It is \boxed{5}.", rf"<think>{CUT_OFF}", r"Hm.</think> It is \boxed{6}."]
QUESTION = "What is 2 + 3?"


def fixed_responses(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
    """The responses one after the other, as the user's engine returns them."""
    tokenizer = trainer.processing_class
    ids = [
        tokenizer(RESPONSES[i % len(RESPONSES)])["input_ids"] + [tokenizer.eos_token_id] for i in range(len(prompts))
    ]
    if isinstance(prompts[0], str):
        prompt_ids = tokenizer(prompts)["input_ids"]
    else:
        prompt_ids = tokenizer.apply_chat_template(
            prompts, add_generation_prompt=True, return_dict=True, **trainer.chat_template_kwargs
        )["input_ids"]
    return {"prompt_ids": prompt_ids, "completion_ids": ids, "logprobs": [[-0.5] * len(response) for response in ids]}


@pytest.fixture
def trained(make_trainer: Any, tmp_path: Path) -> Any:
    """Train a step with the reward of a trainer on one problem, and return the rewards of its four responses."""

    def train(trainer_class: Any, template: str, reward: Any, prompt: Any, **settings: Any) -> list[float]:
        seen: list[float] = []

        def watched(**columns: Any) -> list[float | None]:
            rewards = reward(**columns)
            seen.extend(rewards)
            return rewards

        model, tokenizer = load_model(str(tiny_qwen2(tmp_path / "model", template=template)))
        # GRPOTrainer does not hand over its rollouts, so the reward function itself is watched.
        ours = issubclass(trainer_class, ProGRPOTrainer)
        rollouts: list[Rollout] = []
        trainer = make_trainer(
            trainer_class,
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"prompt": prompt, "solution": "5"}] * 4),
            rollout_func=fixed_responses,
            reward_funcs=reward if ours else watched,
            per_device_train_batch_size=4,
            max_steps=1,
            **settings | ({"on_rollout": rollouts.append, "canonical_form": reward.canonical_form} if ours else {}),
        )
        trainer.train()
        if ours:
            [rollout] = rollouts
            seen = rollout.rewards_B.tolist()
            assert [form is not None for form in rollout.canonical] == [reward > 0 for reward in seen]
        return seen

    return train


MESSAGES = [{"role": "user", "content": QUESTION}]


@pytest.mark.parametrize(
    ("template", "settings", "rewards"),
    [
        ("deepseek_r1_distill", {}, [0.0, 1.0, 0.0, 0.0]),
        ("qwen3_5_think", {}, [0.0, 1.0, 0.0, 0.0]),
        ("qwen3_5_think", {"chat_template_kwargs": {"enable_thinking": False}}, [1.0, 1.0, 0.0, 0.0]),
        ("qwen2_5", {}, [1.0, 1.0, 0.0, 0.0]),
    ],
    ids=["r1", "qwen3.5", "qwen3.5, which does not think", "qwen2.5"],
)
def test_our_trainer_shows_its_reward_the_template(
    trained: Any, template: str, settings: dict[str, Any], rewards: list[float]
) -> None:
    reward = verified_reward("math", gold="solution")
    assert trained(ProGRPOTrainer, trl_template(template), reward, MESSAGES, **settings) == rewards


def test_each_trainer_shows_a_shared_reward_its_template(trained: Any) -> None:
    reward = verified_reward("math", gold="solution")
    thinking, plain = trl_template("deepseek_r1_distill"), trl_template("qwen2_5")
    assert trained(ProGRPOTrainer, thinking, reward, MESSAGES) == [0.0, 1.0, 0.0, 0.0]
    assert trained(ProGRPOTrainer, plain, reward, MESSAGES) == [1.0, 1.0, 0.0, 0.0]
    assert trained(ProGRPOTrainer, thinking, reward, MESSAGES) == [0.0, 1.0, 0.0, 0.0]
    assert reward.opens_thinking is None, "the user has said nothing"


def test_a_reward_that_has_warned_learns_the_template_from_the_next_trainer(trained: Any, caplog: Any) -> None:
    template, reward = trl_template("deepseek_r1_distill"), verified_reward("math", gold="solution")
    assert trained(GRPOTrainer, template, reward, MESSAGES) == [1.0, 1.0, 0.0, 0.0]
    assert caplog.text.count("ends a thinking part that it did not begin") == 1
    assert trained(ProGRPOTrainer, template, reward, MESSAGES) == [0.0, 1.0, 0.0, 0.0]


def test_the_user_s_setting_comes_before_the_trainer_s(trained: Any) -> None:
    reward = verified_reward("math", gold="solution", opens_thinking=False)
    assert trained(ProGRPOTrainer, trl_template("deepseek_r1_distill"), reward, MESSAGES) == [1.0, 1.0, 0.0, 0.0]


def test_trl_s_own_trainer_needs_the_user_s_setting(trained: Any, tmp_path: Path, caplog: Any) -> None:
    template = trl_template("deepseek_r1_distill")
    _, tokenizer = load_model(str(tiny_qwen2(tmp_path / "tokenizer", template=template)))
    reward = verified_reward("math", gold="solution", opens_thinking=template_opens_thinking(tokenizer))
    assert trained(GRPOTrainer, template, reward, MESSAGES) == [0.0, 1.0, 0.0, 0.0]
    assert "thinking part" not in caplog.text
    assert trained(GRPOTrainer, template, verified_reward("math", gold="solution"), MESSAGES) == [1.0, 1.0, 0.0, 0.0]
    assert caplog.text.count("ends a thinking part that it did not begin") == 1
    assert "give the reward opens_thinking=True" in caplog.text


@pytest.mark.parametrize("trainer_class", [ProGRPOTrainer, GRPOTrainer])
def test_a_prompt_that_is_text_shows_it_by_itself(trained: Any, trainer_class: Any, caplog: Any) -> None:
    reward = verified_reward("math", gold="solution")
    prompt = f"User: {QUESTION}\nAssistant: <think>\n"
    assert trained(trainer_class, trl_template("qwen2_5"), reward, prompt) == [0.0, 1.0, 0.0, 0.0]
    assert "thinking part" not in caplog.text
