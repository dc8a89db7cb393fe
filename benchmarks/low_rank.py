"""Layers replaced by low-rank ones: what that saves, what it is worth in time, and what evidence adds at equal rank.

AlexNet at the ranks that reproductions give as those of Astrid and Lee 2017 (arXiv 1701.07148), with groups (three
layers for a convolution) and without (four): counted, which is exact, and timed in ONNX Runtime on one thread, original
and factorised interleaved. Weights are random, which costs the same time. "Aligned": the same ranks rounded up to the
multiple of channels that the runtime likes, as measured here.

And a net trained here, factorised twice at each rank: plainly, so that the weights differ least, and from evidence, so
that the outputs do. Both start from the same weights, see the same images, and are tuned alike afterwards with the
original as teacher. Then the same layers from evidence in turns with training, as long in all: all at once (one-shot),
two at a time (a hybrid), and each alone (iterative). Ranks follow from the share of weights removed, and are aligned;
every convolution is factorised but the first, which reads the image. The test part is read, and chooses nothing. Times
are those of the plain versions: the others have the same shapes.

What was tuned is kept in out/low_rank until the run ends: one that was stopped goes on where it was.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from lib import onnx_runs
from lib.accuracy import accuracy
from lib.alexnet_ranks import FACTORISED, alexnet_factors
from lib.results import Column, Row, environment, keep, kept, options, publish, show
from lib.untrained import SEED, captured
from slimwright.cli.sources import load_data, load_original
from slimwright.cli.trained import Training
from slimwright.cost import Cost, count
from slimwright.data import Dataset
from slimwright.evidence import observe
from slimwright.graph import Net
from slimwright.runtimes import onnxruntime
from slimwright.tasks import Classification
from slimwright.techniques import Ranks, Recipe, Tune, apply, in_turns
from slimwright.techniques.fold import fold_batch_norm
from slimwright.techniques.low_rank import Factors, Kind, factorise, most_ranks, outline, params_at
from slimwright.techniques.ranks import aligned, rank_for_ratio
from slimwright.train import Schedule, fit

OUT = Path(__file__).resolve().parents[1] / "out"
CACHE, KEPT = OUT / "cache", OUT / "low_rank"
NETWORK = "vgg6"
TUNING = Schedule(epochs=1, rate=0.01, seed=SEED)
PLAIN, AWARE, ALIGNED = "plain", "from evidence", ", aligned"
IMAGES = 1_000  # calibration images that turns observe
QUOTED: tuple[Kind, float] = ("cp", 0.85)  # the headline's: the paper's kind, at the share of weights it removes
ALEXNETS = (
    Column("network", "network"),
    Column("kind", "convolutions"),
    Column("params", "parameters", "{:,}"),
    Column("params_ratio", "fewer", "{:.2f}x"),
    Column("macs", "MACs", "{:,}"),
    Column("macs_ratio", "fewer", "{:.2f}x"),
    Column("latency_ms", "ms", "{:.2f}"),
    Column("speedup", "faster", "{:.2f}x"),
)
TRAINED = (
    Column("kind", "kind"),
    Column("share_removed", "removed", "{:.0%}"),
    Column("method", "method"),
    Column("params_left", "parameters", "{:.1%}"),
    Column("macs_left", "MACs", "{:.1%}"),
    Column("time_left", "time", "{:.1%}"),
    Column("accuracy", "accuracy", "{:.1%}"),
    Column("loss_points", "lost", "{:.2f}"),
    Column("tuned_loss_points", "tuned, lost", "{:.2f}"),
)
TURNS = (
    Column("way", "way"),
    Column("turns", "turns"),
    Column("epochs", "epochs in all"),
    Column("tuned_loss_points", "tuned, lost", "{:.2f}"),
)


@dataclass(frozen=True)
class Extent:
    """How much is run."""

    data: str
    kinds: tuple[Kind, ...]
    shares: tuple[float, ...]
    runs: int  # of a timed model
    turned: int | None  # layers that are factorised in turns; all


FULL = Extent("glyphs:classes=10,train=2500", ("output", "tucker2", "cp", "cp4"), (0.7, 0.85), 100, None)
QUICK = Extent("glyphs:classes=10,train=300,calibration=200,validation=100,test=300", ("output", "cp"), (0.85,), 20, 2)


def main() -> None:
    chosen = options(__doc__ or "")
    extent = QUICK if chosen.quick else FULL
    step = onnx_runs.step()
    alexnets = [row for name, kind in FACTORISED.values() for row in alexnet_rows(name, kind, step, extent.runs)]
    show("AlexNet at the paper's ranks: counted, and timed on one thread", ALEXNETS, alexnets, sections=("network",))
    data, rows_at = load_data(extent.data, SEED), KEPT / ("quick.jsonl" if chosen.quick else "rows.jsonl")
    trained = list(trained_rows(data, extent, step, rows_at))
    show(f"{NETWORK} on {data.name}, factorised", TRAINED, trained, sections=("kind", "share_removed"))
    turns = list(turn_rows(data, extent, step, rows_at))
    show(f"{QUOTED[0]}, {QUOTED[1]:.0%} removed, from evidence, in turns with training", TURNS, turns)
    said = {
        "data": data.name,
        "calibration_images": data.size("calibration"),
        "tuning_epochs": TUNING.epochs,
        "step": step,
    }
    publish(
        chosen,
        headline=headline(alexnets, trained),
        rows=[*alexnets, *trained, *turns],
        environment={**environment("onnxruntime", "scipy", seed=SEED), **said},
    )
    rows_at.unlink()


def once(what: Row, rows_at: Path, find: Callable[[], Row]) -> Row:
    """Return what was found before of this, or find it and keep it."""
    for row in kept(rows_at):
        if what.items() <= row.items():
            return row
    row = {**what, **find()}
    keep(row, rows_at)
    return row


def alexnet_rows(name: str, kind: Kind, step: int, runs: int) -> list[Row]:
    """Count an AlexNet before and after, and time all against each other."""
    net = captured(name)
    factors = alexnet_factors(net, kind)
    nets = {"original": net, kind: outline(net, factors), f"{kind}{ALIGNED}": outline(net, aligned(net, factors, step))}
    taken, before = timed({side: with_weights(thin) for side, thin in nets.items()}, runs), count(net)
    rows: list[Row] = []
    for side, thin in nets.items():
        cost = count(thin)
        rows.append(
            {
                "network": name,
                "kind": side,
                "params": cost.params,
                "params_ratio": before.params / cost.params,
                "macs": cost.macs,
                "macs_ratio": before.macs / cost.macs,
                "latency_ms": taken[side],
                "speedup": taken["original"] / taken[side],
            }
        )
    Console(stderr=True).print(f"{name}: counted and timed")
    return rows


def with_weights(net: Net) -> Net:
    """The net with random weights where it has only their shapes, as large as keeps signals alive."""
    generator = torch.Generator().manual_seed(SEED)
    drawn = {
        name: torch.randn(t.shape, generator=generator) * (2 / t[0].numel()) ** 0.5
        for name, t in net.tensors.items()
        if t.is_meta
    }
    return net.edited(tensors=drawn)


def timed(nets: Mapping[str, Net], runs: int) -> dict[str, float]:
    """Median milliseconds of each net in ONNX Runtime, batch norms folded, interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{number}.onnx" for number, name in enumerate(nets)}
        for name, net in nets.items():
            onnxruntime.write_onnx(fold_batch_norm(net), paths[name])
        shape = next(iter(nets.values())).input.shape
        taken = onnx_runs.in_turn(paths, shape, runs)
        return {name: one.latency.median_ms for name, one in taken.items() if one.latency}


def trained_rows(data: Dataset, extent: Extent, step: int, rows_at: Path) -> Iterator[Row]:
    """Factorise a trained net by each kind, plainly and from evidence, and read what is left, tuned and not."""
    say = Console(stderr=True).print
    say(f"{NETWORK}: training, or loading what was trained before")
    net = load_original(NETWORK, data, training=Training(cache=CACHE)).net
    evidence = observe(net, data.batches("calibration", 64), task=Classification(data.labels), seed=SEED)
    wanted = {
        (k, share): aligned(net, factors_at(net, k, share), step) for k in extent.kinds for share in extent.shares
    }
    plain = {key: factorise(net, factors) for key, factors in wanted.items()}
    sides = {"original": net} | {f"{kind} {share}": thin for (kind, share), thin in plain.items()}
    taken = timed(sides, extent.runs)
    whole = Read(net, count(net), accuracy(net.to_module(), data, "test"))
    yield whole.row("original", 0.0, "-", whole, 1.0, whole.accuracy)
    for (kind, share), factors in wanted.items():
        for method, thin in ((PLAIN, plain[kind, share]), (AWARE, factorise(net, factors, evidence))):
            what: Row = {"net": thin.digest, "teacher": net.digest, "epochs": TUNING.epochs, "data": data.name}
            found = once(what, rows_at, partial(both_accuracies, thin, net, data))
            read, tuned = Read(thin, count(thin), float(found["untuned"])), float(found["tuned"])
            yield read.row(kind, share, method, whole, taken[f"{kind} {share}"] / taken["original"], tuned)
            say(f"{kind}, {share:.0%} removed, {method}: {read.accuracy:.1%}, tuned {tuned:.1%}")


def both_accuracies(thin: Net, net: Net, data: Dataset) -> Row:
    """The accuracy of a factorised net on the test part, before and after it is tuned with the whole one as teacher."""
    before = accuracy(thin.to_module(), data, "test")
    after = fit(thin.to_module(), data, TUNING, task=Classification(data.labels), teacher=net.to_module())
    return {"untuned": before, "tuned": accuracy(after, data, "test")}


@dataclass(frozen=True)
class Read:
    """A net, what it costs, and the share of the test part that it gets right."""

    net: Net
    cost: Cost
    accuracy: float

    def row(self, kind: str, share: float, method: str, whole: "Read", time_left: float, tuned: float) -> Row:
        """The row of a factorised net beside the whole one."""
        return {
            "kind": kind,
            "share_removed": share,
            "method": method,
            "params_left": self.cost.params / whole.cost.params,
            "macs_left": self.cost.macs / whole.cost.macs,
            "time_left": time_left,
            "accuracy": self.accuracy,
            "loss_points": 100 * (whole.accuracy - self.accuracy),
            "tuned_loss_points": 100 * (whole.accuracy - tuned),
        }


def turn_rows(data: Dataset, extent: Extent, step: int, rows_at: Path) -> Iterator[Row]:
    """Factorise the layers at the share quoted, from evidence, all at once, two at a time, and one at a time."""
    net = load_original(NETWORK, data, training=Training(cache=CACHE)).net
    whole = accuracy(net.to_module(), data, "test")
    factors = aligned(net, factors_at(net, *QUOTED), step)
    layers = {name: Ranks(kind=wanted.kind, ranks=wanted.ranks) for name, wanted in factors.items()}
    names = list(layers)[: extent.turned]
    layers = {name: layers[name] for name in names}
    for way, size in (("one-shot", len(names)), ("hybrid", 2), ("iterative", 1)):
        groups = [names[start : start + size] for start in range(0, len(names), size)]
        steps = in_turns(layers, groups, Tune(epochs=1, rate=TUNING.rate, seed=SEED), images=IMAGES)
        recipe = Recipe(original=net.digest, steps=steps)
        what: Row = {"recipe": recipe.model_dump_json(), "data": data.name}
        found = once(what, rows_at, partial(accuracy_by, recipe, net, data))
        read = float(found["tuned"])
        yield {"way": way, "turns": len(groups), "epochs": len(names), "tuned_loss_points": 100 * (whole - read)}
        Console(stderr=True).print(f"{way}: {read:.1%}")


def accuracy_by(recipe: Recipe, net: Net, data: Dataset) -> Row:
    """The accuracy on the test part of what a recipe makes of a net."""
    return {"tuned": accuracy(apply(recipe, net, data).to_module(), data, "test")}


def factors_at(net: Net, kind: Kind, removed: float) -> dict[str, Factors]:
    """Factors that remove this share of the weights of every convolution but the first."""
    _, *convs = (node.name for node in net.weighted() if node.op == "conv2d")
    if kind == "tucker2":
        return {name: tucker_factors(net, name, removed) for name in convs}
    return {name: Factors(kind, (rank_for_ratio(net, name, kind, removed),)) for name in convs}


def tucker_factors(net: Net, name: str, removed: float) -> Factors:
    """The largest ranks, the same share of either side's channels, that remove this share of a layer's weights."""
    inputs, outputs = most_ranks(net, name, "tucker2")
    left = (1 - removed) * net.tensors[net[name].tensors["weight"]].numel()
    found = Factors("tucker2", (1, 1))
    for rank in range(1, outputs + 1):
        tried = Factors("tucker2", (max(inputs * rank // outputs, 1), rank))
        found = tried if params_at(net, name, tried) <= left else found
    return found


def headline(alexnets: list[Row], trained: list[Row]) -> dict[str, float]:
    """The exact counts, the speed-ups (the paper's network has groups), and the points lost at the share quoted."""
    counted = {(str(row["network"]), row["kind"]): row for row in alexnets}
    grouped, ungrouped = (counted[name, kind] for name, kind in FACTORISED.values())
    fast, ungrouped_fast = (counted[name, f"{kind}{ALIGNED}"] for name, kind in FACTORISED.values())
    lost = {str(r["method"]): r for r in trained if (r["kind"], r["share_removed"]) == QUOTED}
    return {
        "params_ungrouped": float(ungrouped["params"]),
        "params_grouped": float(grouped["params"]),
        "speedup": float(grouped["speedup"]),
        "speedup_aligned": float(fast["speedup"]),
        "speedup_ungrouped": float(ungrouped["speedup"]),
        "speedup_ungrouped_aligned": float(ungrouped_fast["speedup"]),
        "loss_points_data_aware": float(lost[AWARE]["loss_points"]),
        "loss_points_plain": float(lost[PLAIN]["loss_points"]),
        "tuned_loss_points_data_aware": float(lost[AWARE]["tuned_loss_points"]),
        "tuned_loss_points_plain": float(lost[PLAIN]["tuned_loss_points"]),
    }


if __name__ == "__main__":
    main()
