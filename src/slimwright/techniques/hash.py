"""Let the weights of each layer share values by a hash of their places: codes that no file needs to hold.

HashedNets (Chen et al. 2015, arXiv 1504.04788) without their factor of a sign. The values are least squares for the
codes (`solver/held.py`): each layer gives what it gave in the original, as nearly as it can, fed with what it is fed
now. Nothing chooses the codes, so few values cost more than those that `share` finds; `tune` behind trains them, each
by the summed gradients of its weights. Batch norms are folded first.

Equal values stay equal in later steps that solve or train. A packed file holds the values of a layer and a seed. A
layer with no more weights than one for each value is left as it is, and `Draft.unsolved` says so.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field

from slimwright.graph import Net
from slimwright.graph.encoding import Encoding
from slimwright.swz.hashed import Hashed
from slimwright.techniques.constrained import asked_of, prepared
from slimwright.techniques.fold import folded
from slimwright.techniques.solver.held import Held
from slimwright.techniques.technique import Step, Technique, Work, plural
from slimwright.train import ZERO

Weights = Annotated[float, Field(gt=1, le=1e6, allow_inf_nan=False)]


class Hash(Step):
    """Let `weights` of a layer share each value, in the mean: in all layers, or in those that are named."""

    step: Literal["hash"] = "hash"
    weights: Weights | dict[str, Weights]
    seed: int = Field(0, ge=0)
    images: int | None = Field(None, gt=0)  # calibration images: the first so many, or all


def hashes(net: Net, step: Hash) -> tuple[dict[str, Hashed], dict[str, str]]:
    """Return how the weights of each layer are hashed, by its name, and why layers are left as they are.

    Raises RequestError, naming it, for a layer that is not there.
    """
    found, left = {}, {}
    for name, each in asked_of(net, step.weights, "hash").items():
        weights = net.tensors[net[name].tensors["weight"]].numel()
        values = round(weights / each)
        if 0 < values < weights:
            found[name] = Hashed(values, step.seed)
        else:
            left[name] = f"its {plural(weights, 'weight')} cannot share values {each:g} at a time"
    return found, left


def _apply(step: Hash, work: Work) -> Work:
    draft = folded(work.draft)
    found, left = hashes(draft.net, step)
    if not work.cost_only:
        ready = prepared(draft, found.keys(), work, images=step.images)
        found = {name: hashed for name, hashed in found.items() if name not in ready.left}
        constraints = {}
        for name, hashed in found.items():
            weight = ready.draft.net.tensors[ready.draft.net[name].tensors["weight"]].flatten(1)
            codes = torch.from_numpy(hashed.codes(weight.numel())).reshape(weight.shape) + ZERO + 1
            constraints[name] = Held(codes, ready.seen.importance(name))
        draft = ready.solved(constraints, work)
        left = {**draft.unsolved, **left, **ready.left}
    weights = {draft.net[name].tensors["weight"]: hashed for name, hashed in found.items()}
    encodings = {weight: Encoding.of_hash(hashed.values, hashed.seed) for weight, hashed in weights.items()}
    draft = replace(draft, net=draft.net.encoded(encodings), unsolved=left)
    return replace(work, draft=draft, kept={**work.kept, **dict.fromkeys(weights, "values")})


def _sentence(step: Hash) -> str:
    on = plural(step.images, "calibration image") if step.images else "the calibration images"
    if isinstance(step.weights, Mapping):
        layers = ", ".join(f"{name} {each:g}" for name, each in step.weights.items())
        return f"Let weights of layers share values by a hash of their places, found on {on}, so many each: {layers}."
    return f"Let {step.weights:g} weights share each value by a hash of their places; the values are found on {on}."


HASH = Technique(Hash, _apply, _sentence)
