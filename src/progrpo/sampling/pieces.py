"""Requests in pieces. A server or an engine works on several pieces at once and finishes them in any order."""

from collections.abc import Sequence

from progrpo.sampling import Request, Sample

PIECE = 16
"""Samples in a piece. An interruption loses only the pieces that are not finished."""


def split(requests: Sequence[Request], most: int = PIECE) -> list[tuple[int, Request]]:
    """Pieces of at most ``most`` samples, each with the place of its request.

    >>> [(place, piece.first, piece.count) for place, piece in split([Request("a", 4, 5), Request("b", 0, 1)], most=3)]
    [(0, 4, 3), (0, 7, 2), (1, 0, 1)]
    """
    return [
        (place, Request(request.prompt, first, min(most, request.first + request.count - first)))
        for place, request in enumerate(requests)
        for first in range(request.first, request.first + request.count, most)
    ]


class InOrder:
    """Keeps samples that come too early, so that a request's samples leave in the order of their index.

    >>> in_order, late, early = InOrder([Request("a", 0, 2)]), Sample("0", [], []), Sample("1", [], [])
    >>> [sample.text for sample in in_order.add(0, 1, [early])]
    []
    >>> [sample.text for sample in in_order.add(0, 0, [late])]
    ['0', '1']
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self._next = [request.first for request in requests]
        self._early: dict[tuple[int, int], list[Sample]] = {}

    def add(self, place: int, first: int, samples: list[Sample]) -> list[Sample]:
        """Add the samples from index ``first`` on of the request at ``place``; return those whose turn has come."""
        self._early[place, first] = samples
        ready: list[Sample] = []
        while piece := self._early.pop((place, self._next[place]), []):
            ready += piece
            self._next[place] += len(piece)
        return ready
