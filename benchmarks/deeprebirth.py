"""Layer slimming: GoogLeNet with its poolings, norms and branches merged, and shrunk by the evidence.

Four parts. Where the time goes: the share that ONNX Runtime spends in layers without weights, for the networks of Li et
al. 2018 (DeepRebirth, arXiv 1708.04728), with its graph optimisations and without. What can be kept: a scale model of
GoogLeNet is trained here, merged, solved and shrunk to several sizes by the evidence, and tuned with the original as
teacher. (`at_random_macs` takes the paper's own start beside it, new layers Xavier-initialised and at ten times the
rate of the others, for as many epochs; so far the quick run alone does.) What that saves: the full network at 224x224
with the same share of the channels of each layer, random weights, timed against the original, all in turn on one
thread; and block by block. AlexNet and ResNet-50 as far as the paper takes them.

torch.onnx writes a response norm as eight operators that ONNX Runtime runs faster than its own operator for it, which
converters of Caffe's files use. Speed-ups are over the faster original; those over the other stand beside them.

A size is chosen by the validation part: the smallest that loses no more than MOST_LOST there, or else the one that
loses least. The test part is read once, at the end, and chooses nothing. Batch norms fold exactly and are folded on all
sides. Times of whole networks are processor time. Multiply-accumulates a second tell the limit: a merged network goes
little faster through them than the original, so it gains what it has fewer; and narrow layers go slower.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from lib import onnx_runs
from lib.accuracy import accuracy
from lib.kept_nets import in_memory
from lib.onnx_profile import block_ms, export_as_written, non_tensor_share, profiled, with_lrn_operators
from lib.results import Column, Row, environment, parser, publish, show
from lib.slim_googlenet import Choice, ScaleModel, Slim, merged
from lib.small_googlenet import trained
from slimwright.compute import usable
from slimwright.cost import count
from slimwright.data import Glyphs, glyphs
from slimwright.graph import Net
from slimwright.graph.liveness import plan_memory
from slimwright.importers import capture
from slimwright.progress import Event, Tell
from slimwright.runtimes import onnxruntime
from slimwright.techniques.fold import fold_batch_norm
from slimwright.techniques.merge import streamline, streamlines
from slimwright.techniques.remove import removed
from slimwright.techniques.solver.draft import Draft
from slimwright.train import Schedule
from slimwright.zoo import build, network

CACHE = Path(__file__).resolve().parents[1] / "out" / "deeprebirth"
SEED = 0
MOST_LOST = 0.4  # points
ORIGINAL, NORM_OPERATOR, MERGED, COMBINED = "original", "original, LRN operators", "merged", "merged, pruned"
AT_RANDOM = "merged, new layers at random"
STEP = 16  # channels that ONNX Runtime likes here; measured again, and told, by each run
PAPER_SHARE = {"alexnet-bvlc": 0.3208, "googlenet": 0.6203, "resnet50": 0.5566}  # table 1, Intel x86 with Caffe
PAPER_MS = {  # table 5, Galaxy S5: original, merged, merged and low-rank
    "conv1": (94.92, 8.424, 6.038), "conv2": (153.8, 16.62, 9.259), "3a": (55.23, 21.17, 9.459),
    "3b": (98.41, 25.94, 11.74), "4a": (30.53, 16.80, 8.966), "4b": (32.60, 20.29, 11.65), "4c": (46.96, 18.71, 9.102),
    "4d": (36.88, 24.67, 10.05), "4e": (48.24, 28.08, 14.08), "5a": (24.64, 10.69, 5.36), "5b": (24.92, 14.58, 6.65),
    "loss3": (3.014, 2.97, 2.902),
}  # fmt: skip
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
    Glyphs(sizes={"train": 8_000, "calibration": 2_500, "validation": 2_000, "test": 4_000}),
    Schedule(epochs=16, rate=0.05, batch_size=64, seed=SEED),
    Schedule(epochs=60, rate=0.04, batch_size=64, seed=SEED),
    (520e6,),
    (480e6, 300e6, 245e6, 215e6),
    (),
    60,
)
QUICK = Extent(
    Glyphs(classes=10, sizes={"train": 300, "calibration": 100, "validation": 100, "test": 200}),
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
    accuracies, sizes = slimmed(model, extent)
    chosen = {kind: best([size for size in sizes if size.kind == kind]) for kind in (MERGED, COMBINED)}
    show(f"a scale model on {data.name}: points lost on the validation part", ACCURACIES, accuracies[1:])
    final = tested(model, sizes)
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


def captured(name: str) -> Net:
    """A network of the zoo with random weights, at its own size."""
    return capture(build(name, seed=SEED).eval(), network(name).image_shape)


# what the evidence allows


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
        list(pool.map(partial(_slim, model, extent.tuning), limits, groups))


def wanted_sizes(model: ScaleModel, extent: Extent) -> list[tuple[str, float, Sequence[str]]]:
    """The sizes to come to: of what kind, at most so many MACs of the full network, and the channels that may go."""
    merged_only: list[tuple[str, float, Sequence[str]]] = [
        (MERGED, macs, model.reducers) for macs in extent.merged_macs
    ]
    return [*merged_only, *((COMBINED, macs, model.groups) for macs in extent.combined_macs)]


def _slim(model: ScaleModel, tuning: Schedule, limit: float, groups: Sequence[str]) -> None:
    torch.set_num_threads(1)
    model.slim(limit, groups, tuning, tell=printed(f"{limit / 1e6:.0f} M"))


def slimmed(model: ScaleModel, extent: Extent) -> tuple[list[Row], list[Size]]:
    """Merge, shrink and tune the scale model at every size; return rows, and the sizes."""
    outline, whole_accuracy = model.outline, model.accuracy
    at_first = 100 * (whole_accuracy - accuracy(model.start.net.to_module(), model.data, "validation"))
    nothing = Choice({name: outline[name].shape[1] for name in model.groups}, {}, float(count(outline).macs))
    rows = [said("merged, all channels", nothing, model, at_first)]
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


def tested(model: ScaleModel, sizes: Sequence[Size]) -> list[Row]:
    """Read the test part with every net: it chooses none of them."""
    nets = [(ORIGINAL, model.net), *((size.name, size.slim.net) for size in sizes)]
    reads = [accuracy(net.to_module(), model.data, "test") for _, net in nets]
    return [
        {"what": "test part", "net": name, "test_accuracy": read, "test_lost": 100 * (reads[0] - read)}
        for (name, _), read in zip(nets, reads, strict=True)
    ]


# what that saves


def timed(
    full: Net, cut: Mapping[str, Net], chosen: Mapping[str, str], folder: Path, runs: int
) -> tuple[list[Row], list[Row], list[Row]]:
    """Export every full network and return its rows: shares of time, totals, GoogLeNet's blocks."""
    families = {"googlenet": {ORIGINAL: full, **cut}, "alexnet-bvlc": alexnets(), "resnet50": resnets()}
    paths = {
        family: {side: folder / f"{family}-{i}.onnx" for i, side in enumerate(sides)}
        for family, sides in families.items()
    }
    for family, sides in families.items():
        for side, net in sides.items():
            onnxruntime.write_onnx(net, paths[family][side])
    for name in ("googlenet", "alexnet-bvlc"):
        paths[name][NORM_OPERATOR] = folder / f"{name}-operator.onnx"
        with_lrn_operators(paths[name][ORIGINAL], paths[name][NORM_OPERATOR])
    raw = folder / "resnet50-raw.onnx"
    export_as_written(captured("resnet50"), raw)
    totals = [row for name, sides in paths.items() for row in total_rows(name, families[name], sides, runs)]
    shares = list(share_rows(paths, chosen[MERGED], raw, runs // 3))
    marked = {ORIGINAL: ORIGINAL, **chosen}
    blocks = block_rows({kind: paths["googlenet"][side] for kind, side in marked.items()}, runs)
    return shares, totals, blocks


def cut_like(choice: Choice, full: Net) -> Net:
    """The full network merged, with as many channels of each group as were chosen; any do at random weights."""
    draft = merged(full)
    keep = {name: np.arange(kept) for name, kept in choice.full.items() if kept < draft.net[name].shape[1]}
    return draft.cut(keep).net


def alexnets() -> dict[str, Net]:
    """AlexNet, and as the paper takes its norms out: the poolings stay. And the second layer with its pooling, too."""
    net = captured("alexnet-bvlc")
    first, second = (node.name for node in net.nodes if node.op == "lrn")
    one = removed(Draft.of(net), first)
    two = removed(one, second)
    return {
        ORIGINAL: net,
        "norm1 taken in": one.net,
        "norm1, norm2": two.net,
        "norm1, norm2, pool2": streamline(two, streamlines(two.net)[0]).net,
    }


def resnets() -> dict[str, Net]:
    """ResNet-50, its batch norms folded, and with its first pooling taken in."""
    net = fold_batch_norm(captured("resnet50"))
    return {ORIGINAL: net, "conv1 with its pooling": streamline(Draft.of(net), streamlines(net)[0]).net}


def share_rows(paths: Mapping[str, Mapping[str, Path]], side: str, raw: Path, runs: int) -> Iterator[Row]:
    """The share of time in layers without weights, as shipped and with each operator a kernel of its own."""
    files = {
        ("googlenet", ""): paths["googlenet"][ORIGINAL],
        ("googlenet", ", LRN operators"): paths["googlenet"][NORM_OPERATOR],
        ("googlenet", ", merged"): paths["googlenet"][side],
        ("alexnet-bvlc", ""): paths["alexnet-bvlc"][ORIGINAL],
        ("alexnet-bvlc", ", LRN operators"): paths["alexnet-bvlc"][NORM_OPERATOR],
        ("resnet50", ""): paths["resnet50"][ORIGINAL],
        ("resnet50", ", batch norms not folded"): raw,
    }
    for optimised in (True, False):
        kernels = profiled({"".join(key): path for key, path in files.items()}, runs, optimised=optimised)
        for name, form in files:
            yield {
                "what": "non-tensor share",
                "network": name + form,
                "optimised": "yes" if optimised else "no",
                "share": non_tensor_share(kernels[name + form]),
                "paper_share": PAPER_SHARE[name],
            }


def total_rows(name: str, nets: Mapping[str, Net], paths: Mapping[str, Path], runs: int) -> Iterator[Row]:
    """Time and memory of each side, over the faster original."""
    taken = cpu_ms(paths, nets[ORIGINAL].input.shape, runs)
    before = min(taken[side] for side in paths if side.startswith(ORIGINAL))
    for side, path in paths.items():
        net = nets.get(side, nets[ORIGINAL])
        macs = count(net).macs
        yield {
            "what": "total",
            "network": name,
            "net": side,
            "macs": macs,
            "cpu_ms": taken[side],
            "speedup": before / taken[side],
            "gmacs_per_s": macs / taken[side] * 1e-6,
            "arena_mb": plan_memory(net).arena_bytes / 1e6,
            "rss_mb": onnx_runs.alone(path, net.input.shape).own_rss_bytes / 1e6,
        }


def cpu_ms(paths: Mapping[str, Path], shape: tuple[int, ...], runs: int) -> dict[str, float]:
    """Median milliseconds of processor time of a run, on one thread, all models in turn.

    Not of the wall clock: where a machine does other things too, these interrupt long runs more often than short ones.
    """
    return {side: one.latency.cpu_ms for side, one in onnx_runs.in_turn(paths, shape, runs).items() if one.latency}


def block_rows(paths: Mapping[str, Path], runs: int) -> list[Row]:
    """Milliseconds of each block before and after, beside the paper's speed-ups on a phone."""
    taken = profiled(paths, runs)
    found = {side: block_ms(kernels, paths[side]) for side, kernels in taken.items()}
    rows: list[Row] = []
    for block, (original, merged_ms, both_ms) in PAPER_MS.items():
        rows.append(
            {
                "what": "block",
                "block": block,
                "ms": found[ORIGINAL][block],
                "merged_ms": found[MERGED][block],
                "combined_ms": found[COMBINED][block],
                "merged_speedup": found[ORIGINAL][block] / found[MERGED][block],
                "combined_speedup": found[ORIGINAL][block] / found[COMBINED][block],
                "paper_merged_speedup": original / merged_ms,
                "paper_combined_speedup": original / both_ms,
            }
        )
    return rows


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
