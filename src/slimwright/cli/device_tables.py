"""Device profiles, and what a network is predicted to take on each, as tables on a terminal and as data."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slimwright.cost.device import PRECISIONS, Device, Precision
from slimwright.cost.roofline import CAVEAT, Estimate, estimates
from slimwright.graph import Net
from slimwright.report import NONE
from slimwright.techniques.fold import fold_batch_norm
from slimwright.units import megabytes, significant

WIDE = 112  # columns of a terminal from which nothing has to be left out
NARROW = f"fp16 and memory wait: in a terminal of {WIDE} columns, or --json"
MEMORY_WAIT = "predicted\nmemory wait"
WAIT = "memory wait: share of the predicted time in layers that wait for memory, in the widest precision"
DOUBT = "~ rests on figures that are estimates or were not verified; --json names them"


def predictions(net: Net, devices: Sequence[Device], threads: int | None = None) -> list[dict[Precision, Estimate]]:
    """Return what a net, its batch norms folded as every runtime does, is predicted to take on each device."""
    folded = fold_batch_norm(net)
    return [estimates(folded, device, threads=threads) for device in devices]


def devices_table(devices: Sequence[Device], width: int) -> RenderableType:
    """Return one line for each device: rates of all cores together, memory, power, size and weight."""
    table = _table([_facts(device) for device in devices], ("kind", "mm", "g") if width < WIDE else ())
    return Group(table, Text("peak rates, at most; --json gives each number with its source", style="dim"))


def predictions_table(
    name: str, devices: Sequence[Device], found: Sequence[dict[Precision, Estimate]], *, threads: int | None, width: int
) -> RenderableType:
    """Return one line for each device: predicted latency and energy, what waits for memory, and what fits."""
    rows = [_predicted(device, each) for device, each in zip(devices, found, strict=True)]
    left_out = (*(head for head in rows[0] if "fp16" in head), MEMORY_WAIT) if width < WIDE else ()
    cores = "one thread" if threads == 1 else f"{threads} threads" if threads else "all cores"
    title = Text(f"{name}: one image, {cores}, batch norms folded; predicted, not measured", style="bold")
    notes = (CAVEAT, DOUBT, NARROW if left_out else WAIT)
    return Group(title, _table(rows, left_out), *(Text(line, style="dim") for line in notes))


def devices_data(devices: Sequence[Device]) -> list[dict[str, object]]:
    """Return every profile as JSON-ready data, each number with its source."""
    return [device.model_dump(mode="json", exclude_none=True) for device in devices]


def predictions_data(
    name: str, devices: Sequence[Device], found: Sequence[dict[Precision, Estimate]]
) -> dict[str, object]:
    """Return all estimates as JSON-ready data, layer by layer."""
    return {
        "model": name,
        "caveat": CAVEAT,
        "devices": [
            {"device": device.name, "predicted": {precision: _data(one) for precision, one in each.items()}}
            for device, each in zip(devices, found, strict=True)
        ],
    }


def _data(one: Estimate) -> dict[str, object]:
    more = {"memory_share": one.memory_share, "memory_bound": one.bound_by("memory")}
    return asdict(one) | more | {"compute_bound": one.bound_by("compute")}


def _table(rows: Sequence[dict[str, str]], left_out: Sequence[str]) -> Table:
    """Return a table of rows whose keys are the heads."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    heads = [head for head in rows[0] if head not in left_out]
    for head in heads:
        table.add_column(head, justify="left" if head in ("device", "kind", "fits") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[head] for head in heads))
    return table


def _facts(device: Device) -> dict[str, str]:
    size, power = device.size_mm, device.max_power_w or device.typical_power_w
    return {
        "device": device.name,
        "kind": device.kind,
        **{f"{p}\nGMAC/s": _number(device.macs_per_s(p) / 1e9) for p in PRECISIONS},
        "GB/s": _number(device.memory_bytes_per_s.value / 1e9),
        "cache": megabytes(device.cache_bytes.value) if device.cache_bytes else NONE,
        "RAM": megabytes(device.ram_bytes.value),
        "W": _number(power.value if power else None),
        "mm": " x ".join(f"{side:g}" for side in size.value) if size else NONE,
        "g": _number(device.weight_g.value if device.weight_g else None),
    }


def _predicted(device: Device, each: dict[Precision, Estimate]) -> dict[str, str]:
    widest = next(iter(each.values()))
    return {
        "device": device.name,
        **{f"predicted\nms {precision}": _latency(each.get(precision)) for precision in PRECISIONS},
        **{f"predicted\nmJ {precision}": _energy(each.get(precision)) for precision in PRECISIONS},
        MEMORY_WAIT: f"{widest.memory_share:.0%} {widest.precision}",
        "fits": _fits(each),
    }


def _latency(one: Estimate | None) -> str:
    return _doubted(one.predicted_latency_ms, one.uncertain_latency) if one else NONE


def _energy(one: Estimate | None) -> str:
    return _doubted(one.predicted_energy_mj, one.uncertain_energy) if one else NONE


def _doubted(value: float | None, doubts: Sequence[str]) -> str:
    return NONE if value is None else f"{'~' if doubts else ''}{significant(value)}"


def _fits(each: dict[Precision, Estimate]) -> str:
    """Whether the network fits: in the cache, in memory and storage, in some precisions only, or what is too small."""
    fitting = [precision for precision, one in each.items() if one.fits_ram and one.fits_storage is not False]
    if not fitting:
        return "no: storage" if any(one.fits_storage is False for one in each.values()) else "no: RAM"
    if len(fitting) < len(each):
        return f"{', '.join(fitting)} only"
    return "in cache" if all(one.fits_cache for one in each.values()) else "yes"


def _number(value: float | None) -> str:
    return significant(value) if value else NONE
