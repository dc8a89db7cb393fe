"""What could be done without in a network, to be timed: the network with one kind of layer left out or made plain.

A swapped network computes something else; it only answers what the layers cost where it runs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from slimwright.graph import Net
from slimwright.graph.net import Node
from slimwright.graph.ops import op_of

LEFT_OUT: Mapping[str, str] = {  # op -> what its layers are called
    "lrn": "local response norms",
    "layer_norm": "layer norms",
    "group_norm": "group norms",
    "rms_norm": "RMS norms",
}
MADE_PLAIN: Mapping[str, str] = {  # op -> what it is called; ReLU in its place is computed inside the layer before it
    "hardswish": "hard swish",
    "hardsigmoid": "hard sigmoids",
    "silu": "swish",
    "gelu": "GELU",
    "mish": "Mish",
    "elu": "ELU",
    "prelu": "PReLU",
    "leaky_relu": "leaky ReLU",
    "tanh": "tanh",
}
VIEWS, TURNS = ("reshape", "flatten", "squeeze", "unsqueeze"), ("transpose", "permute")


@dataclass(frozen=True)
class Swap:
    """A network with something left out or made plain; `nodes` are the layers in question, by name."""

    name: str  # "without its local response norms", "with ReLU for GELU"
    advice: str
    nodes: tuple[str, ...]
    net: Net


def swaps_of(net: Net) -> tuple[Swap, ...]:
    """Return every swap that a network offers."""
    return tuple(_swaps(net))


def _swaps(net: Net) -> Iterator[Swap]:
    for op, called in LEFT_OUT.items():
        if names := _of(net, op):
            without = net.edited(removed={name: net[name].source for name in names})
            yield Swap(
                f"without its {called}", "batch norm in their place folds into the layers before", names, without
            )
    for op, called in MADE_PLAIN.items():
        if names := _of(net, op):
            plain = {name: _relu(net[name]) for name in names}
            advice = f"train with ReLU in the place of {called}: it is computed inside the layer before"
            yield Swap(f"with ReLU for {called}", advice, names, net.edited(plain))
    if shuffles := _shuffles(net):
        gone = {step: chain[0] for chain in shuffles.values() for step in chain[1:]}
        advice = "a 1x1 convolution without groups needs no shuffle behind it"
        yield Swap("without its channel shuffles", advice, tuple(shuffles), net.edited(removed=gone))


def _of(net: Net, op: str) -> tuple[str, ...]:
    return tuple(node.name for node in net.nodes if node.op == op)


def _relu(node: Node) -> Node:
    value = next(iter(node.arguments.values()))
    return Node(node.name, "relu", {"self": value})


def _shuffles(net: Net) -> dict[str, tuple[str, ...]]:
    """Channel shuffles by their last node: the value that is shuffled, then the view, the turn and the view back."""
    found = {}
    for node in net.nodes:
        chain = _back(net, node, (_is(VIEWS), _is(TURNS), _is(VIEWS)))
        if chain and net[chain[0]].shape == node.shape and len(node.shape) == 4:
            split, turned = (net[step].shape for step in chain[1:3])
            if len(split) == 5 and split[3:] == node.shape[2:] and turned == (1, split[2], split[1], *split[3:]):
                found[node.name] = chain
    return found


def _is(ops: tuple[str, ...]) -> Callable[[Node], bool]:
    return lambda node: node.op in ops and op_of(node.op).channels == "move"


def _back(net: Net, last: Node, steps: tuple[Callable[[Node], bool], ...]) -> tuple[str, ...]:
    """The value that a chain of nodes starts from and the chain, if each has one reader; else nothing."""
    chain = [last]
    for fits in steps:
        node = chain[0]
        if not fits(node) or len(node.reads) != 1:
            return ()
        chain.insert(0, net[node.source])
    alone = all(len(net.readers[node.name]) == 1 for node in chain[1:-1])
    return tuple(node.name for node in chain) if alone else ()
