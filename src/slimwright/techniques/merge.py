"""Merge layers that hold no weights into those that do (layer slimming).

- Streamline: a convolution, the poolings, normalisations and activations behind it become one convolution with the
  pooled stride, and one ReLU if there was an activation. Kernel and, where the size allows, padding stay.
- Branch: of the branches that a concatenation joins, a pointwise one goes into its neighbour with a larger kernel, and
  so does a pooling one whose window is no larger than that kernel. The neighbour's reducer takes over the pointwise
  convolution's channels, and its kernel hands them on at the centre tap: exact for a pointwise branch, because a ReLU
  changes nothing twice. The reducer is wider now, and is meant to be pruned.

The new weights are a start that `refit` solves. Found by pattern in the graph. Source: Li et al. 2018 (DeepRebirth,
arXiv 1708.04728), sec. 3; there the layers are initialised at random and trained.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from slimwright.errors import RequestError
from slimwright.graph.net import Net, Node, Ref
from slimwright.graph.ops import pair_of
from slimwright.techniques.fold import alone, folded
from slimwright.techniques.solver.draft import Draft, side_by_side
from slimwright.techniques.technique import Step, Technique, Work

PASSIVE = ("max_pool2d", "avg_pool2d", "lrn", "batch_norm", "relu")  # what a convolution can take in
MERGED = ("max_pool2d", "avg_pool2d", "lrn")  # without one of these there is nothing to win: a norm alone is folded


class Merge(Step):
    """Let convolutions take in the poolings and norms behind them, and branches their neighbours."""

    step: Literal["merge"] = "merge"
    streamlines: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()


def _apply(step: Merge, work: Work) -> Work:
    draft = folded(work.draft)
    for conv in step.streamlines:
        draft = streamline(draft, conv)
    for concat in step.branches:
        draft = merge_branches(draft, concat)
    return replace(work, draft=draft)


def _sentence(step: Merge) -> str:
    said = [f"let {', '.join(step.streamlines)} take in what follows"] if step.streamlines else []
    said += [f"merge the branches that meet in {', '.join(step.branches)}"] if step.branches else []
    return f"Fold batch norms, {', '.join(said) or 'merge nothing'}."


MERGE = Technique(Merge, _apply, _sentence)


def streamlines(net: Net) -> list[str]:
    """Names of the convolutions that can take in what follows them, in execution order."""
    return [node.name for node in net.nodes if node.op == "conv2d" and _streamlined(net, node) is not None]


def streamline(draft: Draft, conv: str) -> Draft:
    """Return the draft with a convolution in place of itself and what follows it. Raises RequestError if it cannot."""
    net = draft.net
    node = net[conv] if conv in net.readers else None
    found = _streamlined(net, node) if node is not None and node.op == "conv2d" else None
    if node is None or found is None:
        raise RequestError(
            f"no convolution '{conv}' is followed by a pooling or a normalisation that it could take in; "
            f"there are {', '.join(streamlines(net)) or 'none'}"
        )
    last, activation = found.region[-1], any(net[name].op == "relu" for name in found.region)
    arguments = {**node.arguments, "stride": found.stride, "padding": found.padding}
    if not activation:
        return draft.changed(net.replaced([conv, *found.region], [replace(node, name=last, arguments=arguments)]), {})
    by = [replace(node, arguments=arguments), Node(last, "relu", {"self": Ref(conv)})]
    return draft.changed(net.replaced([conv, *found.region], by), {conv: None})


@dataclass(frozen=True)
class _Streamline:
    region: tuple[str, ...]  # behind the convolution
    stride: tuple[int, int]
    padding: tuple[int, int]


def _streamlined(net: Net, conv: Node) -> _Streamline | None:
    chain: list[Node] = []
    node = conv
    while len(net.readers[node.name]) == 1 and node.name not in net.outputs:
        node = net[net.readers[node.name][0]]
        if node.op not in PASSIVE or len(node.reads) != 1:
            break
        chain.append(node)
    while chain and chain[-1].op not in (*MERGED, "relu"):
        chain.pop()
    if not any(node.op in MERGED for node in chain) or isinstance(conv.arguments["padding"], str):
        return None
    weight = net.tensors[conv.tensors["weight"]]
    strides, paddings = [], []
    for axis in (0, 1):
        stride = pair_of(conv.arguments["stride"])[axis]
        for node in (n for n in chain if "pool" in n.op):
            stride *= pair_of(node.arguments["stride"] or node.arguments["kernel_size"])[axis]
        reach = pair_of(conv.arguments["dilation"])[axis] * (weight.shape[2 + axis] - 1)
        padding = _padding(
            net[conv.source].shape[2 + axis],
            chain[-1].shape[2 + axis],
            stride,
            reach,
            pair_of(conv.arguments["padding"])[axis],
        )
        if padding is None:
            return None
        strides.append(stride)
        paddings.append(padding)
    if chain[-1].shape[2:] == (1, 1) != conv.shape[2:]:  # a pooling over all positions is no part of a layer
        return None
    return _Streamline(tuple(node.name for node in chain), (strides[0], strides[1]), (paddings[0], paddings[1]))


def _padding(size: int, wanted: int, stride: int, reach: int, before: int) -> int | None:
    """The padding nearest to the one before with which a convolution gives `wanted` positions."""
    fitting = [p for p in range(reach + 1) if (size + 2 * p - reach - 1) // stride + 1 == wanted]
    return min(fitting, key=lambda p: abs(p - before), default=None)


def branches(net: Net) -> list[str]:
    """Names of the concatenations that join branches of which one can go into its neighbour, in execution order."""
    return [node.name for node in net.nodes if node.op == "concat" and _mergeable(net, node) is not None]


def merge_branches(draft: Draft, concat: str) -> Draft:
    """Return the draft with all branches of a concatenation merged that can be. Raises RequestError if none can.

    Batch norms must have been folded.
    """
    found = None
    while concat in draft.net.readers and draft.net[concat].op == "concat":
        pair = _mergeable(draft.net, draft.net[concat])
        if pair is None:
            break
        found = draft = _absorbed(draft, draft.net[concat], *pair)
    if found is None:
        raise RequestError(
            f"no concatenation '{concat}' joins branches of which one could go into its neighbour (fold batch norms "
            f"first); there are {', '.join(branches(draft.net)) or 'none'}"
        )
    return found


@dataclass(frozen=True)
class _Branch:
    """From what all branches read to the concatenation: a pooling or none, convolutions, each with its ReLU."""

    source: str
    pool: Node | None
    layers: tuple[tuple[Node, Node], ...]  # convolution, ReLU

    @property
    def names(self) -> list[str]:
        return [*([self.pool.name] if self.pool else []), *(node.name for pair in self.layers for node in pair)]


def _mergeable(net: Net, concat: Node) -> tuple[_Branch, _Branch] | None:
    """A branch and the neighbour that can take it in; pointwise ones come first, because they merge exactly."""
    if concat.arguments["dim"] != 1 or len(set(concat.reads)) < len(concat.reads):
        return None
    every = [_branch(net, name) for name in concat.reads]
    beside = [*pairwise(every), *pairwise(every[::-1])]
    fitting = [(a, b) for a, b in beside if a is not None and b is not None and _takes_in(net, b, a)]
    return min(fitting, key=lambda pair: pair[0].pool is not None, default=None)


def _branch(net: Net, last: str) -> _Branch | None:
    layers: list[tuple[Node, Node]] = []
    name = last
    while True:
        act = net[name]
        conv = net[act.source] if act.op == "relu" else act
        if conv.op != "conv2d" or any(len(net.readers[n]) != 1 or n in net.outputs for n in (act.name, conv.name)):
            break
        if act is conv:
            return None
        layers.insert(0, (conv, act))
        name = conv.source
    if not layers:
        return None
    pool = net[name] if net[name].op in ("max_pool2d", "avg_pool2d") and len(net.readers[name]) == 1 else None
    if pool is not None and pair_of(pool.arguments["stride"] or pool.arguments["kernel_size"]) == (1, 1):
        return _Branch(pool.source, pool, tuple(layers))
    return _Branch(name, None, tuple(layers))


def _takes_in(net: Net, deep: _Branch, flat: _Branch) -> bool:
    """True where `flat` is one pointwise layer, and `deep` a pointwise one and a larger kernel that keeps the size."""
    if len(flat.layers) != 1 or len(deep.layers) != 2 or deep.pool is not None or flat.source != deep.source:
        return False
    (reducer, _), (conv, _) = deep.layers
    height, width = net.tensors[conv.tensors["weight"]].shape[2:]
    window = pair_of(flat.pool.arguments["kernel_size"]) if flat.pool is not None else (1, 1)
    padding = conv.arguments["padding"]
    keeps_size = padding == "same" or (padding != "valid" and pair_of(padding) == (height // 2, width // 2))
    centred = keeps_size and height % 2 == width % 2 == 1
    plain = all(
        pair_of(node.arguments["stride"]) == (1, 1)
        and pair_of(node.arguments["dilation"]) == (1, 1)
        and node.arguments["groups"] == 1
        and not node.fixed
        for node in (reducer, conv, flat.layers[0][0])
    )
    pointwise = all(net.tensors[n.tensors["weight"]][0, 0].numel() == 1 for n in (reducer, flat.layers[0][0]))
    larger = height >= max(window[0], 2) and width >= max(window[1], 2)
    # no other layer owns the weights that change
    return plain and centred and pointwise and larger and alone(net, reducer) and alone(net, conv)


def _absorbed(draft: Draft, concat: Node, flat: _Branch, deep: _Branch) -> Draft:
    """Put `flat` into `deep`; channels keep their places in the concatenation."""
    net = draft.net
    (small, small_act), ((reducer, reducer_act), (conv, conv_act)) = flat.layers[0], deep.layers
    first = concat.reads.index(small_act.name) < concat.reads.index(conv_act.name)

    def joined(ours: Tensor, theirs: Tensor, axis: int = 0) -> Tensor:
        return torch.cat([ours, theirs] if first else [theirs, ours], axis)

    weight = net.tensors[conv.tensors["weight"]]  # [C_out, C_in, k, k]
    outputs, inputs, height, width = weight.shape
    handed = len(net.tensors[small.tensors["weight"]])
    centre = weight.new_zeros(handed, handed, height, width)
    centre[range(handed), range(handed), height // 2, width // 2] = 1
    tensors = {
        reducer.tensors["weight"]: joined(net.tensors[small.tensors["weight"]], net.tensors[reducer.tensors["weight"]]),
        _bias_name(net, reducer): joined(_bias(net, small), _bias(net, reducer)),
        conv.tensors["weight"]: joined(
            joined(centre, weight.new_zeros(handed, inputs, height, width), 1),
            joined(weight.new_zeros(outputs, handed, height, width), weight, 1),
        ),
        _bias_name(net, conv): joined(weight.new_zeros(handed), _bias(net, conv)),
    }
    changed = {
        node.name: replace(node, tensors={**node.tensors, "bias": _bias_name(net, node)}) for node in (reducer, conv)
    }
    reads = tuple(Ref(name) for name in concat.reads if name != small_act.name)
    changed[concat.name] = replace(concat, arguments={"tensors": reads, "dim": 1})
    slim = net.edited(changed, removed=dict.fromkeys(flat.names, flat.source), tensors=tensors)
    origins = {}
    for part, of in ((small, reducer), (small_act, reducer_act), (small, conv), (small_act, conv_act)):
        both = [draft.origins.get(name) for name in (part.name, of.name)]
        origins[of.name] = side_by_side(both if first else both[::-1], draft.reference)
    return draft.changed(slim, origins)


def _bias(net: Net, node: Node) -> Tensor:
    bias = net.tensor(node, "bias")
    weight = net.tensors[node.tensors["weight"]]
    return weight.new_zeros(len(weight)) if bias is None else bias


def _bias_name(net: Net, node: Node) -> str:
    return node.tensors.get("bias", f"{net.paths[node.name]}.bias")
