"""How well layer latencies, measured once, predict pruned networks that were never run.

For each network and runtime: measure its layers on a grid of channel counts, undisturbed and with the caches emptied,
and the whole network. Then prune it at random, predict, build, and measure in turns with the whole. nn-Meter's measure:
the share of networks whose prediction is within 10 % (Zhang et al. 2021, MobiSys). Weights do not matter for time and
are random. The form of `LatencyTable.missed` was found on other prunings of the first seven networks in `HAD_A_PART`,
and the source of its cache size chosen after the others were first predicted; those in `UNSEEN` had no part in it.
"""

import random
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from lib.results import Column, Row, environment, options, publish, show
from slimwright.cost.latency import LatencyTable, one_by_one
from slimwright.coupling import couple, cut
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.runtimes import Workshop
from slimwright.runtimes.layers import TRANSFORMED
from slimwright.search import Predictor
from slimwright.targets import Effort, Local, measure
from slimwright.targets.layers import layer_table
from slimwright.techniques.fold import fold_batch_norm
from slimwright.zoo import ZOO, build

SEED = 0
RUNTIMES = ("onnxruntime", "ncnn")
HAD_A_PART = {  # image side
    "resnet20": 32,
    "vgg11-cifar": 32,
    "resnet18": 96,
    "mobilenet-v1-0.5": 128,
    "mobilenet-v2-0.5": 128,
    "squeezenet1.1": 128,
    "googlenet-bn": 96,
    "resnet56": 32,
    "dropnet-vgg19": 32,
    "squeezenet1.0": 160,
    "mobilenet-v1-0.75": 160,
}
UNSEEN = {"mobilenet-v2": 160, "shufflenet-g3": 160, "dropnet-resnet18": 32, "resnet50": 96}
QUICK = ("resnet20", "shufflenet-g3")  # one of each kind
PRUNED, QUICKLY_PRUNED = 8, 4  # of each network
SEED_OF_PRUNINGS = 1000
WITHIN = 0.10
SHARES = (0.25, 0.95)  # of a group's channels that stay, drawn for each network and then for each group around it
EFFORT = Effort(runs=40, least_s=1.5)
COLUMNS = (
    Column("runtime", "runtime"),
    Column("network", "network"),
    Column("seen", "had a part"),
    Column("whole_ms", "whole, ms", "{:.3f}"),
    Column("nets", "pruned nets"),
    Column("least_ms", "fastest, ms", "{:.3f}"),
    Column("within", "within 10 %", "{:.0%}"),
    Column("median_error", "median error", "{:.1%}"),
    Column("worst_error", "worst", "{:+.1%}"),
    Column("warm_within", "caches left out", "{:.0%}"),
    Column("macs_within", "by MACs alone", "{:.0%}"),
)


def main() -> None:
    chosen = options(__doc__ or "")
    networks = HAD_A_PART | UNSEEN
    if chosen.quick:
        networks = {name: networks[name] for name in QUICK}
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    rows: list[Row] = []
    with Workshop() as workshop, tempfile.TemporaryDirectory() as folder:
        for runtime in RUNTIMES:
            for name, side in networks.items():
                net = small_net(name, side)
                prunings = QUICKLY_PRUNED if chosen.quick else PRUNED
                errors = list(pruned(net, runtime, workshop, Path(folder), prunings))
                rows.append(summed_up(runtime, name, errors))
                said = ", ".join(f"{one['error']:+.1%}" for one in errors)
                say(f"{runtime}, {name}: {said}")
    show("Pruned networks: predicted from layers, against measured", COLUMNS, rows, sections=("runtime",))
    headline = {f"within_10_percent_{runtime}": share_within(rows, runtime) for runtime in RUNTIMES}
    unseen = [row for row in rows if row["network"] in UNSEEN]
    headline |= {f"of_unseen_networks_{runtime}": share_within(unseen, runtime) for runtime in RUNTIMES}
    for way in ("warm", "macs"):
        headline |= {f"{way}_within_{runtime}": mean_within(rows, runtime, way) for runtime in RUNTIMES}
    publish(chosen, headline=headline, rows=rows, environment=environment("onnxruntime", "ncnn", seed=SEED))


def small_net(name: str, side: int) -> Net:
    """A network of the zoo for images of this side, with 10 classes, its batch norms folded."""
    channels = ZOO[name].image_shape[0]
    return fold_batch_norm(capture(build(name, classes=10, seed=SEED), (channels, side, side)))


def pruned(net: Net, runtime: str, workshop: Workshop, folder: Path, count: int) -> Iterator[dict[str, float]]:
    """Predict and measure `count` random prunings of a net."""
    place, coupling = Local(), couple(net)
    table = layer_table(place, runtime)
    transformed = TRANSFORMED.get(runtime, 1.0)
    predictor = Predictor(net, coupling, table, table.step(), transformed=transformed, block=table.block)
    predictor.measure()
    whole = workshop.convert(net, runtime, "fp32", folder / "whole")
    alone = measure(place, {"whole": whole}, Effort(runs=60, least_s=2.0, profile_runs=40))["whole"]
    assert alone.latency is not None
    whole_ms = alone.latency.median_ms
    predicted = predictor.latency(whole_ms, alone.tensor_share)
    always_cached = LatencyTable(one_by_one(table.time), None, {})
    warm_one = Predictor(net, coupling, always_cached, predictor.step, block=predictor.block)
    warm = warm_one.latency(whole_ms, alone.tensor_share)
    for number in range(count):
        counts = drawn(predictor, random.Random(SEED_OF_PRUNINGS + number))
        artefact = workshop.convert(cut(net, kept(predictor, counts), coupling), runtime, "fp32", folder / "pruned")
        seen = measure(place, {"whole": whole, "pruned": artefact}, EFFORT)
        before, after = seen["whole"].latency, seen["pruned"].latency
        assert before is not None and after is not None
        found_ms = after.median_ms / before.median_ms * whole_ms
        by_macs = predictor.macs(counts) / predictor.macs(predictor.whole) * whole_ms
        yield {
            "whole_ms": whole_ms,
            "measured_ms": found_ms,
            "error": predicted(counts) / found_ms - 1,
            "warm_error": warm(counts) / found_ms - 1,
            "macs_error": by_macs / found_ms - 1,
        }


def kept(predictor: Predictor, counts: Mapping[str, int]) -> dict[str, NDArray[np.int64]]:
    """Channels that stay of each group that is cut: the first ones, since weights are random."""
    keep = {g.name: np.arange(counts[g.name]) for g in predictor.coupling.groups if counts[g.name] < g.size}
    equal = {name: ladder.first(counts[name]) for name, ladder in predictor.ladders.items() if name in keep}
    return keep | equal


def drawn(predictor: Predictor, rng: random.Random) -> dict[str, int]:
    """A size for every group: around a share that is drawn for the whole network."""
    share = rng.uniform(*SHARES)
    counts = {}
    for name, sizes in predictor.sizes.items():
        wanted = sizes[0] * min(max(share + rng.uniform(-0.25, 0.25), 0.1), 1.0)
        counts[name] = min(sizes, key=lambda size: abs(size - wanted))
    return counts


def summed_up(runtime: str, name: str, errors: list[dict[str, float]]) -> Row:
    """One line of the table."""
    found = np.array([one["error"] for one in errors])
    warm, by_macs = (np.array([one[key] for one in errors]) for key in ("warm_error", "macs_error"))
    return {
        "runtime": runtime,
        "network": name,
        "seen": "no" if name in UNSEEN else "yes",
        "whole_ms": errors[0]["whole_ms"],
        "nets": len(errors),
        "least_ms": min(one["measured_ms"] for one in errors),
        "within": float((np.abs(found) <= WITHIN).mean()),
        "median_error": float(np.median(np.abs(found))),
        "worst_error": float(found[np.abs(found).argmax()]),
        "warm_within": float((np.abs(warm) <= WITHIN).mean()),
        "macs_within": float((np.abs(by_macs) <= WITHIN).mean()),
        "errors": found.round(4).tolist(),
    }


def share_within(rows: Sequence[Row], runtime: str) -> float:
    """Share of all networks of a runtime within 10 %."""
    errors = np.concatenate([row["errors"] for row in rows if row["runtime"] == runtime])
    return round(float((np.abs(errors) <= WITHIN).mean()), 3)


def mean_within(rows: Sequence[Row], runtime: str, way: str) -> float:
    """The same by another way of predicting; every row has equally many networks."""
    return round(statistics.mean(float(row[f"{way}_within"]) for row in rows if row["runtime"] == runtime), 3)


if __name__ == "__main__":
    main()
