"""What went wrong, said in one sentence."""


class ConfigError(ValueError):
    """A recipe, an override, a path or a data file that can't be used; its text is for the user."""


class RunError(RuntimeError):
    """A run that failed for no fault of what it was asked; its text is for the user."""
