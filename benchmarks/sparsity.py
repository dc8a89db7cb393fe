"""Weights made zero, untrained and tuned: how much accuracy is lost, beside magnitude and SparseGPT.

Every method starts from the same weights and sees the same calibration images. Half, four fifths or nine tenths of the
weights become zero, or two of each four input channels (2:4); layers whose input channels are no multiple of four stay
as they are, for all methods. "magnitude" drops the smallest weights for their layer, "SparseGPT" is written anew from
its paper (`lib/sparsegpt.py`), with its own equal shares and with the shares that slimwright gave each layer. Of the
peers, batch-norm statistics as they are or estimated again on the calibration images count, whichever is better on the
validation part. Then each is tuned alike: same epochs, rate, batches, seed and teacher, its zeros kept. The test part
is read for this table alone. Bytes are those of the packed file, whose weights are float32. Rows are kept as they come:
a run that was stopped goes on where it stopped; `--quick` starts anew.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from torch import nn

from lib.accuracy import accuracy
from lib.batch_norms import estimate_batch_norms
from lib.results import Column, Row, environment, keep, kept, parser, publish, rows_file, show
from lib.sparsegpt import Wanted, sparse_by_sparsegpt
from lib.structured_networks import DATA, NETWORKS, SEED, trained
from slimwright.data import Dataset, labelled, whole
from slimwright.graph import Net
from slimwright.storage import packed_bytes
from slimwright.tasks import Classification
from slimwright.techniques import Recipe, Sparsify, apply
from slimwright.train import Schedule, fit, tie, zeros_of

OUT = Path(__file__).resolve().parents[1] / "out"
CALIBRATION = 512  # images
SHORT = {"digits": Schedule(epochs=2, batch_size=32, seed=SEED)}
TUNING = Schedule(epochs=2, rate=0.02, batch_size=64, longest_gradient=1.0, seed=SEED)
PATTERNS = {
    "2:4": Wanted(n_of_m=(2, 4)),
    "50 %": Wanted(0.5),
    "80 %": Wanted(0.8),
    "90 %": Wanted(0.9),
}
QUICK = ("2:4", "80 %")  # untrained alone
OURS, MAGNITUDE, PEER, PEER_SHARES = "slimwright", "magnitude", "SparseGPT", "SparseGPT, our shares"
TITLE = "Weights made zero: accuracy on the test part without training, and after the same two epochs"
COLUMNS = (
    Column("network", "network"),
    Column("data", "data"),
    Column("pattern", "zeros"),
    Column("method", "method"),
    Column("zeros", "zeros in all", "{:.1%}"),
    Column("untrained", "untrained", "{:.1%}"),
    Column("tuned", "tuned"),
    Column("size_bytes", "packed", "{:,}"),
    Column("seconds", "took", "{:.0f} s"),
)


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    rows_at = rows_file(asked, OUT / "sparsity")
    for network in [] if asked.show else asked.networks.split(","):
        kind = "digits" if asked.quick else "glyphs"
        have = {tuple(row[key] for key in ("network", "pattern", "method")) for row in kept_rows(rows_at)}
        patterns = QUICK if asked.quick else asked.patterns.split(",")
        methods = (OURS, MAGNITUDE, PEER) if asked.quick else (OURS, MAGNITUDE, PEER, PEER_SHARES)
        tunes = not (asked.quick or asked.untrained)
        for row in rows_of(network, kind, have, Asked(tuple(patterns), methods, tunes)):
            keep(row, rows_at)
            say(f"{network}, {row['pattern']} by {row['method']}: {row['untrained']:.4f} {row['tuned']}")
    networks, patterns = asked.networks.split(","), ["none", *PATTERNS]
    rows = [row for row in kept_rows(rows_at) if row["network"] in networks]
    rows.sort(key=lambda row: (networks.index(str(row["network"])), patterns.index(str(row["pattern"]))))
    shown = [{**row, "tuned": f"{row['tuned']:.1%}" if row["tuned"] != "" else ""} for row in rows]
    show(TITLE, COLUMNS, shown, sections=("network", "pattern"))
    extent = {"tuning_epochs": TUNING.epochs, "tuning_rate": TUNING.rate, "calibration_images": CALIBRATION}
    publish(asked, headline=headline(rows), rows=rows, environment={**environment(seed=SEED), **extent})


def options() -> argparse.Namespace:
    known = parser(__doc__ or "")
    known.add_argument("--networks", default="resnet20", help=f"of {','.join(NETWORKS)}")
    known.add_argument("--patterns", default=",".join(PATTERNS), help="with commas between; --quick takes two")
    known.add_argument("--untrained", action="store_true", help="tune nothing")
    known.add_argument("--show", action="store_true", help="run nothing: the rows that are there")
    return known.parse_args()


def kept_rows(path: Path) -> list[Row]:
    return list(kept(path))


@dataclass(frozen=True)
class Asked:
    """Which patterns are tried by which methods, and whether what comes of them is tuned, too."""

    patterns: tuple[str, ...]
    methods: tuple[str, ...]
    tuned: bool


@dataclass(frozen=True)
class Subject:
    """A trained net and the data that it is judged on."""

    net: Net
    data: Dataset

    @property
    def images(self) -> torch.Tensor:
        """The calibration images that all methods see."""
        return labelled(whole(self.data, "calibration"))[0][:CALIBRATION]

    def with_weights(self, model: nn.Module) -> Net:
        """The net with the weights of a module that came from it."""
        return self.net.trained(model)


def rows_of(network: str, kind: str, have: set[tuple[str | int | float, ...]], asked: Asked) -> Iterator[Row]:
    """Every method at every pattern on one network, but for the rows that are there."""
    data = DATA[kind]()
    net = trained(network, kind, data, schedule=SHORT.get(kind))
    subject = Subject(net, data)
    if (network, "none", "original") not in have:
        right, size = accuracy(net.to_module(), data, "test"), packed_bytes(net)
        facts: dict[str, str | int | float] = {
            "network": network,
            "data": kind,
            "pattern": "none",
            "method": "original",
        }
        yield {**facts, "zeros": 0.0, "untrained": right, "tuned": "", "size_bytes": size, "seconds": 0.0}
    for pattern in asked.patterns:
        missing = [
            method
            for method in asked.methods
            if (network, pattern, method) not in have and not (pattern == "2:4" and method == PEER_SHARES)
        ]
        for method in missing:
            began = time.process_time()
            made = sparse(subject, PATTERNS[pattern], method)
            seconds = time.process_time() - began
            best = made if method == OURS else better(made, subject)
            yield {
                "network": network,
                "data": kind,
                "pattern": pattern,
                "method": method,
                "zeros": share(made, net),
                "untrained": accuracy(best, data, "test"),
                "tuned": tuned(best, subject) if asked.tuned else "",
                "size_bytes": packed_bytes(subject.with_weights(best)),
                "seconds": round(seconds, 1),
            }


def sparse(subject: Subject, wanted: Wanted, method: str) -> nn.Module:
    """What a method makes of a net."""
    if method in (OURS, MAGNITUDE):
        return made_by(subject, wanted, "output_error" if method == OURS else "magnitude").to_module()
    shares = None
    if method == PEER_SHARES:
        ours = made_by(subject, wanted, "output_error")
        weights = {ours.paths[node.name]: ours.tensors[node.tensors["weight"]] for node in ours.weighted()}
        shares = {path: float((weight == 0).float().mean()) for path, weight in weights.items()}
    return sparse_by_sparsegpt(subject.net.to_module(), subject.images, wanted, shares)


def made_by(subject: Subject, wanted: Wanted, by: Literal["output_error", "magnitude"]) -> Net:
    """The net after the step that makes it sparse."""
    share = None if wanted.n_of_m else wanted.share
    step = Sparsify(share=share, n_of_m=wanted.n_of_m, by=by, images=CALIBRATION)
    return apply(Recipe(original=subject.net.digest, steps=(step,)), subject.net, subject.data)


def better(model: nn.Module, subject: Subject) -> nn.Module:
    """The model as it is or with its batch norms estimated again, by the validation part."""
    again = estimate_batch_norms(model, subject.images)
    return max((model, again), key=lambda one: accuracy(one, subject.data, "validation"))


def tuned(model: nn.Module, subject: Subject) -> float:
    """The accuracy on the test part after the same epochs for all; zeros stay."""
    student, net = subject.with_weights(model).to_module(), subject.net
    for node in net.weighted():
        weight = student.get_parameter(net.key(node, "weight"))
        tie(weight, zeros_of(weight.detach()))
    task = Classification(subject.data.labels)
    return accuracy(fit(student, subject.data, TUNING, task=task, teacher=net.to_module()), subject.data, "test")


def share(model: nn.Module, net: Net) -> float:
    """The share of the weights of all layers that is zero."""
    weights = [model.get_parameter(net.key(node, "weight")) for node in net.weighted()]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def headline(rows: list[Row]) -> dict[str, float]:
    """Points lost untrained, of the first network without a prefix; and by the better of the two peers."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(str(row["network"]) for row in rows):
        prefix = "" if name == rows[0]["network"] else f"{name.replace('-', '_')}_"
        mine = [row for row in rows if row["network"] == name]
        original = next(float(row["untrained"]) for row in mine if row["method"] == "original")
        for pattern in dict.fromkeys(str(row["pattern"]) for row in mine if row["pattern"] != "none"):
            at = {str(row["method"]): row for row in mine if row["pattern"] == pattern}
            if not at.keys() >= {OURS, MAGNITUDE, PEER}:
                continue  # a run that was stopped
            key = pattern.replace(":", "_").removesuffix(" %")
            found[f"{prefix}loss_{key}_points"] = 100 * (original - float(at[OURS]["untrained"]))
            peers = [float(at[method]["untrained"]) for method in (MAGNITUDE, PEER)]
            found[f"{prefix}best_peer_loss_{key}_points"] = 100 * (original - max(peers))
    return found


if __name__ == "__main__":
    main()
