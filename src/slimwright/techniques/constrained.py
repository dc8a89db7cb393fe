"""What techniques need that choose weights layer by layer out of a set: a draft to reproduce, images, and evidence."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

from slimwright.data import Inputs, calibration_inputs
from slimwright.errors import RequestError
from slimwright.evidence import Evidence
from slimwright.graph import Net
from slimwright.techniques.pricing import observed
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.drift import drifted
from slimwright.techniques.solver.held import Constraint, Held
from slimwright.techniques.solver.jobs import jobs_of
from slimwright.techniques.solver.refit import refit
from slimwright.techniques.technique import Work

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """A draft whose layers can be solved one by one, its calibration inputs and evidence, and why layers cannot be."""

    draft: Draft
    inputs: Inputs
    seen: Evidence
    left: Mapping[str, str]

    def solved(self, constraints: Mapping[str, Constraint], work: Work) -> Draft:
        """Return the draft with what the constraints of layers allow."""
        every = {**held_layers(work, self.draft.net), **constraints}
        return refit(self.draft, self.inputs, constraints=every, device=work.device, tell=work.tell)


def asked_of(net: Net, given: T | Mapping[str, T], doing: str) -> Mapping[str, T]:
    """Return what is asked of each layer, by its name: the same of all, or what is given of some.

    Raises RequestError for a layer that is not there, naming it and what it was to be there for.
    """
    asked = given if isinstance(given, Mapping) else dict.fromkeys(net.layers, given)
    if unknown := asked.keys() - net.layers.keys():
        raise RequestError(f"there is no layer '{min(unknown)}' to {doing}; there are {', '.join(net.layers)}")
    return asked


def held_layers(work: Work, net: Net) -> dict[str, Held]:
    """Return what keeps the zeros, or equal values, of each layer of a net that work so far made so, by its name."""
    codes = work.codes(net)
    weights = {name: net[name].tensors["weight"] for name in net.layers}
    return {name: Held(codes[weight].flatten(1)) for name, weight in weights.items() if weight in codes}


def prepared(draft: Draft, layers: Set[str], work: Work, *, images: int | None) -> Prepared:
    """Prepare a draft for constraints of some layers, on the first so many calibration images, or all.

    Where a layer stands for nothing in the original, such as one of two that took the place of one, the net is solved
    first, and what it then gives is to be reproduced.
    """
    inputs = calibration_inputs(work.given, images)
    if not layers <= draft.origins.keys():
        held = held_layers(work, draft.net)
        draft = Draft.of(refit(draft, inputs, constraints=held, device=work.device, tell=work.tell).net)
    seen = observed(draft.net, work.data, work.task, device=work.device, tell=work.tell)
    _, unsolved = jobs_of(draft, drifted(draft, layers), layers)
    left = {name: why for name, why in {**seen.skipped, **unsolved}.items() if name in layers}
    return Prepared(draft, inputs, seen, left)
