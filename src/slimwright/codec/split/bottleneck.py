"""A bottleneck: a linear layer on the phone, whole numbers over the link, a linear layer on the server.

Of a patch x the phone computes z = U^T F^(1/2) (x - mean), where F is the Fisher information and U are the principal
axes of what F^(1/2) makes of patches: the Karhunen-Loeve transform in units of which an error of any component costs
its square over two, in nats. So one step fits them all, and components that vary less than a step come to zero without
being chosen. The server takes the least-squares estimate of x for the z that it has. The layers are a convolution with
the patch as kernel and stride, and a 1x1 convolution whose channels are shuffled to pixels; of a value [N, C], linear
layers. With all components and without rounding, the same values up to float32 rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.codec.split.cuts import Cut, halves
from slimwright.codec.split.moments import Moments
from slimwright.graph.net import Net, Node, Ref, Value

RIDGE = 1e-4  # of the mean eigenvalue: what no gradient pointed at in a few hundred images may matter in others
LEAST = 1e-9  # of the largest variance: components below have none
ENCODED, DECODED = "split_encoder", "split_decoder"


@dataclass(frozen=True)
class Transform:
    """Of the patches [D] of a value to components [R], in the order of their variances [R], and back."""

    patch: int
    encoder: Tensor  # [R, D]
    decoder: Tensor  # [D, R]
    mean: Tensor  # [D]
    variances: Tensor  # [R]

    def kept(self, count: int) -> "Transform":
        """Return the transform with the first components alone."""
        encoder, decoder = self.encoder[:count], self.decoder[:, :count]
        return Transform(self.patch, encoder, decoder, self.mean, self.variances[:count])


def transform_of(moments: Moments) -> Transform:
    """Return the transform that fits moments: every component that varies at all."""
    width = len(moments.mean)
    ridge = RIDGE * torch.trace(moments.fisher) / width
    weights, axes = torch.linalg.eigh(moments.fisher + max(float(ridge), 1e-30) * torch.eye(width, dtype=torch.float64))
    root = axes * weights.clamp(min=0).sqrt() @ axes.T
    variances, turned = torch.linalg.eigh(root @ moments.covariance @ root)
    variances, turned = variances.flip(0), turned.flip(1)
    some = max(int((variances > LEAST * variances[0]).sum()), 1)
    encoder = turned[:, :some].T @ root
    decoder = moments.covariance @ encoder.T / variances[:some].clamp(min=1e-300)
    return Transform(moments.patch, encoder, decoder, moments.mean, variances[:some].clamp(min=0))


def parts(net: Net, cut: Cut, transforms: Sequence[Transform], step: float) -> tuple[Net, Net]:
    """Return the phone's net, which gives components in steps, and the server's, which takes them rounded."""
    phone, server = halves(net, cut)
    for number, (name, transform) in enumerate(zip(cut.values, transforms, strict=True)):
        phone = _with_encoder(phone, name, transform, step, f"{ENCODED}_{number}")
        server = _with_decoder(server, name, transform, step, f"{DECODED}_{number}")
    return phone, server


def _with_encoder(net: Net, name: str, transform: Transform, step: float, called: str) -> Net:
    value = net[name]
    weight = transform.encoder / step
    bias = -(weight @ transform.mean)
    tensors = {f"{called}.weight": weight, f"{called}.bias": bias}
    if len(value.shape) == 4:
        tensors[f"{called}.weight"] = weight.reshape(len(weight), value.shape[1], transform.patch, transform.patch)
    added = _layer(called, name, len(value.shape), transform.patch)
    made = net.edited(added=[added], tensors=_plain(tensors))
    outputs = tuple(called if output == name else output for output in made.outputs)
    return Net(made.nodes, made.tensors, outputs, made.encodings)


def _with_decoder(net: Net, name: str, transform: Transform, step: float, called: str) -> Net:
    value = net[name]
    flat = len(value.shape) == 2
    weight, side = transform.decoder * step, transform.patch
    tensors = {f"{called}.weight": weight if flat else weight[:, :, None, None], f"{called}.bias": transform.mean}
    sizes = () if flat else (value.shape[2] // side, value.shape[3] // side)
    taken = Node(f"{called}_in", "input", shape=(1, weight.shape[1], *sizes), dtype="float32")
    nodes = [_layer(called, taken.name, len(value.shape), 1)]
    if side > 1:
        shuffled: dict[str, Value] = {"self": Ref(called), "upscale_factor": side}
        nodes.append(Node(f"{called}_out", "aten.pixel_shuffle.default", shuffled))
    inputs = [taken if node.name == name else node for node in net.inputs]
    others = [node for node in net.nodes if node.op != "input"]
    whole = Net((*inputs, *others), {**net.tensors, **_plain(tensors)}, net.outputs, net.encodings)
    return whole.edited(removed={name: nodes[-1].name}, added=nodes, tensors=_plain(tensors))


def _layer(called: str, source: str, rank: int, stride: int) -> Node:
    owned = {"weight": f"{called}.weight", "bias": f"{called}.bias"}
    if rank == 2:
        return Node(called, "linear", {"input": Ref(source)}, owned)
    sides: dict[str, Value] = {"stride": (stride, stride), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    return Node(called, "conv2d", {"input": Ref(source), **sides}, owned)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}
