"""A sign that a server did not sample: all samples of every prompt are equal, at a temperature above 0."""

from collections.abc import Iterable, Sequence

from progrpo.evaluation.store import Judged

SHORTEST_WORD = 5
"""Where tokens are not known, a text of fewer characters may be a single token."""


def equal_samples(judged: Iterable[Sequence[Judged]], temperature: float) -> list[str]:
    """A warning if the samples of each prompt are all equal although they were sampled; else an empty list.

    Prompts with one sample do not count, nor do prompts whose answers are a single token (two with the end token),
    because such answers are often equal. At temperature 0, equal samples are expected.

    Args:
        judged: the samples of each prompt.
        temperature: the sampling temperature.

    >>> from progrpo.verify import Verdict
    >>> sample = Judged("So it is 4.", Verdict("correct"), 6, None, None, None, False)
    >>> equal_samples([[sample] * 4, [sample] * 4], 1.0)[0].partition(":")[0]
    'all 4 samples of 2 of 2 prompts are equal at temperature 1'
    >>> equal_samples([[sample] * 4], 0.0)
    []
    """
    prompts = list(judged)
    longer = [samples for samples in prompts if len(samples) > 1 and not all(map(_is_one_token, samples))]
    if temperature == 0 or not longer or any(len({sample.text for sample in samples}) > 1 for samples in longer):
        return []
    counts = sorted({len(samples) for samples in longer})
    each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [
        f"all {each} samples of {len(longer)} of {len(prompts)} prompts are equal at temperature {temperature:g}: does "
        "the server ignore the temperature, or has the policy collapsed?"
    ]


def _is_one_token(sample: Judged) -> bool:
    return sample.tokens <= 2 if sample.tokens else len(sample.text.strip()) < SHORTEST_WORD
