"""What a network will at least take on a device: the roofline of its profile. Everything here is predicted.

A layer takes max(operations / peak rate, bytes / memory bandwidth), and an activation that the runtime computes inside
the layer before it moves nothing. Of what a layer reads, at most one cache full is there already; of what it writes, at
most one stays; weights that the cache cannot hold come from memory for every image. So the latency is a lower bound for
a runtime that goes layer by layer: no runtime reaches the peak of all its cores, and caches are never used that well.
Measure before believing. Source: Williams et al. 2009 (Roofline, Comm. ACM 52(4)).

Operations are MACs and elementwise operations; a lane does one of either at a time. Precision scales bytes: float16
halves them, int8 quarters them (its 32-bit biases, below a percent, are not counted apart).

Energy is operations x pJ + bytes x pJ + idle power x latency: rather low than high, and only as good as the figures of
the profile, many of which are estimates.
"""

from dataclasses import dataclass
from typing import Literal

from slimwright.cost.count import LayerCost, count_layers
from slimwright.cost.device import PRECISIONS, UNCERTAIN, Device, Precision, facts
from slimwright.errors import ProfileError
from slimwright.graph.liveness import plan_memory
from slimwright.graph.net import Net, Node
from slimwright.graph.ops import op_of

Bound = Literal["compute", "memory", "none"]
ELEMENT_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}
LATENCY = ("cores.", "memory_bytes_per_s", "cache_bytes")  # what rests on which fields of a profile
ENERGY = ("energy_per_", "idle_power_w")
CAVEAT = "a roofline: at least this long, since no runtime reaches the peak; measure before believing"


@dataclass(frozen=True)
class LayerEstimate:
    """What one node is predicted to take; `bound` says what it waits for. `memory_bytes` go past the cache."""

    name: str
    op: str
    operations: int
    memory_bytes: float
    predicted_latency_ms: float
    predicted_energy_mj: float | None  # without idle power
    bound: Bound


@dataclass(frozen=True)
class Estimate:
    """What a network is predicted to take on a device, for one image; None: the profile does not say.

    `uncertain_latency` and `uncertain_energy` name the figures behind them that are estimates, or were not verified.
    """

    device: str
    precision: Precision
    threads: int
    layers: tuple[LayerEstimate, ...]
    predicted_latency_ms: float  # a lower bound
    predicted_energy_mj: float | None
    weight_bytes: int
    peak_activation_bytes: int
    fits_cache: bool | None  # weights and activations together
    fits_ram: bool
    fits_storage: bool | None
    uncertain_latency: tuple[str, ...]
    uncertain_energy: tuple[str, ...]

    def bound_by(self, what: Bound) -> tuple[str, ...]:
        """Return the names of the layers that wait for this."""
        return tuple(layer.name for layer in self.layers if layer.bound == what)

    @property
    def memory_share(self) -> float:
        """Share of the predicted latency in layers that wait for memory."""
        waiting = sum(layer.predicted_latency_ms for layer in self.layers if layer.bound == "memory")
        return waiting / self.predicted_latency_ms if self.predicted_latency_ms else 0.0


def estimate(net: Net, device: Device, precision: Precision = "fp32", *, threads: int | None = None) -> Estimate:
    """Return the roofline of a float32 net on `threads` of a device's cores (all by default), for one image.

    Raises ProfileError where the device does not compute in this precision, or `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise ProfileError(f"{threads} threads compute nothing; give 1 or more")
    if precision not in device.supported:
        known = ", ".join(device.supported)
        raise ProfileError(f"{device.name} does not compute in '{precision}'; its profile has rates for {known}")
    costs = count_layers(net)
    kept = sum(tensor.numel() * tensor.element_size() for tensor in net.tensors.values())
    roof = _Roof(device, precision, threads, kept)
    layers = tuple(roof.layer(net, node, cost) for node, cost in zip(net.nodes, costs, strict=True))
    latency_ms = sum(layer.predicted_latency_ms for layer in layers)
    weights, activations = round(kept * roof.scale), round(plan_memory(net).peak_bytes * roof.scale)
    in_ram = activations + (weights if device.weights_in == "ram" else 0)
    return Estimate(
        device=device.name,
        precision=precision,
        threads=min(threads or device.core_count, device.core_count),
        layers=layers,
        predicted_latency_ms=latency_ms,
        predicted_energy_mj=_total_energy_mj(layers, device, latency_ms),
        weight_bytes=weights,
        peak_activation_bytes=activations,
        fits_cache=weights + activations <= device.cache_bytes.value if device.cache_bytes else None,
        fits_ram=in_ram <= device.ram_bytes.value,
        fits_storage=weights <= device.storage_bytes.value if device.storage_bytes else None,
        uncertain_latency=(doubts := _uncertain(device, precision, LATENCY)),
        uncertain_energy=doubts + _uncertain(device, precision, ENERGY),
    )


def estimates(net: Net, device: Device, *, threads: int | None = None) -> dict[Precision, Estimate]:
    """Return the roofline of a net in every precision that the device computes in."""
    return {precision: estimate(net, device, precision, threads=threads) for precision in device.supported}


class _Roof:
    """The figures of a device that one estimate needs."""

    def __init__(self, device: Device, precision: Precision, threads: int | None, kept: int) -> None:
        self.scale = ELEMENT_BYTES[precision] / ELEMENT_BYTES["fp32"]
        self.cache = device.cache_bytes.value if device.cache_bytes else 0.0
        self.streamed = max(0.0, 1 - self.cache / (kept * self.scale)) if kept else 0.0  # share of the weights
        self.macs_per_s = device.macs_per_s(precision, threads)
        self.bytes_per_s = device.memory_bytes_per_s.value
        mac, byte = getattr(device.energy_per_mac_pj, precision), device.energy_per_byte_pj
        self.pj = (mac.value, byte.value) if mac and byte else None

    def layer(self, net: Net, node: Node, cost: LayerCost) -> LayerEstimate:
        operations, memory_bytes = cost.macs + cost.elementwise_ops, self.memory_bytes(net, node, cost)
        compute_s, memory_s = operations / self.macs_per_s, memory_bytes / self.bytes_per_s
        bound: Bound = "none" if not (compute_s or memory_s) else "memory" if memory_s > compute_s else "compute"
        return LayerEstimate(
            name=node.name,
            op=node.op,
            operations=operations,
            memory_bytes=memory_bytes,
            predicted_latency_ms=1e3 * max(compute_s, memory_s),
            predicted_energy_mj=1e-9 * (operations * self.pj[0] + memory_bytes * self.pj[1]) if self.pj else None,
            bound=bound,
        )

    def memory_bytes(self, net: Net, node: Node, cost: LayerCost) -> float:
        """Bytes that a layer moves between memory and cache, at least."""
        weights = min(cost.weight_bytes, cost.moved_bytes) * self.scale
        if _fused(net, node):
            return weights * self.streamed
        written = min(cost.output_bytes * self.scale, cost.moved_bytes * self.scale - weights)
        read = cost.moved_bytes * self.scale - weights - written
        return weights * self.streamed + max(0.0, read - self.cache) + max(0.0, written - self.cache)


def _fused(net: Net, node: Node) -> bool:
    """True for an activation, or a norm, that alone reads what a layer makes: runtimes compute it inside that layer."""
    if not op_of(node.op).in_place or len(set(node.reads)) != 1:
        return False
    return len(net.readers[node.source]) == 1 and op_of(net[node.source].op).channels not in ("input", "parameter")


def _total_energy_mj(layers: tuple[LayerEstimate, ...], device: Device, latency_ms: float) -> float | None:
    known = [layer.predicted_energy_mj for layer in layers if layer.predicted_energy_mj is not None]
    if len(known) < len(layers):
        return None
    return sum(known) + (device.idle_power_w.value * latency_ms if device.idle_power_w else 0.0)


def _uncertain(device: Device, precision: Precision, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Figures of these fields of the profile that are not sure; those of other precisions do not matter."""
    others = tuple(f".{other}" for other in PRECISIONS if other != precision)
    return tuple(
        place
        for place, fact in facts(device)
        if fact.kind in UNCERTAIN and place.startswith(fields) and not place.endswith(others)
    )
