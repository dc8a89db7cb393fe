"""Values made smaller inside a network whose scores stay: for arithmetic that ends at 65,504.

Convolutions, linear layers without their bias, ReLU, poolings and sums give s times as much for s times as much. So the
first layers' weights and every bias times s make every value behind them s times as large, until a layer that is
none of these, or the end: there they are put right again. For a power of two the scores are the same bits in float32,
where nothing gets too small for it.
"""

from dataclasses import replace

from torch import Tensor

from slimwright.graph.net import Net, Node, Ref, Value
from slimwright.graph.ops import op_of

KEEP_SCALE = (
    "relu", "leaky_relu", "prelu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "sum", "concat",
    "dropout", "dropout2d", "drop_path", "flatten", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "expand",
    "slice", "select", "gather",
)  # fmt: skip
SUMS = ("add", "sub")


def with_values_scaled(net: Net, scale: float) -> Net:
    """Return a net that gives the same scores from values `scale` times as large inside, where layers allow it."""
    state = _Scaling(net, scale)
    for node in net.nodes:
        state.take(node)
    return net.edited(state.changed, added=list(state.whole.values()), tensors=state.tensors)


class _Scaling:
    """The nodes seen so far: those whose values are scaled, and what that changed."""

    def __init__(self, net: Net, scale: float) -> None:
        self.net, self.scale = net, scale
        self.scaled: set[str] = set()
        self.changed: dict[str, Node] = {}
        self.whole: dict[str, Node] = {}  # values put right again, by the scaled ones
        self.tensors: dict[str, Tensor] = {}

    def take(self, node: Node) -> None:
        """Scale one node's value if it can be, else put right what it reads."""
        last = node.name in self.net.outputs
        scaled = [name in self.scaled for name in node.reads]
        if op_of(node.op).channels == "mix":
            self._layer(node, 1.0 if scaled[0] else self.scale, 1 / self.scale if last else 1.0)
            if not last:
                self.scaled.add(node.name)
        elif any(scaled):
            keeps = node.op in KEEP_SCALE or (node.op in SUMS and isinstance(node.arguments["other"], Ref))
            if keeps and all(scaled) and not last:
                self.scaled.add(node.name)
            else:
                self.changed[node.name] = replace(
                    node, arguments={key: self._right(value) for key, value in node.arguments.items()}
                )

    def _layer(self, node: Node, to_scaled: float, back: float) -> None:
        """Scale a layer's weight by what its input lacks, its bias by the scale of its result."""
        factors = {"weight": to_scaled * back, "bias": self.scale * back}
        names = {role: f"{node.name}_scaled.{role}" for role in node.tensors if factors[role] != 1}
        for role, name in names.items():
            self.tensors[name] = self.net.tensors[node.tensors[role]] * factors[role]
        if names:
            self.changed[node.name] = replace(node, tensors={**node.tensors, **names})

    def _right(self, value: Value) -> Value:
        if isinstance(value, tuple):
            return tuple(self._right(item) for item in value)
        if not isinstance(value, Ref) or value.name not in self.scaled:
            return value
        name = f"{value.name}_whole"
        self.whole[value.name] = Node(name, "mul", {"self": value, "other": 1 / self.scale})
        return Ref(name)
