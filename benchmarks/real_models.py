"""Trained nets of many tasks, shrunk to half of their measured time, and proven in several runtimes.

Six ship in public packages: PaddleOCR's text direction classifier, text detector and text recogniser as RapidOCR packs
them, and the three nets of MTCNN. Five are trained here and exported by torch: a detector, a segmenter, one for
super-resolution, a siamese net and one for key points. Text, scenes and characters are rendered by seed, so their truth
is known; faces are scikit-image's part of LFW. No job sees a label: the nets imitate the original, with a metric on the
validation part that budgets count in. Each is
shrunk once without tuning, and once more with as many minutes of tuning as are asked for. The table's metrics are of
the test part, in ONNX Runtime, which no choice saw.

Rows are kept as they come: a run that was stopped goes on where it was, but for `--quick`.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from lib.real_subjects import SUBJECTS, Subject
from lib.results import RUNTIME_PACKAGES, Column, Row, environment, keep, kept, parser, publish, show
from slimwright import Budget, Bundle, Settings, shrink
from slimwright.data import Dataset, tensors_of, whole
from slimwright.errors import ConversionError, ModelError
from slimwright.graph import load_net
from slimwright.jobs import export as exporting
from slimwright.measure import NET, Original, original_file
from slimwright.tasks import task_for

OUT = Path(__file__).resolve().parents[1] / "out" / "real"
RUNTIMES = ("onnxruntime", "ncnn", "mnn", "openvino", "litert")
QUICK = "O-Net (MTCNN)"
SHARE, MINUTES, SEED = 0.5, 5, 0
ALLOWED = 0.5  # points, beyond which the second run tunes
COLUMNS = (
    Column("model", "model"),
    Column("reading_error", "error of reading", "{:.0e}"),
    Column("metric", "metric"),
    Column("original", "original", "{:.2f}"),
    Column("untrained", "untrained", "{:.2f}"),
    Column("untrained_latency", "its time", "{:.2f}x"),
    Column("tuned", "tuned", "{:.2f}"),
    Column("tuned_latency", "its time", "{:.2f}x"),
    Column("proven", "proven in"),
)


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    rows: dict[str, Row] = {} if asked.quick else {str(row["model"]): row for row in kept(asked.rows)}
    subjects = [one for one in SUBJECTS if one.name.startswith(tuple(asked.models.split(",")))]
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    for subject in [quick for quick in subjects if quick.name == QUICK] if asked.quick else subjects:
        if subject.name not in rows:
            say(subject.name)
            rows[subject.name] = _row(subject, asked)
            say(json.dumps(rows[subject.name]))
            if not asked.quick:
                keep(rows[subject.name], asked.rows)
    found = list(rows.values())
    show("Trained nets of many tasks, at half of their time", COLUMNS, found)
    publish(
        asked,
        headline=headline(found),
        rows=found,
        environment={**environment(*RUNTIME_PACKAGES, seed=SEED), "tuning_minutes": asked.minutes},
    )


def options() -> argparse.Namespace:
    known = parser(__doc__ or "")
    known.add_argument("--models", default="", help="by how their names begin, with commas between; all")
    known.add_argument("--minutes", type=float, default=MINUTES, help="of tuning, at most")
    known.add_argument("--rows", type=Path, default=OUT / "rows.jsonl", help="results, as they come")
    return known.parse_args()


def headline(rows: Sequence[Row]) -> Mapping[str, float]:
    """Points lost at worst; a model counts as proven where at least three runtimes agree with it."""
    lost = {key: [float(row["original"]) - float(row[key]) for row in rows] for key in ("untrained", "tuned")}
    return {
        "models": float(len(rows)),
        "read": float(sum(float(row["reading_error"]) <= 1e-5 for row in rows)),
        "proven": float(sum(int(row["runtimes"]) >= 3 for row in rows)),
        "worst_loss_untrained": round(max(lost["untrained"], default=math.nan), 2),
        "worst_loss_tuned": round(max(lost["tuned"], default=math.nan), 2),
    }


def _row(subject: Subject, asked: argparse.Namespace) -> Row:
    data, file = subject.data(OUT), subject.file(OUT)
    original = original_file(file, subject.sizes)
    with tempfile.TemporaryDirectory(prefix="real-models-") as name:
        home = Path(name)
        plain = _shrunk(subject, original, data, Settings(tune_epochs=0), 100.0, home / "untrained")
        minutes = 0.5 if asked.quick else asked.minutes
        tuned = _shrunk(subject, original, data, Settings(tune_epochs=2, tune_minutes=minutes), ALLOWED, home / "tuned")
        proven = _proven(subject, tuned, data, home / "exported")
    sides = {"untrained": plain.summary, "tuned": tuned.summary}
    return {
        "model": subject.name,
        "reading_error": _reading_error(original, data),
        "metric": tuned.manifest.task.metric.name,
        "original": plain.summary.score_original,
        **{name: side.score for name, side in sides.items()},
        **{f"{name}_latency": round(side.latency_ratio, 3) for name, side in sides.items()},
        **{f"{name}_macs": _macs(bundle) for name, bundle in (("untrained", plain), ("tuned", tuned))},
        "proven": ", ".join(proven),
        "runtimes": len(proven),
    }


def _shrunk(subject: Subject, original: Original, data: Dataset, how: Settings, max_drop: float, out: Path) -> Bundle:
    settings = replace(how, seed=SEED, cache=OUT / "cache", name=subject.name)
    budget = Budget(latency_ms=f"{SHARE}x", max_drop=max_drop)
    return shrink(original, data=data, budget=budget, out=out, task=subject.task(OUT), settings=settings)


def _reading_error(original: Original, data: Dataset) -> float:
    """The largest difference between our reading and ONNX Runtime on the file, of each output's largest value."""
    inputs, _ = whole(data, "validation")
    expected, found = original.forward(inputs), original.net.run(tensors_of(inputs))
    pairs = zip(expected, found, strict=True)
    return max(float((mine - its).abs().max() / its.abs().max().clamp_min(1e-12)) for its, mine in pairs)


def _macs(bundle: Bundle) -> float:
    return round(bundle.manifest.result.macs / bundle.manifest.original.macs, 3)


def _proven(subject: Subject, bundle: Bundle, data: Dataset, out: Path) -> list[str]:
    """The runtimes whose artefact of the tuned net, in the precision that it has, passes its proof."""
    net = load_net(bundle.path / NET)
    task = task_for(data, [net[name].shape for name in net.outputs], net.run, subject.task(OUT))
    try:
        found = exporting.export(
            net,
            exporting.Request(exporting.wanted(RUNTIMES, [net.precision]), name=subject.name),
            data=data,
            out=out,
            task=task,
        )
    except (ConversionError, ModelError) as error:
        return [f"none: {error}"]
    return [one.runtime for one in found.artefacts if one.passed]


if __name__ == "__main__":
    main()
