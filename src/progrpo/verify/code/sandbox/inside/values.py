"""Values between processes that don't trust each other: tagged JSON, from which only plain built-in types are built.

:func:`encode` encodes the values of a program under test. :func:`decode` is for another sandboxed process. It builds
only the types below. Any other object becomes a :class:`Handle`, which has a number that the other side knows and is
equal only to itself. :func:`plain` is for the process that judges, and builds even fewer types.
"""

import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
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
_TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)}


class ValueTooLargeError(ValueError):
    """A value is too deep, too long, or has too many digits."""


class Handle:
    """An object of the other process."""

    def __init__(self, number: int) -> None:
        self.number = number


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
        self._keep = keep
        self._items = 0

    def encode(self, value: Any, depth: int) -> Any:  # noqa: PLR0912 - one branch a type, in plain sight
        self._items += 1
        if depth > DEEPEST or self._items > MOST_ITEMS:
            raise ValueTooLargeError(f"a value is deeper than {DEEPEST} or has more than {MOST_ITEMS} parts")
        if value is None or value is True or value is False:
            return value
        if isinstance(value, int):
            return self._integer(int.__int__(value))
        if isinstance(value, float):
            return self._float(float.__float__(value))
        if isinstance(value, str):
            return "".join(str.__iter__(value)).encode("utf-8", "backslashreplace").decode()
        if isinstance(value, list):
            return self._parts(list.__iter__(value), depth)
        if isinstance(value, tuple):
            return {"tuple": self._parts(tuple.__iter__(value), depth)}
        if isinstance(value, dict):
            return {
                "dict": [self._parts(pair, depth) for pair in zip(dict.keys(value), dict.values(value), strict=True)]
            }
        if isinstance(value, set | frozenset):
            kind: Any = set if isinstance(value, set) else frozenset
            return {kind.__name__: self._parts(kind.__iter__(value), depth)}
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value).hex()}
        if isinstance(value, complex):
            return {"complex": [self._float(value.real), self._float(value.imag)]}
        if type(value) is range:
            return {"range": [value.start, value.stop, value.step]}
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

    @staticmethod
    def _integer(value: int) -> Any:
        if value.bit_length() > MOST_BITS:
            raise ValueTooLargeError(f"an integer has more than {MOST_BITS} bits")
        return value if abs(value) < 1 << 53 else {"int": hex(value)}

    @staticmethod
    def _float(value: float) -> Any:
        return value if value - value == 0 else {"float": repr(value)}


def decode(text: Any, handle: Callable[[int], Any] = Handle) -> Any:
    """The value that :func:`encode` encoded.

    Raises:
        ValueError: the input is not a value that it encoded.

    >>> decode({"dict": [[1, {"tuple": [2.5, "a"]}]]})
    {1: (2.5, 'a')}
    """
    try:
        return _decode(text, handle, 0)
    except (TypeError, KeyError, IndexError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error!r}") from None


def _decode(value: Any, handle: Callable[[int], Any], depth: int) -> Any:
    if depth > 2 * DEEPEST:
        raise ValueError("an encoded value is too deep")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_decode(item, handle, depth + 1) for item in value]
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("an encoded value has no single tag")
    tag, content = next(iter(value.items()))
    if tag == "handle":
        return handle(int(content))
    if tag in _SCALARS:
        return _SCALARS[tag](content)
    return _CONTAINERS[tag]([_decode(item, handle, depth + 1) for item in content])


class Foreign:
    """A value of a type that JSON lacks; it is equal only to itself."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __repr__(self) -> str:
        return f"<a {self._kind}>"


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
    try:
        return _Plain().build(text, 0)
    except (TypeError, KeyError, IndexError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error!r}") from None


class _Plain:
    def __init__(self) -> None:
        self._items = 0

    def build(self, value: Any, depth: int) -> Any:
        self._items += 1
        if depth > 2 * DEEPEST or self._items > MOST_ITEMS:
            raise ValueError(f"it is deeper than {2 * DEEPEST} or has more than {MOST_ITEMS} parts")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list):
            return [self.build(item, depth + 1) for item in value]
        ((tag, content),) = value.items()
        if tag == "tuple":
            return tuple(self.build(item, depth + 1) for item in content)
        if tag == "dict":
            by_text = {_key(self.build(key, depth + 1)): self.build(item, depth + 1) for key, item in content}
            if len(by_text) != len(content):
                raise ValueError("two keys of a dict are the same text")
            return by_text
        return _SCALARS[tag](content) if tag in ("int", "float") else Foreign(str(tag)[:20])


def _key(key: Any) -> str:
    """A key as text, as in JSON: the keys of a program's dict may be numbers."""
    if key is not None and not isinstance(key, bool | int | float | str):
        raise ValueError(f"a key is a {type(key).__name__}")
    return str(key)  # raises ValueError for integers of more than 4,300 digits


def _integer(text: str) -> int:
    if len(text) > MOST_BITS // 4 + 4:
        raise ValueError("an encoded integer is too long")
    return int(text, 16)


def _fraction(text: str) -> Fraction:
    # Fraction itself would also read "1e999999999", and compute it.
    if not re.fullmatch(r"-?\d+(?:/\d+)?", _short(text)):
        raise ValueError("not a fraction")
    return Fraction(text)


def _short(text: str) -> str:
    if len(text) > 10_000:
        raise ValueError("an encoded number is too long")
    return text


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "int": _integer,
    "type": _TYPES.__getitem__,
    "float": lambda text: float(_short(text)),
    "bytes": bytes.fromhex,
    "complex": lambda parts: complex(_decode(parts[0], Handle, 0), _decode(parts[1], Handle, 0)),
    "range": lambda parts: range(int(parts[0]), int(parts[1]), int(parts[2])),
    "decimal": lambda text: Decimal(_short(text)),
    "fraction": _fraction,
}
_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "deque": deque,
    "iterator": iter,
}


def to_line(message: Any) -> bytes:
    """A message as a line of JSON."""
    return json.dumps(message).encode() + b"\n"


def read_lines(read: Callable[[int], bytes], most: int) -> Iterator[Any]:
    """The messages of a stream, until it ends. Raises ValueError if a line is not JSON or exceeds ``most`` bytes."""
    rest = b""
    while True:
        line, newline, after = rest.partition(b"\n")
        if newline:
            rest = after
            try:
                yield json.loads(line)
            except RecursionError:
                raise ValueError("a message is nested too deep") from None
            continue
        more = read(1 << 16)
        if not more:
            return
        rest += more
        if len(rest) > most:
            raise ValueError(f"a message has more than {most} bytes")
