"""Predict what a choice of channels and ranks costs, before any net is built.

A layer's latency is interpolated between shapes that were measured; multiply-accumulates, weights and planned memory
are exact. A layer may be factorised on either side: behind a pointwise layer of fewer channels (its input rank), before
one (its output rank), or between two (Tucker's form); or made depthwise between two pointwise layers (its CP rank).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from slimwright.cost.count import count
from slimwright.cost.latency import COLD, LatencyTable, LayerShape, shape_of, with_channels
from slimwright.coupling.balance import ladders
from slimwright.coupling.channels import Coupling
from slimwright.evidence import Evidence
from slimwright.graph.liveness import plan_memory, value_bytes
from slimwright.graph.net import Net
from slimwright.progress import Tell, silent
from slimwright.search.summed import Summed
from slimwright.techniques.low_rank import Factors
from slimwright.techniques.ranks import CP_RANK, IN_RANK, OUT_RANK, RANKS, rank_for_ratio

GRID_POINTS = 4  # channel counts measured per layer and direction; between them latency is interpolated
RANK_POINTS = 2  # ranks likewise
MOST_SIZES = 24  # sizes to choose from per group
LEAST_RUNGS = 4  # of a group that parts share equally, where it is wide enough
LEAST_STEPS = 4  # a layer's channels, in steps, below which a rank of its own does not pay
MOST_CP_TAPS = 2304  # finding the terms of a layer that reads 256 channels in 3x3 takes half a minute, of 512 minutes

Counts: TypeAlias = Mapping[str, int]


@dataclass(frozen=True)
class Piece:
    """One of the layers that a choice makes of a layer, and the grids of channels on which its kind is measured."""

    kind: str  # "first", "main" or "last", and of a layer's CP form "narrow", "depthwise" or "widen"
    shape: LayerShape
    grids: tuple[Sequence[int], Sequence[int]]
    pixels: int  # output positions of an image

    @cached_property
    def weights(self) -> int:
        """Elements of its weight matrix."""
        shape = self.shape
        return shape.out_channels * (shape.in_channels // shape.groups) * math.prod(shape.kernel)

    @cached_property
    def is_winograd(self) -> bool:
        """True where a runtime may transform the weights (Lavin and Gray 2016): 3x3 of stride 1, not grouped."""
        shape = self.shape
        return shape.kernel == (3, 3) and shape.stride == shape.dilation == (1, 1) and shape.groups == 1


class Predictor:
    """Predicts the costs of a net as a function of the channels that its groups keep, and of ranks.

    `ranks` names layers that may be factorised. `transformed` is what the runtime holds of a 3x3 layer of stride 1, in
    terms of its weights.
    """

    def __init__(
        self,
        net: Net,
        coupling: Coupling,
        table: LatencyTable,
        step: int,
        *,
        ranks: Iterable[str] = (),
        transformed: float = 1.0,
    ) -> None:
        self.net, self.coupling, self.table, self.step = net, coupling, table, step
        self.transformed = transformed
        self.sizes = {group.name: sizes(group.size, step) for group in coupling.groups}
        self.ladders = ladders(coupling, lambda size, parts: equal_sizes(size, parts, step))
        self.sizes |= {name: ladder.sizes for name, ladder in self.ladders.items()}
        self._known_ms: dict[tuple[str, str, int, int, int], float] = {}
        self.shapes = {node.name: shape_of(net, node) for node in net.weighted()}
        self.pixels = {
            node.name: math.prod(node.shape) // self.shapes[node.name].out_channels for node in net.weighted()
        }
        for name in ranks:
            self.sizes |= self._ranks(name)
        self.whole = {name: sizes[0] for name, sizes in self.sizes.items()}
        self.removed_per_channel: dict[tuple[str, str], dict[str, int]] = {}
        for group in coupling.groups:
            for place in group.cuts:
                if place.node in self.shapes:
                    shape, positions = self.shapes[place.node], place.positions.shape[1]
                    each = {"in": positions * shape.in_channels // shape.out_channels, "out": positions}
                    for role, removed in (each if place.role == "each" else {place.role: positions}).items():
                        self.removed_per_channel.setdefault((place.node, role), {})[group.name] = removed
        self._known_pieces: dict[tuple[str, tuple[int, ...]], list[Piece]] = {}
        self._items = {  # what a layer's pieces depend on
            name: [
                *dict.fromkeys(g for role in ("in", "out") for g in self.removed_per_channel.get((name, role), {})),
                *(item + name for item in RANKS if item + name in self.sizes),
            ]
            for name in self.shapes
        }
        self.grids = {name: (self._grid(name, "in"), self._grid(name, "out")) for name in self.shapes}
        self._rank_grids = {item + name: self._rank_grid(item + name) for name in self.shapes for item in RANKS}
        self._main_grids = {name: self._main_grid(name) for name in self.shapes}
        self.value_bytes = {node.name: value_bytes(net, node.name) for node in net.nodes}
        read = {name: coupling.elements[name] for name in self.value_bytes if name not in self.shapes}
        self._other_bytes = Summed(self._bytes, read)
        self._held_bytes = Summed(self._held, self._items)
        self._weights = Summed(self._weights_of, self._items)
        self._layer_macs = Summed(self._macs_of, self._items)
        self._undisturbed_ms = Summed(self._undisturbed, self._items)
        self._cold_ms = Summed(self._cold, self._items)
        self.products = count(net).macs - int(self._layer_macs(self.whole))

    def measure(self, tell: Tell = silent) -> None:
        """Measure every layer, and what it may be factorised into, at the points of their grids, once.

        Where a run uses more than the caches hold, also with the caches emptied.
        """
        shapes = [
            with_channels(piece.shape, inputs, outputs)
            for name in self.shapes
            for piece in self._kinds(name)
            for inputs in piece.grids[0]
            for outputs in piece.grids[1]
        ]
        self.table.fill(shapes, tell=tell)
        if self.table.missed(self.used_bytes(self.whole)):
            self.table.fill(shapes, COLD, tell)

    def layer_ms(self, counts: Counts) -> dict[str, float]:
        """Predicted milliseconds of each weighted layer."""
        missed = self.table.missed(self.used_bytes(counts))
        undisturbed = {name: self._undisturbed(name, counts) for name in self.shapes}
        cold = {name: self._cold(name, counts) if missed else 0.0 for name in self.shapes}
        return {name: ms + missed * cold[name] for name, ms in undisturbed.items()}

    def used_bytes(self, counts: Counts) -> float:
        """What a run uses: weights, in the form in which the runtime holds them, and values."""
        return self.other_bytes(counts) + self._held_bytes(counts)

    def _all_ms(self, counts: Counts) -> float:
        missed = self.table.missed(self.used_bytes(counts))
        return self._undisturbed_ms(counts) + (missed * self._cold_ms(counts) if missed else 0.0)

    def latency(self, whole_ms: float, tensor_share: float = 1.0) -> Callable[[Counts], float]:
        """Return what predicts the milliseconds of a choice, where the whole net was measured to take `whole_ms`.

        `tensor_share` of those are its layers', and follow the table; the rest follow the bytes that other layers give.
        """
        layers_ms, others = self._all_ms(self.whole), self.other_bytes(self.whole)

        def predicted(counts: Counts) -> float:
            layers = self._all_ms(counts) / layers_ms
            other = self.other_bytes(counts) / others if others else 1.0
            return whole_ms * (tensor_share * layers + (1 - tensor_share) * other)

        return predicted

    def macs(self, counts: Counts) -> int:
        """Multiply-accumulates, exactly for layers; products of values (attention) count as in the whole net."""
        return self.products + int(self._layer_macs(counts))

    def weight_bytes(self, counts: Counts) -> int:
        """Bytes of the weight matrices, exactly; biases and norms apart."""
        return 4 * int(self._weights(counts))

    def peak_activation_bytes(self, counts: Counts) -> int:
        """The most activation memory that is live at once, exactly but for what is between factorised layers."""
        return plan_memory(self.net, {name: self._bytes(name, counts) for name in self.value_bytes}).peak_bytes

    def _bytes(self, name: str, counts: Counts) -> int:
        """What a node's value takes."""
        gone = sum((self.whole[g] - counts[g]) * n for g, n in self.coupling.elements[name].items())
        return self.value_bytes[name] - 4 * gone

    def other_bytes(self, counts: Counts) -> int:
        """What all nodes but weighted layers give."""
        return int(self._other_bytes(counts))

    def factors(self, counts: Counts) -> dict[str, Factors]:
        """How a choice factorises layers, those that it does."""
        found = {name: self._form(name, counts) for name in self.shapes}
        return {name: factors for name, factors in found.items() if factors is not None}

    def pieces(self, name: str, counts: Counts) -> list[Piece]:
        """The layers that a choice makes of a layer."""
        key = (name, tuple(counts[item] for item in self._items[name]))
        if key not in self._known_pieces:
            self._known_pieces[key] = self._laid_out(name, self._shape(name, counts), self._form(name, counts))
        return self._known_pieces[key]

    def _laid_out(self, name: str, shape: LayerShape, form: Factors | None) -> list[Piece]:
        """A layer in one of its forms."""
        in_grid, out_grid = self.grids[name]
        if form is None:
            return [Piece("main", shape, self._main_grids[name], self.pixels[name])]
        of_inputs, of_outputs = math.prod(shape.input_size), self.pixels[name]
        size = self.net[name].shape[2:] if shape.op == "conv2d" else (1, 1)
        first, last = form.ranks[0], form.ranks[-1]
        narrow = LayerShape("conv2d", shape.in_channels, first, input_size=shape.input_size)
        widen = LayerShape(shape.op, last, shape.out_channels, input_size=(size[0], size[1]))
        if form.kind == "cp":
            ranks = self._rank_grids[CP_RANK + name]
            each = replace(shape, in_channels=first, out_channels=first, groups=first)
            return [
                Piece("narrow", narrow, (in_grid, ranks), of_inputs),
                Piece("depthwise", each, (ranks, ranks), of_outputs),
                Piece("widen", widen, (ranks, out_grid), of_outputs),
            ]
        before, behind = form.kind in ("input", "tucker2"), form.kind != "input"
        thin = with_channels(shape, first if before else shape.in_channels, last if behind else shape.out_channels)
        pieces = [Piece("main", thin, self._main_grids[name], of_outputs)]
        if before:
            pieces.insert(0, Piece("first", narrow, (in_grid, self._rank_grids[IN_RANK + name]), of_inputs))
        if behind:
            pieces.append(Piece("last", widen, (self._rank_grids[OUT_RANK + name], out_grid), of_outputs))
        return pieces

    def _kinds(self, name: str) -> list[Piece]:
        """Every kind of piece that a layer may come to."""
        forms = self._forms(name, {item: 2 for item in RANKS if item + name in self.sizes})
        pieces = (piece for form in forms for piece in self._laid_out(name, self.shapes[name], form))
        return list({piece.kind: piece for piece in pieces}.values())

    def _form(self, name: str, counts: Counts) -> Factors | None:
        """How a layer is factorised, if it is: of the ranks that the choice limits, the ones that save the most."""
        ranks = {item: counts[item + name] for item in RANKS if item + name in self.sizes}
        less = {item: rank for item, rank in ranks.items() if rank < self.whole[item + name]}
        if not less:
            return None
        shape = self._shape(name, counts)

        def macs(form: Factors | None) -> int:
            return sum(piece.weights * piece.pixels for piece in self._laid_out(name, shape, form))

        return min(self._forms(name, less), key=macs)

    def _forms(self, name: str, ranks: Mapping[str, int]) -> list[Factors | None]:
        """The forms of a layer at some of its ranks: the whole first."""
        forms: list[Factors | None] = [None]
        if IN_RANK in ranks:
            forms.append(Factors("input", (ranks[IN_RANK],)))
        if OUT_RANK in ranks:
            forms.append(Factors("svd" if self.shapes[name].op == "linear" else "output", (ranks[OUT_RANK],)))
        if IN_RANK in ranks and OUT_RANK in ranks:
            forms.append(Factors("tucker2", (ranks[IN_RANK], ranks[OUT_RANK])))
        if CP_RANK in ranks:
            forms.append(Factors("cp", (ranks[CP_RANK],)))
        return forms

    # of one layer

    def _macs_of(self, name: str, counts: Counts) -> int:
        return sum(piece.weights * piece.pixels for piece in self.pieces(name, counts))

    def _weights_of(self, name: str, counts: Counts) -> int:
        return sum(piece.weights for piece in self.pieces(name, counts))

    def _held(self, name: str, counts: Counts) -> float:
        pieces = self.pieces(name, counts)
        return 4 * sum(piece.weights * (self.transformed if piece.is_winograd else 1.0) for piece in pieces)

    def _undisturbed(self, name: str, counts: Counts) -> float:
        return sum(self._ms_at(name, piece, 0) for piece in self.pieces(name, counts))

    def _cold(self, name: str, counts: Counts) -> float:
        """What a layer takes longer with emptied caches."""
        return sum(
            max(self._ms_at(name, piece, COLD) - self._ms_at(name, piece, 0), 0.0)
            for piece in self.pieces(name, counts)
        )

    def _ms_at(self, name: str, piece: Piece, evicted: int) -> float:
        key = (name, piece.kind, piece.shape.in_channels, piece.shape.out_channels, evicted)
        if key not in self._known_ms:
            self._known_ms[key] = self.table.interpolated(piece.shape, *piece.grids, evicted)
        return self._known_ms[key]

    def _shape(self, name: str, counts: Counts) -> LayerShape:
        shape = self.shapes[name]
        left = {"in": shape.in_channels, "out": shape.out_channels}
        for role in left:
            for group, positions in self.removed_per_channel.get((name, role), {}).items():
                left[role] -= (self.whole[group] - counts[group]) * positions
        return with_channels(shape, left["in"], left["out"])

    def _ranks(self, name: str) -> dict[str, list[int]]:
        """The items of a layer's ranks: the whole, and those below it at which there are fewer weights."""
        shape = self.shapes[name]
        taps, inputs, outputs = math.prod(shape.kernel), shape.in_channels, shape.out_channels
        most = min(taps * inputs, outputs)
        fewer = [r for r in sizes(most, self.step)[1:] if r * (taps * inputs + outputs) < taps * inputs * outputs]
        found = {OUT_RANK + name: [most, *fewer]}
        if taps > 1:
            fewer = [r for r in sizes(inputs, self.step)[1:] if r * (inputs + taps * outputs) < taps * inputs * outputs]
            found[IN_RANK + name] = [inputs, *fewer]
        if taps > 1 and taps * inputs <= MOST_CP_TAPS:
            most = rank_for_ratio(self.net, name, "cp", 0.0)
            found[CP_RANK + name] = [most + 1, *sizes(most + 1, self.step)[1:]]
        return found

    def _main_grid(self, name: str) -> tuple[Sequence[int], Sequence[int]]:
        """The counts at which a layer is measured, whole or between others: as thin as its least rank."""
        grids = zip(self.grids[name], (IN_RANK, OUT_RANK), strict=True)
        inputs, outputs = (sorted({*grid, *self._rank_grids[item + name][:1]}) for grid, item in grids)
        return inputs, outputs

    def _rank_grid(self, item: str) -> list[int]:
        """The ranks at which the layers of an item are measured."""
        ranks = sorted(self.sizes.get(item, [0])[1:])
        return ranks if len(ranks) <= RANK_POINTS else _spread(ranks, RANK_POINTS)

    def _grid(self, name: str, role: str) -> list[int]:
        """A few counts from the least to the whole, each one that a choice can lead to."""
        shape = self.shapes[name]
        unit = shape.groups if shape.groups < shape.in_channels else 1
        whole = shape.in_channels if role == "in" else shape.out_channels
        groups = self.removed_per_channel.get((name, role), {})
        if len(groups) != 1:
            spread = np.geomspace(max(whole / 8, 1), whole, GRID_POINTS) if groups else [whole]
            reachable = sorted({max(round(size / unit), 1) * unit for size in spread})
        else:
            ((group, positions),) = groups.items()
            reachable = sorted(whole - (self.whole[group] - size) * positions for size in self.sizes[group])
        return reachable if len(reachable) <= GRID_POINTS else _spread(reachable, GRID_POINTS)


def factorisable(net: Net, evidence: Evidence, step: int) -> list[str]:
    """Return the layers for which the planner may choose ranks: observed, not grouped, and wide enough for the step."""
    owners = Counter(tensor for node in net.nodes for tensor in node.tensors.values())
    found = []
    for node in net.weighted():
        weight = net.tensors[node.tensors["weight"]]
        own = all(owners[tensor] == 1 for tensor in node.tensors.values())
        wide = min(len(weight), weight[0].numel()) >= LEAST_STEPS * step
        if own and wide and node.name in evidence.layers and node.arguments.get("groups", 1) == 1:
            found.append(node.name)
    return found


def _spread(numbers: Sequence[int], points: int) -> list[int]:
    """A few of them, from the first to the last, each about as many times the one before: caches fill by factors."""
    wanted = np.geomspace(numbers[0], numbers[-1], points)
    return sorted({min(numbers, key=lambda number: abs(number - aim)) for aim in wanted.tolist()})


def equal_sizes(whole: int, parts: int, step: int) -> list[int]:
    """Return what to ask for of a group that so many parts share equally: multiples of their number, by `sizes`."""
    each = whole // parts
    return [count * parts for count in sizes(each, min(step, max(each // LEAST_RUNGS, 1)))]


def sizes(whole: int, step: int) -> list[int]:
    """Return what a group of `whole` channels may keep: itself, multiples of `step`, and below it halves down to 4.

    Where that would be many, every second, third or so of the multiples has to do.
    """
    stride = step * max(whole // step // MOST_SIZES, 1)
    multiples = [*range((whole - 1) // stride * stride, 0, -stride)]
    halves = [step >> shift for shift in range(1, step.bit_length()) if 4 <= step >> shift < whole]
    return [whole, *multiples, *halves]
