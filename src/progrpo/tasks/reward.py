"""A task's verifier as a reward function in TRL's form."""

from typing import Any

from progrpo.tasks.base import Task
from progrpo.verify import Verdict


class TaskReward:
    """A reward function for GRPOTrainer: 1 for correct, 0 for incorrect, None where the verifier failed.

    Its :meth:`canonical_form` is one for :class:`~progrpo.integrations.trl.ProGRPOTrainer`; the verdicts of the last
    batch are kept, so that telling solutions apart verifies nothing twice.

    >>> from progrpo.tasks import Countdown
    >>> reward = TaskReward(Countdown(numbers=3))
    >>> reward(["2 3 5 : 16 ;"], ["3 + 5 = 8 , 8 * 2 = 16"], problem_id=["a"], numbers=[[2, 3, 5]], target=[16])
    [1.0]
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.__name__ = f"{task.name}_reward"
        self._verdicts: dict[tuple[str, str], Verdict] = {}

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        n = len(completions)
        per_row = {name: values for name, values in columns.items() if isinstance(values, list) and len(values) == n}
        self._verdicts = {}
        return [
            self.verdict({name: values[i] for name, values in per_row.items()}, completion).reward
            for i, completion in enumerate(completions)
        ]

    def canonical_form(self, row: dict[str, Any], completion: Any) -> str | None:
        """The canonical form of a correct completion, None for any other."""
        return self.verdict(row, completion).canonical

    def verdict(self, row: dict[str, Any], completion: Any) -> Verdict:
        """The task's verdict on a completion (text, or messages) to the problem of a dataset row."""
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        key = (row["problem_id"], text)
        if key not in self._verdicts:
            self._verdicts[key] = self.task.verify(row, text)
        return self._verdicts[key]
