"""How long one observation, a plan and the solution take for a network of photographs, and how much memory.

MobileNetV2 at 224x224 with random weights and random images: neither time nor memory depends on what they hold. The
plan is for half of the multiply-accumulates. Seconds are of the wall clock, so run it on a machine that does nothing
else; memory is the process's peak, torch's own included.
"""

import resource
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from lib.results import Column, Row, environment, options, publish, show
from slimwright.cost import count
from slimwright.cost.latency import LatencyTable, one_by_one
from slimwright.coupling import couple
from slimwright.evidence import observe
from slimwright.importers import capture
from slimwright.search import Predictor, problem, solve
from slimwright.tasks import Classification
from slimwright.techniques.prune import removals
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.zoo import build

T = TypeVar("T")
NETWORK, SIDE, CLASSES, SEED = "mobilenet-v2", 224, 10, 0
STEP = 8
COLUMNS = (
    Column("stage", "stage"),
    Column("seconds", "seconds", "{:.1f}"),
    Column("peak_mb", "peak memory", "{:,.0f} MB"),
)


def main() -> None:
    chosen = options(__doc__ or "")
    images = torch.randn(
        32 if chosen.quick else 256, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(SEED)
    )  # fmt: skip
    rows: list[Row] = []

    def timed(stage: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        rows.append({"stage": stage, "seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak)})
        return result

    net = capture(build(NETWORK, classes=CLASSES).eval(), (3, SIDE, SIDE))
    coupling = couple(net)
    batches = [(batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in images.split(32)]
    evidence = timed(
        "observe", lambda: observe(net, batches, task=Classification(tuple(map(str, range(CLASSES)))), seed=SEED)
    )
    orders = timed("removal orders", lambda: removals(net, evidence, coupling))
    predictor = Predictor(net, coupling, LatencyTable(one_by_one(lambda _: 0.0), None, {}), STEP)
    task = problem(orders, predictor, lambda counts: {"macs": float(predictor.macs(counts))})
    plan = timed("plan", lambda: solve(task, {"macs": 0.5 * count(net).macs}))
    draft = Draft.of(net).cut({name: order.keep(plan.counts[name]) for name, order in orders.items()}, coupling)
    timed("solve", lambda: refit(draft, images))
    rows.append({"stage": "all", "seconds": sum(float(row["seconds"]) for row in rows), "peak_mb": rows[-1]["peak_mb"]})
    show(f"{NETWORK} at {SIDE}x{SIDE}, {len(images)} images, {torch.get_num_threads()} threads", COLUMNS, rows)
    headline = {"seconds": float(rows[-1]["seconds"]), "peak_mb": float(rows[-1]["peak_mb"])}
    publish(chosen, headline=headline, rows=rows, environment=environment(seed=SEED))


if __name__ == "__main__":
    main()
