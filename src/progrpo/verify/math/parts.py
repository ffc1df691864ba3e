r"""The parts of an answer's text: the members of a list, the sides of an equation, the brackets around it."""

import re

_EQUALS = re.compile(r"(?<![<>:=])(?<![^\d)}\]]!)=")
_NO_PART_OF_A_NAME = re.compile(r"[0-9^]|^-|\\(?:sqrt|ln|log|exp)(?![a-z])")
_SUBSCRIPTS_AND_ARGUMENTS = re.compile(r"_(?:\{[^{}]*\}|\w)|(?<=[A-Za-z'])\([^()]*\)|\[[^\[\]]*\]")


def members(body: str, separator: re.Pattern[str] = re.compile(",")) -> list[str]:
    """What stands between the commas that are in no brackets.

    >>> members("(1,2), 3")
    ['(1,2)', '3']
    """
    parts, depth, last = [], 0, 0
    places = {match.start(): match.end() for match in separator.finditer(body)}
    for i, character in enumerate(body):
        if i in places and depth <= 0:
            parts.append(body[last:i].strip())
            last = places[i]
        depth += (character in "{([") - (character in "})]")
    return [*parts, body[last:].strip()]


def sides(body: str) -> list[str]:
    r"""The sides of an equation, or of a chain of them.

    >>> sides("x^2=2+2=4"), sides("1<x")
    (['x^2', '2+2', '4'], ['1<x'])
    """
    return members(body, _EQUALS)


def values(parts: list[str]) -> list[str]:
    r"""The sides of an equation that claim to be the answer: all but a name for it on the left.

    A name is letters, with subscripts and arguments: ``m+n``, ``[ABC]``, ``\sin\theta``. A side with numbers or powers
    is none: who writes ``x^2=5`` has not said what x is, and ``3=5`` is no 5.

    >>> values(["m+n", "5"]), values(["2x", "5"])
    (['5'], ['2x', '5'])
    """
    name = _SUBSCRIPTS_AND_ARGUMENTS.sub("", parts[0])
    is_name = re.search("[A-Za-z]", parts[0]) and not _NO_PART_OF_A_NAME.search(name)
    return parts[1:] if is_name else parts


def brackets(body: str) -> str:
    r"""``set`` and ``ordered`` for what is in such brackets as a whole, else nothing.

    >>> brackets(r"\{1,2\}"), brackets("(1,2]"), brackets("(1,2),(3,4)")
    ('set', 'ordered', '')
    """
    if body.startswith(r"\{") and body.endswith(r"\}"):
        return "set"
    is_whole = body[:1] in ("(", "[") and body[-1:] in (")", "]") and len(members(body)) == 1
    return "ordered" if is_whole and "," in body else ""
