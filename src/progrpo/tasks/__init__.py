"""Tasks: prompts and their verifier."""

from progrpo.tasks.base import Problem, Task
from progrpo.tasks.choice import ChoiceTask
from progrpo.tasks.code import CodeTask
from progrpo.tasks.countdown import Countdown
from progrpo.tasks.dataset import JsonlTask
from progrpo.tasks.math import MathTask
from progrpo.tasks.reasoning_gym import ReasoningGymTask
from progrpo.tasks.rows import Data

__all__ = [
    "ChoiceTask",
    "CodeTask",
    "Countdown",
    "Data",
    "JsonlTask",
    "MathTask",
    "Problem",
    "ReasoningGymTask",
    "Task",
]
