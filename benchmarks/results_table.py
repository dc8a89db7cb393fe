"""What every benchmark has in common: its two options, its table, and its JSON.

The JSON is `{"headline": {key: number}, "rows": [...], "environment": {...}}`. Shares and accuracies are 0..1 there
and per cent in the table.
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

import torch
from rich.console import Console
from rich.table import Table

Row: TypeAlias = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Column:
    """One column: the row's key, what stands above it, and a format such as "{:.1%}"."""

    key: str
    title: str
    form: str = "{}"


def options(description: str) -> argparse.Namespace:
    """Read `--quick` and `--json FILE` from the command line."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the same code on less: about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write headline, rows and environment here")
    return parser.parse_args()


def show(title: str, columns: Sequence[Column], rows: Sequence[Row], *, sections: Sequence[str] = ()) -> None:
    """Print the rows, with a line wherever the values under the keys `sections` change."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        numeric = all(isinstance(row[column.key], int | float) for row in rows)
        table.add_column(column.title, justify="right" if numeric else "left")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends = following is not None and any(row[key] != following[key] for key in sections)
        table.add_row(*(column.form.format(row[column.key]) for column in columns), end_section=ends)
    Console(width=None if sys.stdout.isatty() else 120).print(table)  # a pipe has no width of its own


def write(path: Path, *, headline: Mapping[str, float], rows: Sequence[Row], environment: Mapping[str, object]) -> None:
    """Write the result of a benchmark as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"headline": headline, "rows": list(rows), "environment": environment}
    path.write_text(json.dumps(result, indent=1) + "\n")


def environment(*packages: str, seed: int) -> dict[str, object]:
    """Say with what, on what and when a benchmark ran."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "cpu": _cpu(),
        "platform": f"{platform.system()} {platform.machine()}",
        "torch_threads": torch.get_num_threads(),
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"  # slimwright itself, run from its source tree


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"
