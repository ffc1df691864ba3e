"""Mathematics with a known answer."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from progrpo.tasks.dataset import DatasetTask, Item, Preset
from progrpo.tasks.rows import BadRowError, ForeignRowError, Row, first_column, text_column
from progrpo.tasks.word_problems import word_problems
from progrpo.verify import AnswerStyle, extract_answer

INSTRUCTIONS: dict[AnswerStyle, str] = {
    "boxed": r"Please reason step by step, and put your final answer within \boxed{}.",
    "answer": 'Please reason step by step, and end with a line of the form "Answer: ...".',
    "last_number": "Please reason step by step, and end with the number.",
}
INSTRUCTIONS["any"] = INSTRUCTIONS["boxed"]

ENDINGS: dict[AnswerStyle, str] = {
    "boxed": r"The answer is \boxed{GOLD}.",
    "answer": "Answer: GOLD",
    "last_number": "The answer is GOLD.",
}
ENDINGS["any"] = ENDINGS["boxed"]


def _read(problem: Sequence[str], gold: Callable[[Row], str]) -> Callable[[Row], Item]:
    """A reader that takes the first of several problem columns: copies of a dataset name them differently."""
    return lambda row: Item(first_column(row, *problem), gold(row))


def _answer(row: Row) -> str:
    return first_column(row, "answer", "expected_answer")


def _boxed_solution(row: Row) -> str:
    """The last box of a worked solution."""
    gold = extract_answer(text_column(row, "solution"))
    if gold is None:
        raise BadRowError(r"column 'solution' has no \boxed{}")
    return gold


def _answer_or_boxed_solution(row: Row) -> str:
    return _answer(row) if "answer" in row else _boxed_solution(row)


def _final_answers(row: Row) -> str:
    """OlympiadBench lists its answers: together they are one."""
    value = row.get("final_answer", row.get("answer"))
    if isinstance(value, list) and value and all(isinstance(part, str) and part.strip() for part in value):
        return ", ".join(part.strip().strip("$") for part in value)
    return first_column(row, "final_answer", "answer")


def _gsm8k(row: Row) -> Item:
    """GSM8K: the answer follows ``####``; its calculator's notes ``<<3*4=12>>`` are not for reading."""
    steps, hashes, gold = text_column(row, "answer").rpartition("####")
    if not hashes or not gold.strip():
        raise BadRowError("column 'answer' has no '#### answer'")
    gold = gold.strip().replace(",", "")
    working = re.sub(r"<<[^>]*>>", "", steps).strip()
    return Item(text_column(row, "question"), gold, solution=working)


def _dapo(row: Row) -> Item:
    """DAPO-Math-17k writes its own instruction around each problem; the task's takes its place."""
    text = text_column(row, "prompt.0.content" if isinstance(row.get("prompt"), list) else "prompt")
    for instruction in (
        "Solve the following math problem step by step. The last line of your response should be of the form "
        "Answer: $Answer (without quotes) where $Answer is the answer to the problem.",
        'Remember to put your answer on its own line after "Answer:".',
    ):
        text = text.replace(instruction, "")
    gold = "reward_model.ground_truth" if "reward_model" in row else "solution"
    return Item(text.strip(), text_column(row, gold))


def _aime_answer(row: Row) -> str:
    """The American Invitational Mathematics Examination asks for nothing else than an integer from 0 to 999."""
    answer = _answer(row)
    if not re.fullmatch(r"[0-9]{1,3}", answer):
        raise ForeignRowError(f"has the answer {answer!r:.80}, where AIME's are integers from 0 to 999")
    return answer


def _amc_answer(row: Row) -> str:
    answer = _answer(row)
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", answer):
        raise ForeignRowError(f"has the answer {answer!r:.80}, where AMC's are numbers")
    return answer


_PROBLEM = ("problem", "question")

PRESETS: dict[str, Preset] = {
    "dapo_math_17k": Preset(_dapo, "BytedTsinghua-SIA/DAPO-Math-17k"),
    "math": Preset(_read(_PROBLEM, _answer_or_boxed_solution), "DigitalLearningGmbH/MATH-lighteval"),
    "math500": Preset(_read(_PROBLEM, _answer), "HuggingFaceH4/MATH-500", "test"),
    "gsm8k": Preset(_gsm8k, "openai/gsm8k", subset="main"),
    "aime24": Preset(_read(_PROBLEM, _aime_answer), "HuggingFaceH4/aime_2024"),
    "aime25": Preset(_read(_PROBLEM, _aime_answer), "math-ai/aime25", "test"),
    "amc23": Preset(_read(_PROBLEM, _amc_answer), "math-ai/amc23", "test"),
    "minerva": Preset(_read(_PROBLEM, _answer_or_boxed_solution), "math-ai/minervamath", "test"),
    "olympiadbench": Preset(_read(_PROBLEM, _final_answers), "math-ai/olympiadbench", "test"),
    "word_problems": Preset(_gsm8k, make=word_problems),
}
"""``Data.preset`` of a math task; each also reads a local copy of its dataset, given by ``Data.path``."""


@dataclass(frozen=True)
class MathTask(DatasetTask):
    """Problems with one answer each, verified by :func:`progrpo.verify.verify_math`. More arguments:

    Args:
        answer_style: where the answer stands in a response: in its last ``\\boxed{}``, after ``Answer:``, or as its
            last number; or in any of these places, in this order (``"any"``). The last is for judging models as their
            own graders do: the prompt asks for a box, and a response without one is read all the same. Train with a
            strict one: a policy finds out what a lenient reader takes for an answer.

    >>> from progrpo.tasks.rows import Data
    >>> task = MathTask(Data(preset="word_problems", limit=8), Data(preset="word_problems", seed=1, limit=4))
    >>> problem = task.heldout_problems()[0]
    >>> task.verify(problem, "It is \\\\boxed{" + problem["gold"] + "}.").status
    'correct'
    """

    answer_style: AnswerStyle = "boxed"

    PRESETS: ClassVar[Mapping[str, Preset]] = PRESETS
    name: ClassVar[str] = "math"

    @property
    def verifier(self) -> str:
        return "math" if self.answer_style == "boxed" else f"math_{self.answer_style}"

    @property
    def instruction(self) -> str:
        return INSTRUCTIONS[self.answer_style]

    def write_response(self, item: Item) -> str:
        return f"{item.solution}\n{ENDINGS[self.answer_style].replace('GOLD', item.gold)}"
