"""What a layer of a draft is to become, by hand: behind a stem that has lost some of its channels."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from example_nets import SHAPE
from slimwright.evidence import columns
from slimwright.graph import Net
from slimwright.graph.net import Node
from slimwright.techniques.fold import affine
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.ridge import LayerRidge

INF = float("inf")
Values = Callable[[str], Tensor]


def pictures(count: int = 100, seed: int = 1) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def values_of(net: Net, images: Tensor | None = None) -> Values:
    """What a node of the net gives for the calibration images."""
    given = pictures() if images is None else images
    return lambda name: Net(net.nodes, net.tensors, (name,)).to_module()(given).detach()


def broken(net: Net) -> Draft:
    """The stem without half of its channels; what it gives stands for nothing any more, so it stays so."""
    stem = next(net.weighted())
    weight = net.tensors[stem.tensors["weight"]].clone()
    weight[::2] = 0
    return Draft.of(net).changed(net.edited(tensors={stem.tensors["weight"]: weight}), {stem.name: None, "relu": None})


def least_squares(net: Net, node: Node, x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The weights [O, D] and bias of a layer that reads `x`, from those that it has."""
    start = net.tensors[node.tensors["weight"]].flatten(1)
    read = columns(net, node, x)  # [P, G, D]
    ridge = LayerRidge(read.permute(1, 2, 0).contiguous(), len(x))
    goal = wanted.movedim(1, -1).reshape(-1, wanted.shape[1]).T  # [O, P]
    weight = start + ridge.change(goal - ridge.outputs(start))
    return weight, goal.mean(1) - ridge.level(weight)


def layer(net: Net, path: str) -> Node:
    return next(node for node in net.nodes if net.paths[node.name] == path)


def bounded(net: Net, name: str, low: float, high: float) -> Net:
    """The net with another activation in place of a sigmoid: one that gives the same below `low`, and above `high`."""
    node = net[name]
    if (low, high) == (-INF, INF):
        return net
    if (low, high) == (0, INF):
        return net.edited({name: replace(node, op="relu")})
    bounds = {"min_val": low, "max_val": high}
    return net.edited({name: replace(node, op="hardtanh", arguments={**node.arguments, **bounds})})


def affine_of(net: Net) -> tuple[Tensor, Tensor]:
    """Scale and shift of the net's batch norm, [C, 1, 1] each; 1 and 0 where it has none."""
    if "batch_norm" not in net.readers:
        return torch.ones(()), torch.zeros(())
    scale, shift = affine(net, net["batch_norm"])
    return scale[:, None, None].float(), shift[:, None, None].float()
