"""A sum over parts of a net, each of which depends on few of the counts that a plan chooses.

A plan is found by trying some hundred thousand choices, most of which differ from the one before by one or two counts:
only the terms that read these are computed again. The terms are added in the same order each time, so the sum has the
same bits whatever was asked before.
"""

from collections.abc import Callable, Iterable, Mapping


class Summed:
    """The sum of `term(name, counts)` over the names of `reads`, which says of each the items that its term reads."""

    def __init__(self, term: Callable[[str, Mapping[str, int]], float], reads: Mapping[str, Iterable[str]]) -> None:
        self._term = term
        self._readers: dict[str, list[str]] = {}
        for name, items in reads.items():
            for item in items:
                self._readers.setdefault(item, []).append(name)
        self._names = tuple(reads)
        self._terms: dict[str, float] = {}
        self._counts: dict[str, int] = {}  # that the terms are of

    def __call__(self, counts: Mapping[str, int]) -> float:
        """Return the sum for a choice, which must name every item that a term reads; of whole numbers, exactly."""
        if self._terms:
            other = {item for item, _ in counts.items() ^ self._counts.items()}
            again: Iterable[str] = dict.fromkeys(name for item in other for name in self._readers.get(item, ()))
        else:
            again = self._names
        self._counts = {}  # a term that fails leaves no terms of two choices behind
        for name in again:
            self._terms[name] = self._term(name, counts)
        self._counts = dict(counts)
        return sum(self._terms.values())
