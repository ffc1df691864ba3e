"""What went wrong, said to the user in one sentence."""

import signal


class ConfigError(ValueError):
    """A recipe, an override, a path or a data file that can't be used; its text is for the user."""


class ServerAwayError(ConfigError):
    """A server that gives no whole answer: whatever else is to be asked of it would get none either."""


class RunError(RuntimeError):
    """What ended a run that was under way: a full disk, a loss that is no number. Its text is for the user, and says
    what is kept and how to go on."""


class Interrupted(Exception):
    """The run was asked to stop, and left a checkpoint."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(signal_number).name} after step {step}")
        self.signal_number = signal_number
        self.step = step
