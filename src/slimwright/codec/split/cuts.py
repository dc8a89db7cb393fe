"""Places where a net can be cut in two: what few values, computed so far, all later nodes need.

Between two layers with weights the place with the fewest numbers counts, and of equal ones the last. A place that sends
more numbers than an earlier one is left out: the phone would compute more to send more. The two halves, one behind the
other, compute what the net does, to the bit in torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from slimwright.errors import ModelError
from slimwright.graph.net import Net, checked, without_dead_ends
from slimwright.graph.node import Node
from slimwright.graph.ops import op_of

MOST_VALUES = 3  # that one cut may send


@dataclass(frozen=True)
class Cut:
    """A place behind a node; `values` are sent, and together have so many `numbers` for one image."""

    after: str
    values: tuple[str, ...]
    numbers: int
    layers: int  # with weights, in front of it


def cuts(net: Net) -> tuple[Cut, ...]:
    """Return where a net can be cut, in the order of its nodes. Raises ModelError where it can be cut nowhere."""
    best: dict[int, Cut] = {}
    for cut in _places(net):
        so_far = best.get(cut.layers)
        if so_far is None or cut.numbers <= so_far.numbers:
            best[cut.layers] = cut
    found: list[Cut] = []
    for cut in best.values():
        if not found or cut.numbers <= found[-1].numbers:
            found.append(cut)
    if not found:
        raise ModelError(
            f"this net cannot be split: nowhere do at most {MOST_VALUES} values of floats separate its inputs from its "
            "outputs; run it whole, on the phone or on the server"
        )
    return tuple(found)


def halves(net: Net, cut: Cut) -> tuple[Net, Net]:
    """Return what runs on the phone and what runs on the server; the outputs of the one are the inputs of the other."""
    step = next(place for place, node in enumerate(net.nodes) if node.name == cut.after)
    phone = Net(net.nodes[: step + 1], net.tensors, cut.values, net.encodings)
    inputs = tuple(Node(name, "input", shape=net[name].shape, dtype=net[name].dtype) for name in cut.values)
    owned = tuple(node for node in net.nodes[: step + 1] if op_of(node.op).channels == "parameter")
    server = Net((*inputs, *owned, *net.nodes[step + 1 :]), net.tensors, net.outputs, net.encodings)
    return checked(without_dead_ends(phone)), checked(without_dead_ends(server))


def _places(net: Net) -> Iterator[Cut]:
    """Every place that few values separate from the outputs; at least one layer with weights is on either side."""
    step_of = {node.name: step for step, node in enumerate(net.nodes)}
    last = {name: max((step_of[reader] for reader in readers), default=-1) for name, readers in net.readers.items()}
    weighted = {node.name for node in net.weighted()}
    layers, alive = 0, set[str]()
    for step, node in enumerate(net.nodes):
        if node.name in net.outputs:
            return  # what is behind an output would have to send that, too
        layers += node.name in weighted
        alive = {name for name in alive | {node.name} if last[name] > step}
        sent = [net[name] for name in sorted(alive, key=step_of.__getitem__)]
        sent = [one for one in sent if op_of(one.op).channels != "parameter"]
        if 0 < layers < len(weighted) and 0 < len(sent) <= MOST_VALUES and all(map(_can_be_sent, sent)):
            numbers = sum(prod(one.shape) for one in sent)
            yield Cut(node.name, tuple(one.name for one in sent), numbers, layers)


def _can_be_sent(node: Node) -> bool:
    plain = op_of(node.op).channels not in ("input", "scalar") and node.dtype == "float32"
    return plain and len(node.shape) in (2, 4)
