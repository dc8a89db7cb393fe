"""What commands print, as tables for a terminal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

from rich.box import SIMPLE, SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slimwright.jobs.compare import Comparison, Likeness
from slimwright.jobs.export import Export, Exported
from slimwright.jobs.verify import Check
from slimwright.measure import FRONT_PAGE, Bundle, Front, FrontPoint, Inspection, Row, as_data
from slimwright.report import (
    NONE,
    columns,
    compared,
    ends,
    figures_of,
    fixed,
    notes,
    op_name,
    reasons,
    shown,
    size,
)
from slimwright.tasks import Metric
from slimwright.units import counted, megabytes, nats, times, within

LEGEND = {
    "work": "operations that are no MACs",
    "moved": "bytes read and written",
    "op/B": "operations per byte moved",
    "live": "activations in memory meanwhile",
    "cut": "whether output channels can be removed",
}
WIDE = 120  # columns of a terminal from which nothing has to be left out
NARROW = ("layer", "op", "output", "MACs", "params", "live", "cut")
MANY = 60  # rows that are hard to read


def layers(found: Inspection, depth: int | None, width: int) -> RenderableType:
    """Return the table of a network's layers and what they come to in all, for a terminal of `width` columns."""
    rows = shown(found, depth)
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_footer=True)
    for name, footer in _footers(found).items():
        if width >= WIDE or name in NARROW:
            left = name in ("layer", "op", "output")
            table.add_column(name, footer=footer, justify="left" if left else "right", no_wrap=True)
    names, ops = (36, 20) if width >= WIDE else (20, 11)
    for row in rows:
        cells = _cells(row, found)
        cells |= {"layer": _tail(cells["layer"], names), "op": _tail(cells["op"], ops)}
        table.add_row(*(Text(cells[str(column.header)]) for column in table.columns))
    heads = [str(column.header) for column in table.columns]
    legend = "; ".join(f"{name}: {what}" for name, what in LEGEND.items() if name in heads)
    many = f"{len(rows)} layers: --depth 2 shows them by module, --html as a page" if len(rows) > MANY else ""
    remarks = [Text(f"{names}: {_channels(names)}, {why}") for names, why in fixed(found)]
    remarks += [Text(line, style="dim") for line in (legend, many) if line]
    return Group(Text(_title(found), style="bold"), table, _totals(found), "", *remarks)


def comparison(found: Sequence[Inspection]) -> RenderableType:
    """Return one line for each network, and below why something is missing."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 0))
    table.add_column("network", no_wrap=True, ratio=1)
    for name in columns(found):
        table.add_column(name, justify="right", no_wrap=True, min_width=6)
    for each in found:
        cells = compared(each)
        table.add_row(Text(each.name), *(cells[name] for name in columns(found)))
    return Group(table, *(Text(f"{name}: {why}") for name, why in reasons(found)), Text(notes(found), style="dim"))


def side_by_side(found: Comparison) -> RenderableType:
    """Return two networks as columns, with the second as a share of the first, and how far their outputs are apart."""
    table = _plain("", "", *(each.name for each in found.sides), "")
    for column in table.columns[1:]:
        column.justify = "right"
    cells = [compared(each) for each in found.sides]
    for name in columns(found.sides):
        old, new = (SHARED[name](each) if name in SHARED else None for each in found.sides)
        table.add_row(name, *(Text(side[name]) for side in cells), _share(old, new))
    remarks = (Text(f"{name}: {why}") for name, why in reasons(found.sides))
    return Group(table, Text(_apart(found.outputs)), *remarks, Text(notes(found.sides), style="dim"))


def _share(old: float | None, new: float | None) -> str:
    """The new number as a share of the old; nothing where there is nothing to be a share of."""
    return f"{new / old:.2f}x" if old and new is not None else ""


SHARED: Mapping[str, Callable[[Inspection], float | None]] = {  # of what a share is told
    "params": lambda each: each.total.params,
    "MACs": lambda each: each.total.macs,
    "memory": lambda each: each.total.peak_activation_bytes,
    "file": lambda each: each.measured.size_bytes,
    "latency": lambda each: each.measured.latency.median_ms if each.measured.latency else None,
}


def _apart(outputs: Likeness) -> str:
    on = (
        f"the test part of {outputs.data}, {outputs.images:,} images"
        if outputs.data
        else f"{outputs.images} random images"
    )
    if outputs.max_relative_error is None or outputs.max_abs_error is None:
        return f"outputs on {on}: {outputs.why}"
    said = f"outputs on {on}: the largest difference is {outputs.max_abs_error:.2g}, "
    said += f"{outputs.max_relative_error:.2g} of the largest value"
    alike = f"; both mean the same on {outputs.agreement:.1%}" if outputs.agreement is not None else f"; {outputs.why}"
    return said + alike


def comparison_data(found: Comparison) -> dict[str, object]:
    """Return a comparison as JSON-ready data, without the layers: `inspect` tells of those."""
    every = (as_data([each]) for each in found.sides)
    kept = ("model", "inputs", "outputs", "total", "measured")
    return {"models": [{name: one[name] for name in kept} for one in every], "outputs": asdict(found.outputs)}


def summary(bundle: Bundle) -> RenderableType:
    """Return both sides of a bundle, and whether the budget is met."""
    manifest = bundle.manifest
    before, after = manifest.original, manifest.result
    table = _plain(f"{manifest.model} on {manifest.runtime}, one thread", "", "original", "result", "")
    for column in table.columns[1:]:
        column.justify = "right"
    metric = manifest.task.metric.metric
    change = f"{'+' if after.score >= before.score else ''}{metric.number(after.score - before.score)} {metric.step}"
    table.add_row(f"{metric.name} (test)", metric.shown(before.score), metric.shown(after.score), change)
    for what, key, form, unit in (
        ("latency, median", "latency.median_ms", "{:.3f} ms", 1.0),
        ("model file", "size_bytes", "{:,.0f} kB", 1e3),
        *([("packed file", "packed_bytes", "{:,.1f} kB", 1e3)] if after.packed_bytes is not None else []),
        ("peak activations", "peak_activation_bytes", "{:,.0f} kB", 1e3),
        ("peak memory, process", "peak_rss_bytes", "{:.1f} MB", 1e6),
        ("MACs", "macs", "{:.2f} M", 1e6),
    ):
        old, new = (attrgetter(key)(side) for side in (before, after))
        table.add_row(what, form.format(old / unit), form.format(new / unit), _share(old, new))
    chosen = next(candidate.name for candidate in manifest.candidates if candidate.chosen)
    model = f"'{chosen}' ({after.precision.upper()}), in {bundle.path}"
    if bundle.summary.within_budget:
        verdict = [Text.assemble(("within budget", "green"), f": {model}")]
    else:
        verdict = [Text.assemble(("budget missed", "red"), f": {'; '.join(bundle.summary.misses)}")]
        verdict.append(Text(f"the nearest model found is {model}"))
        verdict += [Text(f"reachable, on the validation part: {said}") for said in bundle.summary.reachable]
    found = bundle.summary.interval
    if found is not None:
        verdict.append(Text(f"{metric.name}: {within(metric, found.low, found.high, found.images)}"))
    verdict += [Text(doubt, style="yellow") for doubt in bundle.summary.doubts]
    return Group(table, *verdict, Text(f"open {bundle.path / 'report.html'}"))


def front(found: Front, out: Path) -> RenderableType:
    """Return one line for each limit of a front; what was predicted stands apart from what was measured."""
    metric = found.task.metric.metric
    title = f"{found.model} on {found.runtime}, one thread"
    table = _plain(title, "limit", "network", "predicted ms", "predicted nats", "measured ms", metric.name, "file", "")
    for column in table.columns[2:7]:
        column.justify = "right"
    sides = [("", found.original, ""), *((times(p.share), p.candidate, _remark(p)) for p in found.points)]
    for limit, one, remark in sides:
        ms = "" if one.predicted_latency_ms is None else f"{one.predicted_latency_ms:.3f}"
        damage = "" if one.predicted_damage is None else nats(one.predicted_damage)
        score, size_ = metric.shown(one.validation_score), megabytes(one.size_bytes)
        table.add_row(limit, Text(one.name), ms, damage, f"{one.latency_ms:.3f}", score, size_, remark)
    said = f"{metric.name} is on the validation part; shrink with a point's limit makes the model to ship"
    return Group(table, Text(said, style="dim"), Text(f"open {out / FRONT_PAGE}"))


def _remark(point: FrontPoint) -> str:
    return "missed" if not point.fits else "dominated" if point.dominated else ""


def applied(title: str, sides: Mapping[str, Mapping[str, float]], metric: Metric) -> RenderableType:
    """Return what a recipe was given and what it gave: MACs, params and the score of each side."""
    table = _plain(title, "", *sides)
    for key in ("macs", "params"):
        table.add_row(key, *(f"{side[key]:,}" for side in sides.values()))
    scores = (metric.shown(side["validation_score"]) for side in sides.values())
    table.add_row(f"{metric.name} (validation)", *scores)
    return table


def checked(title: str, checks: Sequence[Check]) -> RenderableType:
    """Return what a bundle promised beside what was found now."""
    table = _plain(title, "check", "promised", "found now", "")
    for check in checks:
        passed = Text("ok", "green") if check.passed else Text("failed", "red")
        table.add_row(Text(check.what), Text(check.promised), Text(check.found), passed)
    return table


def _plain(title: str, *columns: str) -> Table:
    return Table(*columns, title=Text(title, style="table.title"))


def exported(found: Export, width: int) -> RenderableType:
    """Return one line for each artefact, for a terminal of `width` columns, and below why those that failed did."""
    threads = "one thread" if found.threads == 1 else f"{found.threads} threads"
    metric = found.metric.metric if found.metric else None
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("artefact", no_wrap=True)
    heads = [name for name in EXPORTED if width >= WIDE or name not in ROOMY]
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    for each in found.artefacts:
        cells = _run(each, metric)
        table.add_row(f"{each.runtime} {each.precision}", *(cells[name] for name in heads))
    own = (
        f" (the original: {metric.shown(found.original_score)})" if metric and found.original_score is not None else ""
    )
    images = f"the test part of {found.data}{own}" if found.data else "random images: no score"
    legend = f"On {images}. error: the largest, of the largest output; ms: median of a run; start: load and first "
    legend += "run, ms; memory: over the empty runtime's"
    return Group(
        Text(f"{found.model} on {found.target}, {threads}", style="bold"),
        table,
        *(Text(f"{each.runtime} {each.precision}: {each.why}") for each in found.artefacts if not each.passed),
        *(Text(f"{each.runtime} {each.precision}: {note}") for each in found.artefacts for note in each.notes),
        Text(legend, style="dim"),
    )


EXPORTED = ("proof", "error", "score", "file", "ms", "p10", "p90", "CPU ms", "start", "memory")
ROOMY = ("p10", "p90", "CPU ms")


def _run(each: Exported, metric: Metric | None) -> dict[str, str | Text]:
    """What was measured of an artefact, as cells; a dash for what was not reached."""
    timing = each.latency
    cells = {
        "proof": Text("passed", "green") if each.passed else Text("failed", "red"),
        "error": f"{each.proof.max_relative_error:.0e}" if each.proof else None,
        "score": metric.number(each.score) if metric and each.score is not None else None,
        "file": megabytes(each.size_bytes) if each.size_bytes else None,
        "ms": f"{timing.median_ms:.3g}" if timing else None,
        "p10": f"{timing.p10_ms:.3g}" if timing else None,
        "p90": f"{timing.p90_ms:.3g}" if timing else None,
        "CPU ms": f"{timing.cpu_ms:.3g}" if timing else None,
        "start": f"{each.cold_start_ms:.0f}" if each.cold_start_ms is not None else None,
        "memory": megabytes(each.own_rss_bytes) if each.own_rss_bytes is not None else None,
    }
    return {name: cell or "-" for name, cell in cells.items()}


def _title(found: Inspection) -> str:
    return f"{found.name}: {ends(found)}; exact counts for one image"


def _footers(found: Inspection) -> dict[str, str]:
    total = found.total
    return {
        "layer": "total",
        "op": "",
        "output": "",
        "MACs": counted(total.macs),
        "share": "",
        "params": counted(total.params),
        "work": counted(total.elementwise_ops or 0),
        "moved": megabytes(total.moved_bytes or 0),
        "op/B": f"{total.intensity or 0:.1f}",
        "live": megabytes(total.peak_activation_bytes),
        "cut": "",
    }


def _cells(row: Row, found: Inspection) -> dict[str, str]:
    cost = row.cost
    return {
        "layer": row.path,
        "op": op_name(row),
        "output": size(cost.shape[1:]),
        "MACs": counted(cost.macs) if cost.macs else "",
        "share": f"{cost.macs / found.total.macs:.1%}" if cost.macs else "",
        "params": counted(cost.params) if cost.params else "",
        "work": counted(cost.elementwise_ops) if cost.elementwise_ops else "",
        "moved": megabytes(cost.moved_bytes) if cost.moved_bytes else "",
        "op/B": f"{cost.intensity:.1f}" if cost.moved_bytes else "",
        "live": megabytes(row.live_bytes),
        "cut": "" if row.cut is None else "yes" if row.cut else "no",
    }


def _tail(name: str, most: int) -> str:
    """The end of a name tells it apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _channels(names: str) -> str:
    return "keep their channels" if ", " in names else "keeps its channels"


def _totals(found: Inspection) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for figure in figures_of(found):
        table.add_row(figure.name, figure.full, figure.remark)
    for _, why in reasons([found]):
        table.add_row("not measured", NONE, Text(why))
    return table
