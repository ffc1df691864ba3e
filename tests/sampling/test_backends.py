import pytest

from progrpo.sampling import Sampling, sample_seed


def test_seeds_differ_by_prompt_and_evaluation_and_go_up_by_one():
    messages = [{"role": "user", "content": "1 + 1?"}]
    seeds = {sample_seed(s, p, 0) for s in (0, 1) for p in ("1 + 1?", "2 + 2?", messages)}
    assert len(seeds) == 6
    assert [sample_seed(0, messages, i) - sample_seed(0, messages, 0) for i in range(3)] == [0, 1, 2]
    assert all(0 <= seed < 2**31 - 1 for seed in seeds)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"max_new_tokens": 1, "temperature": -0.5}, "temperature must be .*, got -0.5"),
        ({"max_new_tokens": 1, "temperature": float("nan")}, "temperature"),
        ({"max_new_tokens": 1, "temperature": float("inf")}, "temperature"),
        ({"max_new_tokens": 1, "top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"max_new_tokens": 1, "top_p": 1.5}, "top_p"),
    ],
)
def test_the_error_names_a_setting_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        Sampling(**arguments)


def test_a_seed_does_not_depend_on_the_order_of_a_messages_keys():
    one, other = {"role": "user", "content": "1 + 1?"}, {"content": "1 + 1?", "role": "user"}
    assert sample_seed(0, [one], 0) == sample_seed(0, [other], 0)


def test_settings_at_the_ends_of_their_ranges_are_allowed():
    assert Sampling(1).top_p == Sampling(max_new_tokens=1, top_p=1.0).top_p == 1.0
