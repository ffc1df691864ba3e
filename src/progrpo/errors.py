"""What went wrong, said to the user in one sentence."""


class ConfigError(ValueError):
    """A recipe, an override, a path or a data file that can't be used; its text is for the user."""


class RunError(RuntimeError):
    """What ended a run that was under way: a full disk, a loss that is no number. Its text is for the user, and says
    what is kept and how to go on."""
