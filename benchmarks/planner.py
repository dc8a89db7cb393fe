"""How near plans come to the limits that are asked for, how good they are, and how long they take.

Eight networks with random weights and images, since what is asked is whether the planner finds the best choice of what
it is given. Each gets limits on multiply-accumulates, on the bytes of its weights, and on peak memory, by the knobs of
channels and ranks. What was reached is counted of the network that the plan makes. The gap is what the plan's damage
is above the least that any choice within the limit has, as a share of that. Beside it: the greedy plan, every group
and rank at one share, and choices drawn at random, each taken down until the limit holds; damages in terms of the
plan's. Then a trained ResNet-20: accuracy on the test part of the networks that these plans make, solved alike. With
`--latency`, three trained networks and five with random weights in three runtimes are asked for 0.5x of their time, by
the whole job and its closed loop, and what ships is measured by its proof. All of them stay in float: a whole network
in INT8 that is within the limit and loses nothing would ship as it is, and nothing would be planned. Run that on a
quiet machine.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from lib.accuracy import accuracy
from lib.priced import Priced
from lib.random_jobs import random_images, settled
from lib.results import Column, Row, environment, keep, kept, parser, publish, rows_file, show
from lib.structured_networks import DATA, SEED, trained
from slimwright import Budget, Settings, shrink
from slimwright.cost import count
from slimwright.data import Dataset
from slimwright.evidence import observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.search import Evaluate, Evaluation, Journal, Problem, Space, measured_plan, solve
from slimwright.tasks import Classification
from slimwright.techniques import Recipe, Solve, apply, fold_batch_norm, observed
from slimwright.zoo import build

OUT = Path(__file__).resolve().parents[1] / "out" / "planner"
NETS = {  # name -> side of an image
    "resnet8-wide": 32,
    "resnet20": 32,
    "resnet18": 64,
    "vgg11": 64,
    "mobilenet-v1": 96,
    "mobilenet-v2": 96,
    "squeezenet1.1": 96,
    "shufflenet-g3": 96,
}
QUICK = ("resnet8-wide", "mobilenet-v2")
LIMITS = (("macs", 0.5), ("macs", 0.25), ("weight_bytes", 0.5), ("weight_bytes", 0.25), ("peak_activation_bytes", 0.7))
IMAGES, CLASSES, DRAWN = 32, 10, 20
IMAGES_OF_A_JOB = 128  # of a network with random weights whose time is limited
SHARE = 0.3  # of the MACs of the trained network
TIME_SHARE = 0.5  # of the original's, with --latency
TIMED = ("resnet20", "vgg16-half", "mobilenet-v2-half")  # trained
TIMED_AT_RANDOM = ("resnet8-wide", "resnet18", "mobilenet-v1", "squeezenet1.1", "shufflenet-g3")  # of `NETS`
RUNTIMES = ("onnxruntime", "ncnn", "openvino")
COLUMNS = (
    Column("network", "network"),
    Column("limit", "limit"),
    Column("reached", "reached, of it", "{:.4f}"),
    Column("gap", "gap"),
    Column("greedy", "greedy", "{:.2f}x"),
    Column("uniform", "uniform", "{:.2f}x"),
    Column("random", "random", "{:.2f}x"),
    Column("seconds", "plan", "{:.1f} s"),
)
UNKNOWN = -1.0  # in place of a gap


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    rows_at = rows_file(asked, OUT)
    have = {(row["network"], row["limit"]) for row in kept(rows_at)}
    for name in QUICK if asked.quick else NETS:
        for row in planned(name, {str(limit) for network, limit in have if network == name}):
            keep(row, rows_at)
            say(f"{row['network']}, {row['limit']}: reached {row['reached']:.4f}, gap {row['gap']}")
    if not asked.quick and ("resnet20, trained", "accuracy") not in have:
        keep(accuracies("resnet20", "glyphs"), rows_at)
    if asked.latency:
        for row in timed({(str(network), str(limit)) for network, limit in have}):
            keep(row, rows_at)
            say(f"{row['network']}, {row['limit']}: reached {row['reached']:.4f}")
    rows = kept(rows_at)
    plans = [row for row in rows if "gap" in row]
    shown = [{**row, "gap": "not known" if row["gap"] == UNKNOWN else f"{row['gap']:.2%}"} for row in plans]
    show("Plans: what was reached, and the damage of others in terms of theirs", COLUMNS, shown, sections=("network",))
    for row in rows:
        if "plan_accuracy" in row:
            print(", ".join(f"{key}: {value}" for key, value in row.items()))
    publish(asked, headline=headline(rows), rows=rows, environment=environment("onnxruntime", seed=SEED))


def options() -> argparse.Namespace:
    known = parser(__doc__ or "")
    known.add_argument("--latency", action="store_true", help="limit the time in three runtimes, too")
    return known.parse_args()


def planned(name: str, have: set[str]) -> Iterator[Row]:
    """One network at every limit, but for those that are there."""
    limits = [(cost, share) for cost, share in LIMITS if _named(cost, share) not in have]
    if not limits:
        return
    side = NETS[name]
    net = fold_batch_norm(at_random_weights(name))
    drawn = torch.randn(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(SEED))
    batches = [(batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in drawn.split(16)]
    evidence = observe(net, batches, task=Classification(tuple(map(str, range(CLASSES)))), seed=SEED, taylor=False)
    priced = Priced.of(net, evidence.all(), IMAGES)
    for cost, share in limits:
        task = priced.problem(cost)
        limit = share * float(getattr(count(net), cost))
        began = time.perf_counter()
        plan = solve(task, {cost: limit})
        seconds = time.perf_counter() - began
        others = {
            "greedy": solve(replace(task, dual=None, program=None), {cost: limit}).damage,
            "uniform": damage_of(task, uniform(task, cost, limit)),
            "random": min(damage_of(task, at_random(task, cost, limit, seed)) for seed in range(DRAWN)),
        }
        yield {
            "network": name,
            "limit": _named(cost, share),
            "cost": cost,
            "feasible": plan.feasible,
            "reached": float(getattr(count(priced.made(plan)), cost)) / limit,
            "gap": UNKNOWN if plan.gap is None else plan.gap,
            **{side: found / plan.damage if plan.damage else 1.0 for side, found in others.items()},
            "seconds": seconds,
        }


def _named(cost: str, share: float) -> str:
    return f"{share:g}x {cost}"


def damage_of(task: Problem, counts: Mapping[str, int]) -> float:
    return sum(task.damage[name](size) for name, size in counts.items())


def uniform(task: Problem, cost: str, limit: float) -> dict[str, int]:
    """Every item at the largest setting that is no more than one share of the whole, the largest that fits."""
    counts = {name: sizes[0] for name, sizes in task.sizes.items()}
    for percent in range(100, 0, -1):
        counts = {
            name: next((size for size in sizes if size <= percent / 100 * sizes[0]), sizes[-1])
            for name, sizes in task.sizes.items()
        }
        if task.costs(counts)[cost] <= limit:
            break
    return counts


def at_random(task: Problem, cost: str, limit: float, seed: int) -> dict[str, int]:
    """Items drawn at random go down by a setting, one after the other, until the limit holds."""
    rng = random.Random(seed)
    places = dict.fromkeys(task.sizes, 0)
    counts = {name: sizes[0] for name, sizes in task.sizes.items()}
    while task.costs(counts)[cost] > limit:
        open_items = [name for name, place in places.items() if place + 1 < len(task.sizes[name])]
        if not open_items:
            break
        name = rng.choice(open_items)
        places[name] += 1
        counts[name] = task.sizes[name][places[name]]
    return counts


def accuracies(network: str, kind: str) -> Row:
    """A trained network at one share of its MACs by each kind of plan, solved alike; of random plans the best."""
    data = DATA[kind]()
    net = fold_batch_norm(trained(network, kind, data))
    task = Classification(data.labels)
    priced = Priced.of(net, observed(net, data, task), 512)
    choice = priced.problem("macs")
    limit = SHARE * count(net).macs
    plan = solve(choice, {"macs": limit})
    sides: dict[str, list[Mapping[str, int]]] = {
        "plan": [plan.counts],
        "greedy": [solve(replace(choice, dual=None), {"macs": limit}).counts],
        "uniform": [uniform(choice, "macs", limit)],
        "random": [at_random(choice, "macs", limit, seed) for seed in range(3)],
    }
    found: dict[str, float] = {}
    for side, every in sides.items():
        right = []
        for counts in every:
            recipe = Recipe.of(net, *priced.menu.steps(counts), Solve(images=512))
            right.append(accuracy(apply(recipe, net, data, task=task).to_module(), data, "test"))
        found[f"{side}_accuracy"] = max(right)
    whole = accuracy(net.to_module(), data, "test")
    return {"network": f"{network}, trained", "limit": "accuracy", "original_accuracy": whole, **found}


def timed(have: set[tuple[str, str]]) -> Iterator[Row]:
    """Networks whose time is limited, in several runtimes, but for those that are there."""
    for name in (*TIMED, *TIMED_AT_RANDOM):
        for runtime in RUNTIMES:
            limit = f"{TIME_SHARE}x time in {runtime}"
            if (name, limit) in have:
                continue
            net, data = subject(name)
            with tempfile.TemporaryDirectory(prefix="planner-") as folder:
                how = Settings(runtime=runtime, cache=OUT / "cache", tune_epochs=0, expect="0", policy=plan_in_float)
                budget = Budget(latency_ms=f"{TIME_SHARE}x", max_drop=100.0)  # time alone decides
                bundle = shrink(net, data=data, budget=budget, out=Path(folder) / "out", settings=how)
            (shipped,) = (one for one in bundle.manifest.candidates if one.chosen)
            yield {
                "network": name,
                "limit": limit,
                "cost": "latency_ms",
                "within": bundle.summary.within_budget,
                "reached": bundle.summary.latency_ms / bundle.manifest.limits["latency_ms"],
                "shipped": shipped.name,
            }


def subject(name: str) -> tuple[Net, Dataset]:
    """A network whose time is limited, and its data."""
    if name in TIMED:
        data = DATA["digits"]()
        return trained(name, "digits", data), data
    return at_random_weights(name), random_images(IMAGES_OF_A_JOB, NETS[name])


def at_random_weights(name: str) -> Net:
    """A network of `NETS`."""
    shape = (3, NETS[name], NETS[name])
    return capture(settled(build(name, classes=CLASSES, in_channels=3), shape), shape)


def plan_in_float(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """The planner's own policy, where the runtime has no precision but float."""
    return measured_plan(replace(space, encodings=()), evaluate, journal)


def headline(rows: list[dict[str, str | int | float]]) -> dict[str, float]:
    """The worst miss, gap and time; a limit that not even the smallest choice meets counts for nothing."""
    plans = [row for row in rows if "gap" in row and row["feasible"]]

    def worst(cost: str) -> float:
        misses = [
            abs(float(row["reached"]) - 1) for row in rows if row.get("cost") == cost and row.get("feasible", True)
        ]
        return 100 * max(misses, default=float("nan"))

    return {
        "worst_miss_percent_macs": worst("macs"),
        "worst_miss_percent_bytes": worst("weight_bytes"),
        "worst_miss_percent_latency": worst("latency_ms"),
        "worst_gap_percent": 100 * max((float(row["gap"]) for row in plans if row["gap"] != UNKNOWN), default=0.0),
        "plan_s": max((float(row["seconds"]) for row in plans), default=0.0),
    }


if __name__ == "__main__":
    main()
