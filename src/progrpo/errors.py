"""What a user did wrong, said in one sentence."""


class ConfigError(ValueError):
    """A recipe, an override, a path or a data file that can't be used; its text is for the user."""
