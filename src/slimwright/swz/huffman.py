"""Sparse whole numbers as Deep Compression stores them: gaps between non-zeros, codes, Huffman for both.

A gap is the number of zeros before a number, in b bits; where more zeros come than b bits can say, a filler zero is
stored. Fillers cost a gap and a code like any number. Gaps and codes are Huffman-coded apart; a table is its canonical
code's lengths, four bits each. Lossless. Source: Han, Mao and Dally 2016 (arXiv 1510.00149), sections 2 to 4.
"""

import heapq
from dataclasses import dataclass
from itertools import count as counting

import numpy as np
from numpy.typing import NDArray

from slimwright.errors import ModelError
from slimwright.swz.bytes_of import Reader, varint, varints
from slimwright.swz.entropy import Counts, Ints, bits_of

GAP_BITS = range(2, 9)  # that are tried; the paper has 4, 5 and 8
MOST_LENGTH = 15  # of a code, so that a length takes four bits
MOST_CODES = 2**16
WINDOW_BITS = 2**20  # decoded at once
Lengths = NDArray[np.uint8]


@dataclass(frozen=True)
class Sparse:
    """Numbers [entries] that are stored, fillers among them, and the zeros before each [entries]."""

    numbers: Ints
    gaps: Ints
    gap_bits: int


def sparse(numbers: Ints, gap_bits: int) -> Sparse:
    """Return the numbers [n] other than zero with their gaps, of at most 2^gap_bits - 1, and the fillers between."""
    places = np.flatnonzero(numbers)
    gaps = np.diff(places, prepend=-1) - 1
    fillers = gaps >> gap_bits
    last = np.cumsum(fillers + 1) - 1  # where each number stands among the entries
    stored = np.zeros(len(places) + int(fillers.sum()), np.int32)
    between = np.full(len(stored), (1 << gap_bits) - 1, np.int32)
    stored[last] = numbers[places]
    between[last] = gaps & ((1 << gap_bits) - 1)
    return Sparse(stored, between, gap_bits)


def lengths_of(counts: Counts) -> Lengths:
    """Return the lengths of a Huffman code for counts [symbols]: 0 for a symbol that does not occur, 1 for a lone one.

    Where a code would be longer than 15 bits the counts are evened out, which is not quite optimal.
    """
    while True:
        lengths = _optimal(counts)
        if lengths.max(initial=0) <= MOST_LENGTH:
            return lengths.astype(np.uint8)
        counts = np.where(counts > 0, counts // 2 + 1, 0)


def _optimal(counts: Counts) -> NDArray[np.int64]:
    lengths = np.zeros(len(counts), np.int64)
    order = counting()
    heap = [(int(counts[symbol]), next(order), [symbol]) for symbol in np.flatnonzero(counts)]
    if len(heap) == 1:
        lengths[heap[0][2]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        one, other = heapq.heappop(heap), heapq.heappop(heap)
        joined = one[2] + other[2]
        lengths[joined] += 1
        heapq.heappush(heap, (one[0] + other[0], next(order), joined))
    return lengths


def codes_of(lengths: Lengths) -> NDArray[np.int64]:
    """Return the canonical codes [symbols] of lengths: by length, and among equal ones by symbol.

    Raises ModelError where no code has these lengths.
    """
    used = lengths[lengths > 0].astype(np.int64)
    if int((1 << (MOST_LENGTH - used)).sum()) > 1 << MOST_LENGTH:
        raise ModelError("no Huffman code has the lengths that it names")
    codes = np.zeros(len(lengths), np.int64)
    code, before = 0, 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        if length := int(lengths[symbol]):
            code <<= length - before
            codes[symbol], code, before = code, code + 1, length
    return codes


def smallest(numbers: Ints) -> Sparse:
    """Return whole numbers [n] with the gap bits that make them about the fewest bytes."""
    return min((sparse(numbers, bits) for bits in GAP_BITS), key=least_bytes)


def least_bytes(stored: Sparse) -> float:
    """Return what the bytes of codes, gaps and the gaps' table are not below: their entropies."""
    low = int(stored.numbers.min(initial=0))
    codes, gaps = np.bincount(stored.numbers - low), np.bincount(stored.gaps)
    return float(bits_of(codes) + bits_of(gaps) + (4 << stored.gap_bits)) / 8


def encoded(stored: Sparse) -> bytes:
    """Return sparse numbers as bytes."""
    best = stored.gap_bits
    symbols, codes = np.unique(stored.numbers, return_inverse=True)
    code_lengths = lengths_of(np.bincount(codes, minlength=len(symbols)))
    gap_lengths = lengths_of(np.bincount(stored.gaps, minlength=1 << best))
    stream = _written(codes.astype(np.int32), code_lengths)
    head = varints((best, len(stored.numbers), len(symbols)))
    named = varints(_zigzag(int(step)) for step in np.diff(symbols, prepend=0))
    tables = _nibbles(code_lengths) + _nibbles(gap_lengths)
    return head + named + tables + varint(len(stream)) + stream + _written(stored.gaps, gap_lengths)


def decoded(data: bytes | memoryview, count: int) -> Ints:
    """Return `count` whole numbers. Raises ModelError where the bytes hold something else."""
    source = Reader(bytes(data))
    gap_bits, entries = source.varint(GAP_BITS[-1]), source.varint(8 * source.left)
    kinds = source.varint(min(MOST_CODES, source.left))
    steps = [_unzigzag(source.varint(2**33)) for _ in range(kinds)]
    symbols = np.cumsum(np.array(steps, np.int64))
    if len(symbols) and np.abs(symbols).max() >= 2**31:
        raise ModelError("one of its numbers has more than 31 bits")
    code_lengths, gap_lengths = _read_nibbles(source, kinds), _read_nibbles(source, 1 << gap_bits)
    stream = source.take(source.varint())
    codes = _read(stream, code_lengths, entries)
    places = np.cumsum(_read(source.rest(), gap_lengths, entries) + 1) - 1
    if entries and places[-1] >= count:
        raise ModelError(f"its gaps lead to place {int(places[-1]):,} of {count:,}")
    found = np.zeros(count, np.int32)
    found[places] = symbols[codes].astype(np.int32)
    return found


def _written(symbols: Ints, lengths: Lengths) -> bytes:
    """The codes of symbols [n], the highest bit first."""
    codes, sizes = codes_of(lengths)[symbols], lengths[symbols].astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    bits = np.zeros(int(sizes.sum()), np.uint8)
    for place in range(int(sizes.max(initial=0))):
        long = sizes > place
        bits[starts[long] + place] = (codes[long] >> (sizes[long] - 1 - place)) & 1
    return np.packbits(bits).tobytes()


def _read(stream: memoryview, lengths: Lengths, entries: int) -> NDArray[np.int64]:
    """As many symbols of a stream of codes."""
    codes = codes_of(lengths)
    table, steps = np.zeros(1 << MOST_LENGTH, np.int64), np.zeros(1 << MOST_LENGTH, np.int64)
    for symbol in np.flatnonzero(lengths):
        left = MOST_LENGTH - int(lengths[symbol])
        part = slice(int(codes[symbol]) << left, (int(codes[symbol]) + 1) << left)
        table[part], steps[part] = symbol, lengths[symbol]
    octets = np.frombuffer(bytes(stream) + bytes(3), np.uint8).astype(np.int64)
    found, at, bits = np.zeros(entries, np.int64), 0, 8 * len(stream)
    done = 0
    while done < entries:
        if at >= bits:
            raise ModelError(f"its codes end after {done:,} of {entries:,}")
        places = np.arange(at, min(at + WINDOW_BITS, bits))
        byte = places >> 3
        wide = (octets[byte] << 16) | (octets[byte + 1] << 8) | octets[byte + 2]
        windows = (wide >> (24 - MOST_LENGTH - (places & 7))) & ((1 << MOST_LENGTH) - 1)
        starts, at = _chain(steps[windows].tolist(), at, entries - done)
        found[done : done + len(starts)] = table[windows[starts]]
        done += len(starts)
    return found


def _chain(steps: list[int], at: int, most: int) -> tuple[list[int], int]:
    """Where codes start, from the first bit of a window that begins at `at`, and where the next one does."""
    starts: list[int] = []
    place, end = 0, len(steps)
    while place < end and len(starts) < most:
        step = steps[place]
        if not step:
            raise ModelError("a code is none of its table")
        starts.append(place)
        place += step
    return starts, at + place


def _nibbles(lengths: Lengths) -> bytes:
    even = np.append(lengths, np.zeros(len(lengths) % 2, np.uint8))
    return (even[::2] | even[1::2] << 4).astype(np.uint8).tobytes()


def _read_nibbles(source: Reader, count: int) -> Lengths:
    packed = np.frombuffer(source.take((count + 1) // 2), np.uint8)
    return np.stack([packed & 15, packed >> 4], 1).reshape(-1)[:count]


def _zigzag(number: int) -> int:
    return 2 * number if number >= 0 else -2 * number - 1


def _unzigzag(number: int) -> int:
    return -(number + 1) // 2 if number & 1 else number // 2
