"""The working of a right answer: the equations between numbers in a response."""

import re

_NUMBER = r"-?\d+(?:\.\d+)?"
_EQUATION = re.compile(rf"(?<![\d.]){_NUMBER}(?:[-+*/]{_NUMBER})+={_NUMBER}(?!\.?\d)")
_LONGEST_PIECE = 200
_OPERATORS = {r"\times": "*", r"\cdot": "*", r"\div": "/", "×": "*", "·": "*", "÷": "/", "−": "-"}


def working(response: str) -> str:
    """The equations between numbers in a response, each once and in a fixed order; empty if there are none.

    The order of the equations, the order of the terms of a sum or a product, and the spelling do not count.

    >>> working("7 × 2 = $14, as 3+4=7")
    '3+4=7,2*7=14'
    """
    text = " ".join(response.split())
    for spelling, operator in _OPERATORS.items():
        text = text.replace(spelling, operator)
    text = re.sub(r"(?<=\d) ?[x*] ?(?=[\d$])", "*", text.replace("$", "").replace("\\", ""))
    text = re.sub(r"(?<=\d),(?=\d{3})", "", re.sub(r" ?([-+*/=]) ?", r"\1", text))
    # The search goes piece by piece, because it would start again at every place of one long row of operators.
    pieces = [piece for piece in re.findall(r"[-+*/=.\d]+", text) if len(piece) <= _LONGEST_PIECE]
    equations = {_in_order(equation) for piece in pieces for equation in _EQUATION.findall(piece)}
    return ",".join(sorted(equations, key=lambda equation: (float(equation.rpartition("=")[2]), equation)))


def _in_order(equation: str) -> str:
    left, _, result = equation.partition("=")
    for operator in "+*":
        terms = left.split(operator)
        if all(re.fullmatch(_NUMBER, term) for term in terms):
            return operator.join(sorted(terms, key=float)) + "=" + result
    return equation
