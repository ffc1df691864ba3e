"""ProGRPO for verl: a plugin that gives ``trainer.v1.trainer_mode=progrpo``.

``import verl`` has it registered (:mod:`progrpo.verl.plugin`). The trainer is verl's synchronous PPO
trainer with two methods around its own: after the actor's log-probs were computed, those of the prompts are read from
the same forward pass (so c(q) costs nothing); after GRPO's advantages were computed, they are re-weighted by
:func:`progrpo.core.arm_advantages`. Everything else, the loss included, is verl's, and with ``alpha=0`` all of it.

Options: ``+algorithm.progrpo.{alpha,low_prob_fraction,activation,center,correct_above,correct_reward}``; see
:class:`progrpo.methods.arm.ArmOptions`. Use: ``docs/verl.md``. What is overridden is private API of verl:
``tests/verl/in_verl/test_verl_contract.py`` names what a new version moved.
"""

import logging
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import need_critic
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from progrpo.common.errors import ConfigError
from progrpo.core.advantages import is_correct
from progrpo.methods.arm import ActivationWatch, ArmOptions
from progrpo.verl.batch import (
    Responses,
    confidences,
    correct_rewards,
    final_rows,
    group_ids,
    per_response,
    per_token,
    progrpo_advantages,
    split_logps,
    without_failures,
)
from progrpo.verl.check import TRAINER_MODE, check_workers
from progrpo.verl.rollouts import SETTING, write_rollouts

logger = logging.getLogger(__name__)

OPTIONS = "algorithm.progrpo"


@register_trainer(TRAINER_MODE)
class ProGRPOTrainer(PPOTrainerSync):
    """verl's synchronous trainer with confidence re-weighted advantages.

    Metrics beside verl's: those of :func:`progrpo.core.exploration.exploration_metrics`, and
    ``verifier/errors``, the share of responses that the verifier failed on.

    Raises:
        ConfigError: at the start, an option or a setting of verl with which there is no ProGRPO.

    Source: ProGRPO (arXiv 2602.05281).
    """

    def __init__(self, config: DictConfig) -> None:
        self.options = read_options(config)
        super().__init__(config)
        self._confidences: dict[str, tuple[float, float]] = {}
        self._activation_watch = ActivationWatch(self.options)

    @property
    def trainer_mode(self) -> str:
        """verl compares it with "sync" where it chooses the replay buffer, refills it, and writes checkpoints."""
        return "sync"

    @trainer_mode.setter
    def trainer_mode(self, value: str) -> None: ...

    def on_init_end(self) -> None:
        super().on_init_end()
        if self.processor is not None:
            refuse_media(self.options, self.config, getattr(self.train_dataset, "dataframe", None))
        check_workers([*self.actor_rollout_wg.workers, *self.reward_loop_manager.reward_loop_workers])

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        # Here, and not with the advantages: a reference model's pass overwrites the field.
        data = _read(batch, "log_probs", "response_mask")
        check_whole_sequences(data, batch)
        c_q_B, c_o_B = confidences(
            data["log_probs"], data["response_mask"], low_prob_fraction=self.options.low_prob_fraction
        )
        self._confidences = dict(zip(batch.keys, zip(c_q_B.tolist(), c_o_B.tolist(), strict=True), strict=True))
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        fields = ("uid", "advantages", "response_mask", "rm_scores", "token_level_rewards", "responses", "extra_fields")
        data = _read(batch, *fields)
        real_R = torch.tensor([i for i, tag in enumerate(batch.tags) if not tag.get("is_padding", False)])
        final_S, response_R = final_rows([batch.keys[i] for i in real_R])
        rows_S = real_R[final_S]
        grpo_B = per_response(data["advantages"], data["response_mask"])
        scale = "group" if self.config.algorithm.get("norm_adv_by_std_in_grpo", True) else "none"
        responses = without_failures(self._responses(data, batch, rows_S, grpo_B[rows_S]), scale=scale)
        advantages_S, measured = progrpo_advantages(responses, self.options)
        metrics.update(measured)
        self._activation_watch.see(self.global_steps, responses.correct_rewards_S, responses.groups_S)
        self._write_rollouts(batch, rows_S.tolist(), responses, advantages_S)
        advantages_B = grpo_B.clone()
        advantages_B[real_R] = advantages_S[response_R]
        advantages = per_token(advantages_B, data["response_mask"])
        return tq.kv_batch_put(
            keys=batch.keys,
            partition_id=batch.partition_id,
            fields=TensorDict({"advantages": advantages, "returns": advantages}, batch_size=len(batch)),
        )

    def _write_rollouts(self, batch: KVBatchMeta, rows: list[int], responses: Responses, advantages_S: Tensor) -> None:
        setting = OmegaConf.select(self.config, SETTING)
        if setting is None:  # written by a run of `progrpo train` alone
            return
        data = _read(batch, "prompts", "responses", "old_log_probs", "extra_fields")
        extra_fields = _as_list(data["extra_fields"])
        infos = [_reward_info(extra_fields[i]) for i in rows]
        tokens = {name: [data[name][i] for i in rows] for name in ("prompts", "responses", "old_log_probs")}
        correct_above = self.options.correct_above
        write_rollouts(
            *(setting, self.global_steps, self.tokenizer, responses, advantages_S, infos, tokens), correct_above
        )

    def _responses(self, data: TensorDict, batch: KVBatchMeta, rows_S: Tensor, grpo_S: Tensor) -> Responses:
        rows = rows_S.tolist()
        rewards_B = data["rm_scores"].to_padded_tensor(0.0).sum(dim=1)
        shaped = data.get("token_level_rewards", None)
        extra_fields = _as_list(data["extra_fields"])
        infos = [_reward_info(extra_fields[i]) for i in rows]
        failed_S = torch.tensor([bool(info.get("verifier_error")) for info in infos])
        correct_rewards_S = correct_rewards(infos, rewards_B[rows_S], self.options.correct_reward)
        correct_rewards_S = correct_rewards_S.masked_fill(failed_S, torch.nan)
        correct = is_correct(correct_rewards_S, self.options.correct_above).tolist()
        uids = _as_list(data["uid"])
        c_q_S, c_o_S = torch.tensor([self._confidences[batch.keys[i]] for i in rows]).unbind(dim=1)
        responses = data["responses"].unbind()
        return Responses(
            advantages_S=grpo_S,
            rewards_S=rewards_B[rows_S],
            shaped_rewards_S=(rewards_B if shaped is None else shaped.to_padded_tensor(0.0).sum(dim=1))[rows_S],
            correct_rewards_S=correct_rewards_S,
            failed_S=failed_S,
            groups_S=group_ids([uids[i] for i in rows]),
            prompt_confidence_S=c_q_S,
            answer_confidence_S=c_o_S,
            solutions=[
                self._solution(info, responses[i]) if right else None
                for info, i, right in zip(infos, rows, correct, strict=True)
            ],
        )

    def _solution(self, info: dict[str, Any], response: Tensor) -> str | None:
        """What tells solutions apart: the reward's ``canonical`` form, or else the text."""
        if "canonical" in info:
            return info["canonical"] or None
        return self.tokenizer.decode(response, skip_special_tokens=True).strip()


def read_options(config: DictConfig) -> ArmOptions:
    """ARM's options out of a verl configuration with which there is a ProGRPO.

    Raises:
        ConfigError: an unknown option, one outside its range, or a setting of verl with which there is no ProGRPO.

    >>> config = OmegaConf.create({
    ...     "algorithm": {"adv_estimator": "grpo", "progrpo": {"alpha": 0.5}},
    ...     "critic": {"enable": False},
    ...     "actor_rollout_ref": {"rollout": {"n": 8}},
    ... })
    >>> read_options(config).alpha
    0.5
    """
    given = OmegaConf.select(config, OPTIONS)
    given = (
        {} if given is None else OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
    )
    if not isinstance(given, dict):
        raise ConfigError(f"{OPTIONS} takes options by name, such as +{OPTIONS}.alpha=1.0, got {given!r}.")
    options = ArmOptions.from_mapping(given, where=OPTIONS)
    estimator = config.algorithm.adv_estimator
    if estimator != "grpo":
        raise ConfigError(
            f"algorithm.adv_estimator must be grpo with trainer.v1.trainer_mode={TRAINER_MODE}, got {estimator}; "
            "Dr. GRPO is grpo with algorithm.norm_adv_by_std_in_grpo=False."
        )
    if need_critic(config):
        raise ConfigError("critic.enable must be False: ProGRPO's advantages come from the group, not from a critic.")
    if OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        raise ConfigError(
            "algorithm.rollout_correction.bypass_mode must be False: it skips the actor's forward pass, which the "
            "prompts' log-probs come from."
        )
    if config.actor_rollout_ref.rollout.n < 2:
        raise ConfigError(
            f"actor_rollout_ref.rollout.n must be at least 2, got {config.actor_rollout_ref.rollout.n}: advantages are "
            "relative to the group."
        )
    return options


def refuse_media(options: ArmOptions, config: DictConfig, rows: Any) -> None:
    """Raise where c(q) would be of prompts with images, whose placeholder tokens have no likelihood.

    Args:
        options, config: of the run.
        rows: its training data, with ``column_names``.

    Raises:
        ConfigError: the rows have media, and ``center="prompt"``.
    """
    media = [config.data.get(f"{kind}_key", f"{kind}s") for kind in ("image", "video", "audio")]
    found = [name for name in media if name in getattr(rows, "column_names", ())]
    if found and options.center == "prompt":
        raise ConfigError(
            f"{OPTIONS}.center=prompt needs the likelihood of a prompt, which is not defined for one with "
            f"{' or '.join(found)}; use center=group or center=correct."
        )


def check_whole_sequences(data: TensorDict, batch: KVBatchMeta) -> None:
    """Raise unless there is a log-prob for every token of every prompt and response.

    Raises:
        ConfigError: the training engine keeps those of responses only.
    """
    logps = data.get("log_probs", None)
    whole = logps is not None and logps.is_nested
    whole = whole and logps.offsets().diff().tolist() == [tag["seq_len"] for tag in batch.tags]
    if whole:  # an engine may also mask the prompts
        logps_BP, mask_BP, _, _ = split_logps(logps, data["response_mask"])
        whole = not mask_BP.any() or bool(logps_BP.any())
    if not whole:
        raise ConfigError(
            "This engine of verl returned no log-probs of the prompts' tokens, so there is no prompt confidence; use "
            "actor_rollout_ref.actor.strategy=fsdp2 (or fsdp, megatron)."
        )


def _read(batch: KVBatchMeta, *fields: str) -> TensorDict:
    """Those fields of the batch that there are."""
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))


def _reward_info(extra_fields: Any) -> dict[str, Any]:
    """What the reward function returned beside the score."""
    return (extra_fields.get("reward_extra_info") or {}) if isinstance(extra_fields, dict) else {}


def _as_list(values: Any) -> list[Any]:
    """What is no tensor comes as a list, an array or a tensordict's stack, by TransferQueue's backend."""
    return values.tolist() if hasattr(values, "tolist") else list(values)
