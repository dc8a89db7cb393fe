"""The few best cuts, measured: coded as coarsely as the metric allows, converted, run and timed in the runtime.

What the phone's part gives becomes messages, and what the server's part makes of them is judged. All parts and the
whole net are timed in turn, in one process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
import torch

from slimwright.codec.split.cuts import Cut, halves
from slimwright.codec.split.judging import Judge
from slimwright.codec.split.message import message, received
from slimwright.codec.split.planning import AIM, FEW, UNCAPPED, Planned, allowed, images_for
from slimwright.codec.split.rates import Fitted
from slimwright.codec.split.timing import ID, Times, coding
from slimwright.codec.split.tuning import Tuning, drop_of, tuned
from slimwright.data import Inputs, taken, tensors_of
from slimwright.errors import ModelError, ProofError
from slimwright.graph.net import Net
from slimwright.measure import TOLERANCE, given_by, parity, times
from slimwright.progress import Event, Tell, silent
from slimwright.runtimes import Artefact, Workshop
from slimwright.targets import Effort, Target
from slimwright.tasks import Imitation, Outputs

MARGIN = 1.25  # of the largest message seen, where no cap is given
COMPARED = 16  # images
COARSER = 4  # quarters of an octave by which a step is set coarser before the server's part is trained for it
EXACT = 1e-4  # of the largest value of an output, between a net and its halves
WHOLE = "whole"
TIMED = Effort(runs=40, least_s=1.0)
STAGE = "try cuts"


@dataclass(frozen=True)
class Tried:
    """A cut that can be used: its parts as artefacts, the cap, and what was measured on the validation part."""

    fitted: Fitted
    phone: Artefact
    server: Artefact
    most_bytes: int
    sizes: tuple[int, ...]
    drop: float
    times: Times

    @property
    def cut(self) -> Cut:
        """The place."""
        return self.fitted.cut

    @property
    def message_bytes(self) -> float:
        """The mean."""
        return sum(self.sizes) / len(self.sizes)


@dataclass(frozen=True)
class Results:
    """The cuts that can be used, by the node in front of them, why others cannot, and the whole net's time."""

    tried: Mapping[str, Tried]
    why: Mapping[str, str]
    whole_ms: float


def tried(
    net: Net,
    plans: Sequence[Planned],
    judge: Judge,
    *,
    max_drop: float,
    max_bytes: int | None,
    tuning: Tuning | None = None,
    whole: Artefact,
    workshop: Workshop,
    target: Target,
    folder: Path,
    tell: Tell = silent,
) -> Results:
    """Return what became of the cuts of some plans."""
    found: dict[str, Tried] = {}
    why: dict[str, str] = {}
    for number, plan in enumerate(plans):
        tell(Event(STAGE, number, len(plans), plan.cut.after))
        try:
            fitted = _fitted(net, plan, judge, max_drop, tuning, tell)
        except ModelError as error:
            why[plan.cut.after] = str(error)
            continue
        place = folder / str(number)
        phone = workshop.convert(fitted.phone, "onnxruntime", "fp32", place / "phone")
        server = workshop.convert(fitted.server, "onnxruntime", "fp32", place / "server")
        found[plan.cut.after] = _judged(fitted, phone, server, judge, max_bytes, target)
    tell(Event(STAGE, len(plans), len(plans)))
    sides = {WHOLE: whole}
    for name, one in found.items():
        sides |= {f"phone {name}": one.phone, f"server {name}": one.server}
    took = times(target, sides, TIMED)
    timed = {
        name: replace(one, times=replace(one.times, phone_ms=took[f"phone {name}"], server_ms=took[f"server {name}"]))
        for name, one in found.items()
    }
    return Results(timed, why, took[WHOLE])


def answers(
    fitted: Fitted, phone: Artefact, server: Artefact, inputs: Inputs, most_bytes: int, target: Target
) -> tuple[Outputs, tuple[int, ...]]:
    """Return what a split gives for images, through its artefacts and messages, and the bytes of each message."""
    given = [one.numpy() for one in given_by(target, phone, inputs)]
    messages = [message(values, fitted.tables, ID, most_bytes) for values in fitted.of_each(given)]
    arrived = [received(one, fitted.tables, ID, most_bytes) for one in messages]
    shapes = [node.shape[1:] for node in fitted.server.inputs]
    stacked = [np.stack([values[k] for values in arrived]).reshape(-1, *shape) for k, shape in enumerate(shapes)]
    tensors = tuple(torch.from_numpy(one) for one in stacked)
    outputs = given_by(target, server, tensors if len(tensors) > 1 else tensors[0])
    return outputs, tuple(map(len, messages))


def halves_error(net: Net, cut: Cut, inputs: Inputs) -> float:
    """Return how far both halves of a net without a bottleneck are from it. Raises ProofError where that is too far."""
    some = tensors_of(taken(inputs, slice(COMPARED)))
    phone, server = halves(net, cut)
    found = _relative(server.run(phone.run(some)), net.run(some))
    if not found <= EXACT:
        raise ProofError(f"both halves behind '{cut.after}' differ from the net by {found:.2g} of its largest value")
    return found


def _fitted(net: Net, plan: Planned, judge: Judge, max_drop: float, tuning: Tuning | None, tell: Tell) -> Fitted:
    """The bottleneck of a plan with the coarsest step that the metric allows."""
    one = plan.bottleneck
    few = judge.first(images_for(one.cut, FEW))
    exponent = allowed(one, few, max_drop, plan.fitted.exponent)
    fitted = one.kept(net, plan.calibration, exponent)
    if tuning is None:
        return fitted
    first = tuned(one.kept(net, plan.calibration, exponent + COARSER), net, few, tuning, tell)
    good = drop_of(first, few) <= AIM * max_drop
    other = one.kept(net, plan.calibration, exponent + COARSER + (COARSER if good else -COARSER) // 2)
    second = tuned(other, net, few, tuning, tell)
    if drop_of(second, few) <= AIM * max_drop:
        return second
    return first if good else fitted


def _judged(
    fitted: Fitted, phone: Artefact, server: Artefact, judge: Judge, max_bytes: int | None, target: Target
) -> Tried:
    """What a split does on the validation images, within the cap that is given or that fits them."""
    _check_artefact(phone, fitted.phone, judge.inputs, target)
    values = fitted.of_each([one.numpy() for one in given_by(target, phone, judge.inputs)])
    messages, encode, decode = coding(values, fitted.tables, UNCAPPED if max_bytes is None else max_bytes)
    most = ceil(MARGIN * max(map(len, messages))) if max_bytes is None else max_bytes
    outputs, sizes = answers(fitted, phone, server, judge.inputs, most, target)
    return Tried(fitted, phone, server, most, sizes, judge.drop(outputs), Times(0.0, encode, decode, 0.0))


def _check_artefact(artefact: Artefact, net: Net, inputs: Inputs, target: Target) -> None:
    """Raise ProofError where an artefact does not give what its net gives."""
    some = taken(inputs, slice(COMPARED))
    error = _relative(given_by(target, artefact, some), net.run(tensors_of(some)))
    if not error <= TOLERANCE["fp32"]:
        raise ProofError(f"a part of the split differs from its net by {error:.2g} of its largest value in the runtime")


def _relative(found: Outputs, expected: Outputs) -> float:
    """The largest error of an output, of its largest value."""
    return parity(Imitation((1.0,) * len(found)), found, expected, "fp32", random=True).max_relative_error
