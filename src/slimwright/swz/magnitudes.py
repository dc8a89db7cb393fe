"""Signs and magnitudes of the numbers of a matrix that are not zero, by what those of their row and column were so far.

Small magnitudes are tokens of their own. Of larger ones a token says the octave and its quarter, and the bits below
follow as they are.
"""

import numpy as np
from numpy.typing import NDArray

from slimwright.swz.entropy import Coder, Ints

Places = NDArray[np.int64]
FEWEST, MOST_AT_ONCE = 48, 2**15  # numbers coded at once; with fewer, time goes into calls
TRUST, UNIT = 12, 32  # numbers that what is usual counts for before any was seen; a count's weight
DIRECT_BITS = 6
DIRECT = 1 << DIRECT_BITS  # magnitudes that have a token of their own
MOST_TOKEN = DIRECT + 4 * (23 - DIRECT_BITS)
CONTEXTS = 12  # kinds of columns times kinds of rows


class Numbers:
    """Signs and magnitudes of the numbers that are not zero, and how they are distributed so far."""

    def __init__(self, coder: Coder, columns: int, largest: int, rows: Places) -> None:
        self.coder = coder
        self.rows = rows  # [rows]: 0, 1, 2
        self.sums = np.zeros(columns, np.int64)  # of magnitudes, by column
        self.counts = np.zeros(columns, np.int64)
        self.signs = np.array([8, 8], np.int64)
        self.tokens = np.zeros((CONTEXTS, largest + 1), np.int64)

    def all(self, places: Places, given: Ints | None) -> Ints:
        """Code the numbers [n] at places [n] of the flat matrix."""
        found = np.zeros(len(places), np.int32)
        start = 0
        while start < len(places):
            part = slice(start, start + min(max(start // 2, FEWEST), MOST_AT_ONCE))
            found[part] = self._some(places[part], None if given is None else given[part])
            start = part.stop
        return found

    def _some(self, places: Places, given: Ints | None) -> Ints:
        rows, columns = np.divmod(places, len(self.sums))
        signs = self.coder.symbols(self.signs, len(places), None if given is None else (given < 0).astype(np.int32))
        self.signs += np.bincount(signs, minlength=2)
        tokens, extra = (None, None) if given is None else tokens_of(np.abs(given) - 1)
        read = self._by_kind(self._kinds()[columns] * 3 + self.rows[rows], tokens)
        values = read
        if self.tokens.shape[1] > DIRECT:
            sizes = _extra_sizes(read)
            some = np.flatnonzero(sizes > 1)
            more = np.zeros(len(read), np.int32)
            more[some] = self.coder.numbers(sizes[some], None if extra is None else extra[some])
            values = _from_tokens(read, more)
        self.sums += np.bincount(columns, np.minimum(values, 2**12), len(self.sums)).astype(np.int64)
        self.counts += np.bincount(columns, minlength=len(self.sums))
        return (1 + values) * (1 - 2 * signs)

    def _kinds(self) -> Places:
        """Whether the magnitudes of a column [columns] were small so far, as usual, or large: 0 to 3."""
        usual = 4 * int(self.sums.sum()) // max(int(self.counts.sum()), 1)
        mean = (4 * self.sums + 2 * usual) // (self.counts + 2)
        steps = [usual * part // 4 for part in (3, 4, 5)]
        return sum(((mean > step).astype(np.int64) for step in steps), np.zeros(len(mean), np.int64))

    def _by_kind(self, kinds: Places, tokens: Ints | None) -> Ints:
        """Code tokens [n], those of each of `kinds` [n] together."""
        read = np.zeros(len(kinds), np.int32)
        if self.tokens.shape[1] < 2:
            return read
        order = np.argsort(kinds.astype(np.uint8), kind="stable")
        ends = np.cumsum(np.bincount(kinds, minlength=CONTEXTS))
        every = self.tokens.sum(0)
        usual = 1 + UNIT * TRUST * every // max(int(every.sum()), 1)
        for kind in np.flatnonzero(np.diff(ends, prepend=0)):
            places = order[ends[kind - 1] if kind else 0 : ends[kind]]
            counts = usual + UNIT * self.tokens[kind]
            read[places] = self.coder.symbols(counts, len(places), None if tokens is None else tokens[places])
            self.tokens[kind] += np.bincount(read[places], minlength=self.tokens.shape[1])
        return read


def tokens_of(values: Ints) -> tuple[Ints, Ints]:
    """Tokens of whole numbers from 0, and what is left to say: small ones are theirs, others by octave and quarter."""
    width = _bit_length(np.maximum(values, DIRECT))  # 7 or more
    quarter = (values >> (width - 3)) & 3
    large = values >= DIRECT
    tokens = np.where(large, DIRECT + 4 * (width - DIRECT_BITS - 1) + quarter, values)
    return tokens.astype(np.int32), np.where(large, values & ((1 << (width - 3)) - 1), 0).astype(np.int32)


def _extra_sizes(tokens: Ints) -> Ints:
    return np.where(tokens >= DIRECT, 1 << (_widths(tokens) - 3), 1).astype(np.int32)


def _from_tokens(tokens: Ints, extra: Ints) -> Ints:
    large = ((4 + (tokens - DIRECT) % 4) << (_widths(tokens) - 3)) | extra
    return np.where(tokens >= DIRECT, large, tokens).astype(np.int32)


def _widths(tokens: Ints) -> Ints:
    return np.maximum((tokens - DIRECT) // 4 + DIRECT_BITS + 1, DIRECT_BITS + 1)


def _bit_length(values: Ints) -> Ints:
    return np.frexp(values.astype(np.float64))[1]
