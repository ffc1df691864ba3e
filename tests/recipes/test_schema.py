import json
from pathlib import Path

import pytest

from progrpo.common.errors import ConfigError
from progrpo.methods import METHODS
from progrpo.recipes.schema import Recipe, builtin_recipes, load_recipe

MINIMAL = 'name = "run"\n'


def write_recipe(folder: Path, text: str, name: str = "recipe.toml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def error_of(folder: Path, text: str, overrides: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        load_recipe(write_recipe(folder, text), overrides)
    return str(raised.value)


def test_there_are_built_in_recipes() -> None:
    folder = Path(__file__).parents[2] / "src" / "progrpo" / "recipes"
    assert set(builtin_recipes()) == {path.stem for path in folder.glob("*.toml")}
    assert "countdown_cpu" in builtin_recipes()


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_built_in_recipe_is_valid_and_read_by_name_and_by_path(name: str) -> None:
    recipe = load_recipe(name)
    assert load_recipe(str(builtin_recipes()[name])) == recipe
    assert recipe.method_settings()
    batch = recipe.training.prompts_per_step * recipe.training.group_size
    assert recipe.training.micro_batch is None or batch % recipe.training.micro_batch == 0


def test_what_a_recipe_leaves_out_has_a_default(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, MINIMAL))
    assert recipe == Recipe(name="run")
    assert recipe.method == "progrpo"


def test_a_recipe_comes_back_unchanged_from_json(tmp_path: Path) -> None:
    recipe = load_recipe("countdown_cpu", ["training.micro_batch=64", "methods.progrpo.alpha=0.5"])
    path = write_recipe(tmp_path, json.dumps(recipe.model_dump()), "recipe.json")
    assert load_recipe(path) == recipe


def test_the_settings_of_a_method_are_the_tables_with_the_recipes_own_over_them(tmp_path: Path) -> None:
    text = MINIMAL + 'method = "progrpo_group"\n[methods.progrpo_group]\nalpha = 0.5\n[methods.progrpo]\nalpha = 9.0\n'
    assert load_recipe(write_recipe(tmp_path, text)).method_settings() == {"alpha": 0.5, "center": "group"}
    assert METHODS["progrpo_group"].settings["alpha"] == 1.0


# What is refused


@pytest.mark.parametrize(
    ("text", "key", "known"),
    [
        ("sed = 1\n", "sed", ["name", "method", "seed", "model", "task", "training", "evaluation", "methods", "trl"]),
        ('[model]\npth = "x"\n', "model.pth", ["path", "dtype"]),
        ("[task]\nsize = 4\n", "task.size", ["name", "numbers", "train_size", "heldout_size"]),
        ("[training]\nstep = 4\n", "training.step", ["steps", "group_size", "clip_high"]),
        ("[evaluation]\nn = 4\n", "evaluation.n", ["samples", "every", "batch"]),
    ],
)
def test_an_unknown_key_is_named_with_the_known_ones(tmp_path: Path, text: str, key: str, known: list[str]) -> None:
    message = error_of(tmp_path, MINIMAL + text)
    assert f"has the unknown key '{key}'; known keys there are " in message
    listed = message.split("known keys there are ")[1].removesuffix(".").split(", ")
    assert set(known) <= set(listed)
    assert "recipe.toml" in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('[training]\nsteps = "ten"\n', ["training.steps", "valid integer", "got 'ten'"]),
        ("[training]\nsteps = 1.5\n", ["training.steps", "valid integer", "got 1.5"]),
        ("[training]\nsteps = true\n", ["training.steps", "valid integer", "got True"]),
        ("[training]\nsteps = 0\n", ["training.steps", "greater than or equal to 1", "got 0"]),
        ("[training]\ngroup_size = 1\n", ["training.group_size", "greater than or equal to 2", "got 1"]),
        ("[training]\nlearning_rate = 0.0\n", ["training.learning_rate", "greater than 0", "got 0.0"]),
        ("[training]\nclip_low = 1.5\n", ["training.clip_low", "less than or equal to 1", "got 1.5"]),
        ("[task]\nnumbers = 7\n", ["task.numbers", "3, 4, 5 or 6", "got 7"]),
        ('[model]\ndtype = "float64"\n', ["model.dtype", "'float32' or 'bfloat16'", "got 'float64'"]),
        ("seed = -1\n", ["seed", "greater than or equal to 0", "got -1"]),
        ('method = "ppo"\n', ["method", "must be one of grpo, ", "progrpo", "got 'ppo'"]),
        ("[methods.ppo]\nalpha = 1.0\n", ["methods.ppo", "must be one of grpo, ", "got 'ppo'"]),
        ("training = 3\n", ["training", "got 3"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = error_of(tmp_path, MINIMAL + text)
    for part in parts:
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["", "../elsewhere", "a b", ".hidden", "a/b"])
def test_a_name_that_can_not_name_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert "name" in error_of(tmp_path, f'name = "{name}"\n')


def test_a_recipe_without_a_name_is_refused(tmp_path: Path) -> None:
    assert "lacks the key 'name'" in error_of(tmp_path, "seed = 1\n")


def test_a_missing_file_is_refused_with_the_built_in_names() -> None:
    with pytest.raises(ConfigError, match=r"'nowhere.toml' is neither a file nor a built-in .*countdown_cpu"):
        load_recipe("nowhere.toml")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, not a TOML file"):
        load_recipe(str(tmp_path))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't be read"):
        load_recipe(str(tmp_path / "recipe.toml"))


@pytest.mark.parametrize("text", ["name = run\n", "name\n", "[model\n", 'name = "a"\nname = "b"\n'])
def test_bad_toml_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    message = error_of(tmp_path, text)
    assert "is not valid TOML" in message
    assert "line" in message


def test_bad_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not valid JSON"):
        load_recipe(write_recipe(tmp_path, "{", "recipe.json"))


# Overrides


def test_an_override_is_read_as_toml_else_as_text(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, MINIMAL + "[training]\nsteps = 5\n")
    overrides = [
        "training.steps=7",
        "training.learning_rate=3e-5",
        "method=grpo",
        'name="other"',
        "model.path=some/folder=1",
        "methods.grpo.entropy_coef=0.5",
        "trl.beta=0.1",
        "training.steps=8",
    ]
    recipe = load_recipe(path, overrides)
    assert (recipe.training.steps, recipe.training.learning_rate) == (8, 3e-5)
    assert (recipe.method, recipe.name, recipe.model.path) == ("grpo", "other", "some/folder=1")
    assert recipe.methods == {"grpo": {"entropy_coef": 0.5}}
    assert recipe.trl == {"beta": 0.1}


@pytest.mark.parametrize("override", ["training.steps", "=5", "training.=5", ".steps=5", "a..b=5", ""])
def test_an_override_without_key_or_value_is_refused(tmp_path: Path, override: str) -> None:
    message = error_of(tmp_path, MINIMAL, [override])
    assert message == f"override {override!r} is not of the form key=value, e.g. training.steps=100."


def test_an_override_through_a_value_is_refused(tmp_path: Path) -> None:
    message = error_of(tmp_path, MINIMAL, ["name.first=x"])
    assert message == "override 'name.first=x' goes through 'name', which is a value and not a table."


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("training.step=5", "unknown key 'training.step'"),
        ("nothing.steps=5", "unknown key 'nothing'"),
        ("training.steps=many", "training.steps"),
        ("training=5", "training"),
    ],
)
def test_an_override_is_validated_like_the_file(tmp_path: Path, override: str, part: str) -> None:
    assert part in error_of(tmp_path, MINIMAL, [override])
