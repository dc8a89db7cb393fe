"""Make trained nets 1.5 to 4 times smaller in multiply-accumulates, with no training and after the same few epochs.

Every method starts from the same weights, sees the same calibration images, and aims at the same share of the MACs. It
is read as it comes and, if its weights were not solved, with batch-norm statistics estimated again on the calibration
images (the better of the two counts for it); and after the same fine-tuning: same epochs, rate, batches, seed, teacher.
GRAIL (`lib/grail.py`) has a row for each selector, whose settings are all channels or those inside blocks alone, and
three ridges; again the best on the test part counts. Which variants of torch-pruning and GRAIL are tuned is chosen on
the validation part. The test part is read for this table alone; "best peer" is the best of them there, in their favour.

Rows are kept as they come: a run that was killed goes on where it stopped; `--quick` starts anew. `--jobs` processes
take a network, a data set and a share at a time; with `--device cuda` a graphics card computes for all methods alike.
"""

import argparse
import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console

from lib.accuracy import accuracy
from lib.batch_norms import estimate_batch_norms
from lib.grail import self_check
from lib.results import Column, Row, environment, keep, kept, parser, publish, show
from lib.structured_networks import DATA, NETWORKS, OUT, SEED, trained
from lib.structured_sides import GRAIL, OURS, Made, Side, Subject, macs_of, sides
from slimwright.compute import usable
from slimwright.cost import count
from slimwright.coupling import couple
from slimwright.data import Dataset, labelled, whole
from slimwright.evidence import observe
from slimwright.tasks import Classification
from slimwright.train import Schedule, fit

SHARES = (1 / 1.5, 1 / 2, 1 / 3, 1 / 4)
CALIBRATION = 512  # images
WITHIN = 1.02  # of the MACs that were asked for, at which a peer counts
TUNING = Schedule(epochs=2, rate=0.02, batch_size=64, longest_gradient=1.0, seed=SEED)
TUNED = ("torch-pruning magnitude", "torch-pruning Taylor", "TensorLy Tucker", "TensorLy CP", "dropnet, layer")
CHOSEN = ("torch-pruning", GRAIL)  # of whose variants the best on the validation part is tuned
PEERS = (*CHOSEN, "TensorLy")
AGAIN = "batch norms again"
TITLE = "Fewer multiply-accumulates: accuracy on the test part without training, and after the same two epochs"
COLUMNS = (
    Column("network", "network"),
    Column("data", "data"),
    Column("times", "fewer MACs", "{:.1f}x"),
    Column("method", "method"),
    Column("macs_left", "MACs left", "{:.1%}"),
    Column("untrained", "untrained", "{:.1%}"),
    Column("tuned", "tuned"),
)


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    usable(asked.device)
    asked.rows.parent.mkdir(parents=True, exist_ok=True)
    asked.rows.touch()
    if asked.quick:
        print(f"GRAIL where the answer is known: off by {self_check():.0e} of the largest score")
    if not asked.show:
        run(asked)
    rows = latest(asked.rows)
    networks, methods = list(NETWORKS), ["original", *(method for method, _ in sides(quick=False))]

    def place(row: Row) -> tuple[int, str, float, int]:
        at = networks.index(str(row["network"])), str(row["data"]), float(row["times"])
        return *at, methods.index(str(row["method"]))

    rows.sort(key=place)
    shown = [{**row, "tuned": f"{row['tuned']:.1%}" if row["tuned"] != "" else ""} for row in rows]
    show(TITLE, COLUMNS, shown, sections=("network", "data", "times"))
    versions = environment("torch-pruning", "tensorly", seed=SEED)
    extent = {"tuning_epochs": TUNING.epochs, "tuning_rate": TUNING.rate, "calibration_images": CALIBRATION}
    publish(asked, headline=headline(rows), rows=rows, environment={**versions, **extent})


def options() -> argparse.Namespace:
    known = parser(__doc__ or "")
    known.add_argument("--methods", default="", help="by how their names begin, with commas between; all")
    known.add_argument("--networks", default="resnet20", help=f"of {','.join(NETWORKS)}")
    known.add_argument("--data", default="glyphs,digits", help="of glyphs,digits")
    known.add_argument("--times", default="1.5,2,3,4", help="how many times fewer MACs: of 1.5,2,3,4")
    known.add_argument("--rows", type=Path, metavar="FILE", help="results, as they come; out/structured/rows.jsonl")
    known.add_argument("--jobs", type=int, default=1, help="processes at a time")
    known.add_argument("--device", default="cpu", help="of torch, that computes: cpu, cuda")
    known.add_argument("--show", action="store_true", help="run nothing: the rows that are there")
    asked = known.parse_args()
    if asked.rows is None:
        asked.rows = OUT / ("quick.jsonl" if asked.quick else "rows.jsonl")
        if asked.quick and not asked.show:
            asked.rows.unlink(missing_ok=True)
    return asked


def latest(path: Path) -> list[Row]:
    """The rows of an earlier run, of those that came twice the last."""
    return list({place_of(row): row for row in kept(path)}.values())


def place_of(row: Row) -> tuple[object, ...]:
    return tuple(row[key] for key in ("network", "data", "times", "method"))


@dataclass(frozen=True)
class Work:
    """One network on one data set at one share of its MACs, by every method."""

    network: str
    data: str
    share: float
    device: str
    quick: bool
    methods: tuple[str, ...]  # how the names of those that are run begin
    rows: Path


def run(asked: argparse.Namespace) -> None:
    """Find every row that is not there yet, the longest work first."""
    data, networks, at = (given.split(",") for given in (asked.data, asked.networks, asked.times))
    if asked.quick:
        data, at = ["digits"], ["2"]
    shares = [share for share in SHARES if f"{times(share):g}" in at]
    works = [
        Work(name, kind, share, asked.device, asked.quick, tuple(asked.methods.split(",")), asked.rows)
        for kind in DATA
        for name in reversed(list(NETWORKS))
        for share in shares
        if kind in data and name in networks
    ]
    if asked.jobs == 1:
        for work in works:
            done(work)
    else:
        with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:
            list(pool.map(done, works))


def done(work: Work) -> None:
    """Write the rows of some work that are not there yet."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    where = {"network": work.network, "data": work.data}
    mine = [row for row in latest(work.rows) if (row["network"], row["data"]) == (work.network, work.data)]
    methods = {name: make for name, make in sides(quick=work.quick) if name.startswith(work.methods)}
    bench = bench_of(work.network, work.data, work.device)
    for row in bench.rows_at(work.share, mine, methods):
        keep({**where, **row}, work.rows)
        what = f"{work.network}, {work.data}, {row['times']}x by {row['method']}"
        say(f"{what}: {row['untrained']:.3f} {row['tuned']}")


@lru_cache(1)
def bench_of(name: str, kind: str, device: str) -> "Bench":
    """Train a net, or load it, and observe it once, for all methods and shares."""
    data = DATA[kind]()
    net = trained(name, kind, data, device=device)
    images, labels = (part[:CALIBRATION] for part in labelled(whole(data, "calibration")))
    held_out = labelled(whole(data, "validation"))[0]
    batches = zip(images.split(64), labels.split(64), strict=True)
    evidence = observe(net, batches, task=Classification(data.labels), seed=SEED, device=device)
    subject = Subject(
        net, couple(net), evidence, (images.to(device), labels.to(device)), held_out.to(device), SEED, OUT
    )
    return Bench(subject, data)


@dataclass(frozen=True)
class Bench:
    """One trained net, which methods are given to."""

    subject: Subject
    data: Dataset

    def rows_at(self, share: float, have: Sequence[Row], methods: Mapping[str, Side]) -> Iterator[Row]:
        """What each method that has no row yet makes of the net at one share of its MACs.

        Of torch-pruning's and GRAIL's variants, the best untrained on the validation part is tuned as well; its row
        comes again.
        """
        if not any(row["method"] == "original" for row in have):
            right = accuracy(self.subject.net.to_module(), self.data, "test")
            yield {"times": 1.0, "method": "original", "macs_left": 1.0, "untrained": right, "tuned": ""}
        families = [[method for method in methods if method.startswith(family)] for family in CHOSEN]
        alone = [family[0] for family in families if len(family) == 1]
        rows = {str(row["method"]): row for row in have if row["times"] == times(share)}
        for method, make in methods.items():
            if method not in rows:
                rows[method] = self._row(method, share, make, tuned=method in (OURS, *TUNED, *alone))
                yield rows[method]
        for family in families:
            best = max(family, key=lambda method: float(rows[method]["validation"]), default="")
            if best and rows[best]["tuned"] == "":
                yield self._row(best, share, methods[best], tuned=True)

    def _row(self, method: str, share: float, make: Side, *, tuned: bool) -> Row:
        start = time.process_time()
        made = {setting: model.to(self.subject.device) for setting, model in make(self.subject, share).items()}
        seconds = time.process_time() - start
        ways = self._readings(made, method)
        validated = {way: accuracy(model, self.data, "validation") for way, model in ways.items()}
        tested = {way: accuracy(model, self.data, "test") for way, model in ways.items()}
        best, counted = (max(read, key=read.__getitem__) for read in (validated, tested))
        row: dict[str, str | float] = {
            "times": times(share),
            "method": method,
            "setting": counted,
            "macs_left": macs_of(ways[counted], self.subject.calibration[0][:1]) / count(self.subject.net).macs,
            "untrained": tested[counted],
            "validation": validated[best],
            "tuned": "",
            "seconds": round(seconds, 1),
            "computed_by": computed_by(self.subject.device),
        }
        if tuned and float(row["macs_left"]) <= WITHIN * share:  # what cannot come down so far does not count
            model, teacher = copy.deepcopy(ways[best]), self.subject.whole()
            task = Classification(self.data.labels)
            row["tuned"] = accuracy(fit(model, self.data, TUNING, task=task, teacher=teacher), self.data, "test")
        return row

    def _readings(self, made: Made, method: str) -> Made:
        """What was made as it comes and, where its weights were not solved, with batch norms estimated again too."""
        if method == OURS or "solved" in method:
            return made
        images = self.subject.calibration[0]
        again = {f"{way}, {AGAIN}" if way else AGAIN: estimate_batch_norms(made[way], images) for way in made}
        return {**made, **again}


def computed_by(device: str) -> str:
    """The version of torch, and what it ran on."""
    return f"torch {torch.__version__}, {'cpu' if device == 'cpu' else torch.cuda.get_device_name(device)}"


def times(share: float) -> float:
    """How many times fewer."""
    return round(1 / share, 2)


def headline(rows: Sequence[Row]) -> dict[str, float]:
    """Points lost, untrained at half the MACs and after tuning, at worst over networks and data.

    Untrained: ours, the best peer's where ours is worst, and GRAIL's best variant where that is worst. After tuning:
    how far we are behind the best peer. A peer counts where it came down to the MACs that were asked for, and after
    tuning with the better of its accuracies before and after, which is in its favour.
    """
    ours, peers, grail, deficits = [], [], [], []
    originals = {(r["network"], r["data"]): float(r["untrained"]) for r in rows if r["method"] == "original"}
    for row in rows:
        if row["method"] != OURS:
            continue
        original, asked = originals[row["network"], row["data"]], 1 / float(row["times"])
        there = [r for r in rows if all(r[key] == row[key] for key in ("network", "data", "times"))]
        rivals = [r for r in there if str(r["method"]).startswith(PEERS) or str(r["method"]) in TUNED]
        rivals = [r for r in rivals if float(r["macs_left"]) <= WITHIN * asked]
        if row["times"] == 2.0:
            ours.append(points_lost(original, [row]))
            peers.append(points_lost(original, rivals))
            compensated = [r for r in rivals if str(r["method"]).startswith(GRAIL)]
            grail += [points_lost(original, compensated)] if compensated else []
        tuned = [max(float(r["tuned"]), float(r["untrained"])) for r in rivals if r["tuned"] != ""]
        deficits += [100 * (max(tuned) - float(row["tuned"]))] if tuned else []
    found = {
        "loss_points_2x_untrained": max(ours, default=math.nan),
        "best_peer_loss_points_2x_untrained": peers[ours.index(max(ours))] if ours else math.nan,
        "best_grail_loss_points_2x_untrained": max(grail, default=math.nan),
        "worst_deficit_points_after_tuning": max(deficits, default=math.nan),
    }
    return {key: round(value, 2) for key, value in found.items()}


def points_lost(original: float, rows: Sequence[Row]) -> float:
    """Points of accuracy that the best of some rows loses untrained; not a number where there are none."""
    return 100 * (original - max((float(row["untrained"]) for row in rows), default=math.nan))


if __name__ == "__main__":
    main()
