"""ProGRPO for TRL: ``ProGRPOConfig`` and ``ProGRPOTrainer`` in place of ``GRPOConfig`` and ``GRPOTrainer``.

The trainer generates, scores and optimises exactly as TRL's; between scoring and optimising it re-weights the
advantages (:func:`progrpo.core.arm_advantages`). With ``alpha=0`` it is GRPOTrainer, bit for bit.

The log-probs of responses need no additional forward pass: they are those that TRL computed (``old_per_token_logps``),
or else those that the rollout engine returned (``sampling_per_token_logps``), or else those that are recorded while
transformers generates. Only where none of these exist, as with beam search, a forward pass scores the responses. The
prompt confidence takes one forward pass over each distinct prompt.

The overridden methods are private to TRL: ``tests/trl/test_contract.py`` says which of them a new version changed.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import get_config_model_id

from progrpo.common.errors import ConfigError
from progrpo.core import answer_confidence, arm_advantages, prompt_confidence
from progrpo.core.advantages import is_correct
from progrpo.core.exploration import exploration_metrics, solution_digest
from progrpo.core.masking import at_least_float32
from progrpo.methods.arm import ActivationWatch, ArmOptions
from progrpo.tasks.rewards import Reward
from progrpo.tasks.templates import response_text, template_opens_thinking
from progrpo.trl.generation import generating_model, record_logps
from trl import GRPOConfig, GRPOTrainer


@dataclass
class ProGRPOConfig(ArmOptions, GRPOConfig):
    """``GRPOConfig`` with the options of :class:`progrpo.methods.arm.ArmOptions`: ``alpha``, ``low_prob_fraction``,
    ``activation``, ``center``, ``correct_above`` and ``correct_reward``, the name of a reward function as TRL logs it.

    Every other argument is GRPOConfig's. One default differs from TRL's: ``epsilon_high`` is 0.28, so that clipping is
    the paper's (0.2 / 0.28). A ValueError is raised if an option is outside its range.
    """

    epsilon_high: float | None = field(default=0.28, metadata={"help": "Upper clipping bound; None takes epsilon."})

    def __post_init__(self) -> None:
        ArmOptions.__post_init__(self)
        GRPOConfig.__post_init__(self)


@dataclass(frozen=True)
class Rollout:
    """One process's scored responses of one generation, which ``on_rollout`` gets. B rows, in generation order.

    ``rows`` are dataset rows; ``completions`` are texts, or messages for conversational prompts; ``canonical`` holds
    the canonical form of each right response, None for the others. A group has the same id in ``groups_B`` on every
    process. ``rewards_B`` is the weighted sum of the reward functions. ``correct_rewards_B``, which is the same or the
    reward ``correct_reward``, decides which responses are right: ``correct_B``, bool. ``grpo_advantages_B`` is A, and
    ``advantages_B`` is A~.
    """

    rows: list[dict[str, Any]]
    completions: list[Any]
    token_ids: list[list[int]]
    canonical: list[str | None]
    groups_B: Tensor
    logps_BT: Tensor
    mask_BT: Tensor
    rewards_B: Tensor
    correct_rewards_B: Tensor
    correct_B: Tensor
    prompt_confidence_B: Tensor
    answer_confidence_B: Tensor
    grpo_advantages_B: Tensor
    advantages_B: Tensor


class ProGRPOTrainer(GRPOTrainer):
    """GRPOTrainer with confidence re-weighted advantages. It takes all arguments of GRPOTrainer, and two more:

    Args:
        canonical_form: a function of the dataset row and the completion, whose text is the same exactly for the same
            solution, for the metric ``distinct_solutions``. By default it is the completion's text, stripped.
        on_rollout: each process calls it with a :class:`Rollout` after every training generation is scored.

    Metrics beside TRL's: those of :func:`progrpo.core.exploration.exploration_metrics`, under ``train/`` or ``eval_``.

    Raises:
        ConfigError: no reward function has the name ``correct_reward``, or several have it.

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
        canonical_form: Callable[[dict[str, Any], Any], str | None] | None = None,
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
        self.canonical_form = canonical_form or (lambda row, completion: response_text(completion).strip())
        self.on_rollout = on_rollout
        self._scored: _Scored | None = None
        self._has_recorded = False
        _warn_of_truncated_logps(args)
        super().__init__(model, reward_funcs, args, *more, **kwargs)
        if self.continuous_batching_config is not None:  # by default that engine returns no log-probs
            self.continuous_batching_config.return_logprobs = True
        self._activation_watch = ActivationWatch(args, knows_what_is_right=_check_correct_reward(self))

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if self.use_vllm:
            return super()._generate_single_turn(*args, **kwargs)
        # They are returned as an engine's log-probs, so that TRL joins those of several turns and of tool results.
        with _same_mode(self.model), record_logps(generating_model(self), temperature=self.temperature) as record:
            completion_ids, _ = super()._generate_single_turn(*args, **kwargs)
        logps = record.take(completion_ids)
        self._has_recorded = logps is not None
        return completion_ids, logps

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> Tensor:
        self._show_rewards_the_template()
        rewards_per_func_BF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        weights_F = self.reward_weights.to(rewards_per_func_BF.device)
        rewards_B = (rewards_per_func_BF * weights_F).nansum(dim=1)
        rewards_B[rewards_per_func_BF.isnan().all(dim=1)] = torch.nan
        name = self.args.correct_reward
        correct_rewards_B = rewards_B if name is None else rewards_per_func_BF[:, self.reward_func_names.index(name)]
        self._scored = _Scored(inputs, completions, completion_ids_list, rewards_B, correct_rewards_B)
        return rewards_per_func_BF

    def _show_rewards_the_template(self) -> None:
        """Tell rewards whether the chat template opens a thinking part, which the messages that TRL passes them don't
        show. A reward may serve several trainers, so this is done each time."""
        for function in self.reward_funcs:
            if isinstance(function, Reward):
                function.template_opens_thinking = template_opens_thinking(
                    self.processing_class, self.chat_template, **self.chat_template_kwargs
                )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._has_recorded = False
        mode = "train" if self.model.training else "eval"  # read early, as in TRL: a rollout_func can change it
        output = super()._generate_and_score_completions(inputs)
        logps_BT, mask_BT = self._response_logps(output)
        if self._has_recorded:  # TRL's loss must see only an engine's log-probs
            output.pop("sampling_per_token_logps", None)
        self._reweight(output, logps_BT, mask_BT, mode)
        return output

    def _reweight(self, output: dict[str, Any], logps_BT: Tensor, mask_BT: Tensor, mode: str) -> None:
        """Replace A by A~ in the batch and in the completions log, log the metrics, and call ``on_rollout``."""
        scored, options = self._scored, self.args
        assert scored is not None, "rewards are calculated before advantages are re-weighted"
        first = self.accelerator.process_index * len(mask_BT)
        local = slice(first, first + len(mask_BT))
        # The responses of a group may be on several processes, so whatever concerns groups is gathered first.
        canonical, digests_B = self._canonical_forms(scored, local)
        grpo_B, c_q_B, c_o_B = self.accelerator.gather(
            torch.stack(
                [
                    output["advantages"],
                    self._prompt_confidence(output),
                    answer_confidence(logps_BT, mask_BT, low_prob_fraction=options.low_prob_fraction),
                ],
                dim=1,
            )
        ).unbind(dim=1)
        digests_B = self.accelerator.gather(digests_B)
        rewards_B, correct_rewards_B = scored.rewards_B, scored.correct_rewards_B
        group_size = self.num_generations if mode == "train" else self.num_generations_eval
        groups_B = torch.arange(len(rewards_B), device=rewards_B.device) // group_size
        rule = {"activation": options.activation, "correct_above": options.correct_above}
        advantages_B = arm_advantages(
            grpo_B, correct_rewards_B, c_q_B, c_o_B, groups_B, alpha=options.alpha, center=options.center, **rule
        )
        output["advantages"] = advantages_B[local].to(output["advantages"].dtype)
        _replace_last(self._logs["advantages"], advantages_B.tolist())
        metrics = exploration_metrics(
            rewards_B,
            groups_B,
            digests_B,
            c_q_B,
            c_o_B,
            advantages_B - grpo_B,
            correct_rewards_B=correct_rewards_B,
            **rule,
        )
        if mode == "train" and self.accelerator.is_main_process:
            self._activation_watch.see(self.state.global_step + 1, correct_rewards_B, groups_B)
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)
        if self.on_rollout is not None and mode == "train":
            self.on_rollout(
                Rollout(
                    scored.rows,
                    scored.completions,
                    scored.token_ids,
                    canonical,
                    groups_B[local],
                    logps_BT,
                    mask_BT,
                    rewards_B[local],
                    correct_rewards_B[local],
                    is_correct(correct_rewards_B, options.correct_above)[local],
                    c_q_B[local],
                    c_o_B[local],
                    grpo_B[local],
                    advantages_B[local],
                )
            )
        self._scored = None

    def _response_logps(self, output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probs of the responses, and the mask of the tokens that the policy sampled."""
        logps_BT = output.get("old_per_token_logps")
        if logps_BT is None:
            logps_BT = output.get("sampling_per_token_logps")
        # A rollout_func may return none on one process only, but a sharded model's passes must run on all together.
        if self._any_process(logps_BT is None) or logps_BT is None:
            logps_BT = self._forward_logps(output)
        assert logps_BT is not None
        mask_BT = output["completion_mask"].bool()
        if "tool_mask" in output:
            mask_BT = mask_BT & output["tool_mask"].bool()
        # An engine returns NaN for a token that it could not score: the token does not count.
        return at_least_float32(logps_BT), mask_BT & ~logps_BT.isnan()

    @torch.no_grad()
    def _forward_logps(self, output: dict[str, Any]) -> Tensor:
        """Log-probs from one forward pass over the responses, like that for TRL's old log-probs.

        They are needed for beam search, assisted decoding and guidance, whose log-probs can't be recorded, and for a
        ``rollout_func`` that returns none.
        """
        score = self._get_per_token_logps_and_entropies
        image_inputs = {name: output[name] for name in inspect.signature(score).parameters if name in output}
        with _inference_mode(self):
            logps_BT, _, _ = score(
                self.model,
                torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
                torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
                output["completion_ids"].shape[1],
                batch_size=self.args.per_device_train_batch_size,
                **image_inputs,
            )
        return logps_BT

    def _any_process(self, local: bool) -> bool:
        """Whether ``local`` is true on any process; every process must call this."""
        return bool(self.accelerator.gather(torch.tensor([local], device=self.accelerator.device)).any())

    @torch.no_grad()
    def _prompt_confidence(self, output: dict[str, Any]) -> Tensor:
        """c(q) of each local response's prompt, shape (B,): one forward pass over each distinct prompt.

        It is NaN for a prompt of one token, and for one with images, whose placeholder tokens have no likelihood.
        Processes have different prompts, so decisions are made on gathered values.
        """
        mask_BP = output["prompt_mask"].bool()
        images_B = _has_images(output)
        if self._any_process(bool(images_B.any())) and self.args.center == "prompt":
            raise ValueError(
                "center='prompt' needs the likelihood of a prompt, which is not defined for one with images; use "
                "center='group' or center='correct'."
            )
        mask_BP = mask_BP & ~images_B[:, None]
        ids_NP, index_B = output["prompt_ids"].masked_fill(~mask_BP, -1).unique(dim=0, return_inverse=True)
        # Prompts move to the left edge: positions then count from a prompt's first token, as they do in generation.
        ids_NP = ids_NP.gather(1, (ids_NP == -1).byte().argsort(dim=1, stable=True))
        if ids_NP.shape[1] < 2:  # no token to score here, but other processes may have some and wait for this pass
            ids_NP = torch.nn.functional.pad(ids_NP, (0, 1), value=-1)
        counted_NP = ids_NP[:, 1:] != -1
        attended_NP = torch.cat([torch.ones_like(counted_NP[:, :1]), counted_NP], dim=1)
        ids_NP = torch.where(ids_NP != -1, ids_NP, self._tokenizer.pad_token_id)
        # A sharded model's forward passes run on all processes together: each needs the same number of chunks.
        chunk = self.args.per_device_train_batch_size
        n_chunks = int(self.accelerator.gather(torch.tensor([-(-len(ids_NP) // chunk)], device=ids_NP.device)).max())
        logps = []
        with _inference_mode(self):
            for i in range(n_chunks):
                rows = slice(i * chunk, (i + 1) * chunk) if i * chunk < len(ids_NP) else slice(0, 1)
                logps_chunk, _, _ = self._get_per_token_logps_and_entropies(
                    self.model, ids_NP[rows], attended_NP[rows].long(), ids_NP.shape[1] - 1
                )
                logps.append(logps_chunk)
        logps_NP = at_least_float32(torch.cat(logps)[: len(ids_NP)])
        return prompt_confidence(logps_NP, counted_NP)[index_B]

    def _canonical_forms(self, scored: "_Scored", local: slice) -> tuple[list[str | None], Tensor]:
        """Canonical forms of the local right responses, and a 63-bit digest of each, which can be gathered."""
        correct = is_correct(scored.correct_rewards_B[local], self.args.correct_above).tolist()
        forms = [
            self.canonical_form(row, completion) if right else None
            for row, completion, right in zip(scored.rows, scored.completions, correct, strict=True)
        ]
        digests = [solution_digest(form) for form in forms]
        return forms, torch.tensor(digests, dtype=torch.long, device=scored.rewards_B.device)


@dataclass(frozen=True)
class _Scored:
    """A generation as ``_calculate_rewards`` scored it: this process's rows, and the rewards of all processes."""

    rows: list[dict[str, Any]]
    completions: list[Any]
    token_ids: list[list[int]]
    rewards_B: Tensor
    correct_rewards_B: Tensor


def _check_correct_reward(trainer: ProGRPOTrainer) -> bool:
    """Refuse an unknown name; warn, and return True, if a sum of several functions decides what is right."""
    args, names = trainer.args, trainer.reward_func_names
    if args.correct_reward is not None and names.count(args.correct_reward) != 1:
        raise ConfigError(
            f"correct_reward must be the name of one reward function ({', '.join(names)}), got "
            f"{args.correct_reward!r}; TRL takes a function's __name__."
        )
    summed = [name for name, weight in zip(names, trainer.reward_weights.tolist(), strict=True) if weight]
    is_assumed = args.correct_reward is None and len(summed) > 1 and args.alpha > 0
    if is_assumed and trainer.accelerator.is_main_process:
        warnings.warn(
            f"A response counts as right if the weighted sum of {', '.join(summed)} is above "
            f"correct_above={args.correct_above:g}. ARM acts on groups with a right response: set correct_reward to "
            "the name of the function that says whether a response is right, or correct_above to a sum that only "
            "right responses exceed.",
            stacklevel=3,
        )
    return is_assumed


def _warn_of_truncated_logps(args: ProGRPOConfig) -> None:
    """Warn if c(o|q) comes from the distribution that an engine drew from, while c(q) is over the whole vocabulary."""
    from_engine = args.use_transformers_continuous_batching or (
        args.use_vllm and not args.vllm_importance_sampling_correction
    )
    neutral = {"top_p": (1.0,), "top_k": (0, -1, None), "min_p": (0.0, None), "repetition_penalty": (1.0,)}
    changed = [f"{name}={getattr(args, name)}" for name, plain in neutral.items() if getattr(args, name) not in plain]
    if from_engine and changed and args.center == "prompt":
        warnings.warn(
            f"c(o|q) comes from the engine's log-probs, which are taken after {', '.join(changed)}, but c(q) is taken "
            "over the whole vocabulary. Set vllm_importance_sampling_correction=True to use TRL's log-probs "
            "with vLLM, or choose center='group' or 'correct'.",
            stacklevel=3,
        )


def _has_images(output: dict[str, Any]) -> Tensor:
    """Whether the prompt of each local response has images, shape (B,); TRL has no counts if it dropped the images."""
    first_B = output["prompt_mask"][:, 0]
    if "num_images" not in output:
        return torch.zeros_like(first_B, dtype=torch.bool)
    if output["num_images"] is None:
        return torch.ones_like(first_B, dtype=torch.bool)
    return torch.tensor(output["num_images"], device=first_B.device) > 0


@contextmanager
def _same_mode(model: Any) -> Iterator[None]:
    """Leave the model in the mode that it was in: TRL's continuous batching leaves it in training mode."""
    training = model.training
    try:
        yield
    finally:
        if model.training != training:
            model.train(training)


@contextmanager
def _inference_mode(trainer: GRPOTrainer) -> Iterator[None]:
    """Turn off recomputation, and dropout, which would draw random numbers that GRPO does not draw."""
    with _same_mode(trainer.model):
        trainer.model.eval()
        with disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs):
            yield


def _replace_last(log: Any, values: list[float]) -> None:
    """Replace the newest entries of a bounded deque."""
    for _ in range(min(len(log), len(values))):
        log.pop()
    log.extend(values)
