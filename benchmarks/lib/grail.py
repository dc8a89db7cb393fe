"""GRAIL (Tang et al. 2026, arXiv 2602.23795), written anew from the paper and from what its authors' code computes.

Channels go by a selector, the same share of every group, residual streams among them. Each layer that read them then
reconstructs all channels from those that are left. With G the Gram matrix over the channels of what the layer reads in
the original on calibration images (every pixel a sample, not centred) and P the channels that are left:

    B  = G[:, P] (G[P, P] + ridge * mean diagonal of G[P, P] * I)^-1      [C_in, channels left]
    W' = W B                                                              the same B for every tap of a kernel

There are no gradients, no labels and no new biases. Each map is fitted on the original alone, so errors of the layers
in front are not carried on; a sum of branches is not repaired, only its readers are. A depthwise convolution mixes no
channels: it is cut, and the layer behind it reconstructs. The authors estimate batch norms again afterwards.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimwright.coupling import Coupling, couple, cut
from slimwright.coupling.channels import ChannelGroup
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.importance import scores
from slimwright.techniques.prune import Removal

Grams: TypeAlias = Mapping[str, Tensor]  # by layer: [C_in, C_in] in float64
Scores: TypeAlias = dict[str, NDArray[np.float64]]  # by group: [size], higher for channels that stay longer
SELECTORS = ("L1", "L2", "Wanda", "our order")
RIDGES = (1e-4, 1e-3, 1e-2)  # the authors' code has 1e-3
BATCH = 64
DEAD = 1e-12  # keeps the ridge above zero where all channels left are dead


def input_grams(net: Net, images: Tensor) -> dict[str, Tensor]:
    """Return the Gram matrix of what each dense layer reads when the net sees the images [N, C, H, W]."""
    module = net.to_module().to(images.device)
    layers = [node for node in net.weighted() if int(str(node.arguments.get("groups", 1))) == 1]
    sums: dict[str, Tensor] = {}

    def adding(path: str, *, channels_first: bool) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].movedim(1, -1) if channels_first else inputs[0]
            samples = values.flatten(0, -2).double()  # [samples, C_in]
            sums[path] = sums.get(path, 0) + samples.T @ samples

        return add

    for path, node in {net.paths[node.name]: node for node in layers}.items():
        hook = adding(path, channels_first=node.op != "linear")
        module.get_submodule(path).register_forward_pre_hook(hook)
    with torch.no_grad():
        for batch in images.split(BATCH):
            module(batch)
    return {node.name: sums[net.paths[node.name]].cpu() for node in layers}


def channel_scores(
    net: Net, coupling: Coupling, selector: str, *, grams: Grams, orders: Mapping[str, Removal]
) -> Scores:
    """Return how important each channel of each group is by one of SELECTORS; "our order" is slimwright's `orders`."""
    if selector in ("L1", "L2"):
        return scores(net, coupling, "l1" if selector == "L1" else "l2")
    if selector == "Wanda":
        found = {group.name: wanda_scores(net, group, grams) for group in coupling.groups}
        return {name: score for name, score in found.items() if score is not None}
    return {name: np.argsort(order.order).astype(np.float64) for name, order in orders.items()}


def wanda_scores(net: Net, group: ChannelGroup, grams: Grams) -> NDArray[np.float64] | None:
    """Return sum |w| * norm of what it multiplies (after Sun et al. 2024, arXiv 2306.11695) for each row that writes.

    Over the mean of the layer, and averaged over the layers that write the group; None where none does.
    """
    found = []
    for place in group.of("out"):
        node = net[place.node]
        if node.name in grams:
            weight = net.tensors[node.tensors["weight"]].detach().double().abs()
            rows = weight.reshape(*weight.shape[:2], -1).sum(2) @ grams[node.name].diagonal().sqrt()  # [C_out]
            found.append((rows / rows.mean().clamp_min(DEAD))[torch.from_numpy(place.positions)].mean(1))
    return torch.stack(found).mean(0).numpy() if found else None


def inner_groups(coupling: Coupling) -> set[str]:
    """Names of the groups that one layer alone writes: no sum of branches joins them."""
    return {group.name for group in coupling.groups if sum(1 for _ in group.of("out")) == 1}


def compensated(net: Net, coupling: Coupling, keep: Mapping[str, NDArray[np.int64]], grams: Grams, ridge: float) -> Net:
    """Return the net with only the channels `keep` of each group, its readers' weights times their reconstructions."""
    small, alive = cut(net, keep, coupling), coupling.alive(keep)
    tensors: dict[str, Tensor] = {}
    for name, gram in grams.items():
        if (name, "in") not in coupling.places:
            continue
        left = torch.from_numpy(alive[coupling.places[name, "in"]])  # [C_in]
        if bool(left.all()):
            continue
        weight = net.tensors[net[name].tensors["weight"]].detach().double()
        if (name, "out") in coupling.places:
            weight = weight[torch.from_numpy(alive[coupling.places[name, "out"]])]
        mixed = torch.einsum("oi...,ik->ok...", weight, reconstruction(gram, left, ridge))
        tensors[small[name].tensors["weight"]] = mixed.to(small.tensors[small[name].tensors["weight"]].dtype)
    return small.edited(tensors=tensors)


def reconstruction(gram: Tensor, left: Tensor, ridge: float) -> Tensor:
    """Return B [C, channels left]: all channels are nearest to B times those where `left` [C] is true."""
    inner = gram[left][:, left]
    lifted = inner + ridge * (inner.diagonal().mean() + DEAD) * torch.eye(len(inner), dtype=inner.dtype)
    mixing: Tensor = torch.linalg.solve(lifted, gram[left]).T
    return mixing


def self_check() -> float:
    """Compensate a small net whose answer is known; return the largest error of its scores over the largest score.

    With nothing removed the net must be the same, weight by weight. Where every removed channel is an exact duplicate
    of one that is left, only the ridge is between the net and its original, while the cut alone is far from it.
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    ).eval()
    first = model[0]
    assert isinstance(first, nn.Conv2d) and first.bias is not None
    for tensor in (first.weight, first.bias):
        tensor.data[4:] = tensor.data[:4]
    images = torch.randn(16, 3, 12, 12)
    net = capture(model, (3, 12, 12))
    coupling, grams = couple(net), input_grams(net, images)
    name = coupling.groups[0].name
    assert coupling.groups[0].size == 8

    def error(small: Net) -> float:
        with torch.no_grad():
            wanted, got = net.to_module()(images), small.to_module()(images)
        return float((got - wanted).abs().max() / wanted.abs().max())

    whole, half = {name: np.arange(8)}, {name: np.array([0, 2, 5, 7])}  # one of each pair
    assert compensated(net, coupling, whole, grams, RIDGES[1]).digest == net.digest, "nothing removed, yet changed"
    assert error(cut(net, half, coupling)) > 0.05, "the check cannot fail"
    found = error(compensated(net, coupling, half, grams, 1e-8))
    assert found <= 1e-5, f"duplicates removed, yet the scores are off by {found:.1e}"
    return found
