"""What every benchmark has in common: its two options, its table, and its JSON.

The JSON is `{"headline": {key: number}, "rows": [...], "environment": {...}}`. `--quick` gives the same keys of the
headline as the full run, from less data; the environment says which of the two it was. Shares and accuracies are 0..1
in the JSON and per cent in the table. What was not measured is null.
"""

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

import torch
from rich.console import Console
from rich.table import Table

Row: TypeAlias = Mapping[str, str | int | float]
RUNTIME_PACKAGES = ("onnxruntime", "ncnn", "MNN", "executorch", "ai-edge-litert", "openvino")


@dataclass(frozen=True)
class Column:
    """One column: the row's key, what stands above it, and a format such as "{:.1%}"."""

    key: str
    title: str
    form: str = "{}"


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of `--quick` and `--json FILE`, to which a benchmark adds options of its own."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--quick", action="store_true", help="the same code on less data: at most two minutes")
    made.add_argument("--json", type=Path, metavar="FILE", help="write headline, rows and environment here")
    return made


def options(description: str) -> argparse.Namespace:
    """Read `--quick` and `--json FILE` from the command line."""
    return parser(description).parse_args()


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


def publish(
    asked: argparse.Namespace,
    *,
    headline: Mapping[str, float],
    rows: Sequence[Row],
    environment: Mapping[str, object],
) -> None:
    """Print the headline, and write the result of a benchmark as JSON where `--json` names a file."""
    for key, value in headline.items():
        print(f"{key}: {value:.6g}")
    if asked.json:
        result = {"headline": headline, "rows": list(rows), "environment": {**environment, "quick": asked.quick}}
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(_measured(result), indent=1, allow_nan=False) + "\n")


def rows_file(asked: argparse.Namespace, folder: Path) -> Path:
    """Return the file in a folder in which rows are kept from run to run; `--quick` has its own, and starts anew."""
    path = folder / ("quick.jsonl" if asked.quick else "rows.jsonl")
    if asked.quick:
        path.unlink(missing_ok=True)
    return path


def kept(path: Path) -> list[dict[str, str | int | float]]:
    """Return the rows that `keep` put into a file; a line that was cut short by a kill is no row."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def keep(row: Row, path: Path) -> None:
    """Append a row to a file of rows; it starts a line, even behind one that was cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("\n" + json.dumps(row))


def environment(*packages: str, seed: int) -> dict[str, object]:
    """Say with what, on what and when a benchmark ran; slimwright and torch are among the packages."""
    named = ("slimwright", "torch", *packages)
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in named}},
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "torch_threads": torch.get_num_threads(),
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _measured(value: object) -> object:
    """The value with null in the place of what is not a number, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _measured(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_measured(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
