"""Layers replaced by thinner ones: a decomposition of their weights, laid out as layers.

    kind     of what                   what takes the layer's place                        ranks
    svd      linear, 1x1 convolution   S->R, R->T                                          R
    output   convolution               kxk S->R, 1x1 R->T                                  R
    cp       convolution above 1x1     1x1 S->R, kxk depthwise, 1x1 R->T                   R
    cp4      convolution above 1x1     1x1 S->R, kx1 and 1xk depthwise, 1x1 R->T           R
    input    convolution above 1x1     1x1 S->R, kxk R->T                                  R
    tucker2  convolution above 1x1     1x1 S->R_in, kxk R_in->R_out, 1x1 R_out->T          R_in, R_out

Sources: cp, and svd beside it, Astrid and Lee 2017 (arXiv 1701.07148); cp4, Lebedev et al. 2015 (arXiv 1412.6553);
output, Zhang et al. 2015 (arXiv 1505.06798); tucker2, Kim et al. 2016 (arXiv 1511.06530). The groups of a convolution
are decomposed one by one, each at its share of the ranks. The last layer keeps the node's name and the bias.

With evidence, decompositions minimise what the error of the outputs costs in nats: their metric is the covariance of
what the layer reads, and half the Fisher information of its outputs. The mean of the error goes into the layer's bias
or the batch norm behind it; where there is neither, the second moment takes the covariance's place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from slimwright.compute import placed, usable
from slimwright.errors import RequestError
from slimwright.evidence import Evidence
from slimwright.graph.net import Net, Node, Ref, Value
from slimwright.progress import Event, Tell, silent
from slimwright.techniques.decompose import InputPair, Metric, Pair, Tucker2, low_rank_pair, tucker2
from slimwright.techniques.fold import alone
from slimwright.techniques.polyadic import Polyadic, polyadic

Kind = Literal["svd", "output", "input", "cp", "cp4", "tucker2"]
Decomposed: TypeAlias = Pair | InputPair | Polyadic | Tucker2
KINDS: Mapping[str, tuple[Kind, ...]] = {
    "a linear layer": ("svd",),
    "a 1x1 convolution": ("svd", "output"),
    "a convolution": ("output", "input", "cp", "cp4", "tucker2"),
}
RIDGE = 1e-3  # of the mean variance: what calibration images do not show still matters a little
LEAST_IMPORTANCE = 1e-3  # of the mean: and so do outputs that they do not make matter


@dataclass(frozen=True)
class Factors:
    """How one layer is factorised; `ranks` are sums over the groups of a convolution."""

    kind: Kind
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """One of the layers that take another's place."""

    weight: tuple[int, ...]  # its shape
    places: int  # output positions of an image
    arguments: Mapping[str, Value]  # how a convolution slides, and its groups


def factorise(
    net: Net,
    factors: Mapping[str, Factors],
    evidence: Evidence | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    tell: Tell = silent,
) -> Net:
    """Return the net with the named layers factorised, in one edit; the same object if none is named.

    Layers that were not observed, such as those too wide for it, are decomposed by their weights alone. `seed` starts
    the power method; `device` computes. Raises RequestError, naming the layer, where it cannot be factorised so, and
    DataError where the evidence is another net's.
    """
    if not factors:
        return net
    seen = None if evidence is None else evidence.summed_for(net).on(device)
    with placed(usable(device)):
        return _factorised(net.on(device), factors, seen, seed, tell).on("cpu")


def _factorised(net: Net, factors: Mapping[str, Factors], seen: Evidence | None, seed: int, tell: Tell) -> Net:
    """The net with the named layers factorised, where it lies; `seen` is summed over its classes."""
    layouts = {name: pieces(net, name, wanted) for name, wanted in factors.items()}
    edit = _Edit(net)
    for done, (name, wanted) in enumerate(factors.items(), 1):
        node = net[name]
        parts = decomposed(net, node, wanted, seen, seed=seed)
        layers = zip(layouts[name], *(part.layers for part in parts), strict=True)
        edit.swap(node, layouts[name], [torch.cat(groups).reshape(piece.weight) for piece, *groups in layers])
        if seen is not None and name in seen.layers and takes_mean(net, node):
            edit.shift(node, _mean_error(net, node, parts, seen))
        tell(Event("factorise", done, len(factors), net.paths[name]))
    return edit.done()


def outline(net: Net, factors: Mapping[str, Factors]) -> Net:
    """Return what `factorise` would, at once, the new weights without elements: for counting, not for running."""
    edit = _Edit(net)
    for name, wanted in factors.items():
        layout = pieces(net, name, wanted)
        edit.swap(net[name], layout, [torch.empty(piece.weight, device="meta") for piece in layout])
    return edit.done()


def filled(net: Net, seed: int = 0) -> Net:
    """Return the net with small random numbers where a tensor has no elements: for timing, not for use."""
    generator = torch.Generator().manual_seed(seed)
    empty = {name: tensor for name, tensor in net.tensors.items() if tensor.is_meta}
    drawn = {name: torch.randn(t.shape, generator=generator) / max(t[0].numel(), 1) ** 0.5 for name, t in empty.items()}
    return net.edited(tensors=drawn) if drawn else net


def macs_at(net: Net, name: str, factors: Factors) -> int:
    """Return the exact multiply-accumulates of a layer, for one image, once it is factorised."""
    return sum(prod(piece.weight) * piece.places for piece in pieces(net, name, factors))


def params_at(net: Net, name: str, factors: Factors) -> int:
    """Return the exact number of parameters of a layer, its bias included, once it is factorised."""
    bias = net.tensor(net[name], "bias")
    return sum(prod(piece.weight) for piece in pieces(net, name, factors)) + (0 if bias is None else bias.numel())


def most_ranks(net: Net, name: str, kind: Kind) -> tuple[int, ...]:
    """Return the largest ranks that mean something for a layer: to be exact, none needs more.

    Raises RequestError, naming the layer, where it cannot be factorised so.
    """
    node = _factorisable(net, name)
    outputs, inputs, *taps = net.tensors[node.tensors["weight"]].shape
    what = "a linear layer" if not taps else "a 1x1 convolution" if prod(taps) == 1 else "a convolution"
    if kind not in KINDS[what]:
        raise RequestError(f"layer '{name}' is {what}, which {kind} is not for; use {' or '.join(KINDS[what])}")
    groups = groups_of(node)
    sizes = (outputs // groups, inputs, *(taps if kind == "cp4" else [prod(taps)]))
    if kind == "tucker2":
        return groups * inputs, outputs
    if kind == "input":
        return (groups * inputs,)
    if kind in ("cp", "cp4"):
        return (groups * prod(sizes) // max(sizes),)
    return (groups * min(sizes[0], prod(sizes[1:])),)


def pieces(net: Net, name: str, factors: Factors) -> tuple[Piece, ...]:
    """Return the layers that would take a layer's place. Raises RequestError, naming the layer, where none can."""
    most, groups = most_ranks(net, name, factors.kind), groups_of(net[name])
    fits = len(factors.ranks) == len(most) and not any(rank % groups for rank in factors.ranks)
    if not fits or not all(0 < rank <= limit for rank, limit in zip(factors.ranks, most, strict=True)):
        limits = " and ".join(f"{groups} to {limit}" for limit in most)
        steps = f" in steps of {groups}, its groups" if groups > 1 else ""
        asked = ", ".join(map(str, factors.ranks)) or "no rank"
        raise RequestError(f"layer '{name}' cannot be factorised by {factors.kind} at {asked}; give {limits}{steps}")
    if net[name].op == "linear":
        return _linear_pieces(net, net[name], *factors.ranks)
    return _conv_pieces(net, net[name], factors)


def groups_of(node: Node) -> int:
    """Return the groups of a layer: 1 but for grouped convolutions."""
    return int(str(node.arguments.get("groups", 1)))


def decomposed(
    net: Net, node: Node, factors: Factors, seen: Evidence | None = None, *, seed: int = 0
) -> tuple[Decomposed, ...]:
    """Return the decomposition of each group of a layer; `seen` is summed over its classes."""
    groups = groups_of(node)
    first, last = factors.ranks[0] // groups, factors.ranks[-1] // groups
    found: list[Decomposed] = []
    for kernel, metric in zip(kernels(net, node), metrics(net, node, seen), strict=True):
        match factors.kind:
            case "svd" | "output":
                found.append(low_rank_pair(kernel.flatten(1), first, metric))
            case "input":
                whole = tucker2(kernel.flatten(2), (first, len(kernel)), metric)
                found.append(InputPair(whole.inputs, torch.einsum("oq,qrp->orp", whole.outputs, whole.core)))
            case "cp":
                found.append(polyadic(kernel.flatten(2), first, metric, seed=seed))
            case "cp4":
                found.append(polyadic(kernel, first, metric, seed=seed))
            case "tucker2":
                found.append(tucker2(kernel.flatten(2), (first, last), metric))
    return tuple(found)


def kernels(net: Net, node: Node) -> tuple[Tensor, ...]:
    """Return the weights of each group of a layer, [O/groups, C_in/groups, ...]."""
    return net.tensors[node.tensors["weight"]].detach().chunk(groups_of(node))


def metrics(net: Net, node: Node, seen: Evidence | None) -> tuple[Metric | None, ...]:
    """Return the metric of each group of a layer, in nats; None where the layer was not observed."""
    if seen is None or node.name not in seen.layers:
        return (None,) * groups_of(node)
    sums = seen.layers[node.name]
    moments = sums.gram[0] / sums.count[0]  # [G, D, D]
    if takes_mean(net, node):
        mean = sums.total[0] / sums.count[0]  # [G, D]
        moments.baddbmm_(mean[:, :, None], mean[:, None, :], alpha=-1)
    ridge = RIDGE * moments.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    moments.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    importance = seen.importance(node.name)
    importance = importance.clamp_min(max(LEAST_IMPORTANCE * float(importance.mean()), 1e-12))
    return tuple(Metric(*of_group) for of_group in zip(moments, importance.chunk(len(moments)), strict=True))


def takes_mean(net: Net, node: Node) -> bool:
    """True where a layer's bias, or the batch norm behind it, can make up for a constant error of its outputs."""
    return "bias" in node.tensors or _norm_behind(net, node) is not None


class _Edit:
    """The swaps of one edit, collected."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.changed: dict[str, Node] = {}
        self.added: list[Node] = []
        self.tensors: dict[str, Tensor] = {}

    def swap(self, node: Node, layout: Sequence[Piece], weights: Sequence[Tensor]) -> None:
        """Put layers in a node's place: they are called after its path, `a` and `b` and so on."""
        taken = {n.name for n in self.net.nodes}
        old, source = self.net.tensors[node.tensors["weight"]], node.source
        for letter, piece, weight in zip("abcd", layout, weights, strict=False):
            path = f"{self.net.paths[node.name]}.{letter}"
            while f"{path}.weight" in self.net.tensors:
                path += "_"
            self.tensors[f"{path}.weight"] = weight.to(old.dtype)
            name = f"{node.name}_{letter}"
            while name in taken:
                name += "_"
            arguments = {**node.arguments, **piece.arguments, "input": Ref(source)}
            self.added.append(Node(name, node.op, arguments, {"weight": f"{path}.weight"}))
            source = name
        last = self.added.pop()
        owned = dict(last.tensors)
        if "bias" in node.tensors:
            owned["bias"] = f"{path}.bias"
            self.tensors[owned["bias"]] = self.net.tensors[node.tensors["bias"]]
        self.changed[node.name] = replace(node, arguments=last.arguments, tensors=owned)

    def shift(self, node: Node, by: Tensor) -> None:
        """Add a constant [O] to the outputs of a node that was swapped."""
        norm = _norm_behind(self.net, node)
        if "bias" in node.tensors:
            bias = self.changed[node.name].tensors["bias"]
            self.tensors[bias] = self.tensors[bias] + by.to(self.tensors[bias].dtype)
        elif norm is not None:
            mean = norm.tensors["running_mean"]
            self.tensors[mean] = self.net.tensors[mean] - by.to(self.net.tensors[mean].dtype)

    def done(self) -> Net:
        if not self.changed:
            return self.net
        return self.net.edited(self.changed, added=self.added, tensors=self.tensors)


def _factorisable(net: Net, name: str) -> Node:
    node = next((node for node in net.weighted() if node.name == name), None)
    if node is None:
        raise RequestError(f"there is no convolution or linear layer '{name}' to factorise")
    groups, (_, inputs, *_) = groups_of(node), net.tensors[node.tensors["weight"]].shape
    if groups > 1 and inputs == 1:
        raise RequestError(f"layer '{name}' is depthwise: there is nothing to factorise; leave it out")
    if len(_owners(net, node)) > 1:
        raise RequestError(f"layer '{name}' shares its weights with others; leave it out")
    return node


def _owners(net: Net, node: Node) -> list[Node]:
    """The nodes that own any of a node's tensors."""
    own = set(node.tensors.values())
    return [other for other in net.nodes if own & set(other.tensors.values())]


def _norm_behind(net: Net, node: Node) -> Node | None:
    """The batch norm that alone reads a layer, and that no other layer uses."""
    readers = [net[name] for name in net.readers[node.name]]
    if len(readers) != 1 or readers[0].op != "batch_norm" or not alone(net, node):
        return None
    return readers[0] if len(_owners(net, readers[0])) == 1 else None


def _mean_error(net: Net, node: Node, parts: Sequence[Decomposed], seen: Evidence) -> Tensor:
    """What the decomposition takes from the mean of each output [O]."""
    sums = seen.layers[node.name]
    means = sums.total[0] / sums.count[0]  # [G, D]
    groups = zip(kernels(net, node), parts, means, strict=True)
    return torch.cat([(kernel.double().flatten(1) - part.composed()) @ mean for kernel, part, mean in groups])


def _linear_pieces(net: Net, node: Node, rank: int) -> tuple[Piece, ...]:
    outputs, inputs = net.tensors[node.tensors["weight"]].shape
    places = prod(node.shape) // outputs
    return Piece((rank, inputs), places, {}), Piece((outputs, rank), places, {})


def _conv_pieces(net: Net, node: Node, factors: Factors) -> tuple[Piece, ...]:
    groups = groups_of(node)
    outputs, inputs, height, width = net.tensors[node.tensors["weight"]].shape
    wide, thin = net[node.source].shape[-2:], node.shape[-2:]
    first, last = factors.ranks[0], factors.ranks[-1]

    def pointwise(to: int, of: int, at: tuple[int, ...]) -> Piece:
        return Piece(
            (to, of, 1, 1), prod(at), {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": groups}
        )

    narrow = pointwise(first, inputs, wide)
    widen = pointwise(outputs, last // groups, thin)
    whole = _sliding(node, (True, True))
    match factors.kind:
        case "svd" | "output":
            return Piece((first, inputs, height, width), prod(thin), {**whole, "groups": groups}), widen
        case "input":
            return narrow, Piece((outputs, first // groups, height, width), prod(thin), {**whole, "groups": groups})
        case "cp":
            return narrow, Piece((first, 1, height, width), prod(thin), {**whole, "groups": first}), widen
        case "cp4":
            down, across = _sliding(node, (True, False)), _sliding(node, (False, True))
            return (
                narrow,
                Piece((first, 1, height, 1), thin[0] * wide[1], {**down, "groups": first}),
                Piece((first, 1, 1, width), prod(thin), {**across, "groups": first}),
                widen,
            )
        case "tucker2":
            return narrow, Piece((last, first // groups, height, width), prod(thin), {**whole, "groups": groups}), widen


def _sliding(node: Node, along: tuple[bool, bool]) -> dict[str, Value]:
    """Stride, padding and dilation of a convolution along height, width or both."""
    still = {"stride": 1, "padding": 0, "dilation": 1}
    found: dict[str, Value] = {}
    for key, nothing in still.items():
        value = node.arguments[key]
        if isinstance(value, str):  # "same" and "valid" are so in each direction
            found[key] = value
        else:
            both = value if isinstance(value, tuple) else (value,)
            found[key] = tuple(v if a else nothing for v, a in zip((both[0], both[-1]), along, strict=True))
    return found
