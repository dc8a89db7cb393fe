"""Latency of single layers, measured once per shape and kept on disk.

A table belongs to one device, runtime, version, precision and number of threads; its key holds all of them, so a
cached time never answers for another. Between measured channel counts the time is interpolated linearly in
both directions, which a sweep over counts that are multiples of the runtime's step supports (`step`).
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from slimwright.graph.net import Net, Node
from slimwright.graph.store import replacing


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


Measure: TypeAlias = Callable[[Sequence[LayerShape]], Sequence[float]]  # -> milliseconds


def one_by_one(measure: Callable[[LayerShape], float]) -> Measure:
    """Return what measures shapes one after the other."""
    return lambda shapes: [measure(shape) for shape in shapes]


SWEEP = (33, 34, 36, 40, 41, 42, 44, 48, 49, 50, 52, 56, 57, 58, 60, 64)  # closed under rounding up to 2, 4, 8, 16, 32
ROUNDING_LOSS = 1.03  # rounding counts up may cost this much on average; more, and the step is too large


class LatencyTable:
    """Measured milliseconds per layer shape; missing shapes are measured on demand and written to `path`."""

    def __init__(self, measure: Measure, path: Path | None, identity: Mapping[str, object]) -> None:
        self._measure = measure
        self.identity = dict(identity)
        key = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]
        self._path = path / f"latency-{key}.json" if path else None
        self._times: dict[str, float] = self._read()
        self.measured = 0

    def __len__(self) -> int:
        return len(self._times)

    def time(self, shape: LayerShape) -> float:
        """Return the measured milliseconds of a layer."""
        self.fill([shape])
        return self._times[_key(shape)]

    def fill(self, shapes: Iterable[LayerShape]) -> None:
        """Measure the missing ones of `shapes`."""
        missing = [s for s in dict.fromkeys(shapes) if _key(s) not in self._times]
        if missing:
            self._times.update(zip(map(_key, missing), self._measure(missing), strict=True))
        self.measured += len(missing)

    def interpolated(self, shape: LayerShape, in_grid: Sequence[int], out_grid: Sequence[int]) -> float:
        """Return milliseconds from the four measured neighbours on the grids of channel counts."""
        total = 0.0
        for (inputs, a), (outputs, b) in itertools.product(
            _neighbours(shape.in_channels, in_grid), _neighbours(shape.out_channels, out_grid)
        ):
            if a * b:
                total += a * b * self.time(with_channels(shape, inputs, outputs))
        return total

    def step(self) -> int:
        """Return the channel multiple that the runtime likes, found by measurement.

        The largest of 32, 16, 8, 4 and 2 to which the counts of a sweep can be rounded up, as inputs or as outputs of
        a 3x3 convolution, without the layer getting slower on average; 1 if there is none.
        """
        base = LayerShape("conv2d", 64, 64, (3, 3), padding=(1, 1), input_size=(14, 14))
        ways = {c: (with_channels(base, 64, c), with_channels(base, c, 64)) for c in SWEEP}
        self.fill(itertools.chain.from_iterable(ways.values()))
        for step in (32, 16, 8, 4, 2):
            up = {c: -(-c // step) * step for c in SWEEP}
            losses = [
                [self.time(ways[up[c]][way]) / self.time(ways[c][way]) for c in SWEEP if up[c] != c] for way in (0, 1)
            ]
            if all(sum(loss) <= ROUNDING_LOSS * len(loss) for loss in losses):
                return step
        return 1

    def save(self) -> None:
        """Write what was measured; nothing if the table has no path."""
        if self._path and self.measured:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_text(json.dumps({"identity": self.identity, "milliseconds": self._times}, indent=1))

    def _read(self) -> dict[str, float]:
        try:
            found = json.loads(self._path.read_text()) if self._path else {}
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(found, dict) or found.get("identity") != self.identity:
            return {}
        times = found.get("milliseconds")
        return {k: ms for k, ms in times.items() if isinstance(ms, (int, float))} if isinstance(times, dict) else {}


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


def _key(shape: LayerShape) -> str:
    return json.dumps(asdict(shape), sort_keys=True)


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
