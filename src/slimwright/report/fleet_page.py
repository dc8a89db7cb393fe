"""The page of a fleet: every deployment with its proof, in a table that is filtered and sorted in the browser.

Only the rows that can be seen are in the document, so that thousands of them scroll as one does. What the page shows
stands in `fleet.json`.
"""

from collections.abc import Iterator
from typing import Any

from slimwright.cost.budget import called
from slimwright.measure import Deployed, Fleet
from slimwright.report.frame import HERE, framed
from slimwright.tasks import Metric
from slimwright.units import counted, megabytes, milliseconds, nats, times

UNITS = {
    "latency_ms": milliseconds,
    "size_bytes": megabytes,
    "peak_activation_bytes": megabytes,
    "macs": counted,
}


def fleet_page(found: Fleet, planned: int) -> str:
    """Return a fleet, of so many `planned` deployments, as HTML. Texts of the record are escaped."""
    metric = found.task.metric.metric
    rows = [*(_row(one, metric) for one in found.deployed), *_failures(found)]
    values = {
        "m": found,
        "metric": metric,
        "planned": planned,
        "within": sum(one.within_budget for one in found.deployed),
    }
    script = (HERE / "fleet.js").read_text(encoding="utf-8")
    return framed("fleet.html", values, script, {"rows": {"rows": rows}}, ("page.css", "fleet.css"))


def _row(one: Deployed, metric: Metric) -> dict[str, Any]:
    """A row: of each column what is shown, and by what it is sorted."""
    before, after, plan = one.model.original, one.model.result, one.model.predicted
    limits = ", ".join(f"{called(name)} {UNITS[name](limit)}" for name, limit in one.limits.items())
    plan_ms, damage = (plan.costs.get("latency_ms"), plan.damage) if plan else (None, None)
    return {
        "link": f"models/{one.model.key}/",
        "state": "within" if one.within_budget else "missed",
        "cells": [
            _cell(one.name, one.name),
            _cell(", ".join(one.classes), len(one.classes)),
            _cell(one.runtime, one.runtime),
            _cell(limits, min(one.limits.values(), default=0.0)),
            _cell(one.model.candidate, one.model.candidate),
            _cell(milliseconds(plan_ms), plan_ms),
            _cell(nats(damage), damage),
            _cell(milliseconds(before.latency_ms), before.latency_ms),
            _cell(milliseconds(after.latency_ms), after.latency_ms),
            _cell(times(after.latency_ms / before.latency_ms), after.latency_ms / before.latency_ms),
            _cell(megabytes(after.size_bytes), after.size_bytes),
            _cell(counted(after.macs), after.macs),
            _cell(metric.shown(before.score), before.score),
            _cell(metric.shown(after.score), after.score),
            _cell(metric.number(one.drop), one.drop),
            _cell("within" if one.within_budget else "; ".join(one.misses), one.within_budget),
        ],
    }


def _failures(found: Fleet) -> Iterator[dict[str, Any]]:
    for one in found.failed:
        empty = [_cell("", None) for _ in range(14)]
        yield {"link": "", "state": "failed", "cells": [_cell(one.name, one.name), *empty, _cell(one.why, "failed")]}


def _cell(shown: str, by: float | str | bool | None) -> list[Any]:
    return [shown, by]
