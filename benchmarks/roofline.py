"""How far the roofline is from the truth on this machine: networks of the zoo in ONNX Runtime, one thread, FP32.

The machine's profile is measured first: the rate of the fastest of some wide layers in the same runtime, and that at
which memory is read; the cache is what the system tells of. So the roofline is that of one core here, whatever machine
this is.
"""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lib.results import Column, Row, environment, options, publish, show
from slimwright.cost.device import Device
from slimwright.cost.latency import LayerShape
from slimwright.cost.roofline import estimate
from slimwright.importers import capture
from slimwright.runner.machine import cache_bytes, cpu_name
from slimwright.runtimes import Workshop
from slimwright.targets import Effort, Local, measure
from slimwright.targets.layers import layer_timer
from slimwright.techniques.fold import fold_batch_norm
from slimwright.zoo import ZOO, build

NETWORKS = ("squeezenet1.1", "resnet20", "resnet56", "mobilenet-v2", "shufflenet-g3-0.5x", "googlenet", "alexnet")
SEED = 0
WIDE = (
    LayerShape("conv2d", 512, 512, input_size=(28, 28)),
    LayerShape("conv2d", 256, 256, (3, 3), padding=(1, 1), input_size=(28, 28)),
    LayerShape("conv2d", 128, 128, (3, 3), padding=(1, 1), input_size=(56, 56)),
)
READ = 1 << 28  # bytes
TRIES = 10  # the fastest counts
COLUMNS = (
    Column("network", "network"),
    Column("predicted_ms", "roofline, ms", "{:.2f}"),
    Column("measured_ms", "measured, ms", "{:.2f}"),
    Column("ratio", "ratio", "{:.1f}"),
    Column("memory_share", "waiting for memory", "{:.0%}"),
)


def main() -> None:
    chosen = options(__doc__ or "")
    device = this_machine()
    rows: list[Row] = []
    with Workshop() as workshop, tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS[:2] if chosen.quick else NETWORKS:
            net = fold_batch_norm(capture(build(name, seed=SEED), ZOO[name].image_shape))
            found = estimate(net, device)
            artefact = workshop.convert(net, "onnxruntime", "fp32", Path(folder) / name)
            taken = measure(Local(), {name: artefact}, Effort(runs=60, least_s=2.0))[name].latency
            assert taken is not None
            rows.append(
                {
                    "network": name,
                    "predicted_ms": found.predicted_latency_ms,
                    "measured_ms": taken.median_ms,
                    "ratio": taken.median_ms / found.predicted_latency_ms,
                    "memory_share": found.memory_share,
                }
            )
    rate, bandwidth = device.macs_per_s("fp32") / 1e9, device.memory_bytes_per_s.value / 1e9
    show(f"{device.processor}: {rate:.0f} G MACs/s, {bandwidth:.0f} GB/s, measured; one thread", COLUMNS, rows)
    ratios = [float(row["ratio"]) for row in rows]
    headline = {"least_ratio": round(min(ratios), 2), "largest_ratio": round(max(ratios), 2)}
    peaks = {"macs_per_s": device.macs_per_s("fp32"), "memory_bytes_per_s": device.memory_bytes_per_s.value}
    publish(chosen, headline=headline, rows=rows, environment={**environment("onnxruntime", seed=SEED), **peaks})


def this_machine() -> Device:
    """Profile one core of this machine."""
    taken = layer_timer(Local(), "onnxruntime")(WIDE, 0)
    rate = max(macs(shape) / ms * 1e3 for shape, ms in zip(WIDE, taken, strict=True))
    held = np.ones(READ // 8)
    facts = {
        "name": "this-machine",
        "title": "this machine",
        "kind": "board",
        "processor": cpu_name(),
        "scope": "one core",
        "memory_bytes_per_s": fact(READ / fastest(held.sum), "measured: the sum of a large array"),
        "ram_bytes": fact(1e12, "estimate: enough"),
        "cores": [
            {
                "name": "core",
                "count": {"value": 1, "source": "measured: one is used"},
                "macs_per_s": {"fp32": fact(rate, "measured: a wide layer")},
            }
        ],
    }
    if held_bytes := cache_bytes():
        facts["cache_bytes"] = fact(held_bytes, "datasheet: sysfs")
    return Device.model_validate(facts)


def macs(shape: LayerShape) -> int:
    """Multiply-accumulates of a convolution of stride 1 that keeps its image's size."""
    return shape.in_channels * shape.out_channels * math.prod(shape.kernel) * math.prod(shape.input_size)


def fact(value: float, source: str) -> dict[str, object]:
    """A number with its source."""
    return {"value": value, "source": source}


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs."""
    taken = []
    for _ in range(TRIES):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    main()
