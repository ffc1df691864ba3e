"""vLLM as the rollout engine of a run that TRL trains. Problems with it are reported before a model is loaded."""

import time
import urllib.error
import urllib.request
from http.client import HTTPException
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from transformers import set_seed

from progrpo.common.errors import ConfigError
from progrpo.common.progress import Progress

if TYPE_CHECKING:
    from progrpo.trl.trainer import ProGRPOConfig

REQUEST_SECONDS = 5.0
POLL_SECONDS = 1.0


def check_vllm(config: "ProGRPOConfig", processes: int, progress: Progress) -> None:
    """Refuse what TRL would refuse late or not at all, and wait for a server that is still starting.

    Raises:
        ConfigError: vLLM is missing, there is no GPU, the tensor parallelism is invalid, or no server answers in time.
    """
    if find_spec("vllm") is None:
        raise ConfigError(
            "trl.use_vllm needs vLLM, which is not installed; pip install 'trl[vllm]' where there is a GPU, and leave "
            "trl.use_vllm out where there is none."
        )
    if not torch.accelerator.is_available():
        raise ConfigError(
            "trl.use_vllm needs a GPU: without one, TRL can't hand new weights to vLLM; remove it, and "
            "transformers generates."
        )
    if config.vllm_mode == "server":
        url = config.vllm_server_base_url or f"http://{config.vllm_server_host}:{config.vllm_server_port}"
        wait_for_server(url, config.vllm_server_timeout, progress)
    elif processes % config.vllm_tensor_parallel_size:
        raise ConfigError(
            f"trl.vllm_tensor_parallel_size must divide the number of processes, {processes}, got "
            f"{config.vllm_tensor_parallel_size}."
        )


def wait_for_server(url: str, timeout: float, progress: Progress) -> None:
    """Return once vLLM's server answers ``/health``, and show that the run waits, for ``timeout`` seconds at most.

    TRL waits too, but silently, and without end if another program answers at the address.

    Raises:
        ConfigError: there was no answer in that time, or ``url`` is not a URL.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"trl.vllm_server_base_url must be http://host:port or https://..., got {url!r}.")
    started = time.monotonic()
    fault = _unhealthy(url)
    if fault is not None:
        progress.stage(f"wait for vLLM at {url}", round(timeout))
    while fault is not None:
        waited = time.monotonic() - started
        if waited >= timeout:
            raise ConfigError(
                f"no vLLM server answered at {url} within {timeout:g} seconds ({fault}); start it as docs/trl.md says, "
                "set trl.vllm_server_base_url to its address, or raise trl.vllm_server_timeout."
            )
        time.sleep(min(POLL_SECONDS, timeout - waited))
        progress.advance(1)
        fault = _unhealthy(url)


def _unhealthy(url: str) -> str | None:
    """What is wrong with a server, in a few words; None if nothing is."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=REQUEST_SECONDS) as answer:
            return None if answer.status == 200 else f"it answers {answer.status}"
    except urllib.error.HTTPError as error:
        return f"it answers {error.code} {error.reason}"
    except (OSError, HTTPException) as error:
        return str(getattr(error, "reason", error))


def reseed(config: "ProGRPOConfig", process: int) -> None:
    """Seed this process's generators, from which a colocated vLLM draws, with the run's seed.

    When vLLM starts, it seeds them with the number of the engine, so that runs with different seeds would draw the same
    numbers. Processes that share an engine must draw the same numbers.
    """
    set_seed(config.seed + process // config.vllm_tensor_parallel_size)
