"""Put a normalization into a net, as its first operations: it then takes levels as they are.

    (level - mean scale) * 1 / (scale std)        the channels in the opposite order before, where that is wanted

Exact up to float32 rounding. The operations stay in front of the first convolution: its padding is zeros, which are the
mean only behind the normalization, so folding them into its weights would change the edges.
"""

from dataclasses import replace

import torch
from torch import Tensor

from slimwright.errors import ModelError
from slimwright.graph import Net
from slimwright.graph.net import Node, Ref
from slimwright.graph.node import renamed

FLIPPED, CENTRED, SCALED = "levels_flipped", "levels_centred", "levels_scaled"


def normalizing(net: Net, mean: Tensor, std: Tensor, scale: float, *, flipped: bool = False) -> Net:
    """Return the net for levels [N, C, H, W]; `mean` and `std` are [C], or [1] for all channels.

    Raises ModelError for a net that does not take images alone.
    """
    source = net.input
    if len(source.shape) != 4:
        raise ModelError(f"the model takes {list(source.shape[1:])}, which is not an image; it cannot take its levels")
    channels = source.shape[1]
    offsets, gains = (value.double().expand(channels).reshape(1, -1, 1, 1) for value in (mean * scale, 1 / std / scale))
    tensors = {f"{CENTRED}.mean": offsets.float(), f"{SCALED}.gain": gains.float()}
    nodes = [_constant(name) for name in tensors]
    before = source.name
    if flipped:
        tensors[f"{FLIPPED}.index"] = torch.arange(channels).flip(0)
        nodes.append(Node(FLIPPED, "gather", {"self": Ref(before), "dim": 1}, {"index": f"{FLIPPED}.index"}))
        before = FLIPPED
    minus, times = (Ref(_constant(name).name) for name in (f"{CENTRED}.mean", f"{SCALED}.gain"))
    nodes += [
        Node(CENTRED, "sub", {"self": Ref(before), "other": minus, "alpha": 1}),
        Node(SCALED, "mul", {"self": Ref(CENTRED), "other": times}),
    ]

    def behind(name: str) -> str:
        return SCALED if name == source.name else name

    readers = {
        name: replace(net[name], arguments={k: renamed(v, behind) for k, v in net[name].arguments.items()})
        for name in net.readers[source.name]
    }
    return net.edited(readers, added=nodes, tensors=tensors)


def _constant(tensor: str) -> Node:
    return Node(tensor.replace(".", "_"), "constant", {}, {"value": tensor})
