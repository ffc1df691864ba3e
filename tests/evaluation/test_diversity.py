import importlib.util
import math
import random
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from progrpo.common.errors import ConfigError
from progrpo.evaluation.diversity import (
    answer_entropy,
    distinct_n,
    diversity,
    embedding_distance,
    self_bleu,
)

sacrebleu = pytest.importorskip("sacrebleu", reason="the measures of words need sacrebleu")

STEPS = [
    "so 3 + 4 = 7,",
    "then $7 \\times 2 = 14$.",
    "Let x be 5;",
    "we find\nx = 2.5 (half)",
    "no &amp; end",
    "日本 7",
]


def texts(number: int, *, steps: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(STEPS) for _ in range(rng.randint(1, steps))) for _ in range(number)]


# -- Answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_counts", [[1], [4], [1, 1, 1], [30, 1, 1], [5, 0, 7], list(range(1, 40))])
def test_the_entropy_of_answers_equals_scipys(class_counts: list[int]) -> None:
    assert answer_entropy(class_counts) == pytest.approx(float(stats.entropy(class_counts)), abs=1e-14)


def test_the_entropy_of_no_answer_is_not_a_number() -> None:
    assert math.isnan(answer_entropy([]))
    assert math.isnan(answer_entropy([0, 0]))
    with pytest.raises(ValueError, match=r"class_counts must be at least 0, got \[2, -1\]"):
        answer_entropy([2, -1])


def test_the_bias_of_the_plug_in_entropy_is_that_of_its_docstring() -> None:
    classes, n = 8, 200
    drawn = np.random.default_rng(0).multinomial(n, [1 / classes] * classes, size=2000)
    bias = np.mean([answer_entropy([int(c) for c in counts]) for counts in drawn]) - math.log(classes)
    assert bias == pytest.approx(-(classes - 1) / (2 * n), rel=0.1)


# -- Words -------------------------------------------------------------------------------------------------------------


def test_distinct_n_counts_ngrams_within_texts() -> None:
    # Tokens a b a b and a b: of 4 + 2 unigrams 2 differ, of 3 + 1 bigrams ab and ba.
    assert distinct_n(["a b a b", "a b"], 1) == 2 / 6
    assert distinct_n(["a b a b", "a b"], 2) == 2 / 4
    assert distinct_n(["a b a b", "a b"], 4) == 1.0


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_distinct_n_is_the_share_of_different_ngrams_of_sacrebleus_tokens(n: int) -> None:
    sample = texts(6, steps=8)
    tokenize = sacrebleu.BLEU().tokenizer
    ngrams = [
        tuple(tokens[i : i + n])
        for tokens in (tokenize(text).split() for text in sample)
        for i in range(len(tokens) - n + 1)
    ]
    assert distinct_n(sample, n) == len(set(ngrams)) / len(ngrams)


def test_distinct_n_of_too_short_texts_is_not_a_number() -> None:
    assert math.isnan(distinct_n([], 1))
    assert math.isnan(distinct_n(["a", "b", ""], 2))
    with pytest.raises(ValueError, match="n must lie between 1 and 4, got 5"):
        distinct_n(["a"], 5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [1, 3, 30])
def test_self_bleu_is_the_mean_of_sacrebleus_scores(steps: int, seed: int) -> None:
    sample = texts(7, steps=steps, seed=seed)
    sample += [sample[0], "", "7", "  ", "so 7 -\n"]
    scores = [sacrebleu.sentence_bleu(text, sample[:i] + sample[i + 1 :]).score for i, text in enumerate(sample)]
    # Bit for bit: the same counts go through sacrebleu's formula.
    assert self_bleu(sample) == math.fsum(score / 100 for score in scores) / len(sample)


def test_self_bleu_of_two_texts_is_their_bleu_both_ways() -> None:
    a, b = "so 3 + 4 = 7 pens", "then 3 + 4 = 7 and more"
    both = [sacrebleu.sentence_bleu(a, [b]).score, sacrebleu.sentence_bleu(b, [a]).score]
    assert 0.3 < self_bleu([a, b]) < 0.9
    assert self_bleu([a, b]) == pytest.approx(sum(both) / 200, abs=1e-15)


def test_self_bleu_of_a_text_alone_is_not_a_number() -> None:
    assert math.isnan(self_bleu(["a b"]))
    assert math.isnan(self_bleu([]))


def test_without_sacrebleu_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.helpers", None)
    with pytest.raises(ConfigError, match=r"need sacrebleu: pip install 'progrpo\[evaluation\]'"):
        self_bleu(["a text that was not counted before", "b"])


# -- Meaning -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real sentence-transformers model of a few thousand random weights, in a folder."""
    if importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("the distance of embeddings needs sentence-transformers")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789+=,.", "the", "so"]
    (folder / "vocab.txt").write_text("\n".join(words + [f"##{letter}" for letter in "abcdefghijklmnop"]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=32)
    pooling = Pooling(config.hidden_size)
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder / "encoder"))
    return str(folder / "encoder")


def test_the_distance_of_embeddings_is_the_mean_over_pairs(tiny_encoder: str) -> None:
    from sentence_transformers import SentenceTransformer

    sample = ["so 3 + 4 = 7", "the end", "3 + 4", "a b c", "x = 2"]
    embeddings = SentenceTransformer(tiny_encoder).encode(sample)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(embeddings, 2)]
    assert embedding_distance(sample, tiny_encoder) == pytest.approx(1 - np.mean(cosines), abs=1e-5)
    assert embedding_distance(["so 7"] * 3, tiny_encoder) == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(embedding_distance(["so 7"], tiny_encoder))


def test_an_embedding_model_that_is_not_there_is_refused(tiny_encoder: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "no" / "such" / "model")
    with pytest.raises(ConfigError, match=r"the embedding model '.*such/model' can't be loaded"):
        embedding_distance(["a", "b"], missing)


def test_without_sentence_transformers_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"needs sentence-transformers: pip install 'progrpo\[embeddings\]'"):
        embedding_distance(["a", "b"], "a-model-that-was-never-loaded")


# -- All of one problem ------------------------------------------------------------------------------------------------


def test_diversity_is_over_the_first_samples_and_the_first_right_ones() -> None:
    sample = texts(12, steps=6)
    correct = [i % 2 == 1 for i in range(12)]
    right = [text for text, is_right in zip(sample, correct, strict=True) if is_right][:4]
    assert diversity(sample, correct) == {
        "distinct_1": distinct_n(sample[:8], 1),
        "distinct_2": distinct_n(sample[:8], 2),
        "self_bleu": self_bleu(sample[:8]),
        "distinct_1_correct": distinct_n(right, 1),
        "distinct_2_correct": distinct_n(right, 2),
        "self_bleu_correct": self_bleu(right),
    }


def test_more_samples_do_not_change_the_diversity() -> None:
    sample = texts(40, steps=6)
    assert diversity(sample, [True] * 40) == diversity(sample[:8], [True] * 8)


def test_too_few_or_too_short_responses_have_no_diversity() -> None:
    measures = diversity(["a b c"] * 8, [True] * 3 + [False] * 5)
    assert measures["self_bleu_correct"] is None
    assert measures["self_bleu"] is not None
    assert set(diversity(["a b c"] * 7, [False] * 7).values()) == {None}
    assert diversity(["a"] * 8, [True] * 8)["distinct_2"] is None


def test_with_a_model_diversity_has_the_distance_of_embeddings(tiny_encoder: str) -> None:
    sample = ["so 3 + 4 = 7", "the end", "3 + 4", "a b c"]
    measures = diversity(sample, [True, False, True, False], m=3, m_correct=2, embedding_model=tiny_encoder)
    assert measures["embedding_distance"] == embedding_distance(sample[:3], tiny_encoder)
    assert measures["embedding_distance_correct"] == embedding_distance([sample[0], sample[2]], tiny_encoder)


@pytest.mark.parametrize(
    ("number", "m", "m_correct", "message"),
    [
        (3, 8, 4, "texts and correct must have the same length, got 2 and 3"),
        (2, 1, 4, "m and m_correct must be at least 2, got 1 and 4"),
        (2, 8, 1, "m and m_correct must be at least 2, got 8 and 1"),
    ],
)
def test_wrong_arguments_of_diversity_are_refused(number: int, m: int, m_correct: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diversity(["a", "b"], [True] * number, m=m, m_correct=m_correct)
