"""What the adapter takes for granted of TRL's private API. A failure here says what a new version of TRL moved."""

import inspect
from typing import Any

import torch

from progrpo.tasks.rewards import OF_THE_RESPONSE
from progrpo.trl import ProGRPOConfig, ProGRPOTrainer
from trl import GRPOConfig, GRPOTrainer

OVERRIDDEN = {
    "_generate_single_turn": [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_and_score_completions": ["self", "inputs"],
}
CALLED = {
    "_get_per_token_logps_and_entropies": ["self", "model", "input_ids", "attention_mask", "logits_to_keep"],
}


def test_the_methods_that_are_overridden_or_called_have_the_parameters_they_had() -> None:
    for name, parameters in (OVERRIDDEN | CALLED).items():
        got = list(inspect.signature(getattr(GRPOTrainer, name)).parameters)
        assert got[: len(parameters)] == parameters, f"GRPOTrainer.{name} now takes {got}"


def test_nothing_else_of_trl_is_overridden() -> None:
    own = {name for name in vars(ProGRPOTrainer) if inspect.isfunction(vars(ProGRPOTrainer)[name])}
    assert own & set(dir(GRPOTrainer)) == {"__init__", *OVERRIDDEN}


def test_no_method_body_of_trl_is_copied() -> None:
    theirs = {line.strip() for line in inspect.getsource(GRPOTrainer).split("\n") if len(line.strip()) > 60}
    ours = [line.strip() for line in inspect.getsource(ProGRPOTrainer).split("\n")]
    assert [line for line in ours if line in theirs] == []


def test_our_options_are_not_fields_of_trl_s_config() -> None:
    added = set(ProGRPOConfig.__dataclass_fields__) - set(GRPOConfig.__dataclass_fields__)
    assert added == {"alpha", "low_prob_fraction", "activation", "center", "correct_above", "correct_reward"}


def test_what_trl_hands_to_a_reward_beside_the_dataset_s_columns(make_trainer: Any) -> None:
    handed: dict[str, Any] = {}

    def reward(**kwargs: Any) -> list[float]:
        handed.update(kwargs)
        return [0.0] * len(kwargs["completions"])

    trainer = make_trainer(GRPOTrainer, reward_funcs=reward, max_steps=1)
    trainer.train()
    a_list = {name for name, value in handed.items() if isinstance(value, list)}
    columns = {*trainer.train_dataset.column_names, "prompts", "completions"}
    assert a_list - columns <= OF_THE_RESPONSE, "progrpo.tasks.rewards takes them for columns of the problem"
    assert "completion_ids" in a_list


def test_the_scored_batch_holds_what_the_adapter_reads(make_trainer: Any) -> None:
    trainer = make_trainer(GRPOTrainer, max_steps=1)
    seen: dict[str, Any] = {}
    score = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: (seen.update(score(inputs)), dict(seen))[1]
    trainer.train()
    for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages"):
        assert isinstance(seen[name], torch.Tensor), f"the batch has no {name}: {sorted(seen)}"
    assert seen["advantages"].shape == (16,)
    assert (seen["prompt_mask"][:, -1] == 1).all(), "prompts are no longer padded on the left"
    assert list(trainer._logs["advantages"])[-16:] == seen["advantages"].tolist(), "the newest are no longer last"
    assert trainer.reward_weights.shape == (1,)
