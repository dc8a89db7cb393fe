"""Remove the same share of channels from every group of a trained net, train nothing, and see what accuracy is left.

Every method starts from the same weights, sees the same calibration images and is read once on the test part. No
choice is made on it but one in the peer's favour: the headline's "best peer" is the best of its variants there. It
is torch-pruning, by each of its importances and scopes (`torch_pruning_side.py`), read as it comes and with its
batch-norm statistics estimated again on the calibration images. slimwright is read after its refit and, to show what
that adds, right after the cut.

Seconds are from the trained net to the pruned one, without reading the accuracy, timed once on one thread: an order of
magnitude. slimwright observes and plans once for all shares; every row of its carries that time in full. Networks are
pruned side by side, a process each. `--quick` leaves out the rows that show what the refit adds.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from lib.accuracy import accuracy
from lib.batch_norms import estimate_batch_norms
from lib.results import Column, Row, environment, options, publish, show
from lib.torch_pruning_side import IMPORTANCES, SCOPES, by_torch_pruning
from slimwright.cli.sources import load_original
from slimwright.cli.trained import Training
from slimwright.cost import Cost, count
from slimwright.coupling import couple, cut
from slimwright.data import Dataset, digits, labelled, whole
from slimwright.evidence import observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.tasks import Classification
from slimwright.techniques import Prune, Recipe, Solve, apply
from slimwright.techniques.prune import removals
from slimwright.train import Schedule

CACHE = Path(__file__).resolve().parents[1] / "out" / "cache"
SEED = 0
OURS, CUT_ONLY = "slimwright", "slimwright, cut only"
PEER = "torch-pruning"
TITLE = "Channels removed, nothing trained: parameters and MACs that are left, accuracy on the test part"
COLUMNS = (
    Column("network", "network"),
    Column("share_removed", "removed", "{:.0%}"),
    Column("method", "method"),
    Column("params_left", "parameters", "{:.1%}"),
    Column("macs_left", "MACs", "{:.1%}"),
    Column("accuracy", "accuracy", "{:.1%}"),
    Column("seconds", "seconds", "{:.1f}"),
)


NETWORKS = ("vgg6", "resnet8-wide")
SHARES = (0.3, 0.5, 0.7, 0.8, 0.9)
JOBS = 2  # processes


@dataclass(frozen=True)
class Pruned:
    """A pruned model, by which method it came about, and how long that took."""

    share_removed: float
    method: str
    model: nn.Module
    seconds: float
    like: str = ""  # the method whose layers it has


def main() -> None:
    chosen = options(__doc__ or "")
    data = digits(SEED)
    with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:
        found = pool.map(partial(rows_of, quick=chosen.quick), NETWORKS)
        rows = [row for rows in found for row in rows]
    rows.sort(key=lambda row: (NETWORKS.index(str(row["network"])), row["share_removed"]))
    show(TITLE, COLUMNS, rows, sections=("network", "share_removed"))
    versions = environment("torch-pruning", "numpy", "scikit-learn", seed=SEED)
    seen = {"epochs": Schedule().epochs, "calibration_images": data.size("calibration")}
    publish(chosen, headline=headline(rows), rows=rows, environment={**versions, **seen})


def rows_of(network: str, *, quick: bool) -> list[Row]:
    """Prune one network by every method and read what is left."""
    torch.set_num_threads(1)
    say = Console(stderr=True).print
    say(f"{network}: training, or loading what was trained before")
    data = digits(SEED)
    net = load_original(network, data, training=Training(cache=CACHE)).net
    whole_cost = count(net)
    found = [row(network, Pruned(0.0, "original", net.to_module(), 0.0), whole_cost, whole_cost, data)]
    costs: dict[tuple[float, str], Cost] = {}
    for prune in (by_slimwright, by_peer):
        for pruned in prune(net, data, SHARES):
            if quick and pruned.method.startswith(CUT_ONLY):
                continue
            key = pruned.share_removed, pruned.like or pruned.method
            if key not in costs:  # of a fresh capture, so no method counts for itself
                costs[key] = count(capture(pruned.model, data.image_shape))
            found.append(row(network, pruned, costs[key], whole_cost, data))
            say(f"{network}: {pruned.share_removed:.0%} removed by {pruned.method}")
    return found


def row(network: str, pruned: Pruned, cost: Cost, original: Cost, data: Dataset) -> Row:
    """Say what a pruned model costs, and read it."""
    return {
        "network": network,
        "share_removed": pruned.share_removed,
        "method": pruned.method,
        "params_left": cost.params / original.params,
        "macs_left": cost.macs / original.macs,
        "accuracy": accuracy(pruned.model, data, "test"),
        "seconds": round(pruned.seconds, 2),
    }


def by_slimwright(net: Net, data: Dataset, shares: Sequence[float]) -> Iterator[Pruned]:
    """Observe once; then, per share, cut the channels whose removal costs least, and refit."""
    start = time.perf_counter()
    coupling = couple(net)
    evidence = observe(net, data.batches("calibration", 64), task=Classification(data.labels), seed=SEED)
    orders = removals(net, evidence, coupling)
    calibration = labelled(whole(data, "calibration"))
    planning = time.perf_counter() - start
    for share in shares:
        keep = {name: order.keep(left_of(len(order.order), share)) for name, order in orders.items()}
        start = time.perf_counter()
        small = cut(net, keep, coupling).to_module().eval()
        cutting = planning + time.perf_counter() - start
        yield Pruned(share, CUT_ONLY, small, cutting)
        start = time.perf_counter()
        estimated = estimate_batch_norms(small, calibration[0])
        yield Pruned(share, f"{CUT_ONLY} + BN", estimated, cutting + time.perf_counter() - start, like=CUT_ONLY)
        start = time.perf_counter()
        step = Prune(keep={name: kept.tolist() for name, kept in keep.items()})
        solved = apply(Recipe(original=net.digest, steps=(step, Solve())), net, data)
        yield Pruned(share, OURS, solved.to_module().eval(), planning + time.perf_counter() - start)


def by_peer(net: Net, data: Dataset, shares: Sequence[float]) -> Iterator[Pruned]:
    """Prune per share, importance and scope; read it as it comes and with batch norm estimated again."""
    calibration, model = labelled(whole(data, "calibration")), net.to_module()
    for share in shares:
        for importance in IMPORTANCES:
            for scope in SCOPES:
                method = f"{PEER} {importance}{scope}"
                start = time.perf_counter()
                small = by_torch_pruning(model, calibration, share, importance=importance, scope=scope)
                pruning = time.perf_counter() - start
                yield Pruned(share, method, small, pruning)
                start = time.perf_counter()
                small = estimate_batch_norms(small, calibration[0])
                yield Pruned(share, f"{method} + BN", small, pruning + time.perf_counter() - start, like=method)


def left_of(size: int, share_removed: float) -> int:
    """How many of a group's channels stay: torch-pruning's rounding, so that all methods leave the same number."""
    return max(int(size * (1 - share_removed)), 1)


def headline(rows: Sequence[Row]) -> dict[str, float]:
    """The accuracies to quote: the first network's without a prefix, the best peer being the best of its variants."""
    first = rows[0]["network"]
    found: dict[str, float] = {}
    for name in dict.fromkeys(str(row["network"]) for row in rows):
        prefix = "" if name == first else f"{name.replace('-', '_')}_"
        mine = [row for row in rows if row["network"] == name]
        found[f"{prefix}accuracy_original"] = best(mine, lambda row: row["method"] == "original")
        for share in sorted({float(row["share_removed"]) for row in mine} - {0.0}):
            at = [row for row in mine if row["share_removed"] == share]
            found[f"{prefix}ours_{share:.0%}".rstrip("%")] = best(at, lambda row: row["method"] == OURS)
            peers = best(at, lambda row: str(row["method"]).startswith(PEER))
            found[f"{prefix}best_peer_{share:.0%}".rstrip("%")] = peers
    return found


def best(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> float:
    return max(float(row["accuracy"]) for row in rows if wanted(row))


if __name__ == "__main__":
    main()
