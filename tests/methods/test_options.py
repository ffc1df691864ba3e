import pytest

from progrpo.common.errors import ConfigError
from progrpo.methods.options import ArmOptions


def test_the_defaults_are_those_of_the_trl_adapter() -> None:
    trl = pytest.importorskip("trl")
    assert trl is not None
    from progrpo.trl import ProGRPOConfig

    assert {name: ProGRPOConfig.__dataclass_fields__[name].default for name in vars(ArmOptions())} == vars(ArmOptions())


def test_options_are_read_by_name() -> None:
    given = {"alpha": 0, "low_prob_fraction": 1.0, "activation": "mixed", "center": "correct"}
    assert ArmOptions.from_mapping(given, where="x") == ArmOptions(0, 1.0, "mixed", "correct")
    right = {"correct_above": -5, "correct_reward": "acc"}
    assert ArmOptions.from_mapping(right, where="x") == ArmOptions(correct_above=-5, correct_reward="acc")
    assert ArmOptions.from_mapping({}, where="x") == ArmOptions()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"alhpa": 1.0},
            r"^algorithm\.progrpo has no option 'alhpa'; it takes alpha, .*, center, correct_above, correct_reward\.$",
        ),
        ({"alpha": -1.0}, r"^algorithm\.progrpo\.alpha must be a number in \[0\.0, inf\), got -1\.0\.$"),
        ({"alpha": "high"}, r"alpha must be a number .* got 'high'"),
        ({"alpha": None}, r"alpha must be a number .* got None"),
        ({"alpha": True}, r"alpha must be a number .* got True"),
        ({"low_prob_fraction": 0.0}, r"low_prob_fraction must be a number in \(0\.0, 1\.0\], got 0\.0"),
        ({"activation": "all"}, r"activation must be one of 'any_correct', 'mixed', got 'all'"),
        ({"correct_above": float("nan")}, r"correct_above must be a number in \(-inf, inf\), got nan"),
        ({"correct_above": "0"}, r"correct_above must be a number .* got '0'"),
        ({"correct_reward": 1}, "correct_reward must be the name of a reward, or None, got 1"),
        ({"correct_reward": ""}, "correct_reward must be the name of a reward, or None, got ''"),
        ({"center": ["group"]}, r"center must be one of 'prompt', 'group', 'correct', got \['group'\]"),
    ],
)
def test_what_can_t_be_used_is_refused_in_one_sentence(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ArmOptions.from_mapping(given, where="algorithm.progrpo")
