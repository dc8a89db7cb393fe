"""A sum over parts of a net, each of which depends on few of the counts that a plan chooses.

A plan is found by trying some hundred thousand choices, most of which differ from one another by one count: only the
terms that read it are computed again. The terms are added in the same order each time, so the sum has the same bits
whatever was asked before. That of a `Variation` is the sum of its base plus what changes, which is kept from base to
base as long as no count that its terms read is another.
"""

from collections.abc import Callable, Iterable, Mapping


class Variation(dict[str, int]):
    """A choice that is another one but for an item or two; that other one must not change any more."""

    def __init__(self, base: Mapping[str, int], changes: Mapping[str, int]) -> None:
        super().__init__(base)
        self.update(changes)
        self.base, self.changes = base, tuple(changes.items())


class Summed:
    """The sum of `term(name, counts)` over the names of `reads`, which says of each the items that its term reads."""

    def __init__(self, term: Callable[[str, Mapping[str, int]], float], reads: Mapping[str, Iterable[str]]) -> None:
        self._term = term
        self._reads = {name: tuple(items) for name, items in reads.items()}
        self._readers: dict[str, list[str]] = {}
        for name, items in self._reads.items():
            for item in items:
                self._readers.setdefault(item, []).append(name)
        self._terms: dict[str, float] = {}
        self._counts: dict[str, int] = {}  # that the terms are of
        self._base: Mapping[str, int] | None = None  # of variations, with the sum of its terms
        self._total = 0.0
        self._moved: dict[str, dict[int, float]] = {}  # by item and size: what the sum changes by
        self._met: dict[str, set[str]] = {}  # items that a term reads beside one

    def __call__(self, counts: Mapping[str, int]) -> float:
        """Return the sum for a choice, which must name every item that a term reads; of whole numbers, exactly."""
        if isinstance(counts, Variation):
            return self._varied(counts)
        if self._terms:
            other = {item for item, _ in counts.items() ^ self._counts.items()}
            again: Iterable[str] = dict.fromkeys(name for item in other for name in self._readers.get(item, ()))
        else:
            again = self._reads
        self._counts, self._base = {}, None  # a term that fails leaves no terms of two choices behind
        for name in again:
            for item in self._reads[name]:
                self._moved.pop(item, None)
            self._terms[name] = self._term(name, counts)
        self._counts = dict(counts)
        return sum(self._terms[name] for name in self._reads)

    def _varied(self, counts: Variation) -> float:
        if self._base is not counts.base:
            self._total = self(counts.base)
            self._base = counts.base
        changes = counts.changes
        if len(changes) > 1 and self._meet(changes[0][0], changes[1][0]):
            names = dict.fromkeys(name for item, _ in changes for name in self._readers.get(item, ()))
            return self._total + sum(self._term(name, counts) - self._terms[name] for name in names)
        total = self._total
        for item, size in changes:
            moved = self._moved.get(item)
            if moved is None:
                moved = self._moved[item] = {}
            if size not in moved:
                readers = self._readers.get(item, ())  # which read no other item that changes
                moved[size] = sum(self._term(name, counts) - self._terms[name] for name in readers)
            total += moved[size]
        return total

    def _meet(self, one: str, other: str) -> bool:
        """True where a term reads both items."""
        if one not in self._met:
            self._met[one] = {item for name in self._readers.get(one, ()) for item in self._reads[name]}
        return other in self._met[one]
