"""What the adapter relies on in the private API of TRL, transformers and torch: a failure says what has changed."""

import inspect
from typing import Any

import pytest
import torch

from progrpo.tasks.rewards import NOT_OF_THE_PROBLEM
from progrpo.trl import ProGRPOConfig, ProGRPOTrainer
from progrpo.trl.checkpoints import WholeCheckpoints
from progrpo.trl.generation import SeededResponses
from progrpo.trl.guard import FiniteGuard
from progrpo.trl.recorder import StepMetrics
from progrpo.trl.run import RecipeTrainer
from trl import GRPOConfig, GRPOTrainer

TURN = ["self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"]
OVERRIDDEN: dict[type, dict[str, list[str]]] = {
    ProGRPOTrainer: {
        "_generate_single_turn": TURN,
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_generate_and_score_completions": ["self", "inputs"],
    },
    SeededResponses: {"_generate_single_turn": TURN},
    FiniteGuard: {
        "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
        "_clip_grad_norm": ["self", "model"],
        "_get_grad_norm": ["self", "model", "grad_norm"],
        "_generate_and_score_completions": ["self", "inputs"],
    },
    StepMetrics: {
        "training_step": ["self", "model", "inputs", "num_items_in_batch"],
        "_maybe_log_save_evaluate": ["self", "tr_loss", "grad_norm"],
    },
    WholeCheckpoints: {
        "_get_train_sampler": ["self", "dataset"],
        "_init_training_state": ["self"],
        "_get_output_dir": ["self", "trial"],
        "_save_checkpoint": ["self", "model", "trial"],
        "_save_optimizer_and_scheduler": ["self", "output_dir"],
        "_save_rng_state": ["self", "output_dir"],
        "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
        "_load_optimizer_and_scheduler": ["self", "checkpoint"],
        "_load_rng_state": ["self", "checkpoint"],
    },
    RecipeTrainer: {},
}
CALLED = {
    "_get_per_token_logps_and_entropies": ["self", "model", "input_ids", "attention_mask", "logits_to_keep"],
}


@pytest.mark.parametrize("ours", OVERRIDDEN)
def test_overridden_and_called_methods_have_the_same_parameters(ours: type) -> None:
    for name, parameters in (OVERRIDDEN[ours] | CALLED).items():
        current = list(inspect.signature(getattr(GRPOTrainer, name)).parameters)
        assert current[: len(parameters)] == parameters, f"GRPOTrainer.{name} now takes {current}"


@pytest.mark.parametrize("ours", OVERRIDDEN)
def test_no_other_method_is_overridden(ours: type) -> None:
    functions = {name for name, value in vars(ours).items() if inspect.isfunction(value)}
    assert functions & set(dir(GRPOTrainer)) - {"__init__"} == set(OVERRIDDEN[ours])


@pytest.mark.parametrize("ours", OVERRIDDEN)
def test_no_method_body_is_copied(ours: type) -> None:
    theirs = {
        line.strip()
        for base in GRPOTrainer.__mro__[:-1]
        for line in inspect.getsource(base).split("\n")
        if len(line.strip()) > 60 and not line.strip().startswith("def ")
    }
    lines = [line.strip() for line in inspect.getsource(ours).split("\n")]
    assert [line for line in lines if line in theirs] == []


def test_every_file_that_transformers_reads_is_read_only_as_data() -> None:
    """rng_state*.pth and scaler.pt are pickles: with weights_only=True torch reads only tensors and plain data."""
    for name in ("_load_rng_state", "_load_scaler"):
        source = inspect.getsource(getattr(GRPOTrainer, name))
        assert source.count("torch.load(") == source.count("weights_only=True") > 0, name


def test_the_norm_of_the_gradient_is_taken_before_the_optimizer_s_step() -> None:
    source = inspect.getsource(GRPOTrainer._run_epoch)
    assert source.index("self._get_grad_norm(") < source.index("self.optimizer.step()")


def test_the_trainer_has_what_its_checkpoints_use(make_trainer: Any) -> None:
    trainer = make_trainer(GRPOTrainer, max_steps=1)
    trainer.train()
    assert trainer._step == 1, "micro-batches so far"
    assert isinstance(trainer._buffered_inputs, list)
    assert {"reward", "entropy"} <= trainer._metrics["train"].keys() | trainer.state.log_history[0].keys()


def test_the_internals_of_fsdp_that_evaluations_restore() -> None:
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        model = torch.distributed.fsdp.fully_shard(torch.nn.Linear(2, 2), mesh=mesh, reshard_after_forward=True)
        state = model._get_fsdp_state()
        before = (state._auto_reshard_after_forward, state._fsdp_param_groups[0].post_forward_mesh_info)
        model.set_reshard_after_forward(False, recurse=False)
        assert (state._auto_reshard_after_forward, state._fsdp_param_groups[0].post_forward_mesh_info) != before
        assert len(state._fsdp_param_groups) == 1
    finally:
        torch.distributed.destroy_process_group()


def test_our_options_are_not_fields_of_trl_s_config() -> None:
    added = set(ProGRPOConfig.__dataclass_fields__) - set(GRPOConfig.__dataclass_fields__)
    assert added == {"alpha", "low_prob_fraction", "activation", "center", "correct_above", "correct_reward"}


def test_what_trl_passes_to_a_reward_beside_the_dataset_s_columns(make_trainer: Any) -> None:
    passed: dict[str, Any] = {}

    def reward(**kwargs: Any) -> list[float]:
        passed.update(kwargs)
        return [0.0] * len(kwargs["completions"])

    trainer = make_trainer(GRPOTrainer, reward_funcs=reward, max_steps=1)
    trainer.train()
    lists = {name for name, value in passed.items() if isinstance(value, list)}
    columns = {*trainer.train_dataset.column_names, "prompts", "completions"}
    assert lists - columns <= NOT_OF_THE_PROBLEM, "progrpo.tasks.rewards takes them for columns of the problem"
    assert "completion_ids" in lists


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
