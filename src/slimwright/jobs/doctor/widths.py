"""Which layers take more time than their work explains, and which widths cost nothing more when they are rounded up.

All of it comes from single layers, measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from slimwright.cost import count_layers
from slimwright.cost.latency import LayerShape, shape_of, with_channels
from slimwright.graph import Net

STEP = 8  # channels that kernels take at once: eight floats fill a 256-bit register, two of them four each on ARM


@dataclass(frozen=True)
class Kind:
    """Layers of one kind: their shares of the multiply-accumulates, and of the time of all such layers."""

    name: str
    nodes: tuple[str, ...]
    mac_share: float
    time_share: float


@dataclass(frozen=True)
class Rounded:
    """A layer as it is and with channels rounded up to `STEP`, in milliseconds; several may have one shape."""

    nodes: tuple[str, ...]
    before: LayerShape
    after: LayerShape
    before_ms: float
    after_ms: float


def shapes_to_time(net: Net) -> list[LayerShape]:
    """Return the shapes of a network's layers, and those that come of rounding channels up, each once."""
    shapes = list(_shapes(net))
    return list(dict.fromkeys([*shapes, *(up for shape in shapes if (up := rounded_up(shape, net)) != shape)]))


def rounded_up(shape: LayerShape, net: Net) -> LayerShape:
    """Return the shape with its channels rounded up to `STEP`; images and classes keep their number.

    Convolutions in groups of several channels stay as they are.
    """
    if 1 < shape.groups < shape.in_channels:
        return shape
    image, classes = net.input.shape[1], net[net.outputs[0]].shape[-1]
    inputs = shape.in_channels if shape.in_channels == image else -(-shape.in_channels // STEP) * STEP
    outputs = shape.out_channels if shape.out_channels == classes else -(-shape.out_channels // STEP) * STEP
    return with_channels(shape, inputs, outputs)


def kinds(net: Net, times: Mapping[LayerShape, float]) -> list[Kind]:
    """Return the kinds of layers that a network has, with the time that they take, layer by layer."""
    macs = {cost.name: cost.macs for cost in count_layers(net)}
    shapes = {name: shape for shape, names in _shapes(net).items() for name in names}
    named: dict[str, list[str]] = {}
    for node in net.weighted():
        named.setdefault(_kind(shapes[node.name]), []).append(node.name)
    work = sum(macs[name] for name in shapes)
    spent = sum(times[shape] for shape in shapes.values())
    return [
        Kind(
            kind,
            tuple(names),
            sum(macs[name] for name in names) / work,
            sum(times[shapes[name]] for name in names) / spent,
        )
        for kind, names in named.items()
    ]


def roundings(net: Net, times: Mapping[LayerShape, float]) -> list[Rounded]:
    """Return what rounding channels up makes of each shape that has others, the largest gain first."""
    found = [
        Rounded(tuple(names), shape, up, times[shape], times[up])
        for shape, names in _shapes(net).items()
        if (up := rounded_up(shape, net)) != shape
    ]
    return sorted(found, key=lambda each: (each.after_ms - each.before_ms) * len(each.nodes))


def _shapes(net: Net) -> dict[LayerShape, list[str]]:
    found: dict[LayerShape, list[str]] = {}
    for node in net.weighted():
        found.setdefault(shape_of(net, node), []).append(node.name)
    return found


def _kind(shape: LayerShape) -> str:
    if shape.op == "linear":
        return "linear layers"
    size = "x".join(map(str, shape.kernel))
    if shape.groups == 1:
        return f"{size} convolutions"
    if shape.groups < shape.in_channels:
        return f"{size} convolutions in groups"
    return f"depthwise {size} convolutions"
