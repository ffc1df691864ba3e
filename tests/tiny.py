"""Tiny models of the paper's architecture, and a few rows in the schemas of its datasets, made for the tests.

No file is downloaded: the tokenizer is byte-level (256 bytes and Qwen's special tokens), the weights are random.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
R1_SPECIAL = ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CONTENT_WITH_IMAGES = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)


def trl_template(name: str) -> str:
    """A chat template of a model as TRL ships it, such as ``qwen2_5`` or ``deepseek_r1_distill``."""
    trl = find_spec("trl")
    assert trl is not None, "TRL is installed where its templates are asked for"
    assert trl.origin is not None, "it is a package"
    return (Path(trl.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def tiny_qwen2(
    folder: Path,
    *,
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    tied: bool = False,
    template: str = CHAT_TEMPLATE,
) -> Path:
    """A Qwen2ForCausalLM (Qwen2.5's and DeepSeek-R1-Distill-Qwen's class) with a chat template, saved in float32.

    Like the 7B and 32B models, it has untied embeddings, grouped-query attention with two key-value heads, and biases
    on q, k and v.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = R1_SPECIAL if R1_SPECIAL[1] in template else SPECIAL
    vocabulary = {token: i for i, token in enumerate((*special, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    bytes_alone = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_alone.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_alone,
        bos_token=special[0],
        pad_token=special[0],
        eos_token=special[-1],
        additional_special_tokens=list(special),
        chat_template=template,
        model_max_length=4096,
    )
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=tied,
        pad_token_id=vocabulary[special[0]],
        bos_token_id=vocabulary[special[0]],
        eos_token_id=vocabulary[special[-1]],
    )
    torch.manual_seed(seed)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_llava(folder: Path) -> tuple[Any, Any]:
    """A LlavaForConditionalGeneration over :func:`tiny_qwen2`, which reads images of 16 x 16, and its processor."""
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        Qwen2Config,
        set_seed,
    )

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2(folder))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE.replace("{{ message['content'] }}", CONTENT_WITH_IMAGES),
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, image_size=16, patch_size=8),
        text_config=Qwen2Config(**sizes, **ends, num_key_value_heads=2, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    set_seed(0)
    return LlavaForConditionalGeneration(config), processor


def dapo_rows(count: int = 8, *, first: int = 0) -> list[dict[str, Any]]:
    """Rows like those of BytedTsinghua-SIA/DAPO-Math-17k: the same columns, nesting, and instruction in the prompt."""
    before = (
        "Solve the following math problem step by step. The last line of your response should be of the form "
        "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
    )
    after = '\n\nRemember to put your answer on its own line after "Answer:".'
    return [
        {
            "data_source": "math_dapo",
            "prompt": [{"content": f"{before}What is ${i} + {i % 3}$?{after}", "role": "user"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": str(i + i % 3), "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": f"00000000-0000-4000-8000-{i:012d}"},
        }
        for i in range(first, first + count)
    ]


def aime_rows(count: int = 2) -> list[dict[str, Any]]:
    """Rows like those of HuggingFaceH4/aime_2024."""
    return [
        {
            "id": i,
            "problem": f"Find the remainder when ${i + 7}^2$ is divided by $10$.",
            "solution": "...",
            "answer": f"{(i + 7) ** 2 % 10:03d}",
            "url": "https://artofproblemsolving.com/wiki",
            "year": "2024",
        }
        for i in range(count)
    ]


def deepcoder_rows(count: int = 6) -> list[dict[str, Any]]:
    """Rows like those of agentica-org/DeepCoder-Preview-Dataset: in turn lcbv5's (tests of standard input, and of a
    function with starter code), primeintellect's and taco's; as there, ``tests`` is text that holds JSON."""
    kinds = (_lcbv5_stdin, _lcbv5_function, _primeintellect, _taco)
    columns = {"problem": None, "starter_code": None, "solutions": None, "tests": None, "metadata": None}
    return [columns | kinds[i % len(kinds)](i) for i in range(count)]


def livecodebench_rows(count: int = 2) -> list[dict[str, Any]]:
    """Rows like those of livecodebench/code_generation_lite, from contests in DeepCoder's evaluation window."""
    return [
        {
            "question_title": f"Add {i}",
            "question_content": f"Read an integer and print the sum of it and {i}.",
            "platform": "atcoder",
            "question_id": f"abc{i:03d}_a",
            "contest_id": f"abc{i:03d}",
            "contest_date": "2024-09-01T00:00:00",
            "starter_code": "",
            "difficulty": "easy",
            "public_test_cases": json.dumps([{"input": "1\n", "output": f"{1 + i}\n", "testtype": "stdin"}]),
            "private_test_cases": json.dumps([{"input": "5\n", "output": f"{5 + i}\n", "testtype": "stdin"}]),
            "metadata": "{}",
        }
        for i in range(count)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write the rows as parquet or JSON lines, by the path's suffix, and return the path as text, for a recipe."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _lcbv5_stdin(i: int) -> dict[str, Any]:
    tests = [
        {"input": f"{n}\n", "output": f"{n + i}\n", "testtype": "stdin", "metadata": {"func_name": None}}
        for n in (1, 2)
    ]
    return {
        "problem": f"Read an integer and print it plus {i}.",
        "starter_code": "",
        "tests": json.dumps(tests),
        "metadata": {"func_name": None},
    }


def _lcbv5_function(i: int) -> dict[str, Any]:
    name = f"times{i}"
    tests = [
        {"input": f"{n}", "output": f"{n * i}", "testtype": "functional", "metadata": {"func_name": name}}
        for n in (2, 3)
    ]
    return {
        "problem": f"Return n times {i}.",
        "starter_code": f"class Solution:\n    def {name}(self, n: int) -> int:\n        ",
        "tests": json.dumps(tests),
        "metadata": {"func_name": name},
    }


def _primeintellect(i: int) -> dict[str, Any]:
    tests = [{"type": "stdin_stdout", "input": f"{n}\n", "output": f"{n - i}\n", "fn_name": None} for n in (7, 9)]
    return {
        "problem": f"Read an integer and print it minus {i}.",
        "solutions": [f"print(int(input()) - {i})"],
        "tests": json.dumps(tests),
    }


def _taco(i: int) -> dict[str, Any]:
    return {
        "problem": f"Read two integers on one line and print their sum plus {i}.",
        "solutions": [f"print(sum(map(int, input().split())) + {i})"],
        "tests": json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": [f"{3 + i}\n", f"{7 + i}\n"]}),
    }
