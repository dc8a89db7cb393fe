"""Ridge least squares for the weights of one layer, from what it reads and what it shall give.

    min_W,b  E |W x + b - y|^2 + r |W - W0|^2,    r = RIDGE x mean variance of x

The covariance of x is factorised once, in float64, so that each further wish y costs one pass over the images. Where
x says nothing about a direction, the weights stay what they were.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from slimwright.evidence import columns
from slimwright.graph.net import Net, Node

RIDGE = 3e-3


class LayerRidge:
    """The least-squares problem of one convolution or linear layer on fixed inputs, batch by batch."""

    def __init__(self, net: Net, node: Node, inputs: Sequence[Tensor]) -> None:
        self._net, self._node, self._inputs = net, node, inputs
        self._groups = int(str(node.arguments.get("groups", 1)))
        size = net.tensors[node.tensors["weight"]][0].numel()
        gram = torch.zeros(self._groups, size, size, dtype=torch.float64)
        total = torch.zeros(self._groups, size, dtype=torch.float64)
        self._count = 0
        for batch in inputs:
            x = columns(net, node, batch).transpose(0, 1)  # [G, P, D]
            gram += torch.matmul(x.transpose(1, 2), x)
            total += x.sum(1)
            self._count += x.shape[1]
        self._mean = total / self._count  # [G, D]
        self._covariance = gram / self._count - self._mean[:, :, None] * self._mean[:, None, :]
        ridge = RIDGE * self._covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        damped = self._covariance + ridge[:, None, None] * torch.eye(size, dtype=torch.float64)
        self._factor = torch.linalg.cholesky(damped)

    def solve(self, wanted: Sequence[Tensor], start: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight [O, D] and bias [O] for the outputs `wanted`, W0 being `start` [O, D]."""
        before = start.double().reshape(self._groups, -1, start.shape[1])  # [G, O/G, D]
        cross = torch.zeros_like(before)
        total = torch.zeros(before.shape[:2], dtype=torch.float64)
        for batch, wish in zip(self._inputs, wanted, strict=True):
            x = columns(self._net, self._node, batch).transpose(0, 1)  # [G, P, D]
            y = wish.movedim(1, -1) if self._node.op == "conv2d" else wish
            y = y.reshape(-1, self._groups, before.shape[1]).transpose(0, 1)  # [G, P, O/G]
            cross += torch.matmul(y.transpose(1, 2), x)
            total += y.sum(1)
        mean = total / self._count
        covariance = cross / self._count - mean[:, :, None] * self._mean[:, None, :]
        unexplained = covariance - before @ self._covariance  # by W0
        weight = before + torch.cholesky_solve(unexplained.transpose(1, 2), self._factor).transpose(1, 2)
        bias = mean - (weight @ self._mean[:, :, None])[:, :, 0]
        return weight.reshape(start.shape).float(), bias.reshape(-1).float()
