"""Numbers as people read them: three significant digits, MB = 10^6 bytes, drops in steps of the metric."""

import math
from dataclasses import replace

from slimwright.tasks import Metric

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
GAP = "\N{NO-BREAK SPACE}"  # between a number and its unit
SAME = 0.005  # ratios this close to 1 are called the same


def significant(value: float) -> str:
    """Three significant digits, never in powers of ten: 1234.5 -> "1,234", 0.5 -> "0.500"."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    decimals = max(2 - math.floor(math.log10(abs(float(f"{value:.3g}")))), 0)
    return true_minus(f"{value:,.{decimals}f}")


def true_minus(text: str) -> str:
    """Use the minus sign that has the width of a digit."""
    return text.replace("-", MINUS)


def milliseconds(value: float | None) -> str:
    """0.51234 -> "0.512 ms"; a dash where there is none."""
    return "–" if value is None else f"{significant(value)}{GAP}ms"


def millijoules(value: float | None) -> str:
    """1.2345 -> "1.23 mJ"; a dash where there is none."""
    return "–" if value is None else f"{significant(value)}{GAP}mJ"


def nats(value: float | None) -> str:
    """Predicted damage: 0.00123 -> "1.2e−03"; a dash where there is none."""
    return "–" if value is None else true_minus(f"{value:.1e}")


def megabytes(value: float) -> str:
    """Bytes in the unit that suits them: 1200000 -> "1.20 MB"."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def counted(value: float) -> str:
    """A count: 10838016 -> "10.8 M"."""
    return _scaled(value, ("", "k", "M", "G", "T")).rstrip()


def percent(share: float) -> str:
    """A share of 1 in percent: 0.97222 -> "97.22 %"."""
    return f"{100 * share:.2f}{GAP}%"


def change(before: float, after: float) -> str:
    """The relative change, signed: 4, 1 -> "−75 %"; nothing where there is nothing to compare."""
    if before == after or before <= 0:
        return "unchanged" if before == after else ""
    moved = 100 * (after / before - 1)
    return true_minus(f"{moved:+,.{1 if abs(moved) < 10 else 0}f}{GAP}%")


def stepped(metric: Metric, before: float, after: float) -> str:
    """The change of a metric in its steps, signed: 98.0, 97.5 -> "−0.50 points"."""
    if before == after:
        return "unchanged"
    return true_minus(f"{'+' if after > before else ''}{metric.number(after - before)}{GAP}{metric.step}")


def within(metric: Metric, low: float, high: float, images: int) -> str:
    """What 95 % limits of a drop say: "95 %: 0.20 to 1.40 points worse", or that so many images cannot show it."""
    if low <= 0 <= high:
        return f"unchanged within what {images:,} images can show"
    far, near = sorted((abs(low), abs(high)), reverse=True)
    return f"95{GAP}%: {metric.number(near)} to {metric.number(far)} {metric.step} {'worse' if low > 0 else 'better'}"


def times(ratio: float) -> str:
    """A ratio: 0.5 -> "0.5×", 0.456 -> "0.46×"."""
    return f"{round(ratio, 2):g}{TIMES}"


def faster(ratio: float) -> str:
    """What a ratio of times, after over before, means: 0.5 -> "2.0x faster"."""
    if abs(ratio - 1) < SAME or ratio <= 0:
        return "As fast as the original"
    times, word = (1 / ratio, "faster") if ratio < 1 else (ratio, "slower")
    return f"{times:.{2 if times < 1.1 else 1}f}{TIMES} {word}"


def lost(metric: Metric, drop: float) -> str:
    """A drop of a metric as a phrase: 0.5 -> "0.5 points of accuracy lost"."""
    if abs(drop) < metric.finest:
        return f"no {metric.name} lost" if metric.higher_is_better else f"no {metric.name} added"
    coarser = replace(metric, finest=10 * metric.finest) if abs(drop) >= 20 * metric.finest else metric
    verbs = ("lost", "gained") if metric.higher_is_better else ("added", "taken away")
    return f"{coarser.number(abs(drop))}{GAP}{metric.step} of {metric.name} {verbs[0] if drop > 0 else verbs[1]}"


def smaller(before: float, after: float) -> str:
    """The change of size in words: 4, 1 -> "75 % smaller"."""
    saved = 100 * (1 - after / before) if before else 0.0
    if abs(saved) < 100 * SAME:
        return "the same size"
    return f"{abs(saved):.0f}{GAP}% {'smaller' if saved > 0 else 'larger'}"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    step = 0
    while abs(float(f"{value:.3g}")) >= 1000 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    number = true_minus(f"{value:g}") if step == 0 else significant(value)
    return f"{number}{GAP}{units[step]}"
