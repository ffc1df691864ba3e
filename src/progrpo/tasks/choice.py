"""Multiple-choice questions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import ClassVar

from progrpo.tasks.dataset import DatasetTask, Item, Preset
from progrpo.tasks.rows import BadRowError, Data, Row, column, digest, text_column
from progrpo.verify.choice import choice_gold


def _item(question: str, options: Sequence[str], letter: str, problem_id: str | None = None) -> Item:
    listed = "\n".join(f"{name}. {text}" for name, text in zip(ascii_uppercase, options, strict=False))
    return Item(f"{question.strip()}\n\n{listed}", choice_gold(letter, options), problem_id=problem_id)


def _options(row: Row) -> list[str]:
    options = column(row, "options")
    if not isinstance(options, list) or not all(isinstance(text, str) and text.strip() for text in options):
        raise BadRowError(f"column 'options' is {options!r:.80}, where a list of texts is needed")
    return [text.strip() for text in options]


def _mmlu_pro(row: Row) -> Item:
    """MMLU-Pro: up to ten options, in the dataset's own order. It asks some questions twice; its score counts both."""
    problem_id = text_column(row, "question_id")  # only MMLU-Pro's rows have this column
    letter, index = text_column(row, "answer"), row.get("answer_index")
    if isinstance(index, int) and ascii_uppercase[index : index + 1] != letter:
        raise BadRowError(f"column 'answer' is {letter!r}, but 'answer_index' is {index}")
    return _item(text_column(row, "question"), _options(row), letter, problem_id)


def _gpqa(row: Row) -> Item:
    """GPQA lists the right option first; here the options are sorted by their digests, the same way everywhere."""
    question, right = text_column(row, "Question").strip(), text_column(row, "Correct Answer").strip()
    wrong = [text_column(row, f"Incorrect Answer {i}").strip() for i in (1, 2, 3)]
    if right in wrong:
        raise BadRowError("has the right option among the wrong ones")
    options = sorted([right, *wrong], key=lambda text: digest(question, text))
    problem_id = text_column(row, "Record ID") if "Record ID" in row else None
    return _item(question, options, ascii_uppercase[options.index(right)], problem_id)


@dataclass(frozen=True)
class ChoiceTask(DatasetTask):
    """Multiple-choice questions, verified by :func:`progrpo.verify.choice.verify_choice`.

    Without a preset, rows have the columns ``question``, ``options`` (a list of texts, the first is A) and ``answer``
    (the letter). The canonical form is the letter.
    """

    PRESETS: ClassVar[Mapping[str, Preset]] = {
        "gpqa_diamond": Preset(_gpqa, "Idavidrein/gpqa", subset="gpqa_diamond"),
        "mmlu_pro": Preset(_mmlu_pro, "TIGER-Lab/MMLU-Pro", "test"),
    }
    name: ClassVar[str] = "choice"
    verifier: ClassVar[str] = "choice"
    instruction: ClassVar[str] = (
        r"Please reason step by step, and put the letter of the right option, alone, within \boxed{}."
    )

    def read_columns(self, data: Data) -> Callable[[Row], Item]:
        problem, gold = data.problem or "question", data.gold or "answer"
        return lambda row: _item(text_column(row, problem), _options(row), text_column(row, gold))
