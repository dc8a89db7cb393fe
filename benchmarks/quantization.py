"""Weights and activations in few bits: points lost, by rounding and by runtime, and after a little tuning.

Nets are four that are trained here, PaddleOCR's three files, and a detector. Every row starts from the same weights.
Activations are calibrated, and ours is solved, on the same images without labels, 512 where there are as many.
"nearest" rounds each weight to the nearest of its output's levels and takes the whole range of activations; "ours" is
rounding by least squares. Rows of the graph are simulated (fake-quantized); those of a runtime are what its file
gives. A runtime's own row is its tool-kit's default INT8. With `--more` two nets have more rows: "equalised",
"corrected" and "both" are the runtime's own for a net whose channels were scaled alike, whose biases were corrected
for what rounding does to means, or both; "tuned" are ours after some epochs in which weights stay on their levels,
with the original as teacher, and first and last layers in float where weights have one or two bits. The test part
takes no part in any choice. Times are ratios to the same runtime's float32 file, the files in turn in one process;
what is shipped is INT8 where it pays in a first measurement and loses no more than a point, by the rules of `shrink`,
and the headline counts those that are slower in a second one.
Rows are kept as they come: a run that was stopped goes on.
"""

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from lib.real_subjects import SUBJECTS
from lib.results import RUNTIME_PACKAGES, Column, Row, environment, keep, kept, parser, publish, rows_file, show
from lib.structured_networks import DATA, NETWORKS, SEED, trained
from slimwright.data import Dataset, Targets, calibration_inputs, taken, tensors_of, whole
from slimwright.errors import SlimwrightError
from slimwright.graph import Net
from slimwright.measure import original_file
from slimwright.runtimes import Artefact, Precision, Workshop
from slimwright.runtimes.known import installed
from slimwright.search.space import PAYS
from slimwright.storage import packed_bytes, plain_bytes
from slimwright.targets import Effort, Local, measure
from slimwright.tasks import Classification, Task, task_for
from slimwright.techniques import (
    Quantize,
    Recipe,
    Tune,
    Work,
    applied,
    corrected_for_runtime,
    equalised,
    fold_batch_norm,
    quantized,
)

OUT = Path(__file__).resolve().parents[1] / "out" / "quantization"
REAL = OUT.parent / "real"
FILES = (
    "text direction (PaddleOCR)",
    "text detector (PaddleOCR)",
    "text recogniser (PaddleOCR)",
    "detector (ours)",
)
NAMED = ("network", "bits", "computed_by", "rounding")
CALIBRATION = 512
WITH_OUR_LEVELS = ("graph", "onnxruntime", "openvino", "executorch", "litert")  # of activations, too
RUNTIMES = ("onnxruntime", "openvino", "litert", "executorch", "mnn", "ncnn")
QUICK_NETWORKS, QUICK_TEST = ("resnet20",), 400
TEST = 2000  # images that runtimes judge
MORE_NETWORKS, TUNED = ("resnet20", "mobilenet-v2-half"), ((4, 4), (2, 4), (2, None), (1, None))
MOST_LOST = 1.0  # points, of what is shipped
TUNING = Tune(epochs=2, rate=0.01)
BITS = ((8, 8), (4, 8), (4, 4), (4, None), (2, None))  # of weights and activations
HEADLINE = "mobilenet-v2-half"
TIMED = Effort(runs=30, least_s=0.5)
COLUMNS = (
    Column("network", "network"),
    Column("bits", "bits"),
    Column("computed_by", "computed by"),
    Column("rounding", "rounding"),
    Column("metric", "metric"),
    Column("score", "score", "{:.2f}"),
    Column("lost_points", "points lost", "{:.2f}"),
    Column("time", "time"),
    Column("times_smaller", "smaller"),
    Column("seconds", "took"),
)


def main() -> None:
    known = parser(__doc__ or "")
    names = (*NETWORKS, *FILES)
    known.add_argument("--networks", default=",".join(names), help=f"of {', '.join(names)}")
    known.add_argument("--more", action="store_true", help="the rows that only two nets have, too; hours")
    asked = known.parse_args()
    torch.set_num_threads(1)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    rows_at = rows_file(asked, OUT)
    for name in QUICK_NETWORKS if asked.quick else asked.networks.split(","):
        done: set[tuple[object, ...]] = {tuple(row[key] for key in NAMED) for row in kept(rows_at)}
        with Workshop() as workshop:
            subject = (glyph_net if name in NETWORKS else net_of_file)(name, workshop, asked)
            for row in subject.rows(done):
                keep(row, rows_at)
                say(f"{name}, {row['bits']} by {row['computed_by']}, {row['rounding']}: {row['lost_points']:.2f} lost")
    rows = [row for name in names for row in kept(rows_at) if row["network"] == name]
    show("Few bits without gradients", COLUMNS, rows, sections=("network",))
    publish(asked, headline=headline(rows), rows=rows, environment=environment(*RUNTIME_PACKAGES, seed=SEED))


def headline(rows: Sequence[Row]) -> dict[str, float]:
    """The largest loss of ours in 8 bits, with its levels of activations and with tool-kits' own; one net in fewer."""
    ours = [row for row in rows if row["rounding"] == "ours"]
    hard = [row for row in ours if row["network"] == HEADLINE] or ours
    tuned = [row for row in rows if row["rounding"] == "tuned" and row["network"] in {one["network"] for one in hard}]
    shipped = [row for row in ours if row["again"] != "" and float(row["lost_points"]) <= MOST_LOST]
    timed = [float(row["again"]) for row in shipped if float(row["first"]) < PAYS]

    with_levels = [row for row in ours if row["computed_by"] in WITH_OUR_LEVELS]
    without = [row for row in ours if row["computed_by"] not in WITH_OUR_LEVELS]

    def lost(some: Sequence[Row], bits: str) -> float:
        return max((float(row["lost_points"]) for row in some if row["bits"] == bits), default=math.nan)

    return {
        "worst_w8a8_loss_points": lost(with_levels, "W8A8"),
        "worst_w8a8_levels_of_toolkits_loss_points": lost(without, "W8A8"),
        "mobilenet_w4a8_loss_points": lost(hard, "W4A8"),
        "mobilenet_w4a4_loss_points": lost(hard, "W4A4"),
        "mobilenet_w4a4_tuned_loss_points": lost(tuned, "W4A4"),
        "shipped_slower_than_float": float(sum(again > 1 for again in timed)),
    }


@dataclass
class Subject:
    """One trained net, folded, its data and task, and what converts it."""

    name: str
    net: Net
    data: Dataset
    task: Task
    workshop: Workshop
    quick: bool
    more: bool

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """The calibration images."""
        return tensors_of(calibration_inputs(self.data, CALIBRATION))

    @cached_property
    def test(self) -> tuple[tuple[Tensor, ...], Targets]:
        """Images and targets of the test part."""
        images, targets = whole(self.data, "test")
        return tensors_of(images), targets

    @cached_property
    def before(self) -> float:
        """The metric of the net on the test part."""
        return self.score(self.net)

    @cached_property
    def in_eight(self) -> Net:
        """The net as ours rounds it to 8 bits."""
        return self.rounded(8, 8, "ours")

    def score(self, net: Net) -> float:
        """The metric of another net on the test part."""
        images, targets = self.test
        return self.task.score(net.run(images), targets)

    def rounded(self, weight_bits: int, activation_bits: int | None, method: str) -> Net:
        """The net in so many bits."""
        return quantized(
            self.net,
            self.inputs,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            calibration="mse" if method == "ours" else "minmax",
            rounding="least squares" if method == "ours" else "nearest",
        )

    def rows(self, done: AbstractSet[tuple[object, ...]]) -> Iterator[Row]:
        """Every method on the net, but for those that are `done`: network, bits, by what, rounding."""
        for weight_bits, activation_bits in BITS:
            bits = _bits(weight_bits, activation_bits)
            for method in ("nearest", "ours"):
                if (self.name, bits, "graph", method) in done:
                    continue
                start = time.perf_counter()
                small = self.in_eight if bits == "W8A8" and method == "ours" else None
                small = small or self.rounded(weight_bits, activation_bits, method)
                seconds = time.perf_counter() - start
                yield self._row(bits, "graph", method, self.score(small), self.before, seconds)
        for runtime in RUNTIMES[:1] if self.quick else RUNTIMES:
            if installed(runtime) and (self.name, "W8A8", runtime, "ours") not in done:
                yield from self._by_runtime(runtime)
        for weight_bits, activation_bits in TUNED[: 1 if self.quick else None] if self.more else ():
            if (self.name, _bits(weight_bits, activation_bits), "graph", "tuned") not in done:
                yield from self._tuned(weight_bits, activation_bits)

    def _tuned(self, weight_bits: int, activation_bits: int | None) -> Iterator[Row]:
        """Ours before and after tuning; the first and last layers in float where weights have at most two bits."""
        ends = (next(self.net.weighted()).name, [*self.net.weighted()][-1].name)
        step = Quantize(
            images=CALIBRATION,
            rounding="least squares",
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            keep_float=ends if weight_bits <= 2 else (),
        )
        tuning = TUNING.model_copy(update={"epochs": 1}) if self.quick else TUNING
        bits = _bits(weight_bits, activation_bits)
        begun: dict[str, Work] = {}
        for method, steps in (("untuned", (step,)), ("tuned", (step, tuning))):
            start = time.perf_counter()
            recipe = Recipe(original=self.net.digest, steps=steps)
            found = applied(recipe, self.net, self.data, task=self.task, begun=begun).draft.net
            seconds = time.perf_counter() - start
            row = self._row(bits, "graph", method, self.score(found), self.before, seconds)
            yield {**row, "times_smaller": round(plain_bytes(self.net) / packed_bytes(found), 1)}

    def _by_runtime(self, runtime: str) -> Iterator[Row]:
        """The runtime's own INT8 and ours, as its files compute it, with their times beside float32."""
        sides: dict[str, tuple[Net, Precision]] = {
            "float": (self.net, "fp32"),
            "runtime": (self.net, "int8"),
            "ours": (self.in_eight, "int8"),
        }
        if self.more:
            alike = equalised(self.net, self.inputs[0])
            sides |= {
                "equalised": (alike, "int8"),
                "corrected": (corrected_for_runtime(self.net, self.inputs[0]), "int8"),
                "both": (corrected_for_runtime(alike, self.inputs[0]), "int8"),
            }
        artefacts: dict[str, Artefact] = {}
        folder = OUT / self.name.replace(" ", "-") / runtime
        for side, (net, precision) in sides.items():
            try:
                artefacts[side] = self.workshop.convert(net, runtime, precision, folder / side, calibration=self.inputs)
            except SlimwrightError as error:
                Console(stderr=True).print(f"{self.name}, {runtime}, {side}: {error}")
        if "float" not in artefacts:
            return
        images, targets = (taken(all_of, slice(QUICK_TEST if self.quick else TEST)) for all_of in self.test)
        outputs = _outputs(artefacts, tensors_of(images))
        timed = {side: made for side, made in artefacts.items() if side in ("float", "runtime", "ours")}
        first, again = _times(timed), _times(timed)
        before = self.task.score(outputs["float"], targets)
        for side in [side for side in sides if side in outputs and side != "float"]:
            row = self._row("W8A8", runtime, side, self.task.score(outputs[side], targets), before, None)
            times: Row = {}
            if side in first:
                times = {"time": f"{first[side]:.2f}x", "first": first[side], "again": again[side]}
            yield {**row, **times}

    def _row(self, bits: str, by: str, rounding: str, after: float, before: float, seconds: float | None) -> Row:
        return {
            "network": self.name,
            "bits": bits,
            "computed_by": by,
            "rounding": rounding,
            "metric": self.task.metric.name,
            "score": round(after, 3),
            "original_score": round(before, 3),
            "lost_points": round(self.task.metric.drop(before, after), 3),
            "time": "",
            "first": "",
            "again": "",
            "times_smaller": "",
            "seconds": "" if seconds is None else f"{seconds:.0f} s",
        }


def glyph_net(name: str, workshop: Workshop, asked: argparse.Namespace) -> Subject:
    """One of the nets for glyphs."""
    data = glyph_data()
    net = fold_batch_norm(trained(name, "glyphs", data))
    more = asked.quick or (asked.more and name in MORE_NETWORKS)
    return Subject(name, net, data, Classification(data.labels), workshop, asked.quick, more)


def net_of_file(name: str, workshop: Workshop, asked: argparse.Namespace) -> Subject:
    """One of the nets that come in a file."""
    subject = next(one for one in SUBJECTS if one.name == name)
    data, original = subject.data(REAL), original_file(subject.file(REAL), subject.sizes)
    task = task_for(data, original.output_shapes, original.forward, subject.task(REAL))
    judged = task.data(data, original.forward)
    return Subject(name, fold_batch_norm(original.net), judged, task, workshop, asked.quick, more=False)


@cache
def glyph_data() -> Dataset:
    return DATA["glyphs"]()


def _bits(weight_bits: int, activation_bits: int | None) -> str:
    return f"W{weight_bits}A{activation_bits}" if activation_bits else f"W{weight_bits}"


def _outputs(artefacts: Mapping[str, Artefact], images: Sequence[Tensor]) -> dict[str, tuple[Tensor, ...]]:
    """What each file gives for images."""
    found = measure(Local(), artefacts, Effort(runs=1, warm_up=0), inputs=images)
    return {side: tuple(one.outputs) for side, one in found.items() if one.outputs is not None}


def _times(artefacts: Mapping[str, Artefact]) -> dict[str, float]:
    """Each file's time beside float32's, in one process and in turn."""
    ms = {side: one.latency.median_ms for side, one in measure(Local(), artefacts, TIMED).items() if one.latency}
    return {side: taken / ms["float"] for side, taken in ms.items()}


if __name__ == "__main__":
    main()
