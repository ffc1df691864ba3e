"""Errors whose text is one sentence for the user."""

import signal


class ConfigError(ValueError):
    """A recipe, an override, a path or a data file can't be used."""


class ServerAwayError(ConfigError):
    """A server does not give complete answers, so that further requests to it are useless."""


class RunError(RuntimeError):
    """A fault, such as a full disk or a NaN loss, ended a run. The text says what is kept and how to go on."""


class Interrupted(Exception):
    """The run was asked to stop, and wrote a checkpoint."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(signal_number).name} after step {step}")
        self.signal_number = signal_number
        self.step = step
