"""A diagnosis for a terminal, and as data."""

import math
from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slimwright.jobs.doctor.examining import Diagnosis, Visit
from slimwright.jobs.doctor.symptoms import Finding, findings
from slimwright.report import NONE, size
from slimwright.units import megabytes, significant

WIDE = 100  # columns of a terminal from which nothing has to be left out
SHOWN, SHOWN_WIDE = 3, 5  # layers named with a finding; --json names all
MARKS = {"broken": ("✗", "bold red"), "slow": ("•", "yellow"), "note": ("·", "dim")}


def diagnosed(found: Diagnosis, width: int) -> RenderableType:
    """Return what each runtime made of a network, and what was found, for a terminal of `width` columns."""
    images = f"images of {found.data}" if found.data else "random images"
    title = f"{found.model}: image {size(found.net.input.shape[1:])}, {images}, one thread"
    missing = [Text(each.why) for each in _first_of_each([v for v in found.visits if v.missing])]
    said = _said(findings(found), SHOWN_WIDE if width >= WIDE else SHOWN)
    legend = "error: largest, of the largest output; other: share of the time outside convolutions and products"
    return Group(Text(title, style="bold"), _visits(found.visits, width), said, *missing, Text(legend, style="dim"))


def diagnosis_data(found: Diagnosis) -> dict[str, object]:
    """Return everything that was seen as JSON-ready data."""
    return {
        "model": found.model,
        "image": list(found.net.input.shape[1:]),
        "data": found.data,
        "well": found.well,
        "runtimes": [_visit_data(visit) for visit in found.visits],
        "trials": [
            {
                "swap": t.swap.name,
                "runtime": t.runtime,
                "before_ms": t.before_ms,
                "after_ms": t.after_ms,
                "gain": t.gain,
            }
            for t in found.trials
        ],
        "layers": {
            runtime: [asdict(shape) | {"ms": ms} for shape, ms in times.items()]
            for runtime, times in found.layer_ms.items()
        },
        "findings": [asdict(finding) for finding in findings(found)],
    }


def _visit_data(visit: Visit) -> dict[str, object]:
    number = visit.error is not None and math.isfinite(visit.error)
    judged = {"error": visit.error if number else None, "tolerance": visit.tolerance, "equal": visit.equal}
    return asdict(visit) | judged | {"other_share": visit.other_share, "well": visit.well}


def _visits(visits: Sequence[Visit], width: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    heads = ["runtime", "", "converts", "runs", "error", "latency", "other"]
    if width >= WIDE:
        heads += ["processor", "file", "rewritten", "left out"]
    for head in heads:
        table.add_column(head, justify="left" if head in ("runtime", "") else "right", no_wrap=True)
    for visit in visits:
        cells = _cells(visit)
        table.add_row(visit.runtime, visit.precision, *(cells[head] for head in heads[2:]))
    return table


def _cells(visit: Visit) -> dict[str, Text]:
    if visit.missing:
        return dict.fromkeys(("converts", "runs"), Text("absent", style="dim")) | dict.fromkeys(
            ("error", "latency", "other", "processor", "file", "rewritten", "left out"), Text(NONE, style="dim")
        )
    cells = {
        "converts": Text(f"{visit.conversion_s:.1f} s") if visit.conversion_s is not None else _bad("no"),
        "runs": _good("yes") if visit.ran else _bad("no") if visit.converted else None,
        "error": None if not visit.ran else _error(visit),
        "latency": Text(f"{significant(visit.latency.median_ms)} ms") if visit.latency else None,
        "processor": Text(f"{significant(visit.latency.cpu_ms)} ms") if visit.latency else None,
        "other": Text(f"{visit.other_share:.0%}") if visit.kernels else None,
        "file": Text(megabytes(visit.size_bytes)) if visit.size_bytes else None,
        "rewritten": Text(str(sum(map(len, visit.rewritten.values()))) if visit.rewritten else ""),
        "left out": Text(str(len(visit.fallbacks)) if visit.fallbacks else ""),
    }
    return {head: cell if cell is not None else Text(NONE, style="dim") for head, cell in cells.items()}


def _error(visit: Visit) -> Text:
    if visit.error is None:
        return _bad("shape")
    return (_good if visit.equal else _bad)(f"{visit.error:.1e}")


def _good(text: str) -> Text:
    return Text(text, style="green")


def _bad(text: str) -> Text:
    return Text(text, style="bold red")


def _said(found: Sequence[Finding], most: int) -> Table:
    """Findings with their layers and what to do, in a column beside their marks."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column()
    table.add_column()
    for finding in found:
        mark, style = MARKS[finding.grade]
        table.add_row(Text(mark, style=style), Text(finding.what))
        if finding.nodes:
            table.add_row("", Text(f"in {_some(finding.nodes, most)}", style="dim"))
        if finding.advice:
            table.add_row("", Text(f"→ {finding.advice}", style="cyan"))
    return table


def _some(nodes: Sequence[str], most: int) -> str:
    more = len(nodes) - most
    return ", ".join(nodes[:most]) + (f" and {more} more" if more > 0 else "")


def _first_of_each(visits: Sequence[Visit]) -> list[Visit]:
    return list({visit.runtime: visit for visit in reversed(visits)}.values())[::-1]
