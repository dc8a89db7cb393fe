"""Exact costs of a network for one image: work, parameters, weight bytes, activation memory.

`work.py` defines multiply-accumulates, elementwise operations and bytes moved; docs/counting.md explains them with an
example, and says why other counters give other numbers.
"""

from dataclasses import dataclass
from typing import Literal

from slimwright.cost.work import work_of
from slimwright.graph.liveness import plan_memory, value_bytes
from slimwright.graph.net import Net, Node
from slimwright.graph.ops import STATE

Kind = Literal["tensor", "non-tensor", "none"]


@dataclass(frozen=True)
class Cost:
    """What a network costs. Counts are exact; `latency_ms` is a measured median. None: not counted, not measured."""

    macs: int
    params: int
    weight_bytes: int
    peak_activation_bytes: int
    latency_ms: float | None = None
    size_bytes: int | None = None  # of the artefact on disk
    energy_mj: float | None = None  # for one image; measured where the device has a counter
    packed_bytes: int | None = None  # of the network as a packed file, .swz
    elementwise_ops: int | None = None
    moved_bytes: int | None = None

    @property
    def intensity(self) -> float | None:
        """Operations per byte moved; None where they were not counted."""
        return None if self.moved_bytes is None else _intensity(self.macs, self.elementwise_ops or 0, self.moved_bytes)


@dataclass(frozen=True)
class LayerCost:
    """What one node costs, exactly."""

    name: str
    op: str
    shape: tuple[int, ...]
    macs: int
    params: int
    weight_bytes: int
    output_bytes: int
    elementwise_ops: int
    moved_bytes: int

    @property
    def intensity(self) -> float:
        """Operations per byte moved, a MAC being two of them; 0 where nothing moves."""
        return _intensity(self.macs, self.elementwise_ops, self.moved_bytes)

    @property
    def kind(self) -> Kind:
        """Whether this is a tensor layer, a non-tensor layer, or nothing that takes time (the image, a view, a size).

        A tensor layer has a weight of two dimensions or more to multiply by: convolution, linear. All others that do
        something are non-tensor layers: pooling, norms, activations, sums. Source: Li et al. 2018 (DeepRebirth, arXiv
        1708.04728). Products of two activations, which their networks do not have, go with the tensor layers.
        """
        if self.macs:
            return "tensor"
        return "non-tensor" if self.moved_bytes else "none"


def count(net: Net) -> Cost:
    """Return the exact costs of a net for one image."""
    layers = count_layers(net)
    trained = {name for node in net.nodes for name in _trained(node)}
    return Cost(
        macs=sum(layer.macs for layer in layers),
        params=sum(net.tensors[name].numel() for name in trained),
        weight_bytes=sum(net.size_bytes(name) for name in net.tensors),
        peak_activation_bytes=plan_memory(net).peak_bytes,
        elementwise_ops=sum(layer.elementwise_ops for layer in layers),
        moved_bytes=sum(layer.moved_bytes for layer in layers),
    )


def count_layers(net: Net) -> list[LayerCost]:
    """Return the exact costs of each node. A weight that several nodes share is counted in each of them."""
    layers = []
    for node in net.nodes:
        work = work_of(net, node)
        layers.append(
            LayerCost(
                name=node.name,
                op=node.op,
                shape=node.shape,
                macs=work.macs,
                params=sum(net.tensors[name].numel() for name in _trained(node)),
                weight_bytes=sum(net.size_bytes(name) for name in node.tensors.values()),
                output_bytes=value_bytes(net, node.name),
                elementwise_ops=work.elementwise_ops,
                moved_bytes=work.moved_bytes,
            )
        )
    return layers


def _trained(node: Node) -> list[str]:
    """Names of the tensors of a node that training changes."""
    return [name for role, name in node.tensors.items() if role not in (*STATE, *node.fixed) and node.op != "constant"]


def _intensity(macs: int, elementwise_ops: int, moved_bytes: int) -> float:
    return (2 * macs + elementwise_ops) / moved_bytes if moved_bytes else 0.0
