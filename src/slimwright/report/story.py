"""What the manifest says, in the words and groups of the page: headline, tiles, limits and steps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from slimwright.measure.bundle import Manifest, Summary
from slimwright.report.words import (
    accuracy_lost,
    change,
    counted,
    faster,
    megabytes,
    milliseconds,
    percent,
    points,
    smaller,
    true_minus,
)
from slimwright.techniques.recipe import (
    Factorise,
    Fold,
    Merge,
    Prune,
    Quantize,
    Recipe,
    Regions,
    Remove,
    Solve,
    Step,
    Subset,
    Tune,
)

LIMITS: dict[str, tuple[str, Callable[[float], str]]] = {
    "latency_ms": ("Latency", milliseconds),
    "size_bytes": ("File size", megabytes),
    "peak_activation_bytes": ("Peak activation memory", megabytes),
    "macs": ("MACs", counted),
    "max_accuracy_drop": ("Accuracy lost, points", lambda lost: true_minus(f"{lost:.2f}")),
}


@dataclass(frozen=True)
class Tile:
    """One cost or gain, before and after. `source` says where the numbers come from: measured or exact."""

    name: str
    label: str
    before: str
    after: str
    change: str
    source: str
    note: str


@dataclass(frozen=True)
class LimitRow:
    """One limit: as the user wrote it, as a number, and what the result came to."""

    name: str
    written: str
    limit: str
    result: str


def headline(summary: Summary, runtime: str) -> str:
    """Return the result in one sentence: "2.1x faster on onnxruntime, 0.3 points of accuracy lost, ..."."""
    gains = [
        f"{faster(summary.latency_ratio)} on {runtime}",
        accuracy_lost(summary.accuracy_original, summary.accuracy),
        smaller(summary.size_bytes_original, summary.size_bytes),
    ]
    return f"{', '.join(gains)}: {'within budget' if summary.within_budget else 'the budget was missed'}"


def tiles(manifest: Manifest) -> list[Tile]:
    """Return the seven numbers that people ask for first."""
    before, after, summary = manifest.original, manifest.result, manifest.summary
    empty = manifest.empty_runtime_rss_bytes
    rss = before.peak_rss_bytes - empty, after.peak_rss_bytes - empty
    tested = f"{manifest.data.sizes['test']:,} test images" if "test" in manifest.data.sizes else "the test part"
    spread = f"p10 to p90: {milliseconds(after.latency.p10_ms)} to {milliseconds(after.latency.p90_ms)}"
    arena = (
        f"FP32 activations of one image; as an arena {megabytes(before.arena_bytes)} → {megabytes(after.arena_bytes)}"
    )
    return [
        Tile(
            "accuracy",
            "Accuracy",
            percent(summary.accuracy_original),
            percent(summary.accuracy),
            points(summary.accuracy_original, summary.accuracy),
            "measured",
            f"on {tested}",
        ),
        _tile(
            "latency", "Latency", milliseconds, (summary.latency_ms_original, summary.latency_ms), "measured", spread
        ),
        _tile(
            "size", "File size", megabytes, (summary.size_bytes_original, summary.size_bytes), "measured", "ONNX file"
        ),
        _tile("macs", "MACs", counted, (before.macs, after.macs), "exact", "multiply-accumulates for one image"),
        _tile("params", "Parameters", counted, (before.params, after.params), "exact", "numbers that were trained"),
        _tile(
            "memory",
            "Planned peak memory",
            megabytes,
            (before.peak_activation_bytes, after.peak_activation_bytes),
            "exact",
            arena,
        ),
        _tile(
            "rss",
            "Process memory",
            megabytes,
            rss,
            "measured",
            f"peak RSS over the {megabytes(empty)} of the runtime alone",
        ),
    ]


def _tile(
    name: str, label: str, show: Callable[[float], str], sides: tuple[float, float], source: str, note: str
) -> Tile:
    return Tile(name, label, show(sides[0]), show(sides[1]), change(*sides), source, note)


def limits(manifest: Manifest) -> Iterator[LimitRow]:
    """Yield every limit that the user set."""
    result = {
        "latency_ms": manifest.summary.latency_ms,
        "size_bytes": manifest.summary.size_bytes,
        "peak_activation_bytes": manifest.result.peak_activation_bytes,
        "macs": manifest.result.macs,
        "max_accuracy_drop": 100 * (manifest.summary.accuracy_original - manifest.summary.accuracy),
    }
    allowed = {**manifest.limits, "max_accuracy_drop": manifest.max_accuracy_drop}
    for name, limit in allowed.items():
        label, show = LIMITS.get(name, (name, "{:g}".format))
        came_to = show(result[name]) if name in result else "–"
        yield LimitRow(label, manifest.budget.get(name, "–"), show(limit), came_to)


def steps(recipe: Recipe) -> list[str]:
    """Return each step of a recipe as a sentence."""
    return [_step(step) for step in recipe.steps]


def _step(step: Step) -> str:
    match step:
        case Prune(keep=keep):
            kept = ", ".join(f"{name}: {len(channels)}" for name, channels in keep.items())
            return f"Prune. Channels that stay, by group: {kept}."
        case Factorise(layers=layers):
            ranks = ", ".join(
                f"{name}: {wanted.kind} at {' and '.join(map(str, wanted.ranks))}" for name, wanted in layers.items()
            )
            return f"Factorise layers. Kind and rank: {ranks}."
        case Merge(streamlines=streamlines, branches=branches):
            said = [f"let {', '.join(streamlines)} take in what follows"] if streamlines else []
            said += [f"merge the branches that meet in {', '.join(branches)}"] if branches else []
            return f"Fold batch norms, {', '.join(said) or 'merge nothing'}."
        case Remove(layers=layers, collapse=collapse, kernel=kernel):
            said = [f"Remove {', '.join(layers)}."] if layers else []
            said += [f"Collapse {', '.join(collapse)} to a {kernel}x{kernel} convolution each."] if collapse else []
            return " ".join(said) or "Remove nothing."
        case Subset(classes=classes):
            return f"Score the classes {', '.join(map(str, classes))} only."
        case Solve(images=images):
            on = _plural(images, "calibration image") if images else "the calibration images"
            return f"Solve the weights again on {on}: each layer gives what it gave in the original."
        case Regions(epochs=epochs, rate=rate, seed=seed):
            length = _plural(epochs, "epoch")
            return f"Train region by region for {length} at rate {rate:g}, seed {seed}, without labels."
        case Tune(epochs=epochs, rate=rate, seed=seed):
            return (
                f"Fine-tune for {_plural(epochs, 'epoch')} at rate {rate:g}, seed {seed}, with the original as teacher."
            )
        case Fold():
            return "Fold batch norms into the convolutions before them: the same function, fewer operations."
        case Quantize(images=images):
            return f"Export with 8-bit weights and activations, calibrated on {_plural(images, 'calibration image')}."


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
