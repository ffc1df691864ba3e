"""Mathematics with a known answer."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from progrpo.tasks.dataset import DatasetTask, Item, Preset
from progrpo.tasks.generated import word_problems
from progrpo.tasks.rows import BadRowError, ForeignRowError, Row, first_column, text_column
from progrpo.verify import AnswerStyle, extract_answer

BOX = r"Please reason step by step, and put your final answer within \boxed{}."
STYLES: dict[AnswerStyle, tuple[str, str]] = {
    "boxed": (BOX, r"The answer is \boxed{GOLD}."),
    "any": (BOX, r"The answer is \boxed{GOLD}."),
    "answer": ('Please reason step by step, and end with a line of the form "Answer: ...".', "Answer: GOLD"),
    "last_number": ("Please reason step by step, and end with the number.", "The answer is GOLD."),
}
"""The instruction in the prompt, and how a worked example ends."""


def _read(gold: Callable[[Row], str]) -> Callable[[Row], Item]:
    """A reader of rows with a problem and a gold. Copies of a dataset have different names for the problem's column."""
    return lambda row: Item(first_column(row, "problem", "question"), gold(row))


def _answer(row: Row) -> str:
    return first_column(row, "answer", "expected_answer")


def _answer_or_box(row: Row) -> str:
    """The answer; in rows without one, the last box of the worked solution."""
    gold = _answer(row) if "answer" in row else extract_answer(text_column(row, "solution"))
    if gold is None:
        raise BadRowError(r"column 'solution' has no \boxed{}")
    return gold


def _final_answers(row: Row) -> str:
    """OlympiadBench has a list of answers, which together are one gold."""
    value = row.get("final_answer", row.get("answer"))
    if isinstance(value, list) and value and all(isinstance(part, str) and part.strip() for part in value):
        return ", ".join(part.strip().strip("$") for part in value)
    return first_column(row, "final_answer", "answer")


def _gsm8k(row: Row) -> Item:
    """GSM8K: the answer follows ``####``; the notes of its calculator, ``<<3*4=12>>``, are left out."""
    steps, hashes, gold = text_column(row, "answer").rpartition("####")
    if not hashes or not gold.strip():
        raise BadRowError("column 'answer' has no '#### answer'")
    solution = re.sub(r"<<[^>]*>>", "", steps).strip()
    return Item(text_column(row, "question"), gold.strip().replace(",", ""), solution=solution)


def _dapo(row: Row) -> Item:
    """DAPO-Math-17k writes its own instruction around each problem; the task's instruction replaces it."""
    text = text_column(row, "prompt.0.content" if isinstance(row.get("prompt"), list) else "prompt")
    for instruction in (
        "Solve the following math problem step by step. The last line of your response should be of the form "
        "Answer: $Answer (without quotes) where $Answer is the answer to the problem.",
        'Remember to put your answer on its own line after "Answer:".',
    ):
        text = text.replace(instruction, "")
    gold = "reward_model.ground_truth" if "reward_model" in row else "solution"
    return Item(text.strip(), text_column(row, gold))


def _answer_of_form(pattern: str, form: str) -> Callable[[Row], str]:
    """A reader of the answer. An answer that the competition never asks for belongs to another dataset."""

    def read(row: Row) -> str:
        answer = _answer(row)
        if not re.fullmatch(pattern, answer):
            raise ForeignRowError(f"has the answer {answer!r:.80}, where {form}")
        return answer

    return read


_aime = _read(_answer_of_form(r"[0-9]{1,3}", "AIME's are integers from 0 to 999"))
_amc = _read(_answer_of_form(r"-?[0-9]+(\.[0-9]+)?", "AMC's are numbers"))


@dataclass(frozen=True)
class MathTask(DatasetTask):
    """Problems with one answer each, verified by :func:`progrpo.verify.verify_math`.

    Args:
        answer_style: where the answer stands in a response: in its last ``\\boxed{}`` (``"boxed"``), after
            ``Answer:`` (``"answer"``), as its last number (``"last_number"``), or in the first of these places that
            the response has (``"any"``). ``"any"`` judges models as their own graders do: the prompt asks for a box,
            and a response without one is still read. Train with a strict style: a policy learns to exploit
            whatever a lenient reader accepts as an answer.

    >>> from progrpo.tasks.rows import Data
    >>> task = MathTask(Data(preset="word_problems", limit=8), Data(preset="word_problems", seed=1, limit=4))
    >>> problem = task.heldout_problems()[0]
    >>> task.verify(problem, "It is \\\\boxed{" + problem["gold"] + "}.").status
    'correct'
    """

    answer_style: AnswerStyle = "boxed"

    PRESETS: ClassVar[Mapping[str, Preset]] = {
        "dapo_math_17k": Preset(_dapo, "BytedTsinghua-SIA/DAPO-Math-17k"),
        "math": Preset(_read(_answer_or_box), "DigitalLearningGmbH/MATH-lighteval"),
        "math500": Preset(_read(_answer), "HuggingFaceH4/MATH-500", "test"),
        "gsm8k": Preset(_gsm8k, "openai/gsm8k", subset="main"),
        "aime24": Preset(_aime, "HuggingFaceH4/aime_2024"),
        "aime25": Preset(_aime, "math-ai/aime25", "test"),
        "amc23": Preset(_amc, "math-ai/amc23", "test"),
        "minerva": Preset(_read(_answer_or_box), "math-ai/minervamath", "test"),
        "olympiadbench": Preset(_read(_final_answers), "math-ai/olympiadbench", "test"),
        "word_problems": Preset(_gsm8k, make=word_problems),
    }
    name: ClassVar[str] = "math"

    @property
    def verifier(self) -> str:
        return "math" if self.answer_style == "boxed" else f"math_{self.answer_style}"

    @property
    def instruction(self) -> str:
        return STYLES[self.answer_style][0]

    def write_response(self, item: Item) -> str:
        return f"{item.solution}\n{STYLES[self.answer_style][1].replace('GOLD', item.gold)}"
