"""Choose how many channels each group keeps, so that the predicted damage is least within the limits.

Every layer's cost depends on the groups it reads and the groups it writes, so groups interact. Greedy: while a limit
is exceeded, shrink the group whose step buys the most relief per damage, looking at every smaller size; then polish:
give channels back where there is room, and trade between two groups while that lowers the damage. Counts are multiples
of the step that the runtime likes. Not proven optimal; a test compares it with exhaustive search on small cases.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slimwright.cost.count import count
from slimwright.cost.latency import LatencyTable, LayerShape, shape_of, with_channels
from slimwright.graph.channels import Coupling
from slimwright.graph.liveness import plan_memory, value_bytes
from slimwright.graph.net import Net
from slimwright.rewrites.prune import Removal

GRID_POINTS = 4  # channel counts measured per layer and direction; between them latency is interpolated
MOST_SIZES = 24  # sizes to choose from per group

Counts = Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """How many channels each group keeps; `predicted` holds each limited cost, `feasible` says that all fit."""

    counts: Counts
    damage: float
    predicted: Mapping[str, float]
    feasible: bool


@dataclass(frozen=True)
class Problem:
    """What to choose from: sizes per group (the whole first, then descending), their damage, a choice's costs."""

    sizes: Mapping[str, Sequence[int]]
    damage: Mapping[str, Callable[[int], float]]
    costs: Callable[[Counts], Mapping[str, float]]


class Predictor:
    """Predicts the costs of a net as a function of the channels that its groups keep."""

    def __init__(self, net: Net, coupling: Coupling, table: LatencyTable, step: int) -> None:
        self.net, self.coupling, self.table, self.step = net, coupling, table, step
        self.sizes = {
            group.name: [group.size] if group.name in coupling.balanced else sizes(group.size, step)
            for group in coupling.groups
        }
        self._known_ms: dict[tuple[str, int, int], float] = {}
        self.whole = {g.name: g.size for g in coupling.groups}
        self.shapes = {node.name: shape_of(net, node) for node in net.weighted()}
        self.pixels = {
            node.name: math.prod(node.shape) // self.shapes[node.name].out_channels for node in net.weighted()
        }
        self.removed_per_channel: dict[tuple[str, str], dict[str, int]] = {}
        for group in coupling.groups:
            for place in group.cuts:
                if place.node in self.shapes:
                    shape, positions = self.shapes[place.node], place.positions.shape[1]
                    each = {"in": positions * shape.in_channels // shape.out_channels, "out": positions}
                    for role, removed in (each if place.role == "each" else {place.role: positions}).items():
                        self.removed_per_channel.setdefault((place.node, role), {})[group.name] = removed
        self.products = count(net).macs - self._layer_macs(self.whole)
        self.value_bytes = {node.name: value_bytes(net, node.name) for node in net.nodes}
        self.grids = {name: (self._grid(name, "in"), self._grid(name, "out")) for name in self.shapes}

    def measure(self) -> None:
        """Measure every layer at the points of its grid, once."""
        self.table.fill(
            with_channels(self.shapes[name], inputs, outputs)
            for name, (in_grid, out_grid) in self.grids.items()
            for inputs in in_grid
            for outputs in out_grid
        )

    def layer_ms(self, counts: Counts) -> dict[str, float]:
        """Predicted milliseconds of each weighted layer."""
        return {name: self._ms(name, self._shape(name, counts)) for name in self.shapes}

    def macs(self, counts: Counts) -> int:
        """Multiply-accumulates, exactly for layers; products of values (attention) count as in the whole net."""
        return self.products + self._layer_macs(counts)

    def _layer_macs(self, counts: Counts) -> int:
        return sum(self._weights(self._shape(name, counts)) * self.pixels[name] for name in self.shapes)

    def weight_bytes(self, counts: Counts) -> int:
        """Bytes of the weight matrices, exactly; biases and norms apart."""
        return 4 * sum(self._weights(self._shape(name, counts)) for name in self.shapes)

    def peak_activation_bytes(self, counts: Counts) -> int:
        """The most activation memory that is live at once, exactly."""
        smaller = {}
        for name, whole in self.value_bytes.items():
            gone = sum((self.whole[g] - counts[g]) * n for g, n in self.coupling.elements[name].items())
            smaller[name] = whole - 4 * gone
        return plan_memory(self.net, smaller).peak_bytes

    def _ms(self, name: str, shape: LayerShape) -> float:
        key = (name, shape.in_channels, shape.out_channels)
        if key not in self._known_ms:
            self._known_ms[key] = self.table.interpolated(shape, *self.grids[name])
        return self._known_ms[key]

    def _shape(self, name: str, counts: Counts) -> LayerShape:
        shape = self.shapes[name]
        left = {"in": shape.in_channels, "out": shape.out_channels}
        for role in left:
            for group, positions in self.removed_per_channel.get((name, role), {}).items():
                left[role] -= (self.whole[group] - counts[group]) * positions
        return with_channels(shape, left["in"], left["out"])

    def _weights(self, shape: LayerShape) -> int:
        return shape.out_channels * (shape.in_channels // shape.groups) * math.prod(shape.kernel)

    def _grid(self, name: str, role: str) -> list[int]:
        """A few counts from the least to the whole, each one that a choice can lead to."""
        shape = self.shapes[name]
        whole = shape.in_channels if role == "in" else shape.out_channels
        groups = self.removed_per_channel.get((name, role), {})
        if len(groups) != 1:
            reachable = (
                sorted({whole, *(max(whole * i // GRID_POINTS, 1) for i in range(1, GRID_POINTS))})
                if groups
                else [whole]
            )
        else:
            ((group, positions),) = groups.items()
            reachable = sorted(whole - (self.whole[group] - size) * positions for size in self.sizes[group])
        if len(reachable) <= GRID_POINTS:
            return reachable
        return [reachable[round(i * (len(reachable) - 1) / (GRID_POINTS - 1))] for i in range(GRID_POINTS)]


def sizes(whole: int, step: int) -> list[int]:
    """Return what a group of `whole` channels may keep: itself, multiples of `step`, and below it halves down to 4.

    Where that would be many, every second, third or so of the multiples has to do.
    """
    stride = step * max(whole // step // MOST_SIZES, 1)
    multiples = [*range((whole - 1) // stride * stride, 0, -stride)]
    halves = [step >> shift for shift in range(1, step.bit_length()) if 4 <= step >> shift < whole]
    return [whole, *multiples, *halves]


def problem(
    removals: Mapping[str, Removal], predictor: Predictor, costs: Callable[[Counts], Mapping[str, float]]
) -> Problem:
    """Return the choice to make; groups without a removal order stay whole."""
    open_sizes = {name: (s if name in removals else s[:1]) for name, s in predictor.sizes.items()}
    return Problem(open_sizes, {name: _damage(removals.get(name)) for name in open_sizes}, costs)


def solve(problem: Problem, limits: Mapping[str, float]) -> Plan:
    """Return the least damaging choice found within the limits, or the nearest to them there is."""
    counts = {name: sizes[0] for name, sizes in problem.sizes.items()}
    while (excess := _excess(problem.costs(counts), limits)) > 0:
        best = _best_step(problem, counts, limits, excess)
        if best is None:
            break
        counts[best[0]] = best[1]
    if excess <= 0:
        counts = _polished(problem, counts, limits)
    costs = problem.costs(counts)
    return Plan(counts, _total(problem, counts), {name: costs[name] for name in limits}, _excess(costs, limits) <= 0)


def _best_step(
    problem: Problem, counts: Mapping[str, int], limits: Mapping[str, float], excess: float
) -> tuple[str, int] | None:
    """The smaller size, of any group, that costs the least damage for the relief it brings; None if all are smallest.

    Where no single step brings relief (peak memory is a maximum, so several groups must shrink), the least damage.
    """
    priced: list[tuple[float, float, str, int]] = []
    for name, sizes in problem.sizes.items():
        now = problem.damage[name](counts[name])
        for size in (s for s in sizes if s < counts[name]):
            relief = excess - _excess(problem.costs({**counts, name: size}), limits)
            damage = problem.damage[name](size) - now
            priced.append((damage / relief if relief > 1e-12 else math.inf, damage, name, size))
    return min(priced)[2:] if priced else None


def _polished(problem: Problem, counts: dict[str, int], limits: Mapping[str, float]) -> dict[str, int]:
    """Give channels back, alone or in trade for others, as long as that lowers the damage and still fits."""
    while True:
        for change in _changes(problem, counts):
            if _excess(problem.costs({**counts, **change}), limits) <= 0:
                counts = {**counts, **change}
                break
        else:
            return counts


def _changes(problem: Problem, counts: Mapping[str, int]) -> list[dict[str, int]]:
    """One group up a size, alone or with another down to a smaller one: what lowers the damage, the most first."""
    saved: list[tuple[float, dict[str, int]]] = []
    for name, sizes in problem.sizes.items():
        for up in [s for s in sizes if s > counts[name]][-1:]:
            gain = problem.damage[name](counts[name]) - problem.damage[name](up)
            saved.append((gain, {name: up}))
            for other, smaller in ((o, s) for o, sizes in problem.sizes.items() if o != name for s in sizes):
                if smaller < counts[other]:
                    loss = problem.damage[other](smaller) - problem.damage[other](counts[other])
                    saved.append((gain - loss, {name: up, other: smaller}))
    return [change for gain, change in sorted(saved, key=lambda entry: -entry[0]) if gain > 1e-15]


def _excess(costs: Mapping[str, float], limits: Mapping[str, float]) -> float:
    return sum(max(costs[name] / limit - 1, 0.0) for name, limit in limits.items())


def _total(problem: Problem, counts: Counts) -> float:
    return sum(problem.damage[name](count) for name, count in counts.items())


def _damage(removal: Removal | None) -> Callable[[int], float]:
    if removal is None:
        return lambda count: 0.0
    return lambda count: float(removal.damage[len(removal.order) - count])
