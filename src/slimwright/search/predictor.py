"""Predict what a choice of channels and ranks costs, before any net is built.

A layer's latency is interpolated between shapes that were measured; multiply-accumulates, weights and planned memory
are exact. What a choice makes of a layer is in `pieces.py`, and what may be chosen in `choices.py`.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

from slimwright.cost.count import count
from slimwright.cost.latency import COLD, LatencyTable, LayerShape, with_channels
from slimwright.coupling.balance import Ladder
from slimwright.coupling.channels import Coupling
from slimwright.evidence import Evidence
from slimwright.graph.encoding import FLOAT32, Encoding
from slimwright.graph.liveness import plan_memory, value_bytes
from slimwright.graph.net import Net
from slimwright.progress import Tell, silent
from slimwright.search.choices import Choices, Counts
from slimwright.search.pieces import Piece, Pieces
from slimwright.search.summed import Summed
from slimwright.techniques.knobs import BITS
from slimwright.techniques.low_rank import Factors

LEAST_STEPS = 4  # a layer's channels, in steps, below which a rank of its own does not pay


class Predictor:
    """Predicts the costs of a net as a function of the channels that its groups keep, and of ranks.

    `ranks` names layers that may be factorised, `bits` those whose weights may have fewer, and how many. `transformed`
    is what the runtime holds of a 3x3 layer of stride 1, in terms of its weights. It fills outputs of convolutions up
    to multiples of `block`.
    """

    def __init__(
        self,
        net: Net,
        coupling: Coupling,
        table: LatencyTable,
        step: int,
        *,
        ranks: Iterable[str] = (),
        bits: Mapping[str, Sequence[int]] | None = None,
        rank_step: int | None = None,
        transformed: float = 1.0,
        block: int = 1,
    ) -> None:
        self.net, self.coupling, self.table, self.step = net, coupling, table, step
        self.transformed, self.block = transformed, block
        self.choices = Choices(net, coupling, step, ranks, bits, rank_step)
        self.pieces = Pieces(self.choices)
        self._known_ms: dict[tuple[str, str, int, int, int], float] = {}
        self._value_bytes = {node.name: value_bytes(net, node.name) for node in net.nodes}

    @property
    def shapes(self) -> Mapping[str, LayerShape]:
        """Of the whole net's layers."""
        return self.choices.shapes

    @property
    def sizes(self) -> Mapping[str, list[int]]:
        """What may be chosen of each item, the whole first."""
        return self.choices.sizes

    @property
    def ladders(self) -> Mapping[str, Ladder]:
        """How groups shrink that must stay equal."""
        return self.choices.ladders

    @property
    def whole(self) -> Counts:
        """The choice of everything."""
        return self.choices.whole

    def factors(self, counts: Counts) -> dict[str, Factors]:
        """How a choice factorises layers, those that it does."""
        return self.pieces.factors(counts)

    def measure(self, tell: Tell = silent) -> None:
        """Measure every layer, and what it may be factorised into, at the points of their grids, once.

        Where a run uses more than the caches hold, also with the caches emptied.
        """
        pieces = [piece.filled(self.block) for name in self.shapes for piece in self.pieces.kinds(name)]
        shapes = [with_channels(piece.shape, *counts) for piece in pieces for counts in itertools.product(*piece.grids)]
        self.table.fill(shapes, tell=tell)
        if self.table.missed(self.used_bytes(self.whole)):
            self.table.fill(shapes, COLD, tell)

    def layer_ms(self, counts: Counts) -> dict[str, float]:
        """Predicted milliseconds of each weighted layer."""
        missed = self.missed(counts)
        cold = {name: self._cold(name, counts) if missed else 0.0 for name in self.shapes}
        return {name: self._undisturbed(name, counts) + missed * cold[name] for name in self.shapes}

    def used_bytes(self, counts: Counts) -> float:
        """What a run uses: weights, in the form in which the runtime holds them, and values."""
        return self.other_bytes(counts) + self._held_bytes(counts)

    def _all_ms(self, counts: Counts) -> float:
        missed = self.missed(counts)
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
        return self.products + self.layer_macs(counts)

    def layer_macs(self, counts: Counts) -> int:
        """Multiply-accumulates of weighted layers, exactly."""
        return int(self._layer_macs(counts))

    def macs_of(self, name: str, counts: Counts) -> int:
        """Multiply-accumulates of a weighted layer, exactly."""
        return sum(piece.weights * piece.pixels for piece in self.pieces.of(name, counts))

    def weight_bytes(self, counts: Counts) -> int:
        """Bytes of the weight matrices in their bits, exactly; biases and norms apart."""
        return int(self._weights(counts))

    def missed(self, counts: Counts) -> float:
        """Return the share of what emptied caches cost that a choice pays."""
        return self.table.missed(self.used_bytes(counts))

    def piece_ms(self, name: str, piece: Piece, missed: float) -> float:
        """Return the predicted milliseconds of a piece of a layer, where so much of emptied caches is paid."""
        warm = self._ms_at(name, piece, 0)
        return warm + missed * max(self._ms_at(name, piece, COLD) - warm, 0.0) if missed else warm

    def peak_activation_bytes(self, counts: Counts) -> int:
        """The most activation memory that is live at once, exactly but for what is between factorised layers."""
        return plan_memory(self.net, {name: self._bytes(name, counts) for name in self._value_bytes}).peak_bytes

    def _bytes(self, name: str, counts: Counts) -> int:
        """What a node's value takes."""
        gone = sum((self.whole[g] - counts[g]) * n for g, n in self.coupling.elements[name].items())
        return self._value_bytes[name] - 4 * gone

    # sums over layers, by what they depend on

    @cached_property
    def products(self) -> int:
        """Multiply-accumulates of values with values, in the whole net."""
        return count(self.net).macs - self.layer_macs(self.whole)

    @cached_property
    def other_bytes(self) -> Summed:
        """What all nodes but weighted layers give, in bytes."""
        read = {name: self.coupling.elements[name] for name in self._value_bytes if name not in self.shapes}
        return Summed(self._bytes, read)

    @cached_property
    def other_bytes_by_channel(self) -> tuple[float, dict[str, float]]:
        """What all nodes but weighted layers give, in bytes, as a constant and what each channel of a group adds."""
        each: dict[str, float] = {}
        for name in self._value_bytes.keys() - self.shapes.keys():
            for group, elements in self.coupling.elements[name].items():
                each[group] = each.get(group, 0.0) + 4 * elements
        return self.other_bytes(self.whole) - sum(self.whole[group] * one for group, one in each.items()), each

    @cached_property
    def _held_bytes(self) -> Summed:
        return Summed(self._held, self.choices.items)

    @cached_property
    def _weights(self) -> Summed:
        items = self.choices.items
        return Summed(self._weight_bytes_of, {name: [*items[name], *self._bits_of(name)] for name in self.net.layers})

    @cached_property
    def _layer_macs(self) -> Summed:
        return Summed(self.macs_of, self.choices.items)

    @cached_property
    def _undisturbed_ms(self) -> Summed:
        return Summed(self._undisturbed, self.choices.items)

    @cached_property
    def _cold_ms(self) -> Summed:
        return Summed(self._cold, self.choices.items)

    # of one layer

    def _bits_of(self, name: str) -> list[str]:
        return [BITS + name] if BITS + name in self.sizes else []

    def _weight_bytes_of(self, name: str, counts: Counts) -> int:
        encoding = FLOAT32 if (bits := self.choices.bits(name, counts)) == FLOAT32.bits else Encoding.of_bits(bits)
        pieces = self.pieces.of(name, counts)
        return sum(
            encoding.size_bytes((each.shape.out_channels, each.weights // each.shape.out_channels)) for each in pieces
        )

    def _held(self, name: str, counts: Counts) -> float:
        pieces = self.pieces.of(name, counts)
        return 4 * sum(piece.weights * (self.transformed if piece.is_winograd else 1.0) for piece in pieces)

    def _undisturbed(self, name: str, counts: Counts) -> float:
        return sum(self._ms_at(name, piece, 0) for piece in self.pieces.of(name, counts))

    def _cold(self, name: str, counts: Counts) -> float:
        """What a layer takes longer with emptied caches."""
        pieces = self.pieces.of(name, counts)
        return sum(max(self._ms_at(name, piece, COLD) - self._ms_at(name, piece, 0), 0.0) for piece in pieces)

    def _ms_at(self, name: str, piece: Piece, evicted: int) -> float:
        key = (name, piece.kind, piece.shape.in_channels, piece.shape.out_channels, evicted)
        if key not in self._known_ms:
            as_long = piece.filled(self.block)
            self._known_ms[key] = self.table.interpolated(as_long.shape, *as_long.grids, evicted)
        return self._known_ms[key]


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
