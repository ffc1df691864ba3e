"""The engines, by their names in recipes: ``ENGINES[recipe.engine]`` is a recipe's engine."""

from progrpo.runs.engine import Engine
from progrpo.trl import engine as trl
from progrpo.verl import engine as verl

ENGINES: dict[str, Engine] = {"trl": trl, "verl": verl}
