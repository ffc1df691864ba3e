"""A sign that nothing was sampled: all samples of every prompt are equal, at a temperature above 0."""

from collections.abc import Iterable, Sequence

from progrpo.evaluation.store import Judged

SHORTEST_WORD = 5
"""A text of fewer characters may be a single token, where tokens are not known."""


def equal_samples(judged: Iterable[Sequence[Judged]], temperature: float) -> list[str]:
    """A sentence where the samples of each prompt are all equal although they were sampled; nothing where they differ.

    Prompts whose answer is a single token (with its end, two) say nothing, for such answers are often equal; nor do
    prompts with one sample. At temperature 0 equal samples are what is asked for.

    Args:
        judged: the samples of each prompt.
        temperature: that they were asked for at.

    >>> from progrpo.verify import Verdict
    >>> sample = Judged("So it is 4.", Verdict("correct"), 6, None, None, None, False)
    >>> equal_samples([[sample] * 4, [sample] * 4], 1.0)[0].partition(":")[0]
    'all 4 samples of 2 of 2 prompts are equal at temperature 1'
    >>> equal_samples([[sample] * 4], 0.0)
    []
    """
    prompts = list(judged)
    telling = [samples for samples in prompts if len(samples) > 1 and not all(map(_is_one_token, samples))]
    if temperature == 0 or not telling or any(len({sample.text for sample in samples}) > 1 for samples in telling):
        return []
    counts = sorted({len(samples) for samples in telling})
    each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    what = f"all {each} samples of {len(telling)} of {len(prompts)} prompts"
    question = "does the server ignore it, or has the policy collapsed?"
    return [f"{what} are equal at temperature {temperature:g}: {question}"]


def _is_one_token(sample: Judged) -> bool:
    return sample.tokens <= 2 if sample.tokens else len(sample.text.strip()) < SHORTEST_WORD
