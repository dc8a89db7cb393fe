"""The layers that a choice of channels and ranks makes of each layer of a net.

A layer may be factorised on either side: behind a pointwise layer of fewer channels (its input rank), before one (its
output rank), or between two (Tucker's form); or made depthwise between two pointwise layers (its CP rank).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from slimwright.cost.latency import LayerShape, with_channels
from slimwright.search.choices import Choices, Counts
from slimwright.techniques.low_rank import Factors
from slimwright.techniques.ranks import CP_RANK, IN_RANK, OUT_RANK, RANKS


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

    def filled(self, block: int) -> "Piece":
        """Return the piece that takes as long where a runtime fills outputs of convolutions up to multiples."""
        shape, (in_grid, out_grid) = self.shape, self.grids
        if shape.groups == shape.in_channels > 1:  # depthwise: outputs follow inputs
            wide = with_channels(shape, _up(shape.in_channels, block), shape.out_channels)
            return replace(self, shape=wide, grids=(_all_up(in_grid, block), out_grid))
        if shape.op == "linear" or shape.groups > 1:
            return self
        wide = with_channels(shape, shape.in_channels, _up(shape.out_channels, block))
        return replace(self, shape=wide, grids=(in_grid, _all_up(out_grid, block)))


class Pieces:
    """What choices make of each layer."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        nodes = choices.net.weighted()
        self._pixels = {node.name: math.prod(node.shape) // choices.shapes[node.name].out_channels for node in nodes}
        self._grids = {name: (choices.grid(name, "in"), choices.grid(name, "out")) for name in choices.shapes}
        self._rank_grids = {item + name: choices.rank_grid(item + name) for name in choices.shapes for item in RANKS}
        self._main_grids = {name: self._main_grid(name) for name in choices.shapes}
        self._known: dict[tuple[str, tuple[int, ...]], list[Piece]] = {}

    def of(self, name: str, counts: Counts) -> list[Piece]:
        """The layers that a choice makes of a layer."""
        key = (name, tuple(counts[item] for item in self.choices.items[name]))
        if key not in self._known:
            self._known[key] = self.laid_out(name, self.choices.shape(name, counts), self.form(name, counts))
        return self._known[key]

    def kinds(self, name: str) -> list[Piece]:
        """Return every kind of piece that a layer may come to."""
        forms = self._forms(name, {item: 2 for item in RANKS if item + name in self.choices.sizes})
        pieces = (piece for form in forms for piece in self.laid_out(name, self.choices.shapes[name], form))
        return list({piece.kind: piece for piece in pieces}.values())

    def factors(self, counts: Counts) -> dict[str, Factors]:
        """How a choice factorises layers, those that it does."""
        found = {name: self.form(name, counts) for name in self.choices.shapes}
        return {name: factors for name, factors in found.items() if factors is not None}

    def form(self, name: str, counts: Counts) -> Factors | None:
        """Return how a layer is factorised, if it is: of the ranks that a choice limits, those that save the most."""
        ranks = self.choices.ranks(name, counts)
        less = {item: rank for item, rank in ranks.items() if rank < self.choices.whole[item + name]}
        if not less:
            return None
        shape = self.choices.shape(name, counts)

        def macs(form: Factors | None) -> int:
            return sum(piece.weights * piece.pixels for piece in self.laid_out(name, shape, form))

        return min(self._forms(name, less), key=macs)

    def laid_out(self, name: str, shape: LayerShape, form: Factors | None) -> list[Piece]:
        """Return the layers of a form of a layer, by itself or with as many channels as `shape` has."""
        in_grid, out_grid = self._grids[name]
        if form is None:
            return [Piece("main", shape, self._main_grids[name], self._pixels[name])]
        of_inputs, of_outputs = math.prod(shape.input_size), self._pixels[name]
        size = self.choices.net[name].shape[2:] if shape.op == "conv2d" else (1, 1)
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

    def _forms(self, name: str, ranks: Mapping[str, int]) -> list[Factors | None]:
        """The forms of a layer at some of its ranks: the whole first."""
        forms: list[Factors | None] = [None]
        if IN_RANK in ranks:
            forms.append(Factors("input", (ranks[IN_RANK],)))
        if OUT_RANK in ranks:
            forms.append(Factors("svd" if self.choices.shapes[name].op == "linear" else "output", (ranks[OUT_RANK],)))
        if IN_RANK in ranks and OUT_RANK in ranks:
            forms.append(Factors("tucker2", (ranks[IN_RANK], ranks[OUT_RANK])))
        if CP_RANK in ranks:
            forms.append(Factors("cp", (ranks[CP_RANK],)))
        return forms

    def _main_grid(self, name: str) -> tuple[Sequence[int], Sequence[int]]:
        """The counts at which a layer is measured, whole or between others: as thin as its least rank."""
        grids = zip(self._grids[name], (IN_RANK, OUT_RANK), strict=True)
        inputs, outputs = (sorted({*grid, *self._rank_grids[item + name][:1]}) for grid, item in grids)
        return inputs, outputs


def _up(count: int, block: int) -> int:
    """A count in whole blocks; below one block it stays, since what is done there may be something else."""
    return count if count < block else -(-count // block) * block


def _all_up(grid: Sequence[int], block: int) -> list[int]:
    within = bool(grid) and min(grid) < block < max(grid)
    return sorted({*(_up(count, block) for count in grid), *([block] if within else [])})
