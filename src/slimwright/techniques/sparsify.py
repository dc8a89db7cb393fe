"""Make weights zero: each by itself, in blocks, or all but N of each M input channels of an output (N:M).

By output error nothing is trained: which weights go follows from the error that their layer's outputs are left with,
the others making up for them (`solver/sparsity.py`). What an error of an output costs, in nats, is its Fisher
information. One price of a weight for all layers shares the zeros out: a weight stays where it saves most. Each layer
is solved to give what it gave in the original, fed with what it is fed now.

By magnitude (Han et al. 2015, arXiv 1506.02626) weights go that are small for their layer, one multiple of each
layer's standard deviation being the threshold; the others stay as they are, for training to make up for it.

Zeros stay zero in later steps that solve or train. So shares that grow, with training between, are several steps. A
layer that cannot have the pattern is left as it is, and `Draft.unsolved` says why: for blocks its outputs and its input
channels in a group must be multiples of the block's, for N:M its input channels of M.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from slimwright.errors import RequestError
from slimwright.evidence import Evidence, groups_of
from slimwright.graph import Net, Node
from slimwright.techniques.constrained import prepared
from slimwright.techniques.solver.ridge import ridged_factor
from slimwright.techniques.solver.sparsity import MOST_OF, Pattern, Sparse, by_magnitude, price_for, sizes_of_blocks
from slimwright.techniques.technique import Kept, Step, Technique, Work, plural

MOST_BLOCK = 64  # weights
LEAST_DEVIATION = 1e-30  # of weights that are all alike
FIRST_PRICE = 1e-6  # of a weight, in nats: about that of four fifths of a ResNet-20 (our measurement of 2026-11-30)


class Sparsify(Step):
    """Make a `share` of all weights zero, alone or in blocks of outputs x input channels; or all but N of each M."""

    step: Literal["sparsify"] = "sparsify"
    share: float | None = Field(None, gt=0, lt=1)
    block: tuple[int, int] = (1, 1)
    n_of_m: tuple[int, int] | None = None
    by: Literal["output_error", "magnitude"] = "output_error"
    keep_dense: tuple[str, ...] = ()  # layers
    images: int | None = Field(None, gt=0)  # calibration images: the first so many, or all

    @model_validator(mode="after")
    def _check_pattern(self) -> Self:
        if (self.share is None) == (self.n_of_m is None):
            raise ValueError("give either a share of the weights, or n_of_m, which says how many stay")
        if self.n_of_m is not None and (self.block != (1, 1) or not 0 < self.n_of_m[0] < self.n_of_m[1] <= MOST_OF):
            raise ValueError(f"n_of_m keeps 1 or more of at most {MOST_OF}, and not all of them; it has no blocks")
        if min(self.block) < 1 or self.block[0] * self.block[1] > MOST_BLOCK:
            raise ValueError(f"a block has 1 to {MOST_BLOCK} weights")
        return self

    @property
    def pattern(self) -> Pattern:
        """Which weights are zero together."""
        return Pattern(1, self.n_of_m[1], self.n_of_m[0]) if self.n_of_m else Pattern(*self.block)


@dataclass(frozen=True)
class Layer:
    """A layer that becomes sparse: its first call, and its weights [O, D] by input channel and tap."""

    node: Node
    weight: Tensor
    taps: int


def sparsified_layers(net: Net, step: Sparsify) -> tuple[dict[str, Layer], dict[str, str]]:
    """Return the layers that become sparse, by name, and why others do not.

    Raises RequestError, naming it, for a layer to keep dense that is not there.
    """
    if unknown := set(step.keep_dense) - net.layers.keys():
        raise RequestError(f"there is no layer '{min(unknown)}' to stay dense; there are {', '.join(net.layers)}")
    found: dict[str, Layer] = {}
    left: dict[str, str] = {}
    for name in net.layers:
        node = net[name]
        weight = net.tensors[node.tensors["weight"]]
        misfit = step.pattern.misfit(weight.shape, groups_of(node))
        if name in step.keep_dense:
            left[name] = "it was to stay dense"
        elif "weight" in node.fixed:
            left[name] = "its weights are fixed"
        elif misfit:
            left[name] = misfit
        else:
            found[name] = Layer(node, weight.flatten(1), weight[0, 0].numel())
    return found, left


def constraints(seen: Evidence, layers: Mapping[str, Layer], step: Sparsify) -> dict[str, Sparse]:
    """Return what each layer may be: the share of zeros is dealt out at one price, by what was seen of the net."""
    pattern = step.pattern
    priced = {name: Sparse(pattern, seen.importance(name), layer.taps) for name, layer in layers.items()}
    if step.share is None:
        return priced
    columns = {}
    for name, layer in layers.items():
        factor = ridged_factor(seen.covariance(name))
        columns[name] = priced[name].columns(layer.weight, factor @ factor.mT)
    size = sum(layer.weight.numel() for layer in layers.values())
    tried: dict[float, dict[str, int]] = {}

    def zeros_at(price: float) -> int:
        tried[price] = {name: int((one.passed(columns[name], price) == 0).sum()) for name, one in priced.items()}
        return sum(tried[price].values())

    price = price_for(zeros_at, round(step.share * size), size, FIRST_PRICE)
    sizes = {name: layer.weight.numel() for name, layer in layers.items()}
    zeros = dealt(tried[price], sizes, step.share, pattern.block)
    return {name: replace(one, zeros=zeros[name], price=price) for name, one in priced.items()}


def dealt(zeros: Mapping[str, int], sizes: Mapping[str, int], share: float, block: int) -> dict[str, int]:
    """Return numbers of zeros of layers of these sizes, near to `zeros`, that are `share` of all, to the block."""
    wanted, found, size = round(share * sum(sizes.values())), sum(zeros.values()), sum(sizes.values())
    if found > wanted:
        exact = {name: count * wanted / found for name, count in zeros.items()}
    else:
        more = (size - wanted) / max(size - found, 1)
        exact = {name: sizes[name] - (sizes[name] - count) * more for name, count in zeros.items()}
    blocks = {name: int(count // block) for name, count in exact.items()}
    lacking = wanted // block - sum(blocks.values())
    nearest = sorted(blocks, key=lambda name: blocks[name] - exact[name] / block)
    for name in nearest[: max(lacking, 0)]:
        blocks[name] += 1
    return {name: min(count * block, sizes[name]) for name, count in blocks.items()}


def smallest_gone(layers: Mapping[str, Layer], step: Sparsify) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights [O, D] of each layer without those that are small for it, by its name."""
    pattern, zeros = step.pattern, dict.fromkeys(layers, 0)
    if step.share is not None:
        scores = {}
        for name, layer in layers.items():
            deviation = layer.weight.std(correction=0).clamp_min(LEAST_DEVIATION)
            scores[name] = sizes_of_blocks(layer.weight, pattern, layer.taps).flatten() / deviation
        every = torch.cat(list(scores.values()))
        places = every.argsort(stable=True)[: round(step.share * len(every))]
        names = torch.repeat_interleave(torch.tensor([len(score) for score in scores.values()]))
        counts = torch.bincount(names[places], minlength=len(scores)).tolist()
        zeros = {name: count * pattern.block for name, count in zip(scores, counts, strict=True)}
    for name, layer in layers.items():
        yield name, by_magnitude(layer.weight, pattern, layer.taps, zeros[name])


def _apply(step: Sparsify, work: Work) -> Work:
    if work.cost_only:
        return work
    net = work.draft.net
    layers, left = sparsified_layers(net, step)
    if not layers:
        return replace(work, draft=replace(work.draft, unsolved={**work.draft.unsolved, **left}))
    if step.by == "magnitude":
        made = {layers[name].node.tensors["weight"]: weight for name, weight in smallest_gone(layers, step)}
        shaped = {name: weight.reshape(net.tensors[name].shape) for name, weight in made.items()}
        draft = replace(work.draft, net=net.edited(tensors=shaped))
    else:
        found = prepared(work.draft, layers.keys(), work, images=step.images)
        left |= found.left
        layers = {name: one for name, one in sparsified_layers(found.draft.net, step)[0].items() if name not in left}
        draft = found.solved(constraints(found.seen, layers, step), work)
    kept: dict[str, Kept] = {layer.node.tensors["weight"]: "zeros" for layer in layers.values()}
    return replace(work, draft=replace(draft, unsolved={**draft.unsolved, **left}), kept={**work.kept, **kept})


def _sentence(step: Sparsify) -> str:
    if step.n_of_m:
        what = f"all but {step.n_of_m[0]} of each {step.n_of_m[1]} weights of an output"
    else:
        blocks = f", in blocks of {step.block[0]} x {step.block[1]}," if step.block != (1, 1) else ""
        what = f"{100 * (step.share or 0):.4g} % of the weights{blocks}"
    rest = f"; {', '.join(step.keep_dense)} stay dense" if step.keep_dense else ""
    if step.by == "magnitude":
        return f"Make {what} zero, those of least magnitude for their layer{rest}."
    on = plural(step.images, "calibration image") if step.images else "the calibration images"
    price = "" if step.n_of_m else ", at one price for all layers"
    return f"Make {what} zero on {on}{price}; the others make up for them{rest}."


SPARSIFY = Technique(Sparsify, _apply, _sentence)
