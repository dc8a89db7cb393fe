"""Fleets of a small network on digits, whose classes are the digits: plans, and the jobs that they stand for."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.jobs import Ran, run

CLASSES = tuple(map(str, range(10)))
BUDGETS: Mapping[str, Mapping[str, str]] = {
    "latency-90": {"latency": "0.9x"},
    "latency-80": {"latency": "0.8x"},
    "latency-70": {"latency": "0.7x"},
    "latency-60": {"latency": "0.6x"},
    "latency-50": {"latency": "0.5x"},
    "macs-70": {"macs": "0.7x"},
    "macs-50": {"macs": "0.5x"},
    "macs-30": {"macs": "0.3x"},
    "size-50": {"size": "0.5x"},
    "size-20": {"size": "0.2x"},
}
MAX_DROP = 3.0
SUBSETS: Mapping[str, str | Sequence[str]] = {
    "all": "all",
    "low": CLASSES[:5],
    "high": CLASSES[5:],
    "even": CLASSES[::2],
    "odd": CLASSES[1::2],
    "thirds": CLASSES[::3],
    "first-eight": CLASSES[:8],
    "last-eight": CLASSES[2:],
    "middle": CLASSES[3:7],
    "ends": ("0", "1", "8", "9"),
}


@dataclass(frozen=True)
class Fleets:
    """Where fleets of one network are made: its cache, its plans, its scratch."""

    model: str
    home: Path

    def plan(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a plan. JSON is YAML, too."""
        path = self.home / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"model": self.model, "data": "digits", **content}))
        return path

    def run(self, *arguments: str, cache: str = "cache") -> Ran:
        """Run a command of slimwright."""
        return run(arguments, self.home / cache, self.home / "scratch")


def hundred(subsets: Mapping[str, str | Sequence[str]] = SUBSETS) -> dict[str, Any]:
    """Return budgets by subsets."""
    budgets = {name: {**limits, "max_drop": MAX_DROP} for name, limits in BUDGETS.items()}
    return {
        "budgets": budgets,
        "subsets": {name: found if found == "all" else [*found] for name, found in subsets.items()},
    }


def planned(budgets: int, subsets: int) -> dict[str, Any]:
    """Return so many limits on latency by so many subsets of at least four digits."""
    every = (some for size in range(10, 3, -1) for some in itertools.combinations(CLASSES, size))
    limits = {f"b{k}": {"latency": f"{0.95 - 0.6 * k / budgets:.4f}x"} for k in range(budgets)}
    return {"budgets": limits, "subsets": {f"s{k}": [*some] for k, some in enumerate(itertools.islice(every, subsets))}}


def options_of(budget: str, subset: str) -> list[str]:
    """Return the options of `shrink` that ask for one deployment."""
    limits = [part for name, limit in BUDGETS[budget].items() for part in (f"--{name}", limit)]
    chosen = SUBSETS[subset]
    return [*limits, "--max-drop", str(MAX_DROP), *([] if chosen == "all" else ["--only", ",".join(chosen)])]
