"""Test helper: runs ``python -m verl.trainer.main_ppo`` on the CPU, on a Ray cluster that it starts and ends.

    completed = run_verl(tmp_path, "+algorithm.progrpo.alpha=0.5", workers=2)
    steps = read_metrics(tmp_path)

Without arguments for another model or other data it trains :func:`make_model`'s on :func:`make_data`'s.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CPU_PLATFORM = Path(__file__).parent / "cpu_platform"
"""Goes on PYTHONPATH: its dist-info makes every process that imports verl load ``verl_cpu``."""

CPU_SETTINGS = [
    "trainer.device=cpu",
    "actor_rollout_ref.rollout.name=hf",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
    "actor_rollout_ref.rollout.free_cache_engine=False",
    "actor_rollout_ref.rollout.load_format=auto",
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "actor_rollout_ref.actor.use_torch_compile=False",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile=False",
    "actor_rollout_ref.ref.strategy=fsdp2",
    "actor_rollout_ref.ref.use_torch_compile=False",
    "actor_rollout_ref.ref.fsdp_config.use_torch_compile=False",
    "data.dataloader_num_workers=0",
    "+ray_kwargs.ray_init.include_dashboard=False",
    "+ray_kwargs.ray_init.object_store_memory=200000000",
]
"""What a CPU forces on every verl run."""

FLOAT32 = [
    f"+actor_rollout_ref.{role}.fsdp_config.mixed_precision.{part}_dtype=fp32"
    for role in ("actor", "ref")
    for part in ("param", "reduce", "buffer")
]
"""In bfloat16 runs would not agree closely enough."""

SMALL_SETTINGS = [
    *FLOAT32,
    "data.train_batch_size=4",
    "data.val_batch_size=16",
    "data.max_prompt_length=24",
    "data.max_response_length=8",
    "actor_rollout_ref.model.enable_gradient_checkpointing=False",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.actor.optim.lr=1e-2",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.rollout.calculate_log_probs=True",
    "actor_rollout_ref.rollout.agent.num_workers=1",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
    "reward.num_workers=1",
    "trainer.nnodes=1",
    "trainer.logger=[console,file]",
    "trainer.val_before_train=False",
    "trainer.test_freq=-1",
    "trainer.save_freq=-1",
    "trainer.resume_mode=disable",
    "trainer.total_epochs=100",
    "trainer.total_training_steps=2",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    "transfer_queue.backend.SimpleStorage.total_storage_size=1000",
]
"""A run with a few seconds of work."""


def run_verl(
    folder: Path,
    *overrides: str,
    workers: int = 1,
    model: Path | None = None,
    train_files: Path | None = None,
    val_files: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 1800,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Train in ``folder``, which holds the model, the data, checkpoints, ``metrics.jsonl`` and ``verl.log`` afterwards.

    Args:
        folder: created if needed; what it already holds is used, so that a second call may resume.
        overrides: Hydra's, after those of this file, so that they win.
        workers: processes that train.
        model, train_files, val_files: in place of the tiny ones.
        env: environment variables beside the present ones.
        timeout: seconds; a run that takes longer is ended with a TimeoutError that quotes the end of the log.
        check: a run that fails raises an AssertionError that quotes the end of the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = model or make_model(folder / "model")
    train_files = train_files or make_data(folder / "data.parquet")
    command = [
        *(sys.executable, "-m", "verl.trainer.main_ppo", *CPU_SETTINGS, *SMALL_SETTINGS),
        f"data.train_files={train_files}",
        f"data.val_files={val_files or train_files}",
        f"actor_rollout_ref.model.path={model}",
        f"reward.custom_reward_function.path={Path(__file__).parent / 'count_reward.py'}",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        f"hydra.run.dir={folder / 'hydra'}",
        *overrides,
    ]
    return run_with_ray(command, folder, workers=workers, env=env, timeout=timeout, check=check)


def run_with_ray(
    command: Sequence[str],
    folder: Path,
    *,
    workers: int = 1,
    env: Mapping[str, str] | None = None,
    timeout: float = 1800,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command that starts Ray and verl; its output goes to ``folder/verl.log``. No process outlives the call."""
    ray_folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # its sockets' paths may have 107 characters
    mark = uuid.uuid4().hex
    command = [*command, *ray_settings(workers)] if "verl.trainer.main_ppo" in command else list(command)
    log = folder / "verl.log"
    (ray_folder / "tmp").mkdir()
    isolated = {"RAY_TMPDIR": str(ray_folder), "TMPDIR": str(ray_folder / "tmp"), "RAY_AUTH_TOKEN": mark, MARK: mark}
    try:
        with log.open("w") as out:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=verl_environment(folder) | isolated | dict(env or {}),
            )
            try:
                returncode = process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"{timeout} seconds passed; {log} ends in\n{_end(log)}") from None
        if check:
            assert returncode == 0, f"exit code {returncode}; {log} ends in\n{_end(log)}"
        return subprocess.CompletedProcess(command, returncode, log.read_text())
    finally:
        _end_marked(mark)
        shutil.rmtree(ray_folder, ignore_errors=True)


def ray_settings(workers: int) -> list[str]:
    """Ray only counts these resources: one "GPU" for each worker, and enough CPUs to place every actor."""
    return [
        f"trainer.n_gpus_per_node={workers}",
        f"+ray_kwargs.ray_init.num_gpus={workers}",
        "ray_kwargs.ray_init.num_cpus=32",
    ]


def verl_environment(folder: Path) -> dict[str, str]:
    """The environment of a run on the CPU: verl's platform, its metrics in ``folder/metrics.jsonl``, nothing online."""
    path = [str(CPU_PLATFORM), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cuda",  # the engine's class is registered for cuda; the device comes from the platform
        "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "HYDRA_FULL_ERROR": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_prestart_worker_first_driver": "0",  # 32 idle workers would cost more than the run
    }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The steps' metrics, in order."""
    return [json.loads(line)["data"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def read_batch(folder: Path, step: int) -> list[dict[str, Any]]:
    """The responses of a step, as ``trainer.checkpoint_callback_class=verl_cpu.dump.StepDump`` wrote them."""
    return json.loads((folder / "checkpoints" / f"global_step_{step}" / "batch.json").read_text())


def skip_without_verl() -> None:
    """Skip a test module where verl is not installed. ``import verl`` would find the folder of that name here."""
    import pytest

    try:
        version("verl")
    except PackageNotFoundError:
        pytest.skip("verl is not installed; make test-verl has an environment of its own", allow_module_level=True)


MARK = "PROGRPO_TEST_RUN"


def _end_marked(mark: str) -> None:
    """End what is left of a run, which its environment marks: Ray's processes survive a driver that was killed."""
    import psutil

    left = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get(MARK) == mark]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _end(log: Path) -> str:
    return log.read_text()[-6000:]


def make_tokenizer() -> Any:
    """A byte-level tokenizer without merges: "\\n", which verl wants as one token, is one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    return fast


def make_model(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """A random Qwen2 of some 40,000 parameters and its tokenizer, written once."""
    if folder.exists():
        return folder
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    Qwen2ForCausalLM(Qwen2Config(**sizes | config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def count_rows(n: int = 16) -> list[dict[str, Any]]:
    """Prompts of different lengths in verl's schema, for ``count_reward.py``."""
    return [
        {
            "data_source": "count",
            "prompt": [{"role": "user", "content": " ".join(f"w{(i * k) % 50}" for k in range(1, 2 + i % 4))}],
            "ability": "count",
            "reward_model": {"style": "rule", "ground_truth": "0123456789abcdefghij"},
            "extra_info": {"index": i},
        }
        for i in range(n)
    ]


def make_data(path: Path, rows: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """A parquet file of these rows, by default :func:`count_rows`', written once."""
    import pandas as pd

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(list(rows if rows is not None else count_rows())).to_parquet(path)
    return path
