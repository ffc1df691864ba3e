"""How different the responses to one problem are: their solutions, their answers, their words and their meaning.

All measures depend on the number of responses, and those of words also on their length, so compare models at the same
number of samples (:func:`diversity` uses a fixed one). :func:`distinct_n` and :func:`self_bleu` split text into tokens
as sacrebleu's ``13a`` does.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import compress
from math import fsum, isnan, log, nan
from typing import Any

import numpy as np

from progrpo.common.errors import ConfigError

LONGEST_NGRAM = 4  # the longest n-gram of BLEU


def answer_entropy(class_counts: Sequence[int]) -> float:
    r"""Shannon entropy of the answers, in nats: 0 if all are the same, log n if no two are.

    .. math:: -\sum_j \frac{c_j}{n} \log \frac{c_j}{n}, \quad n = \sum_j c_j

    with ``class_counts`` c_j of the samples that give answer j, right or wrong. It is NaN if there is no answer; for a
    count below 0, a ValueError is raised. This plug-in estimate is too low by about (classes - 1) / 2n on average
    (Miller 1955), and never above log n.

    >>> answer_entropy([4]), round(answer_entropy([2, 2]), 4)
    (0.0, 0.6931)
    """
    if min(class_counts, default=0) < 0:
        raise ValueError(f"class_counts must be at least 0, got {list(class_counts)}.")
    n = sum(class_counts)
    return fsum(count / n * log(n / count) for count in class_counts if count) if n else nan


def distinct_n(texts: Sequence[str], n: int) -> float:
    """The number of different n-grams of all texts over the number of all their n-grams, between 0 and 1.

    It falls with the number of texts and with their length, whatever they say. No n-gram reaches from one text into the
    next. It is NaN if no text has n tokens. Raises ValueError if n is not between 1 and 4, and ConfigError without
    sacrebleu.

    Source: Li et al. 2016 (arXiv 1510.03055), distinct-1 and distinct-2.

    >>> distinct_n(["a b", "a c"], 1)
    0.75
    """
    if not 1 <= n <= LONGEST_NGRAM:
        raise ValueError(f"n must lie between 1 and {LONGEST_NGRAM}, got {n}.")
    total: Counter[tuple[str, ...]] = Counter()
    for ngrams, _ in map(_ngrams, texts):
        total.update({ngram: count for ngram, count in ngrams.items() if len(ngram) == n})
    return len(total) / total.total() if total else nan


def self_bleu(texts: Sequence[str]) -> float:
    r"""How much the texts repeat each other, between 0 and 1: the mean BLEU of each text against all others.

    .. math:: \frac{1}{m} \sum_{i=1}^{m} \mathrm{BLEU}(t_i, \{t_j : j \ne i\})

    Each term is the score of sacrebleu's ``sentence_bleu`` (BLEU-4, ``13a`` tokens, exponential smoothing, effective
    order) over 100. It is 1 if every text is equal to another one, and low if words and phrases differ. It is NaN for
    fewer than 2 texts. Raises ConfigError without sacrebleu.

    Source: Zhu et al. 2018 (arXiv 1802.01886), without their subsampling.

    >>> round(self_bleu(["so 3 + 4 = 7", "so 3 + 4 = 7"]), 9), self_bleu(["a b c d", "e f g h"])
    (1.0, 0.0)
    """
    counted = list(map(_ngrams, texts))
    if len(counted) < 2:
        return nan
    from sacrebleu.metrics.bleu import BLEU

    # A text's references are all others. Their highest count of an n-gram is the highest of all texts, or the second
    # highest if the text itself has the highest.
    highest: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for ngrams, _ in counted:
        for ngram, count in ngrams.items():
            highest[ngram] = sorted([*highest[ngram], count])[1:]
    scores = []
    for i, (ngrams, length) in enumerate(counted):
        matched, total = [0] * LONGEST_NGRAM, [0] * LONGEST_NGRAM
        for ngram, count in ngrams.items():
            second, first = highest[ngram]
            total[len(ngram) - 1] += count
            matched[len(ngram) - 1] += min(count, second if count == first else first)
        # The length of the reference that is closest in length; if two are equally close, the shorter one.
        others = [other for j, (_, other) in enumerate(counted) if j != i]
        reference = min(others, key=lambda other: (abs(other - length), other))
        score = BLEU.compute_bleu(matched, total, length, reference, smooth_method="exp", effective_order=True).score
        scores.append(score / 100)
    return fsum(scores) / len(scores)


def embedding_distance(texts: Sequence[str], model: str) -> float:
    r"""How far apart the texts' meanings are: the mean cosine distance of two of them, between 0 and 2.

    .. math:: \frac{2}{m (m-1)} \sum_{i<j} \big( 1 - \cos(e_i, e_j) \big)

    ``model`` is the id or folder of a sentence-transformers model, which cuts texts at its longest input. Values of
    different models can't be compared. It is NaN for fewer than 2 texts. Raises ConfigError without
    sentence-transformers, or if there is no such model.
    """
    if len(texts) < 2:
        return nan
    embeddings = _encoder(model).encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    total = np.sum(np.asarray(embeddings, dtype=np.float64), axis=0)
    # The square of the sum of m unit vectors is m plus twice the sum of the cosines of all pairs.
    m = len(texts)
    return float(1 - (total @ total - m) / (m * (m - 1)))


def diversity(
    texts: Sequence[str], correct: Sequence[bool], *, m: int = 8, m_correct: int = 4, embedding_model: str | None = None
) -> dict[str, float | None]:
    """The diversity of a fixed number of one problem's responses, so that models and problems can be compared.

    The right responses show whether a model has several ways to the answer; wrong responses differ in any case.

    Of the texts, in the order in which they were sampled, the first m are measured, and the first m_correct of those
    that are ``correct``. The result has ``distinct_1``, ``distinct_2``, ``self_bleu`` and, with a model,
    ``embedding_distance``; and the same with ``_correct``. A value is None if there are fewer responses, or if they are
    too short.

    Raises:
        ValueError: ``m`` or ``m_correct`` is below 2, or ``texts`` and ``correct`` differ in length.
        ConfigError: as for the measures.

    >>> measures = diversity(["3 + 4", "4 + 3", "no idea"], [True, True, False], m=3, m_correct=2)
    >>> measures["distinct_1"], measures["distinct_1_correct"]
    (0.625, 0.5)
    """
    if len(texts) != len(correct):
        raise ValueError(f"texts and correct must have the same length, got {len(texts)} and {len(correct)}.")
    if min(m, m_correct) < 2:
        raise ValueError(f"m and m_correct must be at least 2, got {m} and {m_correct}.")
    right = list(compress(texts, correct))
    measures: dict[str, float | None] = {}
    for suffix, candidates, number in (("", texts, m), ("_correct", right, m_correct)):
        chosen = candidates[:number] if len(candidates) >= number else []  # without texts, every measure is NaN
        values = dict(distinct_1=distinct_n(chosen, 1), distinct_2=distinct_n(chosen, 2), self_bleu=self_bleu(chosen))
        if embedding_model is not None:
            values["embedding_distance"] = embedding_distance(chosen, embedding_model)
        measures |= {name + suffix: None if isnan(value) else value for name, value in values.items()}
    return measures


@lru_cache(maxsize=16)  # the measures of one problem's texts share them
def _ngrams(text: str) -> tuple[Counter[tuple[str, ...]], int]:
    """A text's n-grams of 1 to 4 tokens, and its number of tokens."""
    try:
        from sacrebleu.metrics.helpers import extract_all_word_ngrams
    except ModuleNotFoundError:
        raise ConfigError("distinct-n and self-BLEU need sacrebleu: pip install 'progrpo[evaluation]'.") from None
    return extract_all_word_ngrams(_tokenizer()(text.rstrip()), 1, LONGEST_NGRAM)


@cache
def _tokenizer() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


@cache
def _encoder(model: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError:
        raise ConfigError(
            "the distance of embeddings needs sentence-transformers: pip install 'progrpo[embeddings]'."
        ) from None
    try:
        return SentenceTransformer(model)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the embedding model {model!r} can't be loaded ({error}); give a sentence-transformers model that is in "
            "the cache or can be downloaded, or the path of its folder."
        ) from error
