"""Values on levels: whole numbers times a scale, as layers that compute with integers read and give them."""

from dataclasses import dataclass

from slimwright.graph.net import Net
from slimwright.graph.node import Node, Ref

LEVELS = "fake_quantize"  # the op that rounds a value to its levels


@dataclass(frozen=True)
class Levels:
    """Levels from `least` to `most`, `scale` apart; level `zero` is 0.0."""

    scale: float
    zero: int
    least: int
    most: int

    @classmethod
    def of(cls, node: Node) -> "Levels":
        """Return the levels that a `fake_quantize` rounds to."""
        scale, *whole = (float(str(node.arguments[key])) for key in ("scale", "zero_point", "quant_min", "quant_max"))
        return cls(scale, *map(int, whole))

    @property
    def ends(self) -> tuple[float, float]:
        """The values of the first and the last level."""
        return (self.least - self.zero) * self.scale, (self.most - self.zero) * self.scale

    def node(self, name: str, value: str) -> Node:
        """Return the node that rounds a value to these levels."""
        how = {"scale": self.scale, "zero_point": self.zero, "quant_min": self.least, "quant_max": self.most}
        return Node(name, LEVELS, {"self": Ref(value), **how})


def has_levels(net: Net) -> bool:
    """True for a net some of whose values stand on levels."""
    return any(node.op == LEVELS for node in net.nodes)


def without_levels(net: Net) -> Net:
    """Return the net whose values may be any number: the same one but for every `fake_quantize`."""
    removed = {node.name: node.source for node in net.nodes if node.op == LEVELS}
    return net.edited(removed=removed) if removed else net
