"""Latency of single layers, measured once per shape and kept on disk.

A table belongs to one device, runtime, version, precision and number of threads; its key holds all of them, so a
cached time never answers for another. Between measured channel counts the time is interpolated linearly in
both directions, which a sweep over counts that are multiples of the runtime's step supports (`step`).

A layer that is timed alone finds its weights in a cache; inside a network that uses more than the caches hold, they
come from memory. So layers are timed twice, undisturbed and with the caches emptied before (`COLD`), and `missed` says
how far a network of some size is from one to the other.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import median
from typing import TypeAlias

import numpy as np

from slimwright.graph.net import Net, Node
from slimwright.kept import keep_json, kept_json
from slimwright.progress import Event, Tell, silent


@dataclass(frozen=True)
class LayerShape:
    """Everything that a layer's latency depends on."""

    op: str  # "conv2d" or "linear"
    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    input_size: tuple[int, int] = (1, 1)
    activation: str = "relu"  # behind it: "none", "relu" or "relu6"


Measure: TypeAlias = Callable[[Sequence[LayerShape], int], Sequence[float]]  # bytes read before -> milliseconds


def one_by_one(measure: Callable[[LayerShape], float]) -> Measure:
    """Return what measures shapes one after the other, and does not know of caches."""
    return lambda shapes, _: [measure(shape) for shape in shapes]


SWEEP = (33, 34, 36, 40, 41, 42, 44, 48, 49, 50, 52, 56, 57, 58, 60, 64)  # closed under rounding up to 2, 4, 8, 16, 32
SWEEPS = 3  # of which the least counts: all that is known of the runtime's step hangs on a few layers
EVICTING = tuple(1 << power for power in range(20, 27))  # bytes read before a layer is timed: 1 MiB to 64 MiB
COLD = EVICTING[-1]
PROBE = LayerShape("linear", 512, 512)  # a mebibyte of weights, each used once
LEAST_SLOWER = 0.1  # where emptied caches slow it less, there is nothing to tell from
MOST_MISSED = 0.7  # an emptied cache lacks more than weights: code, too, which a network's layers have in common
STEEPNESS = 3.0
LEAST_MISSED = 0.02  # below this, layers are timed as they are
AT_ONCE = 64  # layers that are measured in one go
STEPS, BLOCKS = (32, 16, 8, 4, 2), (32, 16, 8)
ROUNDING_LOSS = 1.03  # rounding counts up may cost this much on average; more, and the step is too large
FILLED_LOSS, FILLED_SPREAD = 1.02, 0.04  # of counts in one block: the loss by rounding up, and what half differ from it


class LatencyTable:
    """Measured milliseconds per layer shape; missing shapes are measured on demand and written to `path`.

    `cache_bytes` is what the last level of the device's caches holds, where that is known.
    """

    def __init__(
        self, measure: Measure, path: Path | None, identity: Mapping[str, object], *, cache_bytes: int = 0
    ) -> None:
        self._measure, self._cache_bytes = measure, cache_bytes
        self.identity = dict(identity)
        key = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]
        self._path = path / f"latency-{key}.json" if path else None
        self._times: dict[str, float] = self._read()
        self.measured = 0

    def __len__(self) -> int:
        return len(self._times)

    def time(self, shape: LayerShape, evicted: int = 0) -> float:
        """Return the measured milliseconds of a layer, `evicted` bytes having been read before."""
        self.fill([shape], evicted)
        return self._times[_key(shape, evicted)]

    def fill(self, shapes: Iterable[LayerShape], evicted: int = 0, tell: Tell = silent, *, times: int = 1) -> None:
        """Measure the missing ones of `shapes`, some at a time; each time what was measured is written.

        Of several `times` that they are measured, the least counts.
        """
        missing = list({key: s for s in shapes if (key := _key(s, evicted)) not in self._times}.items())
        for start in range(0, len(missing), AT_ONCE):
            tell(Event("time layers", start, len(missing), "with emptied caches" if evicted else ""))
            keys, some = zip(*missing[start : start + AT_ONCE], strict=True)
            found = zip(*(self._measure(some, evicted) for _ in range(times)), strict=True)
            self._times.update(zip(keys, map(min, found), strict=True))
            self.measured += len(some)
            self.save()
        if missing:
            tell(Event("time layers", len(missing), len(missing)))

    def missed(self, used: float) -> float:
        """Return how far the layers of a network of which a run uses `used` bytes are from undisturbed (0) to cold (1).

        Half of what the caches hold is where a network's layers are half as slow as they get. The form was found on
        networks that were measured whole (`benchmarks/predictor.py`).
        """
        if used < EVICTING[0]:
            return 0.0
        found = MOST_MISSED / (1 + (self._held / 2 / used) ** STEEPNESS)
        return found if found >= LEAST_MISSED else 0.0

    @cached_property
    def _held(self) -> float:
        """Bytes that the caches hold, infinite where emptying them slows nothing.

        Where the device does not tell: what is read before `PROBE` to slow it half as much as can be.
        """
        if self.time(PROBE, COLD) < (1 + LEAST_SLOWER) * self.time(PROBE):
            return math.inf
        if self._cache_bytes:
            return self._cache_bytes
        slower = np.array([self.time(PROBE, size) for size in EVICTING]) / self.time(PROBE) - 1
        rising = np.minimum.accumulate(slower[::-1])[::-1].clip(0)  # what disturbs a measurement only ever slows it
        return float(2 ** np.interp(slower[-1] / 2, rising, np.log2(EVICTING)))

    def interpolated(
        self, shape: LayerShape, in_grid: Sequence[int], out_grid: Sequence[int], evicted: int = 0
    ) -> float:
        """Return milliseconds from the four measured neighbours on the grids of channel counts."""
        total = 0.0
        for (inputs, a), (outputs, b) in itertools.product(
            _neighbours(shape.in_channels, in_grid), _neighbours(shape.out_channels, out_grid)
        ):
            if a * b:
                total += a * b * self.time(with_channels(shape, inputs, outputs), evicted)
        return total

    def step(self) -> int:
        """Return the channel multiple that the runtime likes, found by measurement.

        The largest of `STEPS` to which the counts of a sweep can be rounded up, as inputs or as outputs of a 3x3
        convolution, without the layer getting slower on average; 1 if there is none.
        """
        inputs, outputs = self._swept()
        for step in STEPS:
            losses = [_losses(times, step) for times in (inputs, outputs)]
            if all(sum(loss) <= ROUNDING_LOSS * len(loss) for loss in losses):
                return step
        return 1

    @cached_property
    def block(self) -> int:
        """The multiple up to which the runtime fills a convolution's outputs, found by the same measurements.

        All counts within a block take as long, so times climb stairs; 1 where they do not.
        """
        _, outputs = self._swept()
        for block in BLOCKS:
            losses = _losses(outputs, block)
            usual = median(losses)
            if usual <= FILLED_LOSS and median(abs(loss / usual - 1) for loss in losses) <= FILLED_SPREAD:
                return block
        return 1

    def _swept(self) -> tuple[dict[int, float], dict[int, float]]:
        """Milliseconds of a 3x3 convolution by its inputs, and by its outputs."""
        base = LayerShape("conv2d", 64, 64, (3, 3), padding=(1, 1), input_size=(14, 14))
        inputs = {count: with_channels(base, count, 64) for count in SWEEP}
        outputs = {count: with_channels(base, 64, count) for count in SWEEP}
        self.fill([*inputs.values(), *outputs.values()], times=SWEEPS)
        by_inputs = {count: self.time(shape) for count, shape in inputs.items()}
        return by_inputs, {count: self.time(shape) for count, shape in outputs.items()}

    def save(self) -> None:
        """Write what was measured; nothing if the table has no path."""
        if self._path and self.measured:
            keep_json(self._path, {"identity": self.identity, "milliseconds": self._times})

    def _read(self) -> dict[str, float]:
        found = kept_json(self._path) if self._path else None
        if not isinstance(found, dict) or found.get("identity") != self.identity:
            return {}
        times = found.get("milliseconds")
        return {k: ms for k, ms in times.items() if _is_time(ms)} if isinstance(times, dict) else {}


def _losses(times: Mapping[int, float], step: int) -> list[float]:
    """What rounding up to multiples of a step makes of the time, for each count that is none."""
    return [times[-(-count // step) * step] / ms for count, ms in times.items() if count % step]


def _is_time(ms: object) -> bool:
    return isinstance(ms, float) and 0 < ms < math.inf


def shape_of(net: Net, node: Node) -> LayerShape:
    """Return the shape of a weighted layer."""
    weight = net.tensors[node.tensors["weight"]]
    activation = _activation(net, node)
    if node.op == "linear":
        return LayerShape("linear", weight.shape[1], weight.shape[0], activation=activation)
    module = net.module_of(node)
    return LayerShape(
        "conv2d",
        in_channels=module.in_channels,  # type: ignore[arg-type]
        out_channels=module.out_channels,  # type: ignore[arg-type]
        kernel=module.kernel_size,  # type: ignore[arg-type]
        stride=module.stride,  # type: ignore[arg-type]
        padding=_padding(module.padding, module.kernel_size, module.dilation),  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,  # type: ignore[arg-type]
        input_size=(net[node.source].shape[2], net[node.source].shape[3]),
        activation=activation,
    )


def _activation(net: Net, node: Node) -> str:
    """What alone reads a layer, a batch norm between them apart: "relu", "relu6", or "none" of those."""
    readers = [net[name] for name in net.readers[node.name]]
    if len(readers) == 1 and readers[0].op in ("batch_norm", "batch_norm1d"):
        readers = [net[name] for name in net.readers[readers[0].name]]
    match readers:
        case [reader] if reader.op in ("relu", "relu6"):
            return reader.op
        case [reader] if reader.op == "hardtanh":
            bounds = reader.arguments["min_val"], reader.arguments["max_val"]
            return "relu6" if bounds == (0, 6) else "none"
        case _:
            return "none"


def with_channels(shape: LayerShape, inputs: int, outputs: int) -> LayerShape:
    """Return the shape with other channel counts; a depthwise layer's groups and outputs follow its inputs."""
    if shape.groups == shape.in_channels > 1:
        outputs = inputs * (shape.out_channels // shape.in_channels)
        return replace(shape, in_channels=inputs, out_channels=outputs, groups=inputs)
    return replace(shape, in_channels=inputs, out_channels=outputs)


@cache  # a plan asks for the same some hundred thousand times
def _key(shape: LayerShape, evicted: int) -> str:
    return json.dumps(asdict(shape) | ({"evicted_bytes": evicted} if evicted else {}), sort_keys=True)


def _neighbours(count: int, grid: Sequence[int]) -> tuple[tuple[int, float], tuple[int, float]]:
    """The grid points around `count`, each with its share."""
    below = max((g for g in grid if g <= count), default=grid[0])
    above = min((g for g in grid if g >= count), default=grid[-1])
    if below == above:
        return (below, 1.0), (above, 0.0)
    share = (count - below) / (above - below)
    return (below, 1 - share), (above, share)


def _padding(padding: object, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    if isinstance(padding, tuple):
        return int(padding[0]), int(padding[1])
    if padding == "valid":
        return 0, 0
    return dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2
