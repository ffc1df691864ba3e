"""ProGRPO for TRL: ``ProGRPOConfig`` and ``ProGRPOTrainer`` in place of ``GRPOConfig`` and ``GRPOTrainer``.

The trainer generates, scores and optimises exactly as TRL's; between scoring and optimising it re-weights the
advantages (:func:`progrpo.core.arm_advantages`). It adds no forward pass over responses: their log-probs are those
that TRL computed (``old_per_token_logps``), or else those that the rollout engine returned
(``sampling_per_token_logps``), or else those recorded while transformers generated. The prompt confidence costs one
forward pass over each distinct prompt. With ``alpha=0`` it is GRPOTrainer, bit for bit.

What is overridden is private API of TRL: ``tests/integrations/test_trl_contract.py`` names what a new version moved.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from accelerate.utils import is_peft_model
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import get_config_model_id

from progrpo.core import answer_confidence, arm_advantages, prompt_confidence
from progrpo.integrations.exploration import exploration_metrics, solution_digest
from progrpo.integrations.generation import record_logps
from progrpo.integrations.options import ArmOptions
from progrpo.rewards import Reward
from progrpo.tasks.templates import template_opens_thinking

CanonicalForm = Callable[[dict[str, Any], Any], str | None]
"""``(dataset row, completion) -> text``: the same text for two completions exactly if they are the same solution."""


@dataclass
class ProGRPOConfig(GRPOConfig):
    """``GRPOConfig`` with ARM's four options, and the clipping of the paper's objective (0.2 / 0.28).

    Args:
        alpha: strength of the correction; 0 is GRPO. The paper's value was not available: the default is ours.
        low_prob_fraction: share of a response's tokens, the least likely ones, that its confidence is taken over.
        activation: ``"any_correct"``: groups with a rewarded response; ``"mixed"``: those with an unrewarded one too.
        center: ``"prompt"``: c(q) - c(o|q), as in the paper; ``"group"``, ``"correct"``: see
            :func:`progrpo.core.arm_advantages`.

    Every other argument is GRPOConfig's. Two defaults differ from TRL's: ``epsilon_high`` is 0.28, and
    ``transformers_continuous_batching_config`` asks for log-probs.

    Raises:
        ValueError: an option outside its range.
    """

    alpha: float = field(default=1.0, metadata={"help": "Strength of the confidence correction; 0 is GRPO."})
    low_prob_fraction: float = field(
        default=0.2, metadata={"help": "Share of least likely tokens that the answer confidence is taken over."}
    )
    activation: str = field(
        default="any_correct", metadata={"help": "Groups that are re-weighted: 'any_correct' or 'mixed'."}
    )
    center: str = field(
        default="prompt", metadata={"help": "What the answer confidence is held against: prompt, group or correct."}
    )
    epsilon_high: float | None = field(default=0.28, metadata={"help": "Upper clipping bound; None takes epsilon."})

    def __post_init__(self) -> None:
        ArmOptions(self.alpha, self.low_prob_fraction, self.activation, self.center)
        super().__post_init__()
        if self.use_transformers_continuous_batching:
            # The engine hands log-probs over only when asked to.
            given = getattr(self, "transformers_continuous_batching_config", None) or {}
            self.transformers_continuous_batching_config = given | {"return_logprobs": True}


@dataclass(frozen=True)
class Rollout:
    """One process's scored responses of one generation, as handed to ``on_rollout``. B rows, in generation order."""

    rows: list[dict[str, Any]]
    """The dataset row of each response."""
    completions: list[Any]
    """Text, or messages for conversational prompts."""
    token_ids: list[list[int]]
    canonical: list[str | None]
    """The canonical form of each rewarded response, None for the others."""
    groups_B: Tensor
    """Group id, the same on every process."""
    logps_BT: Tensor
    mask_BT: Tensor
    rewards_B: Tensor
    prompt_confidence_B: Tensor
    answer_confidence_B: Tensor
    grpo_advantages_B: Tensor
    """A."""
    advantages_B: Tensor
    """A~ = A + correction."""


class ProGRPOTrainer(GRPOTrainer):
    """GRPOTrainer with confidence re-weighted advantages. Takes all that GRPOTrainer takes, and two more:

    Args:
        canonical_form: tells solutions apart for the metric ``distinct_solutions``: a function of the dataset row and
            the completion. By default the completion's text, stripped.
        on_rollout: called on each process after every training generation is scored, with a :class:`Rollout`.

    Metrics beside TRL's, under ``train/`` or ``eval_``: ``confidence/prompt/{mean,min,max}``,
    ``confidence/answer/{mean,min,max}``, ``correction/{mean,min,max}`` (A~ - A), ``groups/activated``,
    ``groups/all_right``, ``groups/all_wrong``, ``groups/mixed`` (shares of groups), and ``distinct_solutions``
    (different rewarded solutions a group).

    Source: ProGRPO (arXiv 2602.05281). A runnable example is in the README.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "progrpo"]
    _name = "ProGRPO"

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: ProGRPOConfig | None = None,
        *more: Any,
        canonical_form: CanonicalForm | None = None,
        on_rollout: Callable[[Rollout], None] | None = None,
        **kwargs: Any,
    ) -> None:
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = ProGRPOConfig(f"{name.split('/')[-1]}-ProGRPO")
        if not isinstance(args, ProGRPOConfig):
            raise TypeError(
                f"args must be a ProGRPOConfig, got {type(args).__name__}: it takes the same arguments, and alpha."
            )
        self.canonical_form = canonical_form or _stripped_text
        self.on_rollout = on_rollout
        self._scored: _Scored | None = None
        self._recorded = False
        _warn_of_truncated_logps(args)
        super().__init__(model, reward_funcs, args, *more, **kwargs)

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if self.use_vllm:
            return super()._generate_single_turn(*args, **kwargs)
        model = self.accelerator.unwrap_model(self.model)
        model = model.get_base_model() if is_peft_model(model) else model
        # Handed back as an engine's log-probs, TRL itself joins those of several turns and of tool results.
        with record_logps(model, temperature=self.temperature) as record:
            completion_ids, _ = super()._generate_single_turn(*args, **kwargs)
        self._recorded = True
        return completion_ids, record.take([len(ids) for ids in completion_ids])

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> Tensor:
        self._tell_rewards_of_the_template()
        rewards_per_func_BF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        weights_F = self.reward_weights.to(rewards_per_func_BF.device)
        rewards_B = (rewards_per_func_BF * weights_F).nansum(dim=1)
        rewards_B[rewards_per_func_BF.isnan().all(dim=1)] = torch.nan
        self._scored = _Scored(inputs, completions, completion_ids_list, rewards_B)
        return rewards_per_func_BF

    def _tell_rewards_of_the_template(self) -> None:
        """TRL hands messages to reward functions: only the trainer knows whether the template opens a thinking part."""
        for function in self.reward_funcs:
            if isinstance(function, Reward) and function.opens_thinking is None:
                function.opens_thinking = template_opens_thinking(
                    self.processing_class, self.chat_template, **self.chat_template_kwargs
                )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._recorded = False
        output = super()._generate_and_score_completions(inputs)
        logps_BT, mask_BT = self._response_logps(output)
        if self._recorded:  # ours, not an engine's: TRL's loss must not see them
            output.pop("sampling_per_token_logps", None)
        self._reweight(output, logps_BT, mask_BT)
        return output

    def _reweight(self, output: dict[str, Any], logps_BT: Tensor, mask_BT: Tensor) -> None:
        """Put A~ in the place of A, in the batch and in the completions log; log the metrics; hand the rollout over."""
        assert self._scored is not None, "rewards are calculated before advantages are re-weighted"
        args, mode = self.args, "train" if self.model.training else "eval"
        local = slice(
            self.accelerator.process_index * len(mask_BT), (self.accelerator.process_index + 1) * len(mask_BT)
        )
        # A group's responses may lie on several processes: all that concerns the group is gathered first.
        canonical, digests_B = self._canonical_forms(self._scored, local)
        grpo_B, c_q_B, c_o_B = self.accelerator.gather(
            torch.stack(
                [
                    output["advantages"],
                    self._prompt_confidence(output),
                    answer_confidence(logps_BT, mask_BT, low_prob_fraction=args.low_prob_fraction),
                ],
                dim=1,
            )
        ).unbind(dim=1)
        digests_B = self.accelerator.gather(digests_B)
        rewards_B = self._scored.rewards_B
        group_size = self.num_generations if mode == "train" else self.num_generations_eval
        groups_B = torch.arange(len(rewards_B), device=rewards_B.device) // group_size
        advantages_B = arm_advantages(
            grpo_B, rewards_B, c_q_B, c_o_B, groups_B, alpha=args.alpha, activation=args.activation, center=args.center
        )
        output["advantages"] = advantages_B[local]
        _replace_last(self._logs["advantages"], advantages_B.tolist())
        metrics = exploration_metrics(
            rewards_B, groups_B, digests_B, c_q_B, c_o_B, advantages_B - grpo_B, activation=args.activation
        )
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)
        if self.on_rollout is not None and mode == "train":
            self.on_rollout(
                Rollout(
                    self._scored.rows,
                    self._scored.completions,
                    self._scored.token_ids,
                    canonical,
                    groups_B[local],
                    logps_BT,
                    mask_BT,
                    rewards_B[local],
                    c_q_B[local],
                    c_o_B[local],
                    grpo_B[local],
                    advantages_B[local],
                )
            )
        self._scored = None

    def _response_logps(self, output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probs of the responses' own tokens, and which tokens those are."""
        logps_BT = output.get("old_per_token_logps")
        if logps_BT is None:
            logps_BT = output.get("sampling_per_token_logps")
        if logps_BT is None:
            raise RuntimeError(
                "The rollout returned no log-probs, so there is no answer confidence; return 'logprobs' from "
                "rollout_func."
            )
        mask_BT = output["completion_mask"].bool()
        if "tool_mask" in output:
            mask_BT = mask_BT & output["tool_mask"].bool()
        # An engine that could not score a token says NaN: the token does not count.
        return logps_BT.float(), mask_BT & ~logps_BT.isnan()

    @torch.no_grad()
    def _prompt_confidence(self, output: dict[str, Any]) -> Tensor:
        """c(q) of each local response's prompt, shape (B,): one forward pass over each distinct prompt."""
        mask_BP = output["prompt_mask"].bool()
        if "num_images" in output:  # an image's placeholder tokens have no likelihood
            if self.args.center == "prompt":
                raise ValueError(
                    "center='prompt' needs the likelihood of a prompt, which is not defined for one with images; use "
                    "center='group' or center='correct'."
                )
            return torch.full((len(mask_BP),), torch.nan, device=mask_BP.device)
        ids_NP, index_B = output["prompt_ids"].masked_fill(~mask_BP, -1).unique(dim=0, return_inverse=True)
        # To the left edge: positions then count from the prompt's first token, as they do in generation.
        ids_NP = ids_NP.gather(1, (ids_NP == -1).byte().argsort(dim=1, stable=True))
        mask_NP = ids_NP != -1
        ids_NP = torch.where(mask_NP, ids_NP, self._tokenizer.pad_token_id)
        if ids_NP.shape[1] < 2:
            return torch.full((len(index_B),), torch.nan, device=index_B.device)
        # Sharded models run every forward pass on all processes together: as many chunks here as elsewhere.
        chunk = self.args.per_device_train_batch_size
        n_chunks = int(self.accelerator.gather(torch.tensor([-(-len(ids_NP) // chunk)], device=ids_NP.device)).max())
        logps = []
        with _inference_mode(self):
            for i in range(n_chunks):
                rows = slice(i * chunk, (i + 1) * chunk) if i * chunk < len(ids_NP) else slice(0, 1)
                logps_chunk, _, _ = self._get_per_token_logps_and_entropies(
                    self.model, ids_NP[rows], mask_NP[rows].long(), ids_NP.shape[1] - 1
                )
                logps.append(logps_chunk)
        logps_NP = torch.cat(logps)[: len(ids_NP)].float()
        return prompt_confidence(logps_NP, mask_NP[:, 1:])[index_B]

    def _canonical_forms(self, scored: "_Scored", local: slice) -> tuple[list[str | None], Tensor]:
        """Canonical forms of the local rewarded responses, and a 63-bit digest of each, which can be gathered."""
        rewards = scored.rewards_B[local].tolist()
        forms = [
            self.canonical_form(row, completion) if reward > 0 else None
            for row, completion, reward in zip(scored.rows, scored.completions, rewards, strict=True)
        ]
        digests = [solution_digest(form) for form in forms]
        return forms, torch.tensor(digests, dtype=torch.long, device=scored.rewards_B.device)


@dataclass(frozen=True)
class _Scored:
    """What ``_calculate_rewards`` saw: rows of this process, rewards of all."""

    rows: list[dict[str, Any]]
    completions: list[Any]
    token_ids: list[list[int]]
    rewards_B: Tensor


def _warn_of_truncated_logps(args: ProGRPOConfig) -> None:
    """An engine's log-probs are of the distribution that it drew from; c(q) is of the whole vocabulary."""
    of_engine = args.use_transformers_continuous_batching or (
        args.use_vllm and not args.vllm_importance_sampling_correction
    )
    neutral = {"top_p": (1.0,), "top_k": (0, -1, None), "min_p": (0.0, None), "repetition_penalty": (1.0,)}
    changed = [f"{name}={getattr(args, name)}" for name, plain in neutral.items() if getattr(args, name) not in plain]
    if of_engine and changed and args.center == "prompt":
        warnings.warn(
            f"c(o|q) is of the engine's log-probs, which are after {', '.join(changed)}, and c(q) is not; with vLLM, "
            "set vllm_importance_sampling_correction=True for TRL's own, or else choose center='group' or 'correct'.",
            stacklevel=3,
        )


@contextmanager
def _inference_mode(trainer: GRPOTrainer) -> Iterator[None]:
    """Without dropout (it would draw random numbers that GRPO does not draw) and without recomputation."""
    training = trainer.model.training
    trainer.model.eval()
    try:
        with disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs):
            yield
    finally:
        trainer.model.train(training)


def _replace_last(log: Any, values: list[float]) -> None:
    """Replace the newest entries of a bounded deque."""
    for _ in range(min(len(log), len(values))):
        log.pop()
    log.extend(values)


def _stripped_text(row: dict[str, Any], completion: Any) -> str:
    return (completion if isinstance(completion, str) else str(completion[-1].get("content"))).strip()
