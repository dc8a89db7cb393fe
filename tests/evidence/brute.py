"""What evidence must be, the slow way: one image, one node and one position at a time, in float64."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from slimwright.data import Batch, labelled
from slimwright.evidence import Evidence, LayerSums
from slimwright.graph import Net
from slimwright.graph.net import Node

ROLES = tuple(LayerSums.__dataclass_fields__)


class Recorded(fx.Interpreter):
    """Runs a module and keeps what every node gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Tensor:
        result: Tensor = super().run_node(n)
        self.values[n.name] = result
        return result


def brute_force(net: Net, batches: Iterable[Batch], *, classes: int, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Every layer's sums, by role, for classes on their own."""
    module = net.to_module().double()
    of = dict(zip((node.name for node in net.nodes), (n.name for n in module.graph.nodes), strict=False))
    sums: dict[str, dict[str, Tensor]] = {}
    for number, batch in enumerate(batches):
        images, labels = labelled(batch)
        numbers = np.random.default_rng([seed, number]).random(len(labels))
        for image, label, drawn_by in zip(images, labels.tolist(), numbers, strict=True):
            run = Recorded(module)
            scores = run.run(image[None].double().requires_grad_())
            drawn = int((scores[0].softmax(0).cumsum(0) < drawn_by).sum())
            losses = [F.cross_entropy(scores, torch.tensor([target])) for target in (label, drawn)]
            for node in net.weighted():
                read, made = run.values[of[node.source]], run.values[of[node.name]]
                by_read, by_made = (
                    torch.autograd.grad(loss, value, retain_graph=True)[0]
                    for loss, value in zip(losses, (read, made), strict=True)
                )
                found = one_image(net, node, read.detach()[0], made.detach()[0], by_read[0], by_made[0])
                for role, value in found.items():
                    layer = sums.setdefault(net.layer_called[node.name], {})
                    into = layer.setdefault(role, torch.zeros(classes, *value.shape).double())
                    into[label] += value
    return sums


def one_image(net: Net, node: Node, read: Tensor, made: Tensor, by_read: Tensor, by_made: Tensor) -> dict[str, Tensor]:
    """What one image adds, from what a layer reads and makes of it and the gradients of both."""
    channel = 0 if node.op == "conv2d" else read.ndim - 1
    others = [d for d in range(read.ndim) if d != channel]
    seen = torch.stack(positions(net, node, read, made))  # [P, G, D]
    return {
        "count": torch.tensor(len(seen)),
        "total": seen.sum(0),
        "gram": sum((row[:, :, None] * row[:, None, :] for row in seen), torch.zeros(1).double()),
        "magnitude": summed(read.abs(), others),
        "places": torch.tensor(read.numel() // read.shape[channel]),
        "fisher": summed(by_made.square(), others),
        "zeros": summed((read == 0).double(), others),
        "taylor": summed(read * by_read, others).abs(),
    }


def summed(x: Tensor, dims: list[int]) -> Tensor:
    return x.sum(dims) if dims else x


def positions(net: Net, node: Node, read: Tensor, made: Tensor) -> list[Tensor]:
    """What each output position reads, [G, D]."""
    if node.op == "linear":
        return [row[None] for row in read.reshape(-1, read.shape[-1])]
    layer = net.module_of(node)
    assert isinstance(layer, torch.nn.Conv2d)
    (tall, wide), (down, across), (apart, aside) = layer.kernel_size, layer.stride, layer.dilation
    if layer.padding == "same":
        top, left = apart * (tall - 1) // 2, aside * (wide - 1) // 2
    else:
        top, left = (0, 0) if layer.padding == "valid" else (int(size) for size in layer.padding)
    x = torch.zeros(read.shape[0], read.shape[1] + 40, read.shape[2] + 40).double()
    x[:, top : top + read.shape[1], left : left + read.shape[2]] = read
    found = []
    for i in range(made.shape[1]):
        for j in range(made.shape[2]):
            rows = [i * down + k * apart for k in range(tall)]
            places = [j * across + k * aside for k in range(wide)]
            found.append(x[:, rows][:, :, places].reshape(layer.groups, -1))
    return found


def assert_agrees(seen: Evidence, wanted: dict[str, dict[str, Tensor]], tolerance: float = 1e-5) -> None:
    """Every sum, to a tolerance relative to the largest of its kind in its layer; counts exactly."""
    assert seen.layers.keys() == wanted.keys()
    for name, sums in seen.layers.items():
        for role in ROLES:
            got, expected = getattr(sums, role), wanted[name][role]
            assert got.shape == expected.shape and got.dtype == torch.float64, (name, role)
            allowed = 0.0 if role in ("count", "places", "zeros") else tolerance * float(expected.abs().max())
            assert float((got - expected).abs().max()) <= allowed, (name, role)
