"""Tasks: where prompts and verifiers meet."""

from progrpo.tasks.base import Problem, Task
from progrpo.tasks.countdown import Countdown

__all__ = ["Countdown", "Problem", "Task"]
