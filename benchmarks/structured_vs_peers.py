"""Make trained nets 1.5 to 4 times smaller in multiply-accumulates, with no training and after the same few epochs.

Every method starts from the same weights, sees the same calibration images, and aims at the same share of the MACs. It
is read as it comes and, if its weights were not solved, with batch-norm statistics estimated again on the calibration
images (the better of the two counts for it); and after the same fine-tuning: same epochs, rate, batches, seed, teacher.
Which variant of torch-pruning is tuned beside its defaults is chosen on the validation part. The test part is
read once per model, for this table alone; "best peer" is the best of them there, in their favour.

Rows are kept as they come: a run that was killed goes on where it stopped. `--jobs` processes take a network, a data
set and a share at a time, and `--device cuda` lets a graphics card compute for all methods alike.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from batch_norms import estimate_batch_norms
from kept_nets import in_memory
from results_table import Column, Row, environment, show, write
from slimwright.compute import usable
from slimwright.cost import count
from slimwright.coupling import couple
from slimwright.data import Dataset, digits, glyphs, whole
from slimwright.evidence import observe
from slimwright.progress import Event
from slimwright.train import Schedule, accuracy, fit
from structured_networks import NETWORKS, trained
from structured_sides import OURS, Subject, macs_of, sides

OUT = Path(__file__).resolve().parents[1] / "out" / "structured"
SEED = 0
SHARES = (1 / 1.5, 1 / 2, 1 / 3, 1 / 4)
CALIBRATION = 512  # images
WITHIN = 1.02  # of the MACs that were asked for, at which a peer counts
DATA: dict[str, Callable[[], Dataset]] = {
    "glyphs": lambda: in_memory(glyphs(seed=SEED)),
    "digits": lambda: digits(SEED),
}
TRAINING = {
    "digits": Schedule(epochs=12, batch_size=32, seed=SEED),
    "glyphs": Schedule(epochs=8, batch_size=64, seed=SEED),
}
CALMER = {("vgg16-half", "digits"): 0.03}  # rates, where the usual one can end with half of the images wrong
TUNING = Schedule(epochs=2, rate=0.02, batch_size=64, longest_gradient=1.0, seed=SEED)
TUNED = ("torch-pruning magnitude", "torch-pruning Taylor", "TensorLy Tucker", "TensorLy CP", "dropnet, layer")
PEERS = ("torch-pruning", "TensorLy")
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
    if not asked.show:
        run(asked)
    rows = kept(asked.rows)
    networks, methods = list(NETWORKS), ["original", *(method for method, _ in sides(quick=False))]

    def place(row: Row) -> tuple[int, str, float, int]:
        at = networks.index(str(row["network"])), str(row["data"]), float(row["times"])
        return *at, methods.index(str(row["method"]))

    rows.sort(key=place)
    shown = [{**row, "tuned": f"{row['tuned']:.1%}" if row["tuned"] != "" else ""} for row in rows]
    show(TITLE, COLUMNS, shown, sections=("network", "data", "times"))
    if asked.json:
        versions = environment("slimwright", "torch", "torch-pruning", "tensorly", seed=SEED)
        extent = {"tuning_epochs": TUNING.epochs, "tuning_rate": TUNING.rate, "calibration_images": CALIBRATION}
        write(asked.json, headline=headline(rows), rows=rows, environment={**versions, **extent})


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the same code on less: some minutes")
    parser.add_argument("--networks", default="resnet20", help=f"of {','.join(NETWORKS)}")
    parser.add_argument("--data", default="glyphs,digits", help="of glyphs,digits")
    parser.add_argument("--times", default="1.5,2,3,4", help="how many times fewer MACs: of 1.5,2,3,4")
    parser.add_argument("--rows", type=Path, metavar="FILE", default=OUT / "rows.jsonl", help="results, as they come")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--device", default="cpu", help="of torch, that computes: cpu, cuda")
    parser.add_argument("--show", action="store_true", help="run nothing: the rows that are there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write headline, rows and environment here")
    return parser.parse_args()


def kept(path: Path) -> list[Row]:
    """The rows of an earlier run, of those that came twice the last; a line that was cut short by a kill is none."""
    rows: dict[tuple[object, ...], Row] = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[place_of(row)] = row
    return list(rows.values())


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
    rows: Path


def run(asked: argparse.Namespace) -> None:
    """Find every row that is not there yet, the longest work first."""
    data, networks, at = (given.split(",") for given in (asked.data, asked.networks, asked.times))
    shares = SHARES[1:2] if asked.quick else [share for share in SHARES if f"{times(share):g}" in at]
    works = [
        Work(name, kind, share, asked.device, asked.quick, asked.rows)
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
    mine = [row for row in kept(work.rows) if (row["network"], row["data"]) == (work.network, work.data)]
    bench = bench_of(work.network, work.data, work.device)
    with work.rows.open("a") as file:
        for row in bench.rows_at(work.share, mine, dict(sides(quick=work.quick))):
            file.write("\n" + json.dumps({**where, **row}))
            file.flush()
            what = f"{work.network}, {work.data}, {row['times']}x by {row['method']}"
            say(f"{what}: {row['untrained']:.3f} {row['tuned']}")


@lru_cache(1)
def bench_of(name: str, kind: str, device: str) -> "Bench":
    """Train a net, or load it, and observe it once, for all methods and shares."""
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    data = DATA[kind]()
    usual = TRAINING[kind]
    schedule = replace(usual, rate=CALMER.get((name, kind), usual.rate))

    def tell(event: Event) -> None:
        say(f"training {name}: {event.done}/{event.total}")

    net = trained(name, data, schedule, OUT, device=device, tell=tell)
    images, labels = (part[:CALIBRATION] for part in whole(data, "calibration"))
    held_out = whole(data, "validation")[0]
    batches = zip(images.split(64), labels.split(64), strict=True)
    evidence = observe(net, batches, classes=len(data.labels), seed=SEED, device=device)
    subject = Subject(
        net, couple(net), evidence, (images.to(device), labels.to(device)), held_out.to(device), SEED, OUT
    )
    return Bench(subject, data)


@dataclass(frozen=True)
class Bench:
    """One trained net, which methods are given to."""

    subject: Subject
    data: Dataset

    def rows_at(
        self, share: float, have: Sequence[Row], methods: Mapping[str, Callable[[Subject, float], nn.Module]]
    ) -> Iterator[Row]:
        """What each method that has no row yet makes of the net at one share of its MACs.

        Of torch-pruning's variants, the best untrained on the validation part is tuned as well; its row comes again.
        """
        if not any(row["method"] == "original" for row in have):
            right = accuracy(self.subject.net.to_module(), self.data, "test")
            yield {"times": 1.0, "method": "original", "macs_left": 1.0, "untrained": right, "tuned": ""}
        rows = {str(row["method"]): row for row in have if row["times"] == times(share)}
        for method, make in methods.items():
            if method not in rows:
                rows[method] = self._row(method, share, make, tuned=method in (OURS, *TUNED))
                yield rows[method]
        variants = [method for method in methods if method.startswith(PEERS[0])]
        best = max(variants, key=lambda method: float(rows[method]["validation"]))
        if rows[best]["tuned"] == "":
            yield self._row(best, share, methods[best], tuned=True)

    def _row(self, method: str, share: float, make: Callable[[Subject, float], nn.Module], *, tuned: bool) -> Row:
        start = time.process_time()
        model = make(self.subject, share).to(self.subject.device)
        seconds = time.process_time() - start
        ways = self._readings(model, method)
        best = max(ways, key=lambda way: accuracy(way, self.data, "validation"))
        row: dict[str, str | float] = {
            "times": times(share),
            "method": method,
            "macs_left": macs_of(model, self.subject.calibration[0][:1]) / count(self.subject.net).macs,
            "untrained": max(accuracy(way, self.data, "test") for way in ways),
            "validation": accuracy(best, self.data, "validation"),
            "tuned": "",
            "seconds": round(seconds, 1),
            "computed_by": computed_by(self.subject.device),
        }
        if tuned and float(row["macs_left"]) <= WITHIN * share:  # what cannot come down so far does not count
            teacher = self.subject.whole()
            row["tuned"] = accuracy(fit(copy.deepcopy(best), self.data, TUNING, teacher=teacher), self.data, "test")
        return row

    def _readings(self, model: nn.Module, method: str) -> list[nn.Module]:
        """The model as it comes and, where its weights were not solved, with batch norms estimated again."""
        solved = method == OURS or "solved" in method
        return [model] if solved else [model, estimate_batch_norms(model, self.subject.calibration[0])]


def computed_by(device: str) -> str:
    """The version of torch, and what it ran on."""
    return f"torch {torch.__version__}, {'cpu' if device == 'cpu' else torch.cuda.get_device_name(device)}"


def times(share: float) -> float:
    """How many times fewer."""
    return round(1 / share, 2)


def headline(rows: Sequence[Row]) -> dict[str, float]:
    """Points lost at half the MACs, ours and the best peer's, at worst over networks and data; and after tuning.

    A peer counts where it came down to the MACs that were asked for, and after tuning with the better of its accuracies
    before and after, which is in its favour.
    """
    ours, peers, deficits = [], [], []
    originals = {(r["network"], r["data"]): float(r["untrained"]) for r in rows if r["method"] == "original"}
    for row in rows:
        if row["method"] != OURS:
            continue
        original, asked = originals[row["network"], row["data"]], 1 / float(row["times"])
        there = [r for r in rows if all(r[key] == row[key] for key in ("network", "data", "times"))]
        rivals = [r for r in there if str(r["method"]).startswith(PEERS) or str(r["method"]) in TUNED]
        rivals = [r for r in rivals if float(r["macs_left"]) <= WITHIN * asked]
        if row["times"] == 2.0:
            ours.append(100 * (original - float(row["untrained"])))
            peers.append(100 * (original - max(float(r["untrained"]) for r in rivals)))
        tuned = [max(float(r["tuned"]), float(r["untrained"])) for r in rivals if r["tuned"] != ""]
        deficits.append(100 * (max(tuned) - float(row["tuned"])))
    return {
        "loss_points_2x_untrained": round(max(ours), 2),
        "best_peer_loss_points_2x_untrained": round(peers[ours.index(max(ours))], 2),
        "worst_deficit_points_after_tuning": round(max(deficits), 2),
    }


if __name__ == "__main__":
    main()
