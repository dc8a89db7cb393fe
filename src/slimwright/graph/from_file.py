"""What is checked of a net that came from a file, before anything is done with it.

That its operators are allowed and its shapes fit one image is checked while it is read (`allowed.py`, `inference.py`).
Here: its shapes fit two images as well, its values fit into memory, and each of its nodes computes. Kernels refuse what
shapes do not show, such as a dtype or an index, so every node is called once, on zeros. One that would take long is
left out, and gives zeros.
"""

import torch
from torch import Tensor

from slimwright.errors import ModelError
from slimwright.graph.allowed import ALLOWED, work
from slimwright.graph.inference import INPUT_DTYPES, call_of, inferred
from slimwright.graph.liveness import plan_memory
from slimwright.graph.net import Net, Node, called
from slimwright.graph.ops import OPS, op_of

MOST_BYTES = 2**30  # of the values of one image that are live at once, besides
MOST_TIMES = 64  # the bytes of the weights
TRIED_BYTES = 2**27  # of a net whose nodes are called
TRIED_WORK = 10**9  # operations of all calls: about a second
IMAGES = 2


def unlisted(net: Net) -> tuple[str, ...]:
    """The operators of a net that a file may not name."""
    ops = dict.fromkeys(node.op for node in net.nodes)
    return tuple(op for op in ops if op not in OPS and op.removeprefix("aten.") not in ALLOWED)


def admitted(net: Net) -> Net:
    """Return a net that came from a file, once it is known to run. Raises ModelError, naming the node and the fault."""
    for name in net.outputs:
        if net[name].dtype == "tuple" or op_of(net[name].op).channels == "scalar":
            raise ModelError(f"the net returns '{name}', which is not a tensor; it must return tensors only")
    peak = plan_memory(net).peak_bytes
    most = MOST_BYTES + MOST_TIMES * sum(net.size_bytes(name) for name in net.tensors)
    if peak > most:
        raise ModelError(
            f"the net needs {peak / 1e6:.0f} MB for the values of one image, and one with its weights may need "
            f"{most / 1e6:.0f} MB; give it smaller inputs"
        )
    nodes = inferred(net.nodes, net.tensors, images=IMAGES)
    if peak <= TRIED_BYTES:
        _try(net, nodes)
    return net


@torch.no_grad()
def _try(net: Net, nodes: tuple[Node, ...]) -> None:
    """Call each node on what zeros make of it; `nodes` have the shapes for as many images."""
    last = {name: place for place, node in enumerate(nodes) for name in node.reads}
    values: dict[str, Tensor] = {}
    left = TRIED_WORK
    for place, node in enumerate(nodes):
        foreseen = torch.empty(node.shape, dtype=_dtype(node), device="meta") if node.dtype != "tuple" else None
        effort = work(*call_of(node, net.tensors, values.__getitem__), foreseen)
        if node.op == "input" or (foreseen is not None and effort > left):
            values[node.name] = torch.zeros(node.shape, dtype=_dtype(node))
        else:
            left -= effort
            values[node.name] = called(net, node, values)
        for name in node.reads:
            if last[name] == place:
                values.pop(name, None)


def _dtype(node: Node) -> torch.dtype:
    return INPUT_DTYPES.get(node.dtype) or getattr(torch, node.dtype)
