"""Every cut with what it is predicted to take, so that only the few best ones need to be measured.

One cut, in the middle, is coded as coarsely as the metric allows. All others are coded so that rounding does as much
damage by their Fisher information, and the bytes of some calibration images are counted. The times of both parts are
sums over layers that were timed one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slimwright.codec.split.bottleneck import transform_of
from slimwright.codec.split.cuts import Cut, cuts
from slimwright.codec.split.features import Values
from slimwright.codec.split.job import JUDGED, Job
from slimwright.codec.split.judging import Judge
from slimwright.codec.split.moments import moments
from slimwright.codec.split.rates import Bottleneck, Fitted, coarsest, coarsest_by_damage, damage, quantized, step_of
from slimwright.codec.split.timing import Times, coding, layers_ms
from slimwright.cost.latency import LatencyTable
from slimwright.data import calibration_inputs
from slimwright.errors import ModelError
from slimwright.graph.liveness import image_bytes
from slimwright.graph.net import Net
from slimwright.progress import Event

OBSERVED = 1000  # calibration images for the moments
CODED = 32  # calibration images whose bytes are counted
SHOWN = 128  # calibration images that tables are made from
GUESSED = 0.1  # nats of damage, from which the first step is looked for
HELD = 2**24  # numbers that wait for something: fewer images where a cut sends more
JUDGED_TIMES = 8  # as many while one step is looked for
MOST_AT_ONCE = 64  # images
ALIVE_BYTES = 5e8  # of values that wait for gradients
UNCAPPED = 2**31
STAGE = "plan cuts"


@dataclass(frozen=True)
class Planned:
    """A cut with what it is predicted to take."""

    bottleneck: Bottleneck
    fitted: Fitted
    calibration: Values
    message_bytes: float
    times: Times

    @property
    def cut(self) -> Cut:
        """The place."""
        return self.bottleneck.cut


def planned(job: Job, table: LatencyTable, whole_ms: float) -> list[Planned]:
    """Return every cut of a net with what it is predicted to take; the whole net was measured to take `whole_ms`."""
    net, data, tell = job.net, job.data, job.tell
    found = cuts(net)
    images = min(data.size("calibration"), OBSERVED)
    names = [name for cut in found for name in cut.values]
    at_once = min(max(int(ALIVE_BYTES // image_bytes(net)), 1), MOST_AT_ONCE)
    batches = job.task.data(data, job.original.forward).batches("calibration", at_once)
    seen = moments(net, names, batches, job.task, images=images, tell=tell)
    bottlenecks = [Bottleneck.of(net, cut, [transform_of(seen[name]) for name in cut.values]) for cut in found]
    shown = [one.components(calibration_inputs(data, images_shown(one.cut))) for one in bottlenecks]
    most = _allowed_damage(job, bottlenecks, shown)
    fitted: list[tuple[Fitted, float, float, float]] = []
    for number, (one, components) in enumerate(zip(bottlenecks, shown, strict=True)):
        tell(Event(STAGE, number, len(found), one.cut.after))
        fitted.append(_coded(one, net, components, coarsest_by_damage(components, most)))
    tell(Event(STAGE, len(found), len(found)))
    sums = layers_ms(table, [net, *(made.phone for made, *_ in fitted), *(made.server for made, *_ in fitted)])
    scale = whole_ms / sums[0] if sums[0] else 1.0
    phones, servers = sums[1 : len(found) + 1], sums[len(found) + 1 :]
    rows = zip(bottlenecks, shown, fitted, phones, servers, strict=True)
    return [
        Planned(one, made, components, size, Times(scale * phone, encode, decode, scale * server))
        for one, components, (made, size, encode, decode), phone, server in rows
    ]


def _allowed_damage(job: Job, bottlenecks: Sequence[Bottleneck], shown: Sequence[Values]) -> float:
    """The damage that rounding may do, by the cut in the middle, or by the first one behind it that can be coded."""
    for one, components in list(zip(bottlenecks, shown, strict=True))[len(bottlenecks) // 2 :]:
        judge = job.judge.first(images_judged(one.cut))
        try:
            exponent = allowed(job, one, judge, coarsest_by_damage(components, GUESSED))
        except ModelError:
            continue
        return damage(components, exponent)
    raise ModelError(
        "the metric drops too far behind every cut, however finely it is coded; allow more with --max-drop"
    )


def allowed(job: Job, bottleneck: Bottleneck, judge: Judge, first: int) -> int:
    """Return the coarsest step, near a first one, by which the metric drops no further than is allowed."""
    components = bottleneck.components(judge.inputs)

    def within(exponent: int) -> bool:
        return job.within(judge.drop(bottleneck.outputs(quantized(components, exponent))))

    return coarsest(within, first)


def images_shown(cut: Cut) -> int:
    """Return of how many calibration images the components of a cut wait until the job ends."""
    return max(min(SHOWN, HELD // cut.numbers), 1)


def images_judged(cut: Cut) -> int:
    """Return by how many validation images the step of a cut is found: their components wait until it is."""
    return max(min(JUDGED, JUDGED_TIMES * HELD // cut.numbers), 1)


def in_steps(components: Values, fitted: Fitted) -> list[Values]:
    """Return the components of each image as a fitted phone's part gives them, of those in units of one."""
    step = step_of(fitted.exponent)
    kept = [value[:, : of.components] / step for value, of in zip(components, fitted.tables, strict=True)]
    return fitted.of_each(kept)


def _coded(one: Bottleneck, net: Net, components: Values, exponent: int) -> tuple[Fitted, float, float, float]:
    """A bottleneck for a step, the mean bytes of some messages, and the milliseconds to make and to read one."""
    fitted = one.kept(net, components, exponent)
    few: Sequence[Values] = in_steps(components, fitted)[:CODED]
    messages, encode, decode = coding(few, fitted.tables, UNCAPPED)
    return fitted, sum(map(len, messages)) / len(messages), encode, decode
