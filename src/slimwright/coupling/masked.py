"""A net with channels taken out of sight: what a cut net must compute, found without cutting anything.

The original net is computed node by node. Beside every value runs a mask of the same shape: False where the value
belongs to a channel that was removed. Masks begin where channels begin, at the rows of weights and at parameters that
lose them, and move on by what each operator does to the elements themselves: a view of a value is the same view of its
mask. Nothing else of the channel analysis is used, so its mistakes show.

    reads every channel (convolution, linear, product)     removed channels are zero there
    sums, means, softmax and norms over channels           taken over the channels that are left
    elementwise                                            removed where one of the operands is
    anything else                                          may read no removed channel: Untraceable

Means, variances and norms over fewer channels are other functions than the original's: `norms` names the nodes where
that happened. All else is the original with zeros in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.coupling.channels import Coupling
from slimwright.coupling.views import Ids
from slimwright.graph.net import Net, Node, compute
from slimwright.graph.ops import op_of

Mask = Tensor | None  # None: nothing is removed


class Untraceable(Exception):
    """A removed channel reached an operator for which this file has no rule."""


@dataclass(frozen=True)
class Masked:
    """What the net computes with channels out of sight, and the nodes whose statistics leave them out."""

    outputs: tuple[Tensor, ...]
    norms: tuple[str, ...]

    @property
    def scores(self) -> Tensor:
        """The output of a net that has one."""
        (only,) = self.outputs
        return only


def masked(net: Net, coupling: Coupling, keep: Mapping[str, Ids], inputs: Tensor | Sequence[Tensor]) -> Masked:
    """Compute `net` with only the channels `keep` of each group, in the dtype of its first input.

    `inputs` are images [N, C, H, W], or a tensor for each input.

    Raises Untraceable where no rule of this file says what a cut net would compute.
    """
    alive = coupling.alive(keep)
    begins = (node.name for node in net.nodes if op_of(node.op).channels in ("mix", "convolve", "parameter"))
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    walk = _Walk(net, {name: torch.as_tensor(alive[coupling.values[name]]) for name in begins}, given[0].dtype)
    walk.values.update({node.name: tensor for node, tensor in zip(net.inputs, given, strict=True)})
    with torch.no_grad():
        for node in net.nodes:
            walk.pass_through(node)
    if any(walk.masks[output] is not None for output in net.outputs):
        raise Untraceable("removed channels reach an output")
    return Masked(tuple(walk.values[output] for output in net.outputs), tuple(walk.norms))


class _Walk:
    """Values and masks on their way through one net."""

    def __init__(self, net: Net, left: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.net = net
        self.left = left
        self.dtype = dtype
        self.values: dict[str, Any] = {}
        self.masks: dict[str, Any] = {}
        self.norms: list[str] = []
        self._unread = {name: len(readers) for name, readers in net.readers.items()}

    def pass_through(self, node: Node) -> None:
        """Compute one node and its mask, and forget what nothing reads any more; the inputs are there already."""
        if node.op == "input":
            value, mask = self.values[node.name], None
        elif all(self.masks[name] is None for name in node.reads):
            value = self._computed(node, self.values.__getitem__)
            mask = self._begun(node, value)
        else:
            value, mask = self._rule(node)(node)
        self.values[node.name], self.masks[node.name] = value, None if _is_whole(mask) else mask
        for name in dict.fromkeys(node.reads):
            self._unread[name] -= 1
            if not self._unread[name] and name not in self.net.outputs:
                del self.values[name], self.masks[name]

    def _rule(self, node: Node) -> Callable[[Node], tuple[Any, Any]]:
        if node.op == "item":
            return self._item
        rules: dict[str, Callable[[Node], tuple[Any, Any]]] = {
            "mix": self._mix,
            "each": self._join,
            "norm": self._norm,
            "join": self._join,
            "window": self._window,
            "move": self._move,
            "concat": self._move,
            "reduce": self._reduce,
            "softmax": self._softmax,
            "contract": self._contract,
            "convolve": self._mix,
            "scale": self._scale,
            "shuffle": self._move,
            "recurrent": self._recurrent,
            "scalar": self._scalar,
        }
        passage = op_of(node.op).channels
        if passage not in rules:
            raise Untraceable(f"'{node.name}' ({node.op}) reads removed channels")
        return rules[passage]

    def _computed(self, node: Node, value: Callable[[str], Any]) -> Any:
        module = self.net.module_of(node) if op_of(node.op).module is not None else None
        result = compute(self.net, node, module.to(self.dtype) if module else None, value)
        return result.to(self.dtype) if isinstance(result, Tensor) and result.is_floating_point() else result

    def _begun(self, node: Node, value: Any) -> Mask:
        """The mask of a value that reads no removed channel: whole, but for the rows that its own weights lose."""
        left = self.left.get(node.name)
        return None if left is None or bool(left.all()) else left.expand(value.shape)

    def _zeroed(self, name: str) -> Any:
        mask = self.masks[name]
        return self.values[name] if mask is None else torch.where(mask, self.values[name], 0)

    def _mix(self, node: Node) -> tuple[Tensor, Mask]:
        """Where each channel is made of one alone (depthwise), those go whose source is gone."""
        value, mask = self._computed(node, self._zeroed), self.masks[node.source]
        groups, inputs = int(str(node.arguments.get("groups", 1))), self.net[node.source].shape[1]
        if mask is not None and groups == inputs > 1:
            channels = _line(mask, 1, node).repeat_interleave(value.shape[1] // inputs)
            return value, channels.reshape(1, -1, *[1] * (value.ndim - 2)).expand(value.shape)
        return value, self._begun(node, value)

    def _scale(self, node: Node) -> tuple[Tensor, Mask]:
        return self._computed(node, self.values.__getitem__), self.masks[node.source]

    def _join(self, node: Node) -> tuple[Tensor, Mask]:
        value = self._computed(node, self.values.__getitem__)
        mask = torch.ones((), dtype=torch.bool)
        for name in node.reads:
            if self.masks[name] is not None:
                mask = mask & self.masks[name]
        return value, mask.expand(value.shape)

    def _window(self, node: Node) -> tuple[Any, Any]:
        """Channels do not change along the dimensions that a window runs over; padding along others adds whole ones."""
        value, mask = self._computed(node, self.values.__getitem__), self.masks[node.source]
        pads = "pad" in node.arguments
        window = next((n for n in (1, 3) if f"{n}d" in node.op), 2)  # the last so many dimensions
        shape = (
            value.shape if isinstance(value, Tensor) else value[0].shape
        )  # the places of maxima come as a second one
        for dim, size in enumerate(shape):
            if mask.shape[dim] == size and (pads or dim < len(shape) - window):
                continue
            if _is_same_along(mask, dim):
                mask = mask.narrow(dim, 0, 1).expand([n if i == dim else -1 for i, n in enumerate(shape)])
            elif pads:
                mask = self._padded(node, mask, dim)
            else:
                raise Untraceable(f"'{node.name}' ({node.op}) has a window over removed channels")
        return value, mask if isinstance(value, Tensor) else tuple(mask for _ in value)

    def _padded(self, node: Node, mask: Tensor, dim: int) -> Tensor:
        pad: Any = node.arguments["pad"]
        place = 2 * (mask.ndim - 1 - dim)
        before, after = (*pad, *[0] * 2 * mask.ndim)[place : place + 2]
        return F.pad(mask, (*[0] * place, before, after), value=True)

    def _move(self, node: Node) -> tuple[Tensor, Mask]:
        """The same elements elsewhere: done to the mask as to the value."""
        value = self._computed(node, self.values.__getitem__)
        sources = {name: self.values[name] for name in node.reads}

        def mask_of(name: str) -> Any:
            source = sources[name]
            if not isinstance(source, Tensor) or (name != node.source and node.op == "index"):
                return source
            mask = self.masks[name]
            return torch.ones_like(source) if mask is None else mask.to(source.dtype)

        return value, self._computed(node, mask_of) != 0

    def _item(self, node: Node) -> tuple[Any, Any]:
        index: Any = node.arguments["index"]
        return self.values[node.source][index], self.masks[node.source][index]

    def _reduce(self, node: Node) -> tuple[Any, Any]:
        """Along a dimension whose channels are in part removed, only those that are left are reduced."""
        dims: Any = node.arguments.get("dim")
        value, mask = self.values[node.source], self.masks[node.source]
        axes = range(value.ndim) if dims in (None, ()) else [d % value.ndim for d in _listed(dims)]
        for axis in axes:
            if not _is_same_along(mask, axis):
                kept = _line(mask, axis, node).nonzero().reshape(-1)
                value, mask = value.index_select(axis, kept), mask.index_select(axis, kept)
                if node.op != "sum":
                    self.norms.append(node.name)
        result = self._computed(node, {node.source: value}.__getitem__)
        shape = [1 if i in axes else n for i, n in enumerate(mask.shape)]
        mask = mask[tuple(slice(0, 1) if i in axes else slice(None) for i in range(mask.ndim))].reshape(shape)
        return result, mask.reshape(result.shape) if isinstance(result, Tensor) else tuple(mask for _ in result)

    def _softmax(self, node: Node) -> tuple[Tensor, Mask]:
        value, mask = self.values[node.source], self.masks[node.source]
        if not _is_same_along(mask, int(str(node.arguments["dim"])) % value.ndim):
            value = torch.where(mask, value, -torch.inf)
            self.norms.append(node.name)
        return self._computed(node, {node.source: value}.__getitem__), mask

    def _contract(self, node: Node) -> tuple[Tensor, Mask]:
        """Removed channels add nothing to a product; what is left of it has left rows and left columns."""
        value = self._computed(node, self._zeroed)
        masks = [_filled(self.masks[name], self.values[name]) for name in node.reads]
        if node.op == "attention":
            heads = masks[0].any(-1, keepdim=True)  # of the queries: several may share one key and value
            return value, (masks[2].any(-2, keepdim=True) & heads).expand(value.shape)
        if node.op == "einsum":
            return value, torch.einsum(str(node.arguments["equation"]), *(mask.float() for mask in masks)) > 0
        return value, (masks[0].float() @ masks[1].float()) > 0

    def _recurrent(self, node: Node) -> tuple[Any, Any]:
        """A step is multiplied by weights: removed channels are zero there."""
        return self._computed(node, self._zeroed), None

    def _scalar(self, node: Node) -> tuple[Any, Mask]:
        return self._computed(node, self.values.__getitem__), None

    def _norm(self, node: Node) -> tuple[Tensor, Mask]:
        """Statistics over the channels that are left, per image; the affine part belongs to each channel."""
        value, mask = self.values[node.source], self.masks[node.source]
        if node.op == "group_norm":
            groups = int(str(node.arguments["num_groups"]))
            shape = (value.shape[0], groups, -1)
            normal = _normalised(value.reshape(shape), mask.reshape(shape), (2,), node).reshape(value.shape)
            affine = (1, -1, *[1] * (value.ndim - 2))
        else:
            sizes: Any = node.arguments["normalized_shape"]
            dims = tuple(range(value.ndim - len(sizes), value.ndim))
            normal = _normalised(value, mask, dims, node)
            affine = tuple(sizes)
        self.norms.append(node.name)
        for role, apply in (("weight", torch.mul), ("bias", torch.add)):
            tensor = self.net.tensor(node, role)
            if tensor is not None:
                normal = apply(normal, tensor.to(value.dtype).reshape(affine))
        return normal, mask


def _normalised(value: Tensor, mask: Tensor, dims: tuple[int, ...], node: Node) -> Tensor:
    """Subtract the mean (not for RMS norm) and divide by the root of variance + eps, over what the mask shows."""
    count = mask.sum(dims, keepdim=True).clamp(min=1)
    shown = torch.where(mask, value, 0)
    if node.op != "rms_norm":
        shown = torch.where(mask, shown - shown.sum(dims, keepdim=True) / count, 0)
    eps: Any = node.arguments["eps"]
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    spread: Tensor = ((shown**2).sum(dims, keepdim=True) / count + eps).sqrt()
    return shown / spread


def _is_whole(mask: Any) -> bool:
    if isinstance(mask, Tensor):
        return bool(mask.all())
    return mask is None or all(_is_whole(part) for part in mask)


def _is_same_along(mask: Tensor, dim: int) -> bool:
    return bool((mask == mask.narrow(dim, 0, 1)).all())


def _line(mask: Tensor, dim: int, node: Node) -> Tensor:
    """[n] which entries along one dimension are left, where that depends on no other dimension."""
    others = [i for i in range(mask.ndim) if i != dim]
    line = mask.any(others) if others else mask
    shown = line.reshape([-1 if i == dim else 1 for i in range(mask.ndim)])
    reachable = mask.any(dim, keepdim=True)
    if not bool((mask == (shown & reachable)).all()):
        raise Untraceable(f"'{node.name}' ({node.op}) reads other channels at one place than at another")
    return line


def _filled(mask: Mask, value: Tensor) -> Tensor:
    return torch.ones_like(value, dtype=torch.bool) if mask is None else mask


def _listed(dims: Any) -> list[int]:
    return [int(dims)] if isinstance(dims, int) else [int(d) for d in dims]
