"""DropNet's model C, filters dropped round after round by each rule: are the paper's orderings seen here too?

The paper (Tan and Motani 2020, arXiv 2207.06646) drops a fifth of the filters that are left per round and trains the
rest from their first weights again. Its table, decoded from the authors' cache, is on CIFAR-10 with 15 seeds; here the
same network and training run on drawn glyphs of the same shape (3x32x32, 10 classes), with fewer images, epochs and
seeds. So accuracies are not compared, only which rule is above which: each pair of rules of a family, and
`minimum_layer` against `minimum`, at each row of the table below the first. A mean gap beyond MARGIN either way is
"above" or "below", else "alike"; an ordering is reproduced where paper and run say the same, and contradicted where
they say the opposite. Nets that have learned nothing here, with accuracies below LEARNED, are alike in nothing. Two
claims more: `maximum` falls first, and other first weights do as well until 70 % are removed.

Then, on a network small enough for it, the rules against the oracle, which tries every removal.

Every round is kept in out/dropnet: a run that was stopped goes on where it was. The test part is read once for every
round and takes part in no choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Literal

import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F

from lib.accuracy import accuracy
from lib.results import Column, Row, environment, options, publish, show
from slimwright.data import PARTS, ArrayData, Dataset, Glyphs, Part, digits, glyphs, labelled, whole
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.tasks import Classification
from slimwright.techniques.dropnet import AS_PUBLISHED, Loop, Round, Rule, dropnet, retrained
from slimwright.techniques.dropnet.training import module_of
from slimwright.train import Schedule
from slimwright.zoo import build

FOLDER = Path(__file__).resolve().parents[1] / "out" / "dropnet"
DATA_SEED, FRESH = 0, 20  # FRESH: added to a seed, as in the authors' code, for other first weights
FILTERS = 384
MARGIN = 0.03  # of accuracy: gaps up to it are none
LEARNED = 0.2  # twice the accuracy of a guess
FALLEN = 0.7  # of the whole net's accuracy: below it a rule's curve has fallen
GLOBAL: tuple[Rule, ...] = ("minimum", "maximum", "random")
LAYER: tuple[Rule, ...] = ("minimum_layer", "maximum_layer", "random_layer")
ORACLE: tuple[Rule, ...] = ("oracle", "minimum", "maximum", "random")
OTHER = "minimum, other weights"
Relation = Literal["above", "alike", "below"]

# Test accuracy of model C on CIFAR-10, mean of 15: by filters left, when dropped from all layers together and by layer.
PAPER: Mapping[tuple[int, int], Mapping[str, float]] = {
    (198, 202): dict(zip((*GLOBAL, *LAYER), (0.637, 0.646, 0.635, 0.645, 0.634, 0.640), strict=True)),
    (128, 134): dict(zip((*GLOBAL, *LAYER), (0.605, 0.449, 0.605, 0.621, 0.608, 0.610), strict=True)),
    (83, 90): dict(zip((*GLOBAL, *LAYER), (0.518, 0.100, 0.561, 0.580, 0.473, 0.582), strict=True)),
    (44, 42): dict(zip((*GLOBAL, *LAYER), (0.324, 0.100, 0.151, 0.526, 0.100, 0.289), strict=True)),
}
WHOLE: Mapping[str, float] = dict(zip((*GLOBAL, *LAYER), (0.666, 0.667, 0.672, 0.668, 0.671, 0.664), strict=True))
PAIRS = (
    *(("random", "minimum"), ("minimum", "maximum"), ("random", "maximum")),
    *(("minimum_layer", "random_layer"), ("random_layer", "maximum_layer"), ("minimum_layer", "maximum_layer")),
    ("minimum_layer", "minimum"),
)
AS_GOOD = (198, 128)  # filters left up to which other first weights do as well: "up to 70-80 % removed"

CURVE = (Column("left", "filters left", "{:.1%}"), Column("units", "filters"))
ORDERINGS = (
    Column("left", "filters left"),
    Column("rule", "rule"),
    Column("against", "against"),
    Column("paper", "paper"),
    Column("here", "here"),
    Column("verdict", "verdict"),
)
STAGES = {"half": 0.5, "late": 0.8, "last": 1.0}  # of the rounds
AGAINST = (
    Column("rule", "rule"),
    Column("half", "after half the rounds", "{:.1%}"),
    Column("late", "after four fifths", "{:.1%}"),
    Column("last", "after the last", "{:.1%}"),
    Column("accuracy", "mean of all", "{:.1%}"),
)


@dataclass(frozen=True)
class Extent:
    """How much is run. The oracle drops one node at a time until `oracle_least` of them are left."""

    glyphs: Glyphs
    training: Schedule
    seeds: int
    oracle: Schedule
    oracle_seeds: int
    oracle_least: float


def drawn(difficulty: float, train: int, held_out: int, test: int) -> Glyphs:
    sizes: dict[Part, int] = {"train": train, "calibration": 10, "validation": held_out, "test": test}
    return Glyphs(classes=10, difficulty=difficulty, sizes=sizes)


FULL = Extent(
    glyphs=drawn(0.45, train=600, held_out=300, test=1000),
    training=replace(AS_PUBLISHED, epochs=14, batch_size=8, seed=None),
    seeds=3,
    oracle=replace(AS_PUBLISHED, epochs=15, seed=None),
    oracle_seeds=2,
    oracle_least=0.1,
)
QUICK = Extent(
    glyphs=drawn(0.0, train=200, held_out=100, test=200),
    training=replace(AS_PUBLISHED, epochs=5, batch_size=8, seed=None),
    seeds=1,
    oracle=replace(AS_PUBLISHED, epochs=5, seed=None),
    oracle_seeds=1,
    oracle_least=0.9,
)


@dataclass(frozen=True)
class Point:
    """One round: the rule, the seed of the first weights, the units left, and the accuracy on the test part."""

    rule: str
    seed: int
    units: int
    left: float
    accuracy: float


def main() -> None:
    chosen = options(__doc__ or "")
    extent = QUICK if chosen.quick else FULL
    torch.set_num_threads(1)
    points = model_c(extent)
    orderings = [*compared(points), first_to_fall(points), *with_other_weights(points)]
    oracle = against_oracle(extent)
    for rules in ((*GLOBAL, OTHER), LAYER):
        columns = (*CURVE, *(Column(rule, rule.removesuffix("_layer"), "{:.1%}") for rule in rules))
        how = "of every layer" if rules is LAYER else "of all layers together"
        show(f"Model C on glyphs, a fifth of the filters {how} per round: accuracy", columns, curve(points, rules))
    show(f"The paper's orderings; gaps up to {MARGIN:.0%} are none", ORDERINGS, orderings, sections=("left",))
    show("Model A on digits, one node at a time: accuracy", AGAINST, oracle)
    publish(
        chosen,
        headline=headline(points, orderings, oracle),
        rows=[*(asdict(point) for point in points), *orderings, *oracle],
        environment={**environment("numpy", "scikit-learn", seed=DATA_SEED), **asdict(extent)},
    )


def model_c(extent: Extent) -> list[Point]:
    """Drop filters of model C by every rule, from each seed's weights."""
    data = in_unit_range(glyphs(extent.glyphs, DATA_SEED))
    task = Classification(data.labels)
    points = []
    for seed in range(extent.seeds):
        for rule in (*GLOBAL, *LAYER):
            net = first_weights("dropnet-c", data, seed)
            rounds = dropnet(net, data, Loop(rule=rule, seed=seed, training=extent.training), task=task, folder=FOLDER)
            points += read(rule, seed, rounds, data)
            if rule == "minimum":
                other = first_weights("dropnet-c", data, seed + FRESH)
                rounds = retrained(other, rounds, data, extent.training, task=task, folder=FOLDER)
                points += read(OTHER, seed, rounds, data)
    return points


def against_oracle(extent: Extent) -> list[Row]:
    """Drop nodes of model A one at a time, by the oracle and by rules: accuracies at some shares and over all."""
    data = in_unit_range(digits(DATA_SEED), side=28)
    task = Classification(data.labels)
    points = []
    for seed in range(extent.oracle_seeds):
        for rule in ORACLE:
            net = first_weights("dropnet-a", data, seed)
            loop = Loop(rule=rule, share=0.0, least=extent.oracle_least, seed=seed, training=extent.oracle)
            points += read(rule, seed, dropnet(net, data, loop, task=task, folder=FOLDER), data)
    units = sorted({point.units for point in points}, reverse=True)
    rows: list[Row] = []
    for rule in ORACLE:
        means = [at(points, rule, count) for count in units]
        places = {name: int(share * (len(means) - 1)) for name, share in STAGES.items()}
        rows.append({"rule": rule, **{name: means[place] for name, place in places.items()}, "accuracy": mean(means)})
    return rows


def in_unit_range(data: Dataset, side: int | None = None) -> ArrayData:
    """Return the images with inputs 0 to 1, as in the paper: normalization undone, `side` pixels wide and high."""
    middle, spread = (torch.tensor(data.preprocessing[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    parts = {}
    for part in PARTS:
        images, labels = labelled(whole(data, part))
        plain = images * spread + middle
        parts[part] = F.interpolate(plain, (side, side), mode="bilinear") if side else plain, labels
    return ArrayData(data.name, data.labels, parts)


def first_weights(network: str, data: ArrayData, seed: int) -> Net:
    """Return a network of the zoo with the weights that Keras draws (Glorot and Bengio 2010), biases zero."""
    model = build(network, in_channels=data.image_shape[0])
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return capture(model, data.image_shape)


def read(rule: str, seed: int, rounds: Sequence[Round], data: Dataset) -> list[Point]:
    """Read every round on the test part."""
    total = rounds[0].units
    found = [
        Point(rule, seed, each.units, each.units / total, accuracy(module_of(each.net), data, "test"))
        for each in rounds
    ]
    note = ", ".join(f"{point.accuracy:.0%}" for point in found)
    Console(stderr=True).print(f"{data.name}, seed {seed}, {rule}: {note}")
    return found


def curve(points: Sequence[Point], rules: Sequence[str]) -> list[Row]:
    """One row per round: the mean accuracies of these rules over seeds."""
    mine = [point for point in points if point.rule == rules[0]]
    left = dict(sorted({point.units: point.left for point in mine}.items(), reverse=True))
    return [
        {"units": units, "left": share, **{rule: at(points, rule, units) for rule in rules}}
        for units, share in left.items()
    ]


def at(points: Sequence[Point], rule: str, units: int) -> float:
    """The mean accuracy of a rule over seeds, with so many units left."""
    return mean(point.accuracy for point in points if (point.rule, point.units) == (rule, units))


def compared(points: Sequence[Point]) -> list[Row]:
    """Each pair of rules at each row of the paper's table."""
    rows = []
    for cell, paper in PAPER.items():
        left = " / ".join(f"{units / FILTERS:.3f}" for units in cell)
        for pair in PAIRS:
            here = [at(points, rule, cell[rule in LAYER]) for rule in pair]
            rows.append(ordering(left, pair, paper[pair[0]] - paper[pair[1]], here))
    return rows


def with_other_weights(points: Sequence[Point]) -> list[Row]:
    """The units that `minimum` leaves, trained from other first weights: as good, says the paper of its plots."""
    rows = []
    for units in AS_GOOD:
        here = [at(points, rule, units) for rule in ("minimum", OTHER)]
        rows.append(ordering(f"{units / FILTERS:.3f}", ("minimum", OTHER), 0.0, here))
    return rows


def first_to_fall(points: Sequence[Point]) -> Row:
    """By which rules the accuracy falls below FALLEN of the whole net's with the most filters left."""
    rules = [str(rule) for rule in (*GLOBAL, *LAYER)]
    figures = {cell: {rule: at(points, rule, cell[rule in LAYER]) for rule in rules} for cell in PAPER}
    whole_net = dict.fromkeys(rules, at(points, "minimum", FILTERS))  # all rules begin with the same net
    paper, here = first_fallen(PAPER, WHOLE), first_fallen(figures, whole_net)
    verdict = "reproduced" if paper == here else "not seen"
    return {"left": "all", "rule": "first to fall", "against": "", "paper": paper, "here": here, "verdict": verdict}


def first_fallen(figures: Mapping[tuple[int, int], Mapping[str, float]], whole_net: Mapping[str, float]) -> str:
    """The rules that have fallen at the first row at which any has."""
    for row in figures.values():
        fallen = [rule for rule, value in row.items() if value < FALLEN * whole_net[rule]]
        if fallen:
            return ", ".join(fallen)
    return "none"


def ordering(left: str, pair: tuple[str, str], paper: float, here: Sequence[float]) -> Row:
    """Say whether the run, with two rules' accuracies `here`, says what the paper's gap says of them."""
    gap = here[0] - here[1]
    said, seen = relation(paper), relation(gap) if max(here) >= LEARNED else "nothing learned"
    verdict = "reproduced" if said == seen else "contradicted" if {said, seen} == {"above", "below"} else "not seen"
    gaps = {"paper": f"{paper:+.1%} {said}", "here": f"{gap:+.1%} {seen}"}
    return {"left": left, "rule": pair[0], "against": pair[1], **gaps, "verdict": verdict}


def relation(gap: float) -> Relation:
    return "above" if gap > MARGIN else "below" if gap < -MARGIN else "alike"


def headline(points: Sequence[Point], orderings: Sequence[Row], oracle: Sequence[Row]) -> dict[str, float]:
    verdicts = [row["verdict"] for row in orderings]
    mean_of = {str(row["rule"]): float(row["accuracy"]) for row in oracle}
    return {
        "orderings_checked": len(verdicts),
        "orderings_reproduced": verdicts.count("reproduced"),
        "orderings_contradicted": verdicts.count("contradicted"),
        "accuracy_whole": at(points, "minimum", FILTERS),
        "minimum_layer_at_a_tenth": at(points, "minimum_layer", 42),
        "random_layer_at_a_tenth": at(points, "random_layer", 42),
        "oracle_over_minimum": mean_of["oracle"] - mean_of["minimum"],
        "oracle_over_random": mean_of["oracle"] - mean_of["random"],
    }


if __name__ == "__main__":
    main()
