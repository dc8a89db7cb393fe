"""Chains of operators that are one layer.

Local response normalisation has no ATen operator: torch computes it as a square, an average over neighbouring
channels (by a pooling over an extra dimension), a power and a division. Found again by that chain, it becomes one
`lrn` node, as runtimes have it. Same function with the same kernels. `spelled.py` goes the other way.
"""

from slimwright.graph.net import Net, Node, Ref, without_dead_ends


def with_lrn(net: Net) -> Net:
    """Return the net with every local response normalisation as one node, or the same net if there is none."""
    found = {node.name: layer for node in net.nodes if (layer := _lrn(net, node)) is not None}
    if not found:
        return net
    return without_dead_ends(net.edited(found))


def _lrn(net: Net, last: Node) -> Node | None:
    """The `lrn` node that stands for the chain which ends in `last`."""
    chain = _chain(net, last)
    if chain is None:
        return None
    square, pad, pool, scaled, moved, power = chain
    size = pool.arguments["kernel_size"][0]  # type: ignore[index]
    around = (0, 0, 0, 0, size // 2, (size - 1) // 2)  # type: ignore[operator]
    exact = (
        pool.arguments["kernel_size"] == (size, 1, 1)
        and pool.arguments["stride"] in ((1, 1, 1), (1,))
        and pool.arguments["padding"] in ((0, 0, 0), (0,))
        and pool.arguments["count_include_pad"]
        and pool.arguments["divisor_override"] is None
        and pad.arguments["pad"] == around
        and not pad.arguments.get("value")
        and len(last.shape) == 4
    )
    knobs = {
        "size": size,
        "alpha": _number(scaled.arguments["other"]),
        "beta": _number(power.arguments["exponent"]),
        "k": _number(moved.arguments["other"]),
    }
    if not exact or any(value is None for value in knobs.values()):
        return None
    return Node(last.name, "lrn", {"input": Ref(square.source), **knobs})


CHAIN = (  # from the last to the first
    "aten.pow.Tensor_Scalar", "add", "mul", "reshape", "squeeze", "aten.avg_pool3d.default", "pad", "reshape", "mul",
)  # fmt: skip


def _chain(net: Net, last: Node) -> tuple[Node, ...] | None:
    """Square, padding, pooling, scale, shift and power of a normalisation, seen from its division."""
    if last.op != "aten.div.Tensor" or len(last.reads) != 2:
        return None
    nodes = []
    node = net[last.reads[1]]
    for op in CHAIN:
        if node.op != op and not (op == "pad" and node.op in ("aten.pad.default", "aten.constant_pad_nd.default")):
            return None
        nodes.append(node)
        node = net[node.reads[0]]
    power, moved, scaled, _, _, pool, pad, _, square = nodes
    if square.reads != (last.reads[0], last.reads[0]) or any(len(n.reads) != 1 for n in nodes[:-1]):
        return None
    return square, pad, pool, scaled, moved, power


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
