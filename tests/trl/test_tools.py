"""Multi-turn rollouts with a tool: the tool's tokens never count as the policy's."""

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import trl
from progrpo.trl import Rollout

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>'
ANSWER = "3<|im_end|>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, with the chat template of Qwen3."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    return fast


def tiny_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
        )
    )


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


def test_a_tool_s_tokens_are_left_out_and_both_turns_are_recorded(make_trainer: Any) -> None:
    tokenizer = byte_tokenizer()
    model = tiny_model(tokenizer)

    def scripted(batch: int, ids: torch.Tensor) -> list[int]:
        """The policy must first write the call, and the answer after the tool's output."""
        said = tokenizer.decode(ids).rpartition("<|im_start|>assistant\n")
        script = ANSWER if "<tool_response>" in said[0] else CALL
        wanted = tokenizer(script, add_special_tokens=False)["input_ids"]
        done = len(tokenizer(said[2], add_special_tokens=False)["input_ids"])
        return [wanted[min(done, len(wanted) - 1)]]

    generate = model.generate
    model.generate = lambda *args, **kwargs: generate(*args, prefix_allowed_tokens_fn=scripted, **kwargs)
    rollouts: list[Rollout] = []
    trainer = make_trainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": f"1 + {i}?"}]} for i in range(4)]),
        reward_funcs=lambda completions, **columns: [float(i % 2) for i in range(len(completions))],
        tools=[add],
        on_rollout=rollouts.append,
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=400,
        max_steps=1,
    )
    trainer.train()

    [rollout] = rollouts
    assert len(rollout.token_ids) == 4
    for i, ids in enumerate(rollout.token_ids):
        sampled = rollout.mask_BT[i, : len(ids)]
        text = tokenizer.decode([t for t, mine in zip(ids, sampled.tolist(), strict=True) if mine])
        assert text == CALL + ANSWER
        assert "<tool_response>" in tokenizer.decode(ids), "the tool was called"
        # In float32, a random model is near uniform: each recorded log-prob is about -log V, the tool's 0.0 is not.
        assert (rollout.logps_BT[i, : len(ids)][sampled] < -1).all()
        lowest = sorted(rollout.logps_BT[i, : len(ids)][sampled].tolist())[
            : math.ceil(round(0.2 * int(sampled.sum()), 9))
        ]
        assert math.isclose(rollout.answer_confidence_B[i].item(), math.exp(sum(lowest) / len(lowest)), rel_tol=1e-5)
