"""What `fleet` prints: the first deployments, as many as a person reads, and what became of all."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slimwright.measure import FLEET_PAGE, Fleet, Predicted
from slimwright.units import megabytes, nats, times

SHOWN = 40  # deployments


def fleet(found: Fleet, out: str) -> RenderableType:
    """Return a line for each deployment: what was asked and what was measured; then those that failed."""
    metric = found.task.metric.metric
    made = Table(box=SIMPLE_HEAD, title=f"{found.model}, measured", title_justify="left")
    for name in ("deployment", "limits", "network", "latency", "file", f"{metric.name}", "drop", "budget"):
        made.add_column(name, justify="left" if name in ("deployment", "limits", "network", "budget") else "right")
    for one in found.deployed[:SHOWN]:
        before, after = one.model.original, one.model.result
        limits = ", ".join(f"{name} {limit}" for name, limit in one.asked.items())
        made.add_row(
            Text(one.name),
            Text(limits),
            Text(one.model.candidate),
            times(after.latency_ms / before.latency_ms),
            megabytes(after.size_bytes),
            metric.number(after.score),
            metric.number(one.drop),
            Text("within", "green") if one.within_budget else Text("missed", "red"),
        )
    within = sum(one.within_budget for one in found.deployed)
    told = [f"{within} of {len(found.deployed) + len(found.failed)} within their budgets"]
    told += [f"{one.name}: {one.why}" for one in found.failed[:SHOWN]]
    told += [f"all of them: {out}/{FLEET_PAGE}"]
    return Group(made, *(Text(line) for line in told))


def plans(found: Mapping[str, Predicted]) -> RenderableType:
    """Return a line for each deployment: what would be planned for it, all of it predicted."""
    made = Table(box=SIMPLE_HEAD, title="predicted; nothing was built", title_justify="left")
    for name in ("deployment", "network", "costs", "damage, nats", "limits"):
        made.add_column(name, justify="right" if name.startswith("damage") else "left")
    for name, one in [*found.items()][:SHOWN]:
        costs = ", ".join(f"{cost} {value:.4g}" for cost, value in one.costs.items())
        state = Text("met", "green") if one.feasible else Text("not met", "red")
        made.add_row(Text(name), Text(one.plan), costs, nats(one.damage), state)
    met = sum(one.feasible for one in found.values())
    return Group(made, Text(f"{met} of {len(found)} plans meet their limits"))
