"""Exact counts: multiply-accumulates, parameters, weight bytes, activation bytes.

1 MAC = one multiply and one add of a convolution or a linear layer. Biases, batch norms and activations are not
MACs; they are elementwise work and show in the bytes. All counts are for one image.
"""

import math
from dataclasses import dataclass

from slimwright.graph.liveness import plan_memory, value_bytes
from slimwright.graph.net import Net, Node
from slimwright.graph.ops import OPS


@dataclass(frozen=True)
class Cost:
    """What a network costs. Counts are exact; `latency_ms` is a measured median, or None where it was not measured."""

    macs: int
    params: int
    weight_bytes: int
    peak_activation_bytes: int
    latency_ms: float | None = None
    size_bytes: int | None = None  # of the artefact on disk


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


def count(net: Net) -> Cost:
    """Return the exact costs of a net for one image."""
    layers = count_layers(net)
    params = sum(net.tensors[name].numel() for name in _parameters(net))
    return Cost(
        macs=sum(layer.macs for layer in layers),
        params=params,
        weight_bytes=sum(t.numel() * t.element_size() for t in net.tensors.values()),
        peak_activation_bytes=plan_memory(net).peak_bytes,
    )


def count_layers(net: Net) -> list[LayerCost]:
    """Return the exact costs of each node. A weight that several nodes share is counted in each of them."""
    return [
        LayerCost(
            name=node.name,
            op=node.op,
            shape=node.shape,
            macs=macs(net, node),
            params=sum(net.tensors[t].numel() for role, t in node.tensors.items() if not role.startswith("running_")),
            weight_bytes=sum(net.tensors[t].numel() * net.tensors[t].element_size() for t in node.tensors.values()),
            output_bytes=value_bytes(net, node.name),
        )
        for node in net.nodes
    ]


def macs(net: Net, node: Node) -> int:
    """Return the multiply-accumulates of one node: output positions x weights that each of them reads."""
    if OPS[node.op].channels != "mix":
        return 0
    weight = net.tensors[node.tensors["weight"]]
    outputs = math.prod(node.shape)
    return int(outputs * weight[0].numel())  # conv: C_in/groups x kH x kW; linear: C_in


def _parameters(net: Net) -> set[str]:
    return {t for node in net.nodes for role, t in node.tensors.items() if not role.startswith("running_")}
