"""ProGRPO for verl: the trainer behind ``trainer.v1.trainer_mode=progrpo``, which ``import verl`` registers.

It is verl's synchronous PPO trainer with additions to two of its methods. After verl has computed the actor's
log-probs, those of the prompts are read from the same forward pass, so that c(q) costs nothing. After verl has computed
GRPO's advantages, :func:`progrpo.core.arm_advantages` re-weights them. Everything else is verl's, the loss included.

``+algorithm.progrpo.alpha=0.5`` sets an option of :class:`progrpo.methods.arm.ArmOptions`; ``docs/verl.md`` says more.
It overrides private methods: ``tests/verl/in_verl/test_verl_contract.py`` says what a new version of verl changed.
"""

from typing import Any

import pandas as pd
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
from progrpo.core import answer_confidence, prompt_confidence
from progrpo.core.advantages import is_correct
from progrpo.methods.arm import ActivationWatch, ArmOptions
from progrpo.verl.batch import (
    Responses,
    correct_rewards,
    final_rows,
    per_response,
    per_token,
    progrpo_advantages,
    split_logps,
    without_failures,
    write_rollouts,
)
from progrpo.verl.check import TRAINER_MODE, check_workers

OPTIONS, ROLLOUTS = "algorithm.progrpo", "trainer.progrpo_rollouts"


@register_trainer(TRAINER_MODE)
class ProGRPOTrainer(PPOTrainerSync):
    """verl's synchronous trainer with confidence re-weighted advantages.

    It logs verl's metrics, those of :func:`progrpo.core.exploration.exploration_metrics`, and ``verifier/errors``,
    the share of responses that the verifier failed on. With ``alpha=0`` it trains as verl's GRPO does.

    Raises:
        ConfigError: at the start, for an invalid option or a setting of verl that rules ProGRPO out.

    Source: ProGRPO (arXiv 2602.05281).
    """

    def __init__(self, config: DictConfig) -> None:
        self.options = read_options(config)
        super().__init__(config)
        self._confidences: dict[str, tuple[float, float]] = {}
        self._activation_watch = ActivationWatch(self.options)

    @property
    def trainer_mode(self) -> str:
        """verl compares this with "sync" where it chooses and refills the replay buffer, and writes checkpoints."""
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
        # This can't wait for the advantages: the forward pass of a reference model overwrites this field.
        logps_BP, mask_BP, logps_BT, mask_BT = whole_sequences(_read(batch, "log_probs", "response_mask"), batch)
        c_q_B = prompt_confidence(logps_BP, mask_BP)
        c_o_B = answer_confidence(logps_BT, mask_BT, low_prob_fraction=self.options.low_prob_fraction)
        self._confidences = dict(zip(batch.keys, zip(c_q_B.tolist(), c_o_B.tolist(), strict=True), strict=True))
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        fields = ("uid", "advantages", "response_mask", "rm_scores", "token_level_rewards", "responses", "extra_fields")
        data = _read(batch, *fields)
        real_R = torch.tensor([i for i, tag in enumerate(batch.tags) if not tag.get("is_padding", False)])
        final_S, response_R = final_rows([batch.keys[i] for i in real_R])
        rows = real_R[final_S].tolist()
        extra_fields = _as_list(data["extra_fields"])
        infos = [_reward_info(extra_fields[i]) for i in rows]
        grpo_B = per_response(data["advantages"], data["response_mask"])
        scale = "group" if self.config.algorithm.get("norm_adv_by_std_in_grpo", True) else "none"
        responses = without_failures(self._responses(data, batch.keys, rows, infos, grpo_B), scale=scale)
        advantages_S, step_metrics = progrpo_advantages(responses, self.options)
        metrics.update(step_metrics)
        self._activation_watch.see(self.global_steps, responses.correct_rewards_S, responses.groups_S)
        rollouts = OmegaConf.select(self.config, ROLLOUTS)
        if rollouts is not None:
            names = ("prompts", "responses", "old_log_probs")
            read = _read(batch, *names)
            tokens = {name: [read[name][i] for i in rows] for name in names}
            step, correct_above = self.global_steps, self.options.correct_above
            write_rollouts(rollouts, step, self.tokenizer, responses, advantages_S, infos, tokens, correct_above)
        advantages_B = grpo_B.clone()
        advantages_B[real_R] = advantages_S[response_R]
        advantages = per_token(advantages_B, data["response_mask"])
        return tq.kv_batch_put(
            keys=batch.keys,
            partition_id=batch.partition_id,
            fields=TensorDict({"advantages": advantages, "returns": advantages}, batch_size=len(batch)),
        )

    def _responses(
        self, data: TensorDict, keys: list[str], rows: list[int], infos: list[dict[str, Any]], grpo_B: Tensor
    ) -> Responses:
        """The batch's rows that hold a response's last output; ``infos`` is what the reward function returned."""
        scores_B = data["rm_scores"].to_padded_tensor(0.0).sum(dim=1)
        shaped = data.get("token_level_rewards", None)
        shaped_B = scores_B if shaped is None else shaped.to_padded_tensor(0.0).sum(dim=1)
        failed_S = torch.tensor([bool(info.get("verifier_error")) for info in infos])
        rewards_S = scores_B[rows].masked_fill(failed_S, torch.nan)
        correct_rewards_S = correct_rewards(infos, rewards_S, self.options.correct_reward)
        is_right_S = is_correct(correct_rewards_S, self.options.correct_above)
        uids, texts = _as_list(data["uid"]), data["responses"].unbind()
        c_q_S, c_o_S = torch.tensor([self._confidences[keys[i]] for i in rows]).unbind(dim=1)
        return Responses(
            advantages_S=grpo_B[rows],
            rewards_S=rewards_S,
            shaped_rewards_S=shaped_B[rows],
            correct_rewards_S=correct_rewards_S,
            groups_S=torch.tensor(pd.Series([uids[i] for i in rows]).factorize()[0]),
            prompt_confidence_S=c_q_S,
            answer_confidence_S=c_o_S,
            solutions=[
                self._solution(info, texts[i]) if right else None
                for info, i, right in zip(infos, rows, is_right_S.tolist(), strict=True)
            ],
        )

    def _solution(self, info: dict[str, Any], response: Tensor) -> str | None:
        """The ``canonical`` form that the reward function returned, or else the text: it tells solutions apart."""
        if "canonical" in info:
            return info["canonical"] or None
        return self.tokenizer.decode(response, skip_special_tokens=True).strip()


def read_options(config: DictConfig) -> ArmOptions:
    """ARM's options in a configuration of verl.

    Raises:
        ConfigError: an option is unknown or outside its range, or a setting of verl rules ProGRPO out.

    >>> config = OmegaConf.create({
    ...     "algorithm": {"adv_estimator": "grpo", "progrpo": {"alpha": 0.5}},
    ...     "critic": {"enable": False},
    ...     "actor_rollout_ref": {"rollout": {"n": 8}},
    ... })
    >>> read_options(config).alpha
    0.5
    """
    mapping = OmegaConf.select(config, OPTIONS)
    if not isinstance(mapping, DictConfig | None):
        raise ConfigError(f"{OPTIONS} takes options by name, such as +{OPTIONS}.alpha=1.0, got {mapping!r}.")
    options = ArmOptions.from_mapping(mapping or {}, where=OPTIONS)
    estimator, n = config.algorithm.adv_estimator, config.actor_rollout_ref.rollout.n
    if estimator != "grpo":
        raise ConfigError(
            f"algorithm.adv_estimator must be grpo with trainer.v1.trainer_mode={TRAINER_MODE}, got {estimator}; "
            "Dr. GRPO is grpo with algorithm.norm_adv_by_std_in_grpo=False."
        )
    if need_critic(config):
        raise ConfigError("critic.enable must be False: ProGRPO's advantages come from the group, not from a critic.")
    if OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        raise ConfigError(
            "algorithm.rollout_correction.bypass_mode must be False: it skips the actor's forward pass, which gives "
            "the prompts' log-probs."
        )
    if n < 2:
        raise ConfigError(
            f"actor_rollout_ref.rollout.n must be at least 2, got {n}: advantages are relative to the group."
        )
    return options


def refuse_media(options: ArmOptions, config: DictConfig, rows: Any) -> None:
    """Refuse c(q) for prompts with images, videos or sounds, because their placeholder tokens have no likelihood.

    Raises:
        ConfigError: ``rows``, the training data, have such a column, and ``center="prompt"``.
    """
    keys = [config.data.get(f"{kind}_key", f"{kind}s") for kind in ("image", "video", "audio")]
    media = [name for name in keys if name in getattr(rows, "column_names", ())]
    if media and options.center == "prompt":
        raise ConfigError(
            f"{OPTIONS}.center=prompt needs the likelihood of a prompt, which is not defined for one with "
            f"{' or '.join(media)}; use center=group or center=correct."
        )


def whole_sequences(data: TensorDict, batch: KVBatchMeta) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The log-probs of prompts and responses, as :func:`progrpo.verl.batch.split_logps` returns them.

    Raises:
        ConfigError: the training engine did not keep those of the prompts.
    """
    logps = data.get("log_probs", None)
    lengths = [tag["seq_len"] for tag in batch.tags]
    if logps is not None and logps.is_nested and logps.offsets().diff().tolist() == lengths:
        parts = split_logps(logps, data["response_mask"])
        logps_BP, mask_BP, _, _ = parts
        if logps_BP.any() or not mask_BP.any():  # an engine may also mask the prompts
            return parts
    raise ConfigError(
        "This engine of verl returned no log-probs of the prompts' tokens, so there is no prompt confidence; use "
        "actor_rollout_ref.actor.strategy=fsdp2 (or fsdp, megatron)."
    )


def _read(batch: KVBatchMeta, *fields: str) -> TensorDict:
    """Read those of the fields that the batch has."""
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))


def _reward_info(extra_fields: Any) -> dict[str, Any]:
    """What the reward function returned beside the score."""
    return (extra_fields.get("reward_extra_info") or {}) if isinstance(extra_fields, dict) else {}


def _as_list(values: Any) -> list[Any]:
    """A list of values that are not a tensor. TransferQueue's backend returns a list, an array or a stack of them."""
    return values.tolist() if hasattr(values, "tolist") else list(values)
