"""The few best cuts, measured: coded as coarsely as the metric allows, converted, run and timed in the runtime.

What the phone's part gives becomes messages, and what the server's part makes of them is judged. All parts and the
whole net are timed in turn, in one process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch

from slimwright.codec.split.cuts import Cut, halves
from slimwright.codec.split.job import RUNTIME, Job
from slimwright.codec.split.message import received
from slimwright.codec.split.planning import HELD, UNCAPPED, Planned, allowed, images_judged
from slimwright.codec.split.rates import Fitted
from slimwright.codec.split.timing import ID, Times, coding
from slimwright.codec.split.tuning import Tuning, drop_of, tuned
from slimwright.data import Inputs, as_inputs, count_of, taken, tensors_of
from slimwright.errors import ModelError, ProofError
from slimwright.graph.net import Net
from slimwright.measure import TOLERANCE, given_by, parity, times
from slimwright.progress import Event
from slimwright.runtimes import Artefact
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


def tried(job: Job, plans: Sequence[Planned], whole: Artefact) -> Results:
    """Return what became of the cuts of some plans; the whole net as an artefact is timed beside them."""
    found: dict[str, Tried] = {}
    why: dict[str, str] = {}
    for number, plan in enumerate(plans):
        job.tell(Event(STAGE, number, len(plans), plan.cut.after))
        try:
            fitted = _fitted(job, plan)
        except ModelError as error:
            why[plan.cut.after] = str(error)
            continue
        phone = job.workshop.convert(fitted.phone, RUNTIME, "fp32", job.folder / f"phone-{number}")
        server = job.workshop.convert(fitted.server, RUNTIME, "fp32", job.folder / f"server-{number}")
        found[plan.cut.after] = _judged(job, fitted, phone, server)
    job.tell(Event(STAGE, len(plans), len(plans)))
    sides = {WHOLE: whole}
    for name, one in found.items():
        sides |= {f"phone {name}": one.phone, f"server {name}": one.server}
    took = times(job.target, sides, TIMED)
    timed = {
        name: replace(one, times=replace(one.times, phone_ms=took[f"phone {name}"], server_ms=took[f"server {name}"]))
        for name, one in found.items()
    }
    return Results(timed, why, took[WHOLE])


def sent(
    fitted: Fitted, phone: Artefact, inputs: Inputs, most_bytes: int, target: Target
) -> tuple[list[bytes], float, float]:
    """Return the messages for images, of what the phone's part gives, and the milliseconds to make and to read one."""
    messages: list[bytes] = []
    took: tuple[float, float] | None = None
    for chosen in _some_at_once(fitted, count_of(inputs)):
        given = [one.numpy() for one in given_by(target, phone, taken(inputs, chosen))]
        made, encode_ms, decode_ms = coding(fitted.of_each(given), fitted.tables, most_bytes)
        messages += made
        took = took or (encode_ms, decode_ms)
    assert took is not None
    return messages, *took


def answered(fitted: Fitted, server: Artefact, messages: Sequence[bytes], target: Target) -> Outputs:
    """Return the outputs of the server's part for messages."""
    shapes = [node.shape[1:] for node in fitted.server.inputs]
    found: list[Outputs] = []
    for chosen in _some_at_once(fitted, len(messages)):
        arrived = [received(one, fitted.tables, ID, UNCAPPED) for one in messages[chosen]]
        stacked = [np.stack([values[k] for values in arrived]).reshape(-1, *shape) for k, shape in enumerate(shapes)]
        found.append(given_by(target, server, as_inputs([torch.from_numpy(one) for one in stacked])))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _some_at_once(fitted: Fitted, count: int) -> Iterator[slice]:
    """Images as slices, of so many that their components can wait."""
    at_once = max(HELD // sum(of.components * of.places for of in fitted.tables), 1)
    return (slice(start, start + at_once) for start in range(0, count, at_once))


def halves_error(net: Net, cut: Cut, inputs: Inputs) -> float:
    """Return how far both halves of a net without a bottleneck are from it. Raises ProofError where that is too far."""
    some = tensors_of(taken(inputs, slice(COMPARED)))
    phone, server = halves(net, cut)
    found = _relative(server.run(phone.run(some)), net.run(some))
    if not found <= EXACT:
        raise ProofError(f"both halves behind '{cut.after}' differ from the net by {found:.2g} of its largest value")
    return found


def _fitted(job: Job, plan: Planned) -> Fitted:
    """The bottleneck of a plan with the coarsest step that the metric allows, once it is trained if that is wanted."""
    one, net = plan.bottleneck, job.net
    few = job.judge.first(images_judged(one.cut))
    exponent = allowed(job, one, few, plan.fitted.exponent)
    fitted = one.kept(net, plan.calibration, exponent)
    if job.request.tune_minutes is None:
        return fitted
    tuning = Tuning(job.request.tune_minutes, job.data, job.request.cache)
    first = tuned(one.kept(net, plan.calibration, exponent + COARSER), net, few, tuning, job.tell)
    good = job.within(drop_of(first, few))
    other = one.kept(net, plan.calibration, exponent + COARSER + (COARSER if good else -COARSER) // 2)
    second = tuned(other, net, few, tuning, job.tell)
    if job.within(drop_of(second, few)):
        return second
    return first if good else fitted


def _judged(job: Job, fitted: Fitted, phone: Artefact, server: Artefact) -> Tried:
    """What a split does on the validation images, within the cap that is given or that fits them."""
    judge, target, cap = job.judge, job.target, job.request.max_bytes
    some = taken(judge.inputs, slice(COMPARED))
    _check_artefact(phone, fitted.phone, some, target)
    _check_artefact(server, fitted.server, as_inputs(fitted.phone.run(tensors_of(some))), target)
    messages, encode_ms, decode_ms = sent(fitted, phone, judge.inputs, UNCAPPED if cap is None else cap, target)
    sizes = tuple(map(len, messages))
    most = ceil(MARGIN * max(sizes)) if cap is None else cap
    drop = judge.drop(answered(fitted, server, messages, target))
    return Tried(fitted, phone, server, most, sizes, drop, Times(0.0, encode_ms, decode_ms, 0.0))


def _check_artefact(artefact: Artefact, net: Net, inputs: Inputs, target: Target) -> None:
    """Raise ProofError where an artefact does not give what its net gives."""
    error = _relative(given_by(target, artefact, inputs), net.run(tensors_of(inputs)))
    if not error <= TOLERANCE["fp32"]:
        raise ProofError(f"a part of the split differs from its net by {error:.2g} of its largest value in the runtime")


def _relative(found: Outputs, expected: Outputs) -> float:
    """The largest error of an output, of its largest value."""
    return parity(Imitation((1.0,) * len(found)), found, expected, "fp32", random=True).max_relative_error
