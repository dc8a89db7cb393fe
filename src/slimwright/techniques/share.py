"""Let the weights of each layer share few values: a codebook and a code for each weight (`solver/sharing.py`).

Nothing is trained: which value a weight takes follows from the error that its layer's outputs are left with, and each
layer is solved to give what it gave in the original, fed with what it is fed now. Batch norms are folded first, since
they would scale the values of each output by another number. Zeros that `sparsify` made stay zero.

Equal values stay equal in later steps that solve or train. A layer with no more weights than values is left as it is,
and `Draft.unsolved` says so. In a packed file codes take their entropy, and the table about four bytes a value.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from slimwright.graph import Net
from slimwright.techniques.constrained import asked_of, prepared
from slimwright.techniques.fold import folded
from slimwright.techniques.solver.sharing import Shared, Start
from slimwright.techniques.technique import Step, Technique, Work, plural

Bits = Annotated[int, Field(ge=1, le=12)]


class Share(Step):
    """Let weights of a layer take at most 2^bits values: all layers, or those that `bits` names."""

    step: Literal["share"] = "share"
    bits: Bits | dict[str, Bits]
    start: Start = "linear"
    seed: int = 0  # of the start "forgy"
    images: int | None = Field(None, gt=0)  # calibration images: the first so many, or all


def numbers_of_values(net: Net, bits: int | Mapping[str, int]) -> tuple[dict[str, int], dict[str, str]]:
    """Return how many values the weights of each layer may take, by name, and why layers are left as they are.

    Raises RequestError, naming it, for a layer that is not there.
    """
    values, left = {}, {}
    for name, of in asked_of(net, bits, "share values").items():
        weights = net.tensors[net[name].tensors["weight"]].numel()
        if weights <= 2**of:
            left[name] = f"its {weights} weights are no more than the {2**of} values that they may take"
        else:
            values[name] = 2**of
    return values, left


def _apply(step: Share, work: Work) -> Work:
    draft = folded(work.draft)
    if work.cost_only:
        return replace(work, draft=draft)
    values, left = numbers_of_values(draft.net, step.bits)
    found = prepared(draft, values.keys(), work, images=step.images)
    names = [name for name in values if name not in found.left]
    net = found.draft.net
    weights = {name: net[name].tensors["weight"] for name in names}
    shared = {}
    for name, weight in weights.items():
        zero = net.tensors[weight].flatten(1) == 0 if work.kept.get(weight) else None
        shared[name] = Shared(values[name], found.seen.importance(name), step.start, step.seed, zero)
    solved = found.solved(shared, work)
    solved = replace(solved, unsolved={**solved.unsolved, **left, **found.left})
    return replace(work, draft=solved, kept={**work.kept, **dict.fromkeys(weights.values(), "values")})


def _sentence(step: Share) -> str:
    on = plural(step.images, "calibration image") if step.images else "the calibration images"
    if isinstance(step.bits, int):
        return f"Let the weights of each layer share {2**step.bits} values, found on {on}."
    layers = ", ".join(f"{name} {2**bits}" for name, bits in step.bits.items())
    return f"Let the weights of layers share values, found on {on}: {layers}."


SHARE = Technique(Share, _apply, _sentence)
