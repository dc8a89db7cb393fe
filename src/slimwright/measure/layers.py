"""The layers and the memory of two networks side by side, all counted exactly."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from slimwright.cost import count_layers
from slimwright.graph import Net, plan_memory
from slimwright.measure.bundle import Layer, Memory


def layers_of(before: Net, after: Net) -> list[Layer]:
    """The weighted layers of two nets side by side; what a layer was factorised into counts as that layer."""
    old, new = ({layer.name: layer for layer in count_layers(net)} for net in (before, after))
    known, found = {node.name for node in before.weighted()}, []
    for node in before.weighted():
        parts = [new[name] for name in _parts(after, node.name, known)]
        found.append(
            Layer(
                name=before.paths[node.name],
                op=node.op,
                channels_before=before.tensors[node.tensors["weight"]].shape[0],
                channels_after=after.tensors[after[node.name].tensors["weight"]].shape[0],
                macs_before=old[node.name].macs,
                macs_after=sum(part.macs for part in parts),
                weight_bytes_before=old[node.name].weight_bytes,
                weight_bytes_after=sum(part.weight_bytes for part in parts),
                output_bytes_before=old[node.name].output_bytes,
                output_bytes_after=new[node.name].output_bytes,
            )
        )
    return found


def _parts(net: Net, name: str, known: AbstractSet[str]) -> Iterator[str]:
    """A layer, and those right before it that are not of the original."""
    yield name
    weighted = {node.name for node in net.weighted()} - known
    while (name := net[name].source) in weighted:
        yield name


def memory_of(net: Net) -> Memory:
    """Live activation bytes over the run of a net."""
    return Memory(nodes=[net.paths[node.name] for node in net.nodes], live_bytes=list(plan_memory(net).live_bytes))
