"""Observe once: sums over calibration images from which every rewrite is planned, and most are solved.

For the input of each weighted layer, per class: how many positions were seen, their sum and their second-moment
(Gram) matrix over input channel x kernel tap. For each channel of such an input, per class: the sum of |x| over images
(DropNet's score, Tan and Motani 2020). For each weighted layer's output channel: the mean squared gradient of the loss,
with labels drawn from the network's own scores, so that an output error e costs about 1/2 F e^2 nats (the diagonal of
the Fisher information; Martens 2020, arXiv 1412.1193, sec. 5).

All are sums in float64, so evidence over any set of classes is a sum of what was kept: `of(classes)` touches no data.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimwright.data import Batch
from slimwright.errors import DataError
from slimwright.graph.net import Net, Node
from slimwright.graph.store import replacing
from slimwright.progress import Event, Tell, silent

MOST_TAPS = 4608  # 512 channels of 3x3: a Gram matrix of 170 MB; wider layers are not observed


@dataclass(frozen=True)
class LayerSums:
    """Sums over what one layer reads: K classes, G groups of D taps each, C input channels, O outputs."""

    count: Tensor  # [K] positions seen
    total: Tensor  # [K, G, D] sum of x
    gram: Tensor  # [K, G, D, D] sum of x x^T
    magnitude: Tensor  # [K, C] sum of |x| over positions
    places: Tensor  # [K] positions that `magnitude` was summed over
    fisher: Tensor  # [K, O] sum of squared loss gradients over output positions


@dataclass(frozen=True)
class Evidence:
    """What was observed of one net, per class."""

    net_digest: str
    images: Tensor  # [K] images seen
    layers: Mapping[str, LayerSums]

    def of(self, classes: Iterable[int]) -> "Evidence":
        """Return the evidence of some classes alone, added up; K becomes 1. No data is touched."""
        chosen = torch.tensor(sorted(set(classes)))
        if not len(chosen) or int(chosen.min()) < 0 or int(chosen.max()) >= len(self.images):
            raise DataError(f"classes {chosen.tolist()} were not observed; there are {len(self.images)}")
        return Evidence(
            self.net_digest,
            self.images[chosen].sum(0, keepdim=True),
            {
                name: LayerSums(*(s[chosen].sum(0, keepdim=True) for s in _fields(sums)))
                for name, sums in self.layers.items()
            },
        )

    def all(self) -> "Evidence":
        """Return the evidence of all classes, added up."""
        return self.of(range(len(self.images)))

    def save(self, path: Path) -> None:
        """Write the sums as one safetensors file."""
        tensors = {
            f"{name}/{role}": t.contiguous() for name, s in self.layers.items() for role, t in s.__dict__.items()
        }
        with replacing(path) as temporary:
            safetensors.torch.save_file({"images": self.images, **tensors}, temporary, {"net": self.net_digest})


def load_evidence(path: Path) -> Evidence:
    """Return the evidence saved at `path`. Raises DataError where the file is no evidence."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            digest = (file.metadata() or {})["net"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        images = tensors.pop("images")
        roles = tuple(LayerSums.__dataclass_fields__)
        names = dict.fromkeys(name.rpartition("/")[0] for name in tensors)
        return Evidence(digest, images, {n: LayerSums(*(tensors[f"{n}/{role}"] for role in roles)) for n in names})
    except (FileNotFoundError, KeyError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} is no saved evidence: {error}") from error


def observe(
    net: Net, batches: Iterable[Batch], *, classes: int, seed: int = 0, images: int = 0, tell: Tell = silent
) -> Evidence:
    """Run the images through the net once and return the sums per class.

    Labels choose the class whose sums an image adds to; they teach nothing. `images` is how many there are, for
    progress. Raises DataError where there are none.
    """
    module = net.to_module().requires_grad_(False)
    layers = {node.name: node for node in net.weighted() if taps(net, node) <= MOST_TAPS}
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [module.get_submodule(net.paths[name]).register_forward_hook(_keeper(name, seen)) for name in layers]
    sums = {name: _zeros(net, node, classes) for name, node in layers.items()}
    count = torch.zeros(classes, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    for batch, labels in batches:
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise DataError(f"labels run from {int(labels.min())} to {int(labels.max())}; there are {classes} classes")
        scores = module(batch.requires_grad_(True))
        drawn = torch.multinomial(scores.detach().softmax(1), 1, generator=generator)[:, 0]
        F.cross_entropy(scores, drawn, reduction="sum").backward()
        batch.requires_grad_(False)
        for label in labels.unique().tolist():
            chosen = labels == label
            count[label] += int(chosen.sum())
            for name, node in layers.items():
                read, made = seen[name]
                assert made.grad is not None
                _add(sums[name], label, net, node, read[chosen].detach(), made.grad[chosen])
        seen.clear()
        tell(Event("observe", int(count.sum()), max(images, int(count.sum()))))
    for hook in hooks:
        hook.remove()
    if not int(count.sum()):
        raise DataError("there are no calibration images to observe")
    return Evidence(net.digest, count, sums)


def taps(net: Net, node: Node) -> int:
    """Weights that one output reads: columns of the layer's weight matrix, per group."""
    return int(net.tensors[node.tensors["weight"]][0].numel())


def columns(net: Net, node: Node, x: Tensor) -> Tensor:
    """Return what each output position of a layer reads: [positions, G, D], D ordered by channel, then tap."""
    if node.op == "linear":
        return x.reshape(-1, 1, x.shape[-1])
    module = net.module_of(node)
    assert isinstance(module, nn.Conv2d)
    if isinstance(module.padding, str):
        top, bottom = (
            (d * (k - 1)) // 2 if module.padding == "same" else 0
            for d, k in zip(module.dilation, module.kernel_size, strict=True)
        )
        padding = (top, bottom)
    else:
        padding = (module.padding[0], module.padding[1])
    flat = F.unfold(x, module.kernel_size, module.dilation, padding, module.stride)  # [N, C*taps, L]
    return flat.transpose(1, 2).reshape(-1, module.groups, flat.shape[1] // module.groups)


def _fields(sums: LayerSums) -> Iterator[Tensor]:
    return (getattr(sums, role) for role in LayerSums.__dataclass_fields__)


def _keeper(
    name: str, seen: dict[str, tuple[Tensor, Tensor]]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def keep(_: nn.Module, read: tuple[Tensor, ...], made: Tensor) -> None:
        made.retain_grad()
        seen[name] = read[0], made

    return keep


def _zeros(net: Net, node: Node, classes: int) -> LayerSums:
    groups = int(str(node.arguments.get("groups", 1)))
    size, inputs = taps(net, node), net[node.source].shape[1 if node.op == "conv2d" else -1]
    outputs = net.tensors[node.tensors["weight"]].shape[0]
    shapes = (
        (classes,),
        (classes, groups, size),
        (classes, groups, size, size),
        (classes, inputs),
        (classes,),
        (classes, outputs),
    )
    return LayerSums(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))


def _add(sums: LayerSums, label: int, net: Net, node: Node, read: Tensor, gradient: Tensor) -> None:
    x = columns(net, node, read).transpose(0, 1)  # [G, positions, D]
    sums.count[label] += x.shape[1]
    sums.total[label] += x.sum(1, dtype=torch.float64)
    sums.gram[label] += torch.matmul(x.transpose(1, 2), x).double()
    channel = 1 if node.op == "conv2d" else read.ndim - 1
    others = [d for d in range(read.ndim) if d != channel]
    sums.magnitude[label] += read.abs().sum(others, dtype=torch.float64)
    sums.places[label] += math.prod(read.shape[d] for d in others)
    channel = 1 if node.op == "conv2d" else gradient.ndim - 1
    sums.fisher[label] += gradient.double().square().sum([d for d in range(gradient.ndim) if d != channel])
