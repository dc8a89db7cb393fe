"""Time single layers on a target, by the kernels that its runtime's profiler tells of."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from slimwright.cost.latency import LatencyTable, LayerShape
from slimwright.runner.machine import Described, loaded_by
from slimwright.runtimes.layers import is_tensor_kernel, layer_artefact
from slimwright.targets.measuring import Effort, Measurement, Target, measure

RUNS, COLD_RUNS = 20, 4  # the latter where caches are emptied before each, which takes longer than most layers
FORM = 5  # of how layers are timed; times that were taken otherwise are not used
ROUNDS, COLD_ROUNDS = 2, 1


def layer_table(target: Target, runtime: str, folder: Path | None = None) -> LatencyTable:
    """Return the table of a target's and a runtime's layers, kept in `folder`."""
    about = target.about()
    found = identity(about, runtime)
    return LatencyTable(layer_timer(target, runtime), folder, found, cache_bytes=about["cache_bytes"])


def layer_timer(target: Target, runtime: str, threads: int = 1) -> Callable[[Sequence[LayerShape], int], list[float]]:
    """Return what measures layers: shapes and bytes read before -> milliseconds of each, where nothing disturbs it."""
    runtime = loaded_by(runtime)

    def times(shapes: Sequence[LayerShape], evicted: int) -> list[float]:
        if not shapes:
            return []
        with tempfile.TemporaryDirectory() as folder:
            layers = {str(k): layer_artefact(shape, runtime, Path(folder) / str(k)) for k, shape in enumerate(shapes)}
            runs, rounds = (COLD_RUNS, COLD_ROUNDS) if evicted else (RUNS, ROUNDS)
            effort = Effort(profile_runs=runs, profile_rounds=rounds, evict_bytes=evicted, threads=threads)
            return [_layer_ms(one) for one in measure(target, layers, effort).values()]

    return times


def _layer_ms(seen: Measurement) -> float:
    """Milliseconds of the kernels that multiply by weights, not of the layout changes around them."""
    return sum(kernel.ms for kernel in seen.kernels if is_tensor_kernel(kernel.kind))


def identity(about: Described, runtime: str, threads: int = 1) -> dict[str, object]:
    """Return what a layer's measured time belongs to: device, runtime and version, threads, precision."""
    runtime = loaded_by(runtime)
    return {
        "cpu": about["cpu"],
        "machine": about["machine"],
        "runtime": runtime,
        "version": about["runtimes"].get(runtime, ""),
        "threads": threads,
        "precision": "fp32",
        "form": FORM,
    }
