"""``actor_rollout_ref.rollout.name=hf``: transformers' ``generate`` behind a Ray actor, in place of an engine's server.

One server serves all replicas. It gathers the requests that arrive together into one batch. It draws each response from
a generator that is seeded by the seed, the step of the weights, the prompt, and how many responses to the prompt came
before. A run is therefore the same every time, with any number of workers, and after a resume.

Where a test has to choose the responses, ``VERL_CPU_RESPONSES`` names a JSON file with the responses to each prompt, by
the prompt's text; then nothing is sampled.
"""

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

SERVER = "hf_server"
GATHER_SECONDS = 0.02
"""Requests of a batch arrive one by one: the server waits until none has arrived for this time."""


class HFAdapter(BaseRollout):
    """Runs in the training worker and sends its weights to the server, through Ray's object store."""

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(
        self, weights: Generator[tuple[str, Tensor]], wire_format: str = "named_tensors", **kwargs: Any
    ) -> None:
        assert wire_format == "named_tensors", f"the hf rollout takes whole tensors, got {wire_format!r}"
        # Every rank takes part: the generator gathers sharded weights.
        state = {name: tensor.detach().cpu().clone() for name, tensor in weights}
        if self.device_mesh.get_rank() == 0:
            await ray.get_actor(SERVER).load.remote(state, kwargs.get("global_steps"))


class HFReplica(RolloutReplica):
    """Runs on the driver and starts the server, or finds the one that replica 0 started."""

    async def launch_servers(self) -> None:
        server = HFServer.options(name=SERVER, get_if_exists=True).remote(
            self.model_config.path, self.config.response_length, self.config.get("seed") or 0
        )
        await server.wake_up.remote()  # fails here, not at the first step, if the server could not start
        self.servers = [server]
        self._server_handle = server
        self._server_address = f"{SERVER}:{self.replica_rank}"


@dataclass(frozen=True)
class _Request:
    prompt_ids: list[int]
    temperature: float
    max_tokens: int
    seed: int
    answer: asyncio.Future


@ray.remote(num_cpus=0, max_concurrency=1000)
class HFServer:
    """The engine."""

    def __init__(self, model_path: str, max_tokens: int, seed: int) -> None:
        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        self.max_tokens, self.seed = max_tokens, seed
        self.step: int | None = None
        self._asked: Counter[tuple[int, ...]] = Counter()
        self._waiting: list[_Request] = []
        self._serving: asyncio.Task | None = None
        self.tokenizer = AutoTokenizer.from_pretrained(model_path)
        file = os.environ.get("VERL_CPU_RESPONSES")
        self.responses: dict[str, list[str]] | None = json.loads(Path(file).read_text()) if file else None

    async def load(self, state: dict[str, Tensor], step: int | None) -> None:
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        tied = set(getattr(self.model, "all_tied_weights_keys", {}))
        assert set(missing) <= tied, f"weights that did not arrive: {set(missing) - tied}"
        assert not unexpected, f"weights that are not the model's: {unexpected}"
        self.model.tie_weights()
        self.step = step
        self._asked.clear()

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **unused: Any
    ) -> TokenOutput:
        assert sampling_params.get("top_p", 1.0) == 1.0, "the hf rollout samples from the whole distribution: top_p 1"
        assert sampling_params.get("top_k", -1) <= 0, "the hf rollout samples from the whole distribution: top_k -1"
        temperature = sampling_params.get("temperature", 1.0)
        key = tuple(prompt_ids)
        if temperature > 0:  # a validation without sampling changes nothing for the training that follows
            self._asked[key] += 1
        if self.responses is not None:
            return self._chosen_response(key)
        request_key = repr((self.seed, self.step, key, self._asked[key]))
        seed = int.from_bytes(hashlib.blake2b(request_key.encode(), digest_size=7).digest())
        max_tokens = sampling_params.get("max_tokens") or self.max_tokens
        request = _Request(list(prompt_ids), temperature, max_tokens, seed, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await request.answer

    def _chosen_response(self, key: tuple[int, ...]) -> TokenOutput:
        assert self.responses is not None
        text = self.responses[self.tokenizer.decode(key).strip()][self._asked[key] - 1]
        token_ids = [*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id]
        return TokenOutput(token_ids=token_ids, stop_reason="completed", extra_fields={"global_steps": self.step})

    async def _serve(self) -> None:
        seen = 0
        while len(self._waiting) > seen:
            seen = len(self._waiting)
            await asyncio.sleep(GATHER_SECONDS)
            if len(self._waiting) == seen:
                batch, self._waiting, seen = self._waiting, [], 0
                try:
                    outputs = self._generate(batch)
                except Exception as error:
                    for request in batch:
                        request.answer.set_exception(error)
                    raise
                for request, output in zip(batch, outputs, strict=True):
                    request.answer.set_result(output)

    @torch.no_grad()
    def _generate(self, batch: list[_Request]) -> list[TokenOutput]:
        width = max(len(request.prompt_ids) for request in batch)
        pad = self.model.generation_config.pad_token_id or 0
        ids_BP = torch.tensor([[pad] * (width - len(r.prompt_ids)) + r.prompt_ids for r in batch])
        mask_BP = torch.tensor([[0] * (width - len(r.prompt_ids)) + [1] * len(r.prompt_ids) for r in batch])
        sampling = _GumbelMax(batch)
        generated = self.model.generate(
            input_ids=ids_BP,
            attention_mask=mask_BP,
            max_new_tokens=max(request.max_tokens for request in batch),
            do_sample=False,
            logits_processor=LogitsProcessorList([sampling]),
            pad_token_id=pad,
        )
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        outputs = []
        for row, request in enumerate(batch):
            token_ids = generated[row, width:].tolist()[: request.max_tokens]
            length = next((i + 1 for i, token in enumerate(token_ids) if token in ends), len(token_ids))
            log_probs = [sampling.logps[t][row, token].item() for t, token in enumerate(token_ids[:length])]
            outputs.append(
                TokenOutput(
                    token_ids=token_ids[:length],
                    log_probs=log_probs,
                    stop_reason="completed",
                    extra_fields={"global_steps": self.step},
                )
            )
        return outputs

    # An engine on a GPU releases its memory for training and clears its cache; there is nothing to do here.
    async def wake_up(self) -> None: ...

    async def sleep(self) -> None: ...

    async def abort_all_requests(self, reject_request: bool = False) -> None: ...

    async def resume_generation(self) -> None: ...

    async def clear_kv_cache(self) -> None: ...

    async def release_kv_cache(self) -> None: ...

    async def resume_kv_cache(self) -> None: ...


class _GumbelMax:
    """Makes greedy decoding a sample: argmax(log p + Gumbel noise) is distributed as p. At temperature 0, no noise."""

    def __init__(self, batch: list[_Request]) -> None:
        self.generators = [torch.Generator().manual_seed(request.seed) for request in batch]
        self.temperature_B1 = torch.tensor([[request.temperature] for request in batch])
        self.logps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        greedy_B1 = self.temperature_B1 == 0
        logps_BV = torch.log_softmax(scores_BV.float() / torch.where(greedy_B1, 1.0, self.temperature_B1), dim=-1)
        self.logps.append(logps_BV)
        noise_BV = torch.stack([torch.rand(scores_BV.shape[1], generator=generator) for generator in self.generators])
        return torch.where(greedy_B1, logps_BV, logps_BV - torch.log(-torch.log(noise_BV)))
