"""DropNet's models A, B and C, units dropped round after round by each rule: are the paper's orderings seen here too?

The paper (Tan and Motani 2020, arXiv 2207.06646) drops a fifth of the units that are left per round and trains the rest
from their first weights again. Its table, decoded from the authors' cache, is model C on CIFAR-10 with 15 seeds; here
the same network and training run on drawn glyphs of the same shape (3x32x32, 10 classes), so difficult that the whole
net is about as good as the paper's (67 %), with fewer images, epochs and seeds. Only which rule is above which is
compared: each pair of rules of a family, and `minimum_layer` against `minimum`, at each row of the table below the
first. A mean gap beyond MARGIN either way is "above" or "below", else "alike"; an ordering is reproduced where paper
and run say the same, and contradicted where they say the opposite. Nets that have learned nothing here, with accuracies
below LEARNED, are alike in nothing. More claims: `maximum` falls first; other first weights do as well until 70 % are
removed; and on MNIST, a part of it here, model A does without 60 % of its nodes, B without 90 % of its filters, and
`minimum` is not below APoZ.

Seeds pair the rules: both start from the same weights. `p` is how likely the gaps of the seeds would be if the mean gap
were where the paper has it, at the nearest edge of that (one-sided paired t-test). An ordering that is not reproduced
is beyond the noise where `p` is below LEVEL after Holm's correction for all orderings (1979, Scand. J. Statist. 6).

Model A is small enough for the oracle, which tries every removal.

Every round is kept in out/dropnet: a run that was stopped goes on where it was. The test part is read once for every
round and takes part in no choice.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Literal

import torch
from rich.console import Console
from scipy.stats import ttest_1samp
from torch import nn

from lib.accuracy import accuracy
from lib.packaged import mnist_folder
from lib.results import Column, Row, environment, options, publish, show
from slimwright.data import PARTS, ArrayData, Dataset, Glyphs, Part, glyphs, labelled, mnist, whole
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.tasks import Classification
from slimwright.techniques.dropnet import AS_PUBLISHED, Loop, Round, Rule, dropnet, retrained
from slimwright.techniques.dropnet.training import module_of
from slimwright.train import Schedule
from slimwright.zoo import build

OUT = Path(__file__).resolve().parents[1] / "out"
FOLDER = OUT / "dropnet"
DATA_SEED, FRESH = 0, 20  # FRESH: added to a seed, as in the authors' code, for other first weights
FILTERS = 384
MARGIN = 0.03  # of accuracy: gaps up to it are none
LEARNED = 0.2  # twice the accuracy of a guess
FALLEN = 0.7  # of the whole net's accuracy: below it a rule's curve has fallen
LEVEL = 0.05  # of the tests together
GLOBAL: tuple[Rule, ...] = ("minimum", "maximum", "random")
LAYER: tuple[Rule, ...] = ("minimum_layer", "maximum_layer", "random_layer")
OTHER, ALL = "minimum, other weights", "the whole net"
Relation = Literal["above", "alike", "below", "not below"]
WHERE: Mapping[Relation, tuple[float, float]] = {  # the mean gap lies
    "above": (MARGIN, math.inf), "alike": (-MARGIN, MARGIN), "below": (-math.inf, -MARGIN),
    "not below": (-MARGIN, math.inf),
}  # fmt: skip

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
REMOVABLE = {"dropnet-a": 0.6, "dropnet-b": 0.9}  # of the units, by `minimum`, "without significant loss"

CURVE = (Column("left", "filters left", "{:.1%}"), Column("units", "filters"))
ORDERINGS = (
    Column("model", "model"),
    Column("left", "left"),
    Column("rule", "rule"),
    Column("against", "against"),
    Column("paper", "paper"),
    Column("here", "here"),
    Column("p", "p"),
    Column("verdict", "verdict"),
    Column("beyond_noise", "beyond noise"),
)
STAGES = {"half": 0.5, "late": 0.8, "last": 1.0}  # of the rounds
SHRUNK = (
    Column("model", "model"),
    Column("rule", "rule"),
    Column("whole", "whole", "{:.1%}"),
    Column("half", "after half the rounds", "{:.1%}"),
    Column("late", "after four fifths", "{:.1%}"),
    Column("last", "after the last", "{:.1%}"),
    Column("accuracy", "mean of all", "{:.1%}"),
)


@dataclass(frozen=True)
class OnMnist:
    """How much of MNIST a model is trained on, how, from how many first weights."""

    rules: tuple[Rule, ...]
    images: int
    training: Schedule
    seeds: int


@dataclass(frozen=True)
class Extent:
    """How much is run: of model C its data, training and seeds; of A and B the same."""

    glyphs: Glyphs
    training: Schedule
    seeds: int
    on_mnist: Mapping[str, OnMnist]
    held_out: int  # of MNIST, that decide when to stop
    test: int


def drawn(difficulty: float, train: int, held_out: int, test: int) -> Glyphs:
    sizes: dict[Part, int] = {"train": train, "calibration": 10, "validation": held_out, "test": test}
    return Glyphs(classes=10, difficulty=difficulty, sizes=sizes)


ON_A: tuple[Rule, ...] = ("oracle", "minimum", "maximum", "random", "apoz")
ON_B: tuple[Rule, ...] = ("minimum", "random")
FULL = Extent(
    glyphs=drawn(0.8, train=900, held_out=300, test=1000),
    training=replace(AS_PUBLISHED, epochs=12, batch_size=8, seed=None),
    seeds=3,
    on_mnist={
        "dropnet-a": OnMnist(ON_A, 3000, replace(AS_PUBLISHED, epochs=20, seed=None), seeds=3),
        "dropnet-b": OnMnist(ON_B, 1200, replace(AS_PUBLISHED, epochs=8, seed=None), seeds=3),
    },
    held_out=300,
    test=2000,
)
QUICK = Extent(
    glyphs=drawn(0.0, train=200, held_out=100, test=200),
    training=replace(AS_PUBLISHED, epochs=5, batch_size=8, seed=None),
    seeds=1,
    on_mnist={
        "dropnet-a": OnMnist(ON_A, 100, replace(AS_PUBLISHED, epochs=1, seed=None), seeds=1),
        "dropnet-b": OnMnist(ON_B, 100, replace(AS_PUBLISHED, epochs=1, seed=None), seeds=1),
    },
    held_out=100,
    test=200,
)


@dataclass(frozen=True)
class Point:
    """One round: the model, the rule, the seed of the first weights, the units left, the accuracy on the test part."""

    model: str
    rule: str
    seed: int
    units: int
    left: float
    accuracy: float


def main() -> None:
    chosen = options(__doc__ or "")
    extent = QUICK if chosen.quick else FULL
    torch.set_num_threads(1)
    small = [point for model in extent.on_mnist for point in on_mnist(model, extent)]
    points = model_c(extent)
    orderings = tested([*compared(points), first_to_fall(points), *with_other_weights(points), *claims(small)])
    shrunk = [row for model, how in extent.on_mnist.items() for row in shares(small, model, how.rules)]
    for rules in ((*GLOBAL, OTHER), LAYER):
        columns = (*CURVE, *(Column(rule, rule.removesuffix("_layer"), "{:.1%}") for rule in rules))
        how = "of every layer" if rules is LAYER else "of all layers together"
        show(f"Model C on glyphs, a fifth of the filters {how} per round: accuracy", columns, curve(points, rules))
    show("Models A and B on MNIST, a fifth of the units per round: accuracy", SHRUNK, shrunk, sections=("model",))
    show(f"The paper's orderings; gaps up to {MARGIN:.0%} are none", ORDERINGS, orderings, sections=("model", "left"))
    publish(
        chosen,
        headline=headline(points, orderings, shrunk),
        rows=[*(asdict(point) for point in [*points, *small]), *orderings, *shrunk],
        environment={**environment("numpy", "scipy", seed=DATA_SEED), **asdict(extent)},
    )


def model_c(extent: Extent) -> list[Point]:
    """Drop filters of model C by every rule, from each seed's weights."""
    data = in_unit_range(glyphs(extent.glyphs, DATA_SEED), extent.glyphs.sizes)
    task = Classification(data.labels)
    points = []
    for seed in range(extent.seeds):
        for rule in (*GLOBAL, *LAYER):
            net = first_weights("dropnet-c", data, seed)
            rounds = dropnet(net, data, Loop(rule=rule, seed=seed, training=extent.training), task=task, folder=FOLDER)
            points += read("dropnet-c", rule, seed, rounds, data)
            if rule == "minimum":
                other = first_weights("dropnet-c", data, seed + FRESH)
                rounds = retrained(other, rounds, data, extent.training, task=task, folder=FOLDER)
                points += read("dropnet-c", OTHER, seed, rounds, data)
    return points


def on_mnist(model: str, extent: Extent) -> list[Point]:
    """Drop units of a model for MNIST by its rules, from each seed's weights."""
    how = extent.on_mnist[model]
    sizes: dict[Part, int] = {
        "train": how.images,
        "calibration": 10,
        "validation": extent.held_out,
        "test": extent.test,
    }
    data = in_unit_range(mnist(mnist_folder(OUT), DATA_SEED), sizes)
    task = Classification(data.labels)
    points = []
    for seed in range(how.seeds):
        for rule in how.rules:
            net = first_weights(model, data, seed)
            loop = Loop(rule=rule, seed=seed, training=how.training)
            points += read(model, rule, seed, dropnet(net, data, loop, task=task, folder=FOLDER), data)
    return points


def in_unit_range(data: Dataset, sizes: Mapping[Part, int]) -> ArrayData:
    """Return the first images of each part with inputs 0 to 1, as in the paper: normalization undone."""
    middle, spread = (torch.tensor(data.preprocessing[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    parts = {}
    for part in PARTS:
        images, labels = labelled(whole(data, part))
        parts[part] = images[: sizes[part]] * spread + middle, labels[: sizes[part]]
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


def read(model: str, rule: str, seed: int, rounds: Sequence[Round], data: Dataset) -> list[Point]:
    """Read every round on the test part."""
    total = rounds[0].units
    found = [
        Point(model, rule, seed, each.units, each.units / total, accuracy(module_of(each.net), data, "test"))
        for each in rounds
    ]
    note = ", ".join(f"{point.accuracy:.0%}" for point in found)
    Console(stderr=True).print(f"{model}, seed {seed}, {rule}: {note}")
    return found


def curve(points: Sequence[Point], rules: Sequence[str]) -> list[Row]:
    """One row per round: the mean accuracies of these rules over seeds."""
    mine = [point for point in points if point.rule == rules[0]]
    left = dict(sorted({point.units: point.left for point in mine}.items(), reverse=True))
    return [
        {"units": units, "left": share, **{rule: at(points, rule, units) for rule in rules}}
        for units, share in left.items()
    ]


def shares(points: Sequence[Point], model: str, rules: Sequence[Rule]) -> list[Row]:
    """The mean accuracy of each rule over seeds, of the whole net, at some stages, and of all rounds."""
    mine = [point for point in points if point.model == model]
    units = sorted({point.units for point in mine}, reverse=True)
    rows: list[Row] = []
    for rule in rules:
        means = [at(mine, rule, count) for count in units]
        stages = {name: means[int(share * (len(means) - 1))] for name, share in STAGES.items()}
        rows.append({"model": model, "rule": rule, "whole": means[0], **stages, "accuracy": mean(means)})
    return rows


def of_seeds(points: Sequence[Point], rule: str, units: int) -> list[float]:
    """The accuracies of a rule with so many units left, seed by seed."""
    found = {point.seed: point.accuracy for point in points if (point.rule, point.units) == (rule, units)}
    return [found[seed] for seed in sorted(found)]


def at(points: Sequence[Point], rule: str, units: int) -> float:
    """The mean accuracy of a rule over seeds, with so many units left."""
    return mean(of_seeds(points, rule, units))


def compared(points: Sequence[Point]) -> list[Row]:
    """Each pair of rules at each row of the paper's table."""
    rows = []
    for cell, paper in PAPER.items():
        left = " / ".join(f"{units / FILTERS:.3f}" for units in cell)
        for pair in PAIRS:
            here = [of_seeds(points, rule, cell[rule in LAYER]) for rule in pair]
            gap = paper[pair[0]] - paper[pair[1]]
            rows.append(ordering(("dropnet-c", left, pair), (relation(gap), f"{gap:+.1%}"), *here))
    return rows


def with_other_weights(points: Sequence[Point]) -> list[Row]:
    """The units that `minimum` leaves, trained from other first weights: as good, says the paper of its plots."""
    rows = []
    for units in AS_GOOD:
        here = [of_seeds(points, rule, units) for rule in ("minimum", OTHER)]
        rows.append(ordering(("dropnet-c", f"{units / FILTERS:.3f}", ("minimum", OTHER)), ("alike", ""), *here))
    return rows


def claims(points: Sequence[Point]) -> list[Row]:
    """What the paper says of A and B: how much `minimum` removes from a net that stays as good, and of APoZ."""
    rows = []
    for model, share in REMOVABLE.items():
        mine = [point for point in points if point.model == model]
        every = max(point.units for point in mine)
        units = max(point.units for point in mine if point.left <= 1 - share)
        here = of_seeds(mine, "minimum", units)
        what = model, f"{units / every:.3f}"
        rows.append(ordering((*what, ("minimum", ALL)), ("alike", ""), here, of_seeds(mine, "minimum", every)))
        if model == "dropnet-a":
            other = of_seeds(mine, "apoz", units)
            rows.append(ordering((*what, ("minimum", "apoz")), ("not below", ""), here, other))
    return rows


def first_to_fall(points: Sequence[Point]) -> Row:
    """By which rules the accuracy falls below FALLEN of the whole net's with the most filters left, by means."""
    rules = [str(rule) for rule in (*GLOBAL, *LAYER)]
    figures = {cell: {rule: at(points, rule, cell[rule in LAYER]) for rule in rules} for cell in PAPER}
    whole_net = dict.fromkeys(rules, at(points, "minimum", FILTERS))  # all rules begin with the same net
    paper, here = first_fallen(PAPER, WHOLE), first_fallen(figures, whole_net)
    verdict = "reproduced" if paper == here else "not seen"
    what = {"model": "C", "left": "all", "rule": "first to fall", "against": ""}
    return {**what, "paper": paper, "here": here, "p": "", "verdict": verdict}


def first_fallen(figures: Mapping[tuple[int, int], Mapping[str, float]], whole_net: Mapping[str, float]) -> str:
    """The rules that have fallen at the first row at which any has."""
    for row in figures.values():
        fallen = [rule for rule, value in row.items() if value < FALLEN * whole_net[rule]]
        if fallen:
            return ", ".join(fallen)
    return "none"


def ordering(
    what: tuple[str, str, tuple[str, str]], paper: tuple[Relation, str], one: Sequence[float], other: Sequence[float]
) -> Row:
    """Say whether the run, with two rules' accuracies seed by seed, says what the paper says of them."""
    (model, left, pair), (said, note) = what, paper
    gaps = [a - b for a, b in zip(one, other, strict=True)]
    gap, learned = mean(gaps), max(mean(one), mean(other)) >= LEARNED
    low, high = WHERE[said]
    seen = relation(gap)
    verdict = "reproduced" if low <= gap <= high else "contradicted" if {said, seen} == {"above", "below"} else ""
    return {
        "model": model[-1].upper(),
        "left": left,
        "rule": pair[0],
        "against": pair[1],
        "paper": f"{note} {said}".strip(),
        "here": f"{gap:+.1%} {seen if learned else 'nothing learned'}",
        "p": chance(gaps, said),
        "verdict": (verdict or "not seen") if learned else "not seen",
    }


def relation(gap: float) -> Relation:
    return "above" if gap > MARGIN else "below" if gap < -MARGIN else "alike"


def chance(gaps: Sequence[float], said: Relation) -> float:
    """The p-value of the seeds' gaps if their mean lay where it is said to lie; 1 where that is where it lies."""
    low, high = WHERE[said]
    if low <= mean(gaps) <= high or len(set(gaps)) == 1:
        return 1.0
    edge, side = (low, "less") if mean(gaps) < low else (high, "greater")
    return float(ttest_1samp(gaps, edge, alternative=side).pvalue)


def tested(rows: Sequence[Row]) -> list[Row]:
    """Add to each row that is not reproduced whether it is so beyond the noise of the seeds, all tests together."""
    found: list[Row] = []
    values = sorted(float(row["p"]) for row in rows if row["p"] != "")
    rejected = 0  # of the smallest: each must pass a level that all that are left share
    while rejected < len(values) and values[rejected] <= LEVEL / (len(values) - rejected):
        rejected += 1
    for row in rows:
        beyond = row["p"] != "" and float(row["p"]) in values[:rejected]
        said = "" if row["verdict"] == "reproduced" or row["p"] == "" else "yes" if beyond else "no"
        shown = "" if row["p"] == "" else f"{float(row['p']):.2g}"
        found.append({**row, "p": shown, "beyond_noise": said})
    return found


def headline(points: Sequence[Point], orderings: Sequence[Row], shrunk: Sequence[Row]) -> dict[str, float]:
    verdicts = [row["verdict"] for row in orderings]
    mean_of = {str(row["rule"]): float(row["accuracy"]) for row in shrunk if row["model"] == "dropnet-a"}
    return {
        "orderings_checked": len(verdicts),
        "orderings_reproduced": verdicts.count("reproduced"),
        "orderings_contradicted": verdicts.count("contradicted"),
        "orderings_other_beyond_noise": [row["beyond_noise"] for row in orderings].count("yes"),
        "accuracy_whole": at(points, "minimum", FILTERS),
        "minimum_layer_at_a_tenth": at(points, "minimum_layer", 42),
        "random_layer_at_a_tenth": at(points, "random_layer", 42),
        "oracle_over_minimum": mean_of["oracle"] - mean_of["minimum"],
        "oracle_over_random": mean_of["oracle"] - mean_of["random"],
    }


if __name__ == "__main__":
    main()
