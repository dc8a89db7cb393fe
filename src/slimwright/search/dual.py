"""The least damage that any plan within the limits can have, and plans that come near to it.

With a price on each limited cost, the best choice is found exactly: a layer's cost depends on the groups that it reads
and writes, and on its own ranks and bits, so choices are eliminated one after the other, each for every setting of its
neighbours (dynamic programming by bucket elimination, Dechter 1999). What that choice costs in all, less the price of
the limits, is no more than the damage of any choice within them (Lagrange's dual). The price that makes it largest is
looked for. The choices met on the way are plans, and those within the limits are starts to improve on.

A layer that reads many groups, and a limit on peak memory beside others, which is no sum, have no such bound.
"""

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from slimwright.cost.latency import with_channels
from slimwright.graph.encoding import FLOAT32, SCALE_BYTES
from slimwright.search.choices import Counts
from slimwright.search.pieces import Piece
from slimwright.search.predictor import Predictor
from slimwright.techniques.knobs import BITS
from slimwright.techniques.low_rank import Factors, Kind
from slimwright.techniques.ranks import CP_RANK, IN_RANK, OUT_RANK

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
CostOf: TypeAlias = Callable[[str, Piece], float]  # of a piece of the layer that is named
Settings: TypeAlias = Mapping[str, Sequence[int]]
MOST_ENTRIES = 300_000  # of a table over several choices
SWEEPS, HALVINGS = 3, 20  # over the limits, and of the range of a price
LEAST, MOST = 1e-9, 1e9  # of a price, in terms of the damage of everything
FORMS = ((), (IN_RANK,), (OUT_RANK,), (IN_RANK, OUT_RANK), (CP_RANK,))  # of a layer, by the ranks that they lower


class Unbounded(Exception):
    """A choice depends on too many others at once for the least to be found."""


@dataclass(frozen=True)
class Sum:
    """A cost as a sum: a constant, `of` each piece of a layer, and what each channel of a group takes besides.

    Where a `byte` costs something, a piece's cost falls with the bits of its weights, and output channels have scales.
    """

    of: CostOf
    constant: float = 0.0
    per_channel: Mapping[str, float] = field(default_factory=dict)
    byte: float = 0.0


@dataclass(frozen=True)
class Bound:
    """The least damage that a choice within the limits can have, and the choices that were met."""

    damage: float
    met: Sequence[Counts]


@dataclass(frozen=True)
class _Table:
    """Numbers over the settings of some items, in their order."""

    items: tuple[str, ...]
    values: Floats


@dataclass(frozen=True)
class _Form:
    """One form of a layer, as a path from the channels that it reads over ranks to those that it writes.

    Of each step of the path there is a table of costs, by cost, and one of the output channels of its pieces.
    """

    ranks: tuple[str, ...]  # items, of whose settings the path takes those below the whole
    costs: Mapping[str, Sequence[Floats]]
    outputs: Sequence[Floats]

    def priced(
        self, bits: int, prices: Mapping[str, float], sums: Mapping[str, Sum], damages: Mapping[str, Floats]
    ) -> list[Floats]:
        """The tables at prices, where weights have so many bits; the damage of a rank stands where it is reached."""
        found = []
        for number, outputs in enumerate(self.outputs):
            table = np.zeros_like(outputs)
            for name, price in prices.items():
                if price:  # a form that is not met costs infinitely much
                    table += price * self.cost(name, number, bits, sums)
            if number < len(self.ranks):
                table += damages[self.ranks[number]][1:]
            found.append(table)
        return found

    def cost(self, name: str, number: int, bits: int, sums: Mapping[str, Sum]) -> Floats:
        """The table of a cost of one step, where weights have so many bits."""
        table, byte = self.costs[name][number], sums[name].byte
        if not byte or bits == FLOAT32.bits:
            return table
        return table * (bits / FLOAT32.bits) + byte * SCALE_BYTES * self.outputs[number]

    def along(self, path: Sequence[int], name: str, bits: int, sums: Mapping[str, Sum]) -> float:
        """A cost along a path of places, where weights have so many bits."""
        steps = enumerate(itertools.pairwise(path))
        return sum(float(self.cost(name, number, bits, sums)[place]) for number, place in steps)


@dataclass(frozen=True)
class _Layer:
    """The forms of a layer over the settings of its groups [...]: which entry of the forms' tables each comes to."""

    groups: tuple[str, ...]
    places: tuple[NDArray[np.int64], NDArray[np.int64]]  # of what it reads, and of what it writes
    forms: Sequence[_Form]
    bits: tuple[str, Sequence[int]]  # the item, and its settings
    sums: Mapping[str, Sum]

    def priced(self, prices: Mapping[str, float], damages: Mapping[str, Floats]) -> tuple[_Table, "_Decode"]:
        """The least that the layer costs and damages by itself for each setting of its groups, and how."""
        item, settings = self.bits
        ways = [(form, k) for form in self.forms for k in range(len(settings))]
        tables = [form.priced(settings[k], prices, self.sums, damages) for form, k in ways]
        own = damages.get(item, np.zeros(len(settings)))
        totals = np.stack([reduce(_least_sums, each) + own[k] for each, (_, k) in zip(tables, ways, strict=True)])
        best = totals.argmin(0)
        least = np.take_along_axis(totals, best[None], 0)[0]

        def decode(chosen: Mapping[str, int]) -> _Own:
            at = tuple(chosen[group] for group in self.groups)
            one, other = int(self.places[0][at]), int(self.places[1][at])
            form, k = ways[best[one, other]]
            ranks = _path(tables[best[one, other]], one, other)
            costs = {name: form.along((one, *ranks, other), name, settings[k], self.sums) for name in prices}
            lowered = {rank: place + 1 for rank, place in zip(form.ranks, ranks, strict=True)}
            return _Own({**lowered, **({item: k} if item in damages else {})}, costs)

        return _Table(self.groups, least[self.places]), decode


@dataclass(frozen=True)
class _Own:
    """What a layer chooses for itself, as places among settings, and what it then costs."""

    places: Mapping[str, int]
    costs: Mapping[str, float]


_Decode: TypeAlias = Callable[[Mapping[str, int]], _Own]


def _least_sums(one: Floats, other: Floats) -> Floats:
    """For each first and last the least sum over what lies between."""
    return np.asarray((one[:, :, None] + other[None]).min(1))


def _path(tables: Sequence[Floats], first: int, last: int) -> list[int]:
    """What lies between a first and a last on the path of the least sum."""
    behind = [tables[-1][:, last]] if len(tables) > 1 else []
    for table in reversed(tables[1:-1]):
        behind.insert(0, (table + behind[0]).min(1))
    found, at = list[int](), first
    for table, rest in zip(tables[:-1], behind, strict=True):
        at = int((table[at] + rest).argmin())
        found.append(at)
    return found


class Dual:
    """Bounds for one problem: `damage` of the settings of each item, and limited costs as sums.

    Raises Unbounded where a layer depends on too many groups.
    """

    def __init__(
        self,
        predictor: Predictor,
        settings: Settings,
        damage: Mapping[str, Callable[[int], float]],
        sums: Mapping[str, Sum],
    ) -> None:
        self._predictor, self._settings, self._sums = predictor, settings, sums
        self._damages = {item: np.array([damage[item](size) for size in sizes]) for item, sizes in settings.items()}
        own = {prefix + name for name in predictor.shapes for prefix in (BITS, IN_RANK, OUT_RANK, CP_RANK)}
        self._shared = [item for item in settings if item not in own]
        self._layers = [self._layer(name) for name in predictor.shapes]

    def bound(self, limits: Mapping[str, float]) -> Bound:
        """Return the least damage that a choice within the limits can have, and the choices met on the way.

        Raises Unbounded where a choice depends on too many others at once.
        """
        every = max(sum(float(found[np.isfinite(found)].max()) for found in self._damages.values()), 1e-12)
        prices = dict.fromkeys(limits, 0.0)
        best, met = -np.inf, list[Counts]()

        def tried(prices: Mapping[str, float]) -> dict[str, float]:
            """What a choice at these prices takes beyond each limit, as a share of it."""
            nonlocal best
            value, counts, costs = self._cheapest(prices, limits)
            best = max(best, value - sum(prices.values()))
            met.append(counts)
            return {name: costs[name] / limit - 1 for name, limit in limits.items()}

        if all(over <= 0 for over in tried(prices).values()):
            return Bound(max(best, 0.0), met)
        for _ in range(SWEEPS if len(limits) > 1 else 1):
            for name in limits:
                low, high = np.log(LEAST * every), np.log(MOST * every)
                for _ in range(HALVINGS):
                    middle = (low + high) / 2
                    over = tried({**prices, name: float(np.exp(middle))})[name]
                    low, high = (middle, high) if over > 0 else (low, middle)
                prices[name] = float(np.exp(high))
        return Bound(max(best, 0.0), met)

    def _cheapest(
        self, prices: Mapping[str, float], limits: Mapping[str, float]
    ) -> tuple[float, Counts, dict[str, float]]:
        """The least sum of damage and priced costs, in shares of their limits, its choice, and what that costs."""
        priced = {name: price / limits[name] for name, price in prices.items()}
        tables, decodes = list[_Table](), list[_Decode]()
        for layer in self._layers:
            table, decode = layer.priced(priced, self._damages)
            tables.append(table)
            decodes.append(decode)
        for item in self._shared:
            each = sum(price * self._sums[name].per_channel.get(item, 0.0) for name, price in priced.items())
            tables.append(_Table((item,), self._damages[item] + each * np.array(self._settings[item])))
        value, places = _eliminated(tables)
        costs = {name: self._sums[name].constant for name in limits}
        for name in limits:
            channels = self._sums[name].per_channel.items()
            costs[name] += sum(each * self._settings[item][places[item]] for item, each in channels)
        for decode in decodes:
            own = decode(places)
            places |= own.places
            for name in limits:
                costs[name] += own.costs[name]
        counts = {item: settings[places.get(item, 0)] for item, settings in self._settings.items()}
        return value + sum(price * self._sums[name].constant for name, price in priced.items()), counts, costs

    def _layer(self, name: str) -> _Layer:
        """The tables of one layer. Raises Unbounded where it depends on too many groups."""
        choices = self._predictor.choices
        groups = tuple(item for item in choices.items[name] if item in self._shared)
        sizes = [self._settings[group] for group in groups]
        shape = tuple(map(len, sizes))
        if np.prod(shape, dtype=float) > MOST_ENTRIES:
            raise Unbounded(name)
        inputs, outputs = np.empty(shape, np.int64), np.empty(shape, np.int64)
        for place in np.ndindex(shape):
            chosen = {group: each[k] for group, each, k in zip(groups, sizes, place, strict=True)}
            found = choices.shape(name, {**choices.whole, **chosen})
            inputs[place], outputs[place] = found.in_channels, found.out_channels
        ins, outs = np.unique(inputs), np.unique(outputs)
        met = set(zip(inputs.ravel().tolist(), outputs.ravel().tolist(), strict=True))
        forms = [self._form(name, ranks, ins, outs, met) for ranks in FORMS if self._is_open(name, ranks)]
        bits = BITS + name
        places = np.searchsorted(ins, inputs), np.searchsorted(outs, outputs)
        return _Layer(groups, places, forms, (bits, self._settings.get(bits, (FLOAT32.bits,))), self._sums)

    def _is_open(self, name: str, ranks: Sequence[str]) -> bool:
        return all(len(self._settings.get(rank + name, ())) > 1 for rank in ranks)

    def _form(self, name: str, ranks: Sequence[str], ins: Ints, outs: Ints, met: Container[tuple[int, int]]) -> _Form:
        """A form of a layer, of which only those channels count, where it is whole, that are `met`."""
        items = tuple(rank + name for rank in ranks)
        levels = [ins, *(np.array(self._settings[item][1:]) for item in items), outs]
        shapes = [(len(one), len(other)) for one, other in itertools.pairwise(levels)]
        costs = {cost: [np.full(shape, np.inf) for shape in shapes] for cost in self._sums}
        written = [np.zeros(shape) for shape in shapes]
        for number, shape in enumerate(shapes):
            for place in np.ndindex(shape):
                channels = [int(level[0]) for level in levels]
                channels[number], channels[number + 1] = (
                    int(level[k]) for level, k in zip(levels[number : number + 2], place, strict=True)
                )
                if not items and (channels[0], channels[1]) not in met:
                    continue
                of_step = self._pieces(name, ranks, channels)[number]
                written[number][place] = sum(piece.shape.out_channels for piece in of_step)
                for cost, one in self._sums.items():
                    costs[cost][number][place] = sum(one.of(name, piece) for piece in of_step)
        return _Form(items, costs, written)

    def _pieces(self, name: str, ranks: Sequence[str], channels: Sequence[int]) -> list[list[Piece]]:
        """The pieces of a form of a layer, by the steps of its path."""
        shape = with_channels(self._predictor.shapes[name], channels[0], channels[-1])
        own = tuple(channels[1:-1])
        kinds: dict[tuple[str, ...], Kind] = {
            (IN_RANK,): "input",
            (OUT_RANK,): "svd" if shape.op == "linear" else "output",
            (CP_RANK,): "cp",
        }
        form = Factors(kinds.get(tuple(ranks), "tucker2"), own) if ranks else None
        found = self._predictor.pieces.laid_out(name, shape, form)
        return [found[:2], found[2:]] if form and form.kind == "cp" else [[piece] for piece in found]


def _eliminated(tables: Sequence[_Table]) -> tuple[float, dict[str, int]]:
    """The least sum of all tables, and the place of each item there. Raises Unbounded where tables grow too large."""
    left, value, order = [*tables], 0.0, list[tuple[str, _Table]]()
    while any(table.items for table in left):
        neighbours: dict[str, dict[str, int]] = {}
        for table in left:
            for item in table.items:
                neighbours.setdefault(item, {}).update(zip(table.items, table.values.shape, strict=True))
        item = min(neighbours, key=lambda one: np.prod([*neighbours[one].values()], dtype=float))
        if np.prod([*neighbours[item].values()], dtype=float) > MOST_ENTRIES:
            raise Unbounded(item)
        among = (item, *(other for other in neighbours[item] if other != item))
        joined = np.zeros([neighbours[item][one] for one in among])
        for table in left:
            if item in table.items:
                joined = joined + _spread(table, among)
        left = [table for table in left if item not in table.items]
        left.append(_Table(among[1:], joined.min(0)))
        order.append((item, _Table(among, joined)))
    value = sum(float(table.values) for table in left)
    places: dict[str, int] = {}
    for item, table in reversed(order):
        at = tuple(places[other] for other in table.items[1:])
        places[item] = int(np.moveaxis(table.values, 0, -1)[at].argmin())
    return value, places


def _spread(table: _Table, among: Sequence[str]) -> Floats:
    """The values of a table with a dimension for each item of `among`."""
    order = [table.items.index(item) for item in among if item in table.items]
    shape = [table.values.shape[table.items.index(item)] if item in table.items else 1 for item in among]
    return table.values.transpose(order).reshape(shape)
