"""Values between processes that don't trust each other: tagged JSON, from which only plain built-in types are built.

:func:`encode` encodes the values of a program under test. :func:`decode` is for another sandboxed process. It builds
only the types below; any other object is a number that the other side knows. :func:`plain` is for the process that
judges, and builds even fewer types.
"""

import itertools
import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Any

DEEPEST = 100
MOST_ITEMS = 1_000_000
MOST_BITS = 400_000
"""The greatest size of an integer: some 120,000 decimal digits."""
_LAZY = (
    *map(type, (iter([]), iter(()), iter(""), iter({}), iter(set()), reversed([]), (char for char in ""))),
    *(map, filter, zip, enumerate),
    *(kind for kind in vars(itertools).values() if isinstance(kind, type) and hasattr(kind, "__next__")),
)
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_ITERABLES: tuple[Any, ...] = (tuple, set, frozenset)
_TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)}


class ValueTooLargeError(ValueError):
    """A value is too deep, too long, or has too many digits."""


def _check_size(depth: int, items: int) -> None:
    if depth > DEEPEST or items > MOST_ITEMS:
        raise ValueTooLargeError(f"a value is deeper than {DEEPEST} or has more than {MOST_ITEMS} parts")


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """A value as JSON can hold it.

    Args:
        value: anything.
        keep: keeps an object that has no plain type, and returns a number by which the other side can refer to it.

    Raises:
        ValueTooLargeError: the value is too deep, too long, or has too many digits.

    >>> encode({1: (2.5, "a")}, keep=id)
    {'dict': [[1, {'tuple': [2.5, 'a']}]]}
    """
    return _Encoder(keep).encode(value, 0)


class _Encoder:
    def __init__(self, keep: Callable[[Any], int]) -> None:
        self._keep, self._items = keep, itertools.count(1)

    def encode(self, value: Any, depth: int) -> Any:  # noqa: PLR0912 - one branch a type, in plain sight
        _check_size(depth, next(self._items))
        if value is None or value is True or value is False:
            return value
        if isinstance(value, int):
            number = int.__int__(value)
            if number.bit_length() > MOST_BITS:
                raise ValueTooLargeError(f"an integer has more than {MOST_BITS} bits")
            return number if abs(number) < 1 << 53 else {"int": hex(number)}
        if isinstance(value, float):
            decimal = float.__float__(value)
            return decimal if math.isfinite(decimal) else {"float": repr(decimal)}
        if isinstance(value, str):
            return "".join(str.__iter__(value)).encode("utf-8", "backslashreplace").decode()
        if isinstance(value, list):
            return self._parts(list.__iter__(value), depth)
        if isinstance(value, dict):
            pairs = zip(dict.keys(value), dict.values(value), strict=True)
            return {"dict": [self._parts(pair, depth) for pair in pairs]}
        for kind in _ITERABLES:
            if isinstance(value, kind):
                return {kind.__name__: self._parts(kind.__iter__(value), depth)}
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value).hex()}
        if isinstance(value, complex):
            return {"complex": self._parts((value.real, value.imag), depth)}
        if type(value) is range:
            return {"range": self._parts((value.start, value.stop, value.step), depth)}
        if type(value) in (Decimal, Fraction):
            return {type(value).__name__.lower(): str(value)}
        if type(value) is deque:
            return {"deque": self._parts(value, depth)}
        if type(value) in _VIEWS:
            return self._parts(value, depth)
        if type(value) in _LAZY:
            return {"iterator": self._parts(islice(value, MOST_ITEMS), depth)}
        if any(value is kind for kind in _TYPES.values()):
            return {"type": value.__name__}
        return {"handle": self._keep(value)}

    def _parts(self, items: Iterable[Any], depth: int) -> list[Any]:
        return [self.encode(item, depth + 1) for item in items]


def decode(text: Any, handle: Callable[[int], Any]) -> Any:
    """The value that :func:`encode` encoded, where ``handle`` gives the object for a number.

    Raises:
        ValueError: the input is not a value that it encoded, or it is too large.

    >>> decode({"dict": [[1, {"tuple": [2.5, "a"]}]]}, handle=str)
    {1: (2.5, 'a')}
    """
    return _build(text, _ATOMS | {"handle": lambda number: handle(int(number))}, _CONTAINERS)


def plain(text: Any) -> Any:
    """The value that :func:`encode` encoded, as far as JSON can hold it: numbers, text, lists, tuples, dicts by text.

    It is for the process that judges, which has no deadline. Only text is hashed, because its hashes can't be
    predicted: a program could choose numbers from which a set takes an hour to build. Anything else becomes a
    :class:`Foreign`.

    Raises:
        ValueError: the input is not a value that :func:`encode` encoded, or it is too large.

    >>> plain({"dict": [[1, {"tuple": [2.5, "a"]}]]}), plain({"set": [1]})
    ({'1': (2.5, 'a')}, <a set>)
    """
    return _build(text, _PLAIN_ATOMS, {"tuple": tuple, "dict": _dict_by_text})


class Foreign:
    """A value of a type that JSON lacks; it is equal only to itself, and its content is not read."""

    def __init__(self, kind: str, content: Any) -> None:
        self._kind = kind

    def __repr__(self) -> str:
        return f"<a {self._kind}>"


_Builders = dict[str, Callable[[Any], Any]]


def _build(text: Any, atoms: _Builders, containers: _Builders) -> Any:
    """Build a value by tag: a container from its parts, which are built first, and an atom from its content."""
    items = itertools.count(1)

    def build(value: Any, depth: int) -> Any:
        _check_size(depth, next(items))
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list):
            return [build(item, depth + 1) for item in value]
        ((tag, content),) = value.items()
        if tag not in containers:
            return atoms[tag](content)
        if tag == "dict":
            return containers[tag]([[build(part, depth + 1) for part in pair] for pair in content])
        return containers[tag]([build(item, depth + 1) for item in content])

    try:
        return build(text, 0)
    except (TypeError, KeyError, IndexError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error!r}") from None


def _dict_by_text(pairs: list[list[Any]]) -> dict[str, Any]:
    """A dict whose keys are text, as in JSON: the keys of a program's dict may be numbers."""
    for key, _ in pairs:
        if key is not None and not isinstance(key, bool | int | float | str):
            raise ValueError(f"a key is a {type(key).__name__}")
    by_text = {str(key): value for key, value in pairs}  # raises ValueError for integers of more than 4,300 digits
    if len(by_text) != len(pairs):
        raise ValueError("two keys of a dict are the same text")
    return by_text


def _integer(text: str) -> int:
    return int(_bounded(text, MOST_BITS // 4 + 4), 16)


def _fraction(text: str) -> Fraction:
    # Fraction itself would also read "1e999999999", and compute it.
    if not re.fullmatch(r"-?\d+(?:/\d+)?", _bounded(text)):
        raise ValueError("not a fraction")
    return Fraction(text)


def _bounded(text: str, most: int = 10_000) -> str:
    if len(text) > most:
        raise ValueError(f"an encoded number has more than {most} characters")
    return text


_ATOMS: _Builders = {
    "int": _integer,
    "float": lambda text: float(_bounded(text)),
    "decimal": lambda text: Decimal(_bounded(text)),
    "fraction": _fraction,
    "bytes": bytes.fromhex,
    "type": _TYPES.__getitem__,
}
_CONTAINERS: _Builders = {
    **{kind.__name__: kind for kind in (tuple, set, frozenset, dict, deque)},
    "iterator": iter,
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(parts[0], parts[1], parts[2]),
}
_PLAIN_ATOMS: _Builders = {
    **{tag: partial(Foreign, tag) for tag in (*_ATOMS, *_CONTAINERS, "handle")},
    "int": _ATOMS["int"],
    "float": _ATOMS["float"],
}


def to_line(message: Any) -> bytes:
    """A message as a line of JSON."""
    return json.dumps(message).encode() + b"\n"
