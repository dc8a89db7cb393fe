"""Layer slimming: GoogLeNet with its poolings, norms and branches merged, and shrunk by the evidence.

Four parts. Where the time goes: the share that ONNX Runtime spends in layers without weights, for the networks of Li et
al. 2018 (DeepRebirth, arXiv 1708.04728), with its graph optimisations and without. What can be kept: a scale model of
GoogLeNet is trained here, merged, solved and shrunk to several sizes by the evidence, and tuned with the original as
teacher. (`at_random_macs` takes the paper's own start beside it, new layers Xavier-initialised and at ten times the
rate of the others, for as many epochs; so far the quick run alone does.) The original is tuned alike, its own teacher,
and points are lost against the better of the two on the validation part: what more epochs give to any net is no merit
of a slim one. What that saves: the full network at 224x224 with the same share of the channels of each layer, random
weights, timed against the original, all in turn on one thread; and block by block. AlexNet and ResNet-50 as far as the
paper takes them.

torch.onnx writes a response norm as eight operators that ONNX Runtime runs faster than its own operator for it, which
converters of Caffe's files use. Speed-ups are over the faster original; those over the other stand beside them.

A size is chosen by the validation part: the smallest that loses no more than MOST_LOST there, or else the one that
loses least. The test part is read once, at the end, and chooses nothing. Batch norms fold exactly and are folded on all
sides. Times of whole networks are processor time. Multiply-accumulates a second tell the limit: a merged network goes
little faster through them than the original, so it gains what it has fewer; and narrow layers go slower.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console

from lib import onnx_runs
from lib.accuracy import accuracy
from lib.googlenet_timing import COMBINED, MERGED, NORM_OPERATOR, ORIGINAL, cut_like, timed
from lib.kept_nets import in_memory
from lib.results import Column, Row, environment, parser, publish, show
from lib.slim_googlenet import Choice, ScaleModel, Slim
from lib.small_googlenet import trained
from lib.untrained import SEED, captured
from slimwright.compute import usable
from slimwright.cost import count
from slimwright.data import Glyphs, glyphs
from slimwright.graph import Net
from slimwright.progress import Event, Tell
from slimwright.techniques.tune import LONGEST_GRADIENT
from slimwright.train import Schedule

CACHE = Path(__file__).resolve().parents[1] / "out" / "deeprebirth"
MOST_LOST = 0.4  # points
AT_RANDOM = "merged, new layers at random"
LONGER = "original, tuned alike"
STEP = 16  # channels that ONNX Runtime likes here; measured again, and told, by each run
SHARES = (
    Column("network", "network"),
    Column("optimised", "optimised"),
    Column("share", "non-tensor", "{:.1%}"),
    Column("paper_share", "the paper's, Intel", "{:.1%}"),
)
ACCURACIES = (
    Column("net", "net"),
    Column("full_macs", "MACs, full network", "{:,.0f}"),
    Column("reducers_kept", "reducers kept", "{:.0%}"),
    Column("channels_kept", "channels kept", "{:.0%}"),
    Column("solved_lost", "solved, lost", "{:.2f}"),
    Column("tuned_lost", "tuned, lost", "{:.2f}"),
)
TOTALS = (
    Column("network", "network"),
    Column("net", "net"),
    Column("macs", "MACs", "{:,}"),
    Column("cpu_ms", "CPU ms", "{:.2f}"),
    Column("speedup", "faster", "{:.2f}x"),
    Column("gmacs_per_s", "G MACs a second", "{:.1f}"),
    Column("arena_mb", "planned memory", "{:.2f} MB"),
    Column("rss_mb", "memory of a process", "{:.1f} MB"),
)
BLOCKS = (
    Column("block", "block"),
    Column("ms", "ms", "{:.2f}"),
    Column("merged_speedup", "merged", "{:.2f}x"),
    Column("combined_speedup", "merged, pruned", "{:.2f}x"),
    Column("paper_merged_speedup", "the paper's, merged", "{:.2f}x"),
    Column("paper_combined_speedup", "and low-rank", "{:.2f}x"),
)
FINAL = (
    Column("net", "net"),
    Column("test_accuracy", "test part", "{:.2%}"),
    Column("test_lost", "lost", "{:.2f}"),
)


@dataclass(frozen=True)
class Extent:
    """How much is run."""

    data: Glyphs
    training: Schedule
    tuning: Schedule
    merged_macs: tuple[float, ...]  # of the full network: how far reducers shrink
    combined_macs: tuple[float, ...]  # how far all channels do
    at_random_macs: tuple[float, ...]  # where, of `merged_macs`, the paper's own start is taken beside
    runs: int  # of a timed model


FULL = Extent(
    Glyphs(
        classes=10,
        difficulty=0.7,
        sizes={"train": 1_200, "calibration": 1_000, "validation": 2_000, "test": 4_000},
    ),
    Schedule(epochs=16, rate=0.05, batch_size=32, seed=SEED),
    Schedule(epochs=16, rate=0.04, batch_size=32, longest_gradient=LONGEST_GRADIENT, seed=SEED),  # else one can be lost
    (520e6,),
    (300e6, 215e6),
    (),
    60,
)
QUICK = Extent(
    Glyphs(classes=10, sizes={"train": 200, "calibration": 100, "validation": 100, "test": 100}),
    Schedule(epochs=1, rate=0.05, batch_size=64, seed=SEED),
    Schedule(epochs=1, rate=0.01, batch_size=64, seed=SEED),
    (520e6,),
    (245e6,),
    (520e6,),
    10,
)


def main() -> None:
    asked = options()
    extent = QUICK if asked.quick else FULL
    torch.set_num_threads(1)
    data = in_memory(glyphs(extent.data, SEED))
    full = captured("googlenet")
    net = trained(data, extent.training, CACHE, device=usable(asked.device), tell=printed("training"))
    model = ScaleModel(net, full, data, STEP, CACHE, device=asked.device)
    slim_side_by_side(model, extent, asked.jobs)
    if asked.prepare:
        return
    step = onnx_runs.step()
    originals = both_originals(model, extent)
    accuracies, sizes = slimmed(model, extent, originals)
    chosen = {kind: best([size for size in sizes if size.kind == kind]) for kind in (MERGED, COMBINED)}
    show(f"a scale model on {data.name}: points lost on the validation part", ACCURACIES, accuracies[2:])
    final = tested(model, originals, sizes)
    show("the same on the test part", FINAL, final)
    Console(stderr=True).print("the full networks: exporting and timing")
    with tempfile.TemporaryDirectory() as folder:
        cut = {size.name: cut_like(size.slim.choice, full) for size in sizes}
        marked = {kind: size.name for kind, size in chosen.items()}
        shares, totals, blocks = timed(full, cut, marked, Path(folder), extent.runs)
    show("time in layers without weights, ONNX Runtime, one thread", SHARES, shares, sections=("network",))
    show("full networks, one thread, all in turn", TOTALS, totals, sections=("network",))
    show(f"GoogLeNet, block by block: {marked[MERGED]}, and {marked[COMBINED]}", BLOCKS, blocks)
    told = {
        "data": data.name,
        "calibration_images": data.size("calibration"),
        "training_epochs": extent.training.epochs,
        "tuning_epochs": extent.tuning.epochs,
        "tuned_on": sorted({size.slim.device for size in sizes}),
        "step": step,
        "chosen": marked,
        "points_lost_against": originals.better,
    }
    publish(
        asked,
        headline=headline(final, totals, marked),
        rows=[*shares, *accuracies, *final, *totals, *blocks],
        environment={**environment("onnxruntime", seed=SEED), **told},
    )


def options() -> argparse.Namespace:
    known = parser(__doc__ or "")
    known.add_argument("--jobs", type=int, default=1, help="sizes that are tuned at a time")
    known.add_argument("--device", default="cpu", help="of torch, that trains and solves: cpu, cuda")
    known.add_argument("--prepare", action="store_true", help="find the nets, and time nothing: another run does")
    return known.parse_args()


@dataclass(frozen=True)
class Size:
    """One size of the scale model: its name, whether all channels may go or reducers alone, and what came of it."""

    name: str
    kind: str  # MERGED or COMBINED
    slim: Slim
    lost: float  # points, on the validation part


def slim_side_by_side(model: ScaleModel, extent: Extent, jobs: int) -> None:
    """Find the nets of every size, each in a process; they are kept, and `slimmed` will find them."""
    _, limits, groups = zip(*wanted_sizes(model, extent), strict=True)
    model.choose(limits[0], groups[0])  # finds what all sizes need of the evidence, once
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        longer = pool.submit(_as_long, model, extent.tuning)
        list(pool.map(partial(_slim, model, extent.tuning), limits, groups))
        longer.result()


def wanted_sizes(model: ScaleModel, extent: Extent) -> list[tuple[str, float, Sequence[str]]]:
    """The sizes to come to: of what kind, at most so many MACs of the full network, and the channels that may go."""
    merged_only: list[tuple[str, float, Sequence[str]]] = [
        (MERGED, macs, model.reducers) for macs in extent.merged_macs
    ]
    return [*merged_only, *((COMBINED, macs, model.groups) for macs in extent.combined_macs)]


def _slim(model: ScaleModel, tuning: Schedule, limit: float, groups: Sequence[str]) -> None:
    torch.set_num_threads(1)
    model.slim(limit, groups, tuning, tell=printed(f"{limit / 1e6:.0f} M"))


def _as_long(model: ScaleModel, tuning: Schedule) -> None:
    torch.set_num_threads(1)
    model.as_long(tuning, tell=printed(LONGER))


@dataclass(frozen=True)
class Originals:
    """The original, and the same tuned as its sizes are; the better on the validation part is what they lose to."""

    nets: Mapping[str, Net]
    accuracies: Mapping[str, float]  # on the validation part

    @property
    def better(self) -> str:
        """The name of the better."""
        return max(self.accuracies, key=self.accuracies.__getitem__)


def both_originals(model: ScaleModel, extent: Extent) -> Originals:
    """Return the original and what as much tuning makes of it."""
    longer = model.as_long(extent.tuning, tell=printed(LONGER))
    read = accuracy(longer.to_module(), model.data, "validation")
    return Originals({ORIGINAL: model.net, LONGER: longer}, {ORIGINAL: model.accuracy, LONGER: read})


def slimmed(model: ScaleModel, extent: Extent, originals: Originals) -> tuple[list[Row], list[Size]]:
    """Merge, shrink and tune the scale model at every size; return rows, and the sizes."""
    outline, whole_accuracy = model.outline, originals.accuracies[originals.better]
    at_first = 100 * (whole_accuracy - accuracy(model.start.net.to_module(), model.data, "validation"))
    nothing = Choice({name: outline[name].shape[1] for name in model.groups}, {}, float(count(outline).macs))
    rows: list[Row] = [
        {"what": "validation part", **originals.accuracies},
        said("merged, all channels", nothing, model, at_first),
    ]
    found: list[Size] = []
    for kind, limit, groups in wanted_sizes(model, extent):
        name = f"{kind}, {limit / 1e6:.0f} M"
        slim = model.slim(limit, groups, extent.tuning, tell=printed(name))
        lost = [100 * (whole_accuracy - read) for read in (slim.solved, slim.tuned)]
        found.append(Size(name, kind, slim, lost[1]))
        rows.append(said(name, slim.choice, model, *lost))
    for limit in extent.at_random_macs:
        drawn = model.slim(limit, model.reducers, extent.tuning, as_published=True, tell=printed(AT_RANDOM))
        lost = [100 * (whole_accuracy - read) for read in (drawn.solved, drawn.tuned)]
        rows.append(said(f"{AT_RANDOM}, {limit / 1e6:.0f} M", drawn.choice, model, *lost))
    return rows, found


def said(name: str, choice: Choice, model: ScaleModel, solved_lost: float, *tuned_lost: float) -> Row:
    """A row of what a choice keeps and loses."""
    return {
        "what": "scale model",
        "net": name,
        "full_macs": choice.macs,
        "reducers_kept": choice.share(model.outline, model.reducers),
        "channels_kept": choice.share(model.outline, model.groups),
        "solved_lost": solved_lost,
        **({"tuned_lost": tuned_lost[0]} if tuned_lost else {}),
        **{f"kept of {model.outline.paths[name]}": choice.full[name] for name in model.groups},
    }


def best(sizes: Sequence[Size]) -> Size:
    """The smallest that loses little enough on the validation part; else the one that loses least."""
    fitting = [size for size in sizes if size.lost <= MOST_LOST]
    return min(fitting, key=lambda s: s.slim.choice.macs) if fitting else min(sizes, key=lambda s: s.lost)


def tested(model: ScaleModel, originals: Originals, sizes: Sequence[Size]) -> list[Row]:
    """Read the test part with every net: it chooses none of them."""
    nets = {**originals.nets, **{size.name: size.slim.net for size in sizes}}
    reads = {name: accuracy(net.to_module(), model.data, "test") for name, net in nets.items()}
    whole = reads[originals.better]
    return [
        {"what": "test part", "net": name, "test_accuracy": read, "test_lost": 100 * (whole - read)}
        for name, read in reads.items()
    ]


def headline(final: Sequence[Row], totals: Sequence[Row], chosen: Mapping[str, str]) -> dict[str, float]:
    """Speed-ups and memory of GoogLeNet, and the points that the worse of its two nets loses on the test part."""
    of = {str(row["net"]): row for row in totals if row["network"] == "googlenet"}
    lost = {str(row["net"]): float(row["test_lost"]) for row in final}
    before, operators = of[ORIGINAL], of[NORM_OPERATOR]
    found: dict[str, float] = {}
    for key, kind in (("merged", MERGED), ("combined", COMBINED)):
        side = chosen[kind]
        found |= {
            f"speedup_{key}": float(of[side]["speedup"]),
            f"speedup_{key}_over_lrn_operators": float(operators["cpu_ms"]) / float(of[side]["cpu_ms"]),
            f"memory_ratio_{key}": float(before["rss_mb"]) / float(of[side]["rss_mb"]),
            f"planned_memory_ratio_{key}": float(before["arena_mb"]) / float(of[side]["arena_mb"]),
            f"loss_points_{key}": lost[side],
        }
    worst = max(found["loss_points_merged"], found["loss_points_combined"])
    return found | {"memory_ratio": found["memory_ratio_combined"], "loss_points": worst}


def printed(what: str) -> Tell:
    """Tell of each epoch on the error stream."""

    def tell(event: Event) -> None:
        Console(stderr=True).print(f"{what}: epoch {event.done} of {event.total}, {event.note}")

    return tell


if __name__ == "__main__":
    main()
