"""Values that go between two processes: each type comes back, but nothing that is too large or forged."""

import math
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from progrpo.verify.code.sandbox.inside import values
from progrpo.verify.code.sandbox.inside.values import Foreign, ValueTooLargeError, encode, plain

OF_ALL_TYPES: list[Any] = [
    None,
    True,
    3,
    -(2**53),
    2**53 - 1,
    2**70,
    2.5,
    math.inf,
    -math.inf,
    "é",
    b"\x00a",
    [1, [2]],
    (1, (2,)),
    {1: "a", (2, 3): None},
    {1, 2},
    frozenset({1}),
    1 + 2j,
    range(1, 9, 3),
    Decimal("1.50"),
    Fraction(-2, 3),
    Fraction(4),
    deque([1, 2]),
    int,
    dict,
]


def decode(text: Any) -> Any:
    return values.decode(text, handle=lambda number: ("handle", number))


def keep_nothing(value: Any) -> int:
    raise AssertionError(f"{value!r} has no plain type")


@pytest.mark.parametrize("value", OF_ALL_TYPES, ids=repr)
def test_a_value_comes_back_unchanged(value: Any) -> None:
    back = decode(encode(value, keep_nothing))
    assert back == value
    assert type(back) is type(value)


def test_nan_comes_back() -> None:
    assert math.isnan(decode(encode(math.nan, keep_nothing)))
    assert math.isnan(plain(encode(math.nan, keep_nothing)))


def test_iterators_and_views_come_back_as_their_items() -> None:
    assert list(decode(encode(map(str, [1, 2]), keep_nothing))) == ["1", "2"]
    assert list(decode(encode((n for n in (1, 2)), keep_nothing))) == [1, 2]
    assert decode(encode({1: 2}.items(), keep_nothing)) == [(1, 2)]


def test_another_object_becomes_a_number_that_the_other_side_knows() -> None:
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return 7

    assert decode(encode([Exception], keep)) == [("handle", 7)]
    assert kept == [Exception]


def test_a_subclass_is_sent_as_the_type_that_it_extends() -> None:
    class Text(str):
        __slots__ = ()

        def __iter__(self) -> Any:
            return iter("other")

    class Number(int):
        def __int__(self) -> int:
            return 8

    assert decode(encode([Text("a"), Number(7)], keep_nothing)) == ["a", 7]


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def test_a_finite_float_is_a_json_number_and_others_are_text() -> None:
    numbers = [1.5, float("inf"), float("-inf")]
    assert encode(numbers, keep_nothing) == [1.5, {"float": "inf"}, {"float": "-inf"}]


@pytest.mark.parametrize("kind", [tuple, frozenset, list])
def test_depth_is_counted_in_every_kind(kind: Callable[[Any], Any]) -> None:
    value: Any = 0
    for _ in range(values.DEEPEST + 1):
        value = kind([value])
    with pytest.raises(ValueTooLargeError, match="a value is deeper than 100"):
        encode(value, keep_nothing)


def test_depth_is_bounded_on_both_sides() -> None:
    deepest = nested(values.DEEPEST)
    assert decode(encode(deepest, keep_nothing)) == plain(encode(deepest, keep_nothing)) == deepest
    with pytest.raises(ValueTooLargeError, match="a value is deeper than 100 or has more than 1000000 parts"):
        encode([deepest], keep_nothing)
    for read in (decode, plain):
        with pytest.raises(ValueError, match="deeper than 100"):
            read([deepest])


CONTAINERS: list[Callable[[Any], Any]] = [
    lambda item: [item],
    lambda item: (item,),
    lambda item: {1: item},
    lambda item: deque([item]),
    lambda item: {1: item}.values(),
    lambda item: iter([item]),
]


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_depth_of_decoded_values_counts_tuples_and_dicts(container: Callable[[Any], Any]) -> None:
    def tagged(depth: int, tag: str) -> Any:
        value: Any = 0
        for _ in range(depth):
            value = {tag: [value] if tag == "tuple" else [[1, value]]}
        return value

    for tag in ("tuple", "dict"):
        for read in (decode, plain):
            read(tagged(values.DEEPEST, tag))
            with pytest.raises(ValueError, match="deeper than 100"):
                read(tagged(values.DEEPEST + 1, tag))
    value: Any = 0
    for _ in range(values.DEEPEST + 1):
        value = container(value)
    with pytest.raises(ValueTooLargeError):
        encode(value, keep_nothing)


def test_the_number_of_parts_is_bounded_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MOST_ITEMS", 10)
    assert plain(encode([0] * 9, keep_nothing)) == [0] * 9
    with pytest.raises(ValueTooLargeError, match="more than 10 parts"):
        encode([0] * 10, keep_nothing)
    for read in (decode, plain):
        with pytest.raises(ValueError, match="more than 10 parts"):
            read([0] * 10)


def test_integers_are_bounded() -> None:
    most = 1 << (values.MOST_BITS - 1)
    assert decode(encode(most, keep_nothing)) == most
    with pytest.raises(ValueTooLargeError, match="an integer has more than 400000 bits"):
        encode(2 * most, keep_nothing)
    with pytest.raises(ValueError, match="an encoded number has more than 100004 characters"):
        decode({"int": "0x" + "f" * (values.MOST_BITS // 4 + 3)})


@pytest.mark.parametrize(
    "made_up",
    [
        {},
        {"list": [1], "set": [1]},
        {"unheard of": 1},
        {"int": 7},
        {"fraction": "1e999"},
        {"decimal": "1" * 10_001},
        {"type": "object"},
        {"range": [1]},
        {"set": [[1]]},
        pytest.param(object(), id="an object"),
    ],
    ids=repr,
)
def test_values_that_encode_never_writes_are_refused(made_up: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of whatever reads it
        decode(made_up)


def test_the_judge_reads_only_plain_values() -> None:
    written = encode({1: (2.5, "a"), "b": [2**70, None, True]}, keep_nothing)
    assert plain(written) == {"1": (2.5, "a"), "b": [2**70, None, True]}
    for value in ({1}, Decimal(1), Fraction(1), range(2), b"a", int):
        foreign = plain(encode(value, keep_nothing))
        assert isinstance(foreign, Foreign)
        assert foreign != value
    assert repr(plain({"set": [1]})) == "<a set>"
    with pytest.raises(ValueError, match="two keys of a dict are the same text"):
        plain({"dict": [[1, 2], ["1", 3]]})
    with pytest.raises(ValueError, match="a key is a tuple"):
        plain({"dict": [[{"tuple": [1]}, 2]]})
