"""The papers' networks in every runtime and precision: what converts, how exact it is, what it takes.

At the papers' image sizes, with random weights: time does not depend on them, but the accuracy of INT8 does, and is not
judged here (`slimwright export` judges it on data). Proven means: converted, loaded and run in a fresh process, and
within the tolerance of its precision of what the graph computes on random images. Every artefact has a turn in each of
the rounds, in a process of its own; the median round counts.
"""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from lib.errors import relative_error
from lib.results import RUNTIME_PACKAGES, Column, Row, environment, options, publish, show
from slimwright.errors import SlimwrightError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.measure import TOLERANCE
from slimwright.runtimes import PRECISIONS, RUNTIMES, Artefact, Precision, Workshop
from slimwright.runtimes.known import installed
from slimwright.targets import Effort, Local, Measurement, measure
from slimwright.techniques.fold import fold_batch_norm
from slimwright.zoo import ZOO, build

NETWORKS = ("mobilenet-v2", "shufflenet-g3-0.5x", "squeezenet1.1", "googlenet", "resnet18", "customnet2")
SEED = 0
IMAGES, CALIBRATING = 4, 8
ROUNDS = 3
EFFORT = Effort(runs=30, least_s=0.5)
COLUMNS = (
    Column("network", "network"),
    Column("artefact", "artefact"),
    Column("proven", "proven"),
    Column("error", "error", "{:.0e}"),
    Column("latency_ms", "latency, ms", "{:.2f}"),
    Column("cpu_ms", "CPU, ms", "{:.2f}"),
    Column("size_mb", "file, MB", "{:.2f}"),
    Column("rss_mb", "memory, MB", "{:.0f}"),
    Column("start_ms", "start, ms", "{:.0f}"),
)


@dataclass
class Entry:
    """One artefact, as far as it came."""

    network: str
    runtime: str
    precision: Precision
    artefact: Artefact | None = None
    seen: tuple[Measurement, ...] = ()
    error: float = float("nan")
    why: str = ""

    @property
    def proven(self) -> bool:
        """True where it runs and is within the tolerance of its precision."""
        return self.error <= TOLERANCE[self.precision]


def main() -> None:
    chosen = options(__doc__ or "")
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    names = ("customnet2",) if chosen.quick else NETWORKS
    rows: list[Row] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for entry in of_network(name, Path(folder), 1 if chosen.quick else ROUNDS):
                rows.append(row(entry))
                failed = "" if entry.proven else f": {entry.why or f'error {entry.error:.2g}'}"
                say(f"{name}, {entry.runtime} {entry.precision}{failed}")
    show("Networks, runtimes, precisions; one thread", COLUMNS, rows, sections=("network",))
    headline = {"artefacts": len(rows), "proven": sum(row["proven"] == "yes" for row in rows), **of_precisions(rows)}
    publish(chosen, headline=headline, rows=rows, environment=environment(*RUNTIME_PACKAGES, seed=SEED))


def of_network(name: str, folder: Path, rounds: int) -> list[Entry]:
    """Every artefact of one network, measured."""
    net = fold_batch_norm(capture(build(name, seed=SEED), ZOO[name].image_shape))
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randn(IMAGES + CALIBRATING, *net.input.shape[1:], generator=generator)
    entries = [
        Entry(name, runtime, precision)
        for runtime in RUNTIMES
        if installed(runtime)
        for precision in RUNTIMES[runtime].precisions
    ]
    with Workshop() as workshop:
        for number, entry in enumerate(entries):
            convert(entry, net, workshop, folder / f"{name}-{number}", images[IMAGES:])
    (expected,) = net.run(images[:IMAGES])
    for turn in range(rounds):
        for entry in entries:
            run(entry, images[:IMAGES], expected, first=turn == 0)
    return entries


def convert(entry: Entry, net: Net, workshop: Workshop, folder: Path, calibration: Tensor) -> None:
    """Make the artefact, or note why not."""
    some = [calibration] if entry.precision == "int8" else None
    try:
        entry.artefact = workshop.convert(net, entry.runtime, entry.precision, folder, calibration=some)
    except SlimwrightError as error:
        entry.why = str(error)


def run(entry: Entry, images: Tensor, expected: Tensor, *, first: bool) -> None:
    """Run the artefact in a fresh process, or note why not; the first time, compare its scores."""
    if entry.artefact is None or entry.why:
        return
    try:
        seen = measure(Local(), {"": entry.artefact}, EFFORT, inputs=[images] if first else None)[""]
    except SlimwrightError as error:
        entry.why = str(error)
        return
    entry.seen = (*entry.seen, seen)
    if seen.outputs is not None:
        entry.error = relative_error(seen.outputs[0], expected)


def row(entry: Entry) -> Row:
    """One line of the table; not-a-number for what was not reached."""
    missing = float("nan")
    times = sorted((m.latency for m in entry.seen if m.latency), key=lambda latency: latency.median_ms)
    middle = times[len(times) // 2] if times else None
    return {
        "network": entry.network,
        "artefact": f"{entry.runtime} {entry.precision}",
        "proven": "yes" if entry.proven else "no",
        "error": entry.error,
        "latency_ms": middle.median_ms if middle else missing,
        "cpu_ms": middle.cpu_ms if middle else missing,
        "size_mb": entry.artefact.size_bytes / 1e6 if entry.artefact else missing,
        "rss_mb": statistics.median(m.own_rss_bytes for m in entry.seen) / 1e6 if entry.seen else missing,
        "start_ms": statistics.median(m.cold_start_ms for m in entry.seen) if entry.seen else missing,
        "why": entry.why,
    }


def of_precisions(rows: Sequence[Row]) -> dict[str, float]:
    """The largest error of each precision, and in how many of the networks and runtimes INT8 is slower than FP32."""
    taken = {(row["network"], *str(row["artefact"]).split()): row for row in rows}
    found: dict[str, float] = {
        f"largest_error_{precision}": max(float(row["error"]) for key, row in taken.items() if key[2] == precision)
        for precision in PRECISIONS
    }
    pairs = [(row, taken[*key[:2], "fp32"]) for key, row in taken.items() if key[2] == "int8"]
    slower = sum(float(small["latency_ms"]) > float(plain["latency_ms"]) for small, plain in pairs)
    return found | {"int8_tried": len(pairs), "int8_slower": slower}


if __name__ == "__main__":
    main()
