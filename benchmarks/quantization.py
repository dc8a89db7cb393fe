"""Weights and activations in few bits: points of accuracy lost, by rounding and by runtime, and after a little tuning.

Every row starts from the same weights. Activations are calibrated, and ours is solved, on the same 512 images without
labels. "nearest" rounds each weight to the nearest of its output's levels and takes the whole range of activations;
"ours" is rounding by least squares. Rows of the graph are simulated (fake-quantized); those of a runtime are what its
file gives. A runtime's own row is its tool-kit's default INT8; "equalised", "corrected" and "both" are the same for a
net whose channels were scaled alike, whose biases were corrected for what rounding does to means, or both. "tuned" rows
are ours after some epochs in which weights stay on their levels, with the original as teacher; first and last layers
stay in float there where weights have one or two bits. The test part takes no part in any choice. Times are
ratios to the same runtime's float32 file, the files in turn in one process; what is shipped is INT8 where it was faster
in a first measurement, and the headline counts those that are slower than float32 in a second.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from lib.results import RUNTIME_PACKAGES, Column, Row, environment, parser, publish, show
from lib.structured_networks import DATA, NETWORKS, SEED, trained
from slimwright.data import Dataset, calibration_inputs, labelled, whole
from slimwright.errors import SlimwrightError
from slimwright.graph import Net
from slimwright.runtimes import Artefact, Precision, Workshop
from slimwright.runtimes.known import installed
from slimwright.storage import packed_bytes, plain_bytes
from slimwright.targets import Effort, Local, measure
from slimwright.tasks import Classification
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

CALIBRATION = 512
RUNTIMES = ("onnxruntime", "openvino", "litert", "executorch", "mnn", "ncnn")
QUICK_NETWORKS, QUICK_TEST = ("resnet20",), 400
TEST = 2000  # images that runtimes judge
TUNED = ((4, 4), (2, 4), (2, None), (1, None))
TUNING = Tune(epochs=2, rate=0.01)
BITS = ((8, 8), (4, 8), (4, 4), (4, None), (2, None))  # of weights and activations
HEADLINE = "mobilenet-v2-half"
TIMED = Effort(runs=30, least_s=0.5)
COLUMNS = (
    Column("network", "network"),
    Column("bits", "bits"),
    Column("computed_by", "computed by"),
    Column("rounding", "rounding"),
    Column("accuracy", "accuracy", "{:.2%}"),
    Column("lost_points", "points lost", "{:.2f}"),
    Column("time", "time"),
    Column("times_smaller", "smaller"),
    Column("seconds", "took"),
)


def main() -> None:
    known = parser(__doc__ or "")
    known.add_argument("--networks", default=",".join(NETWORKS), help=f"of {','.join(NETWORKS)}")
    asked = known.parse_args()
    torch.set_num_threads(1)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    data = DATA["glyphs"]()
    rows: list[Row] = []
    for name in QUICK_NETWORKS if asked.quick else asked.networks.split(","):
        with Workshop() as workshop:
            subject = Subject(name, fold_batch_norm(trained(name, "glyphs", data)), data, workshop, asked.quick)
            for row in subject.rows():
                rows.append(row)
                say(f"{name}, {row['bits']} by {row['computed_by']}, {row['rounding']}: {row['lost_points']:.2f} lost")
    show("Few bits without gradients, on glyphs", COLUMNS, rows, sections=("network",))
    publish(asked, headline=headline(rows), rows=rows, environment=environment(*RUNTIME_PACKAGES, seed=SEED))


def headline(rows: list[Row]) -> dict[str, float]:
    """The largest loss of ours in 8 bits, and those of one net in fewer."""
    ours = [row for row in rows if row["rounding"] == "ours"]
    hard = [row for row in ours if row["network"] == HEADLINE] or ours
    tuned = [row for row in rows if row["rounding"] == "tuned" and row["network"] in {one["network"] for one in hard}]
    timed = [float(row["again"]) for row in ours if row["again"] != "" and float(row["first"]) < 1]

    def lost(some: list[Row], bits: str) -> float:
        return max(float(row["lost_points"]) for row in some if row["bits"] == bits)

    return {
        "worst_w8a8_loss_points": lost(ours, "W8A8"),
        "mobilenet_w4a8_loss_points": lost(hard, "W4A8"),
        "mobilenet_w4a4_loss_points": lost(hard, "W4A4"),
        "mobilenet_w4a4_tuned_loss_points": lost(tuned, "W4A4"),
        "shipped_slower_than_float": float(sum(again > 1 for again in timed)),
    }


@dataclass
class Subject:
    """One trained net, folded, its data, and what converts it."""

    name: str
    net: Net
    data: Dataset
    workshop: Workshop
    quick: bool

    def rows(self) -> Iterator[Row]:
        """Every method on the net."""
        images, labels = labelled(whole(self.data, "test"))
        inputs = calibration_inputs(self.data, CALIBRATION)
        before = _share_right(self.net.run(images)[0], labels)
        judged = images[: QUICK_TEST if self.quick else TEST], labels[: QUICK_TEST if self.quick else TEST]
        made: dict[str, Net] = {}
        for weight_bits, activation_bits in BITS:
            bits = f"W{weight_bits}A{activation_bits}" if activation_bits else f"W{weight_bits}"
            for method in ("nearest", "ours"):
                start = time.perf_counter()
                small = quantized(
                    self.net,
                    inputs,
                    weight_bits=weight_bits,
                    activation_bits=activation_bits,
                    calibration="mse" if method == "ours" else "minmax",
                    rounding="least squares" if method == "ours" else "nearest",
                )
                seconds = time.perf_counter() - start
                if method == "ours":
                    made[bits] = small
                yield self._row(bits, "graph", method, _share_right(small.run(images)[0], labels), before, seconds)
        for weight_bits, activation_bits in TUNED[:1] if self.quick else TUNED:
            yield from self._tuned(weight_bits, activation_bits, images, labels, before)
        for runtime in RUNTIMES[:1] if self.quick else RUNTIMES:
            if installed(runtime):
                yield from self._by_runtime(runtime, made["W8A8"], inputs, *judged)

    def _tuned(
        self, weight_bits: int, activation_bits: int | None, images: Tensor, labels: Tensor, before: float
    ) -> Iterator[Row]:
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
        bits = f"W{weight_bits}A{activation_bits}" if activation_bits else f"W{weight_bits}"
        begun: dict[str, Work] = {}
        for method, steps in (("untuned", (step,)), ("tuned", (step, tuning))):
            start = time.perf_counter()
            recipe = Recipe(original=self.net.digest, steps=steps)
            found = applied(recipe, self.net, self.data, task=Classification(self.data.labels), begun=begun).draft.net
            seconds = time.perf_counter() - start
            row = self._row(bits, "graph", method, _share_right(found.run(images)[0], labels), before, seconds)
            yield {**row, "times_smaller": round(plain_bytes(self.net) / packed_bytes(found), 1)}

    def _by_runtime(self, runtime: str, ours: Net, inputs: object, images: Tensor, labels: Tensor) -> Iterator[Row]:
        """The runtime's own INT8 and ours, as its files compute it, with their times beside float32."""
        seen = torch.as_tensor(inputs)
        alike = equalised(self.net, seen)
        sides: dict[str, tuple[Net, Precision]] = {
            "float": (self.net, "fp32"),
            "runtime": (self.net, "int8"),
            "ours": (ours, "int8"),
            "equalised": (alike, "int8"),
            "corrected": (corrected_for_runtime(self.net, seen), "int8"),
            "both": (corrected_for_runtime(alike, seen), "int8"),
        }
        artefacts: dict[str, Artefact] = {}
        folder = Path("out") / "quantization" / self.name / runtime
        for side, (net, precision) in sides.items():
            try:
                artefacts[side] = self.workshop.convert(net, runtime, precision, folder / side, calibration=[seen])
            except SlimwrightError as error:
                Console(stderr=True).print(f"{self.name}, {runtime}, {side}: {error}")
        scores = _scores(artefacts, images)
        timed = {side: made for side, made in artefacts.items() if side in ("float", "runtime", "ours")}
        first, again = _times(timed), _times(timed)
        before = _share_right(scores["float"], labels)
        for side in [side for side in sides if side in scores and side != "float"]:
            row = self._row("W8A8", runtime, side, _share_right(scores[side], labels), before, None)
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
            "accuracy": after,
            "original_accuracy": before,
            "lost_points": round(100 * (before - after), 3),
            "time": "",
            "first": "",
            "again": "",
            "times_smaller": "",
            "seconds": "" if seconds is None else f"{seconds:.0f} s",
        }


def _share_right(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(1) == labels).double().mean())


def _scores(artefacts: Mapping[str, Artefact], images: Tensor) -> dict[str, Tensor]:
    """What each file gives for images."""
    found = measure(Local(), artefacts, Effort(runs=1, warm_up=0), inputs=[images])
    return {side: one.outputs[0] for side, one in found.items() if one.outputs is not None}


def _times(artefacts: Mapping[str, Artefact]) -> dict[str, float]:
    """Each file's time beside float32's, in one process and in turn."""
    ms = {side: one.latency.median_ms for side, one in measure(Local(), artefacts, TIMED).items() if one.latency}
    return {side: taken / ms["float"] for side, taken in ms.items()}


if __name__ == "__main__":
    main()
