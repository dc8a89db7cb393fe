"""The roofline against arithmetic by hand, and what must hold on any device."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from example_nets import hand_made, net_of
from slimwright.cost import count
from slimwright.cost.device import ByPrecision, Cores, Count, Device, Fact, Precision, load_device
from slimwright.cost.roofline import Estimate, estimate, estimates
from slimwright.errors import ProfileError
from slimwright.graph import Net
from slimwright.importers import capture

SHAPE = (8, 10, 10)
MACS = 100 * 16 * 8 * 9  # of the convolution below
READ, WRITTEN, WEIGHTS = 4 * 800, 4 * 1600, 4 * 16 * 8 * 9


def fact(value: float, kind: str = "datasheet") -> Fact:
    return Fact(value=value, source=f"{kind}: made up")


def device(macs_per_s: float = 1e9, bytes_per_s: float = 1e9, **more: Any) -> Device:
    """A made-up device of two cores, which do twice as much in float16 and four times as much in int8."""
    rates = ByPrecision(fp32=fact(macs_per_s), fp16=fact(2 * macs_per_s), int8=fact(4 * macs_per_s))
    cores = Cores(name="core", count=Count(value=2, source="datasheet: made up"), macs_per_s=rates)
    known = {"name": "toy", "title": "Toy", "kind": "board", "processor": "two cores", "scope": "its cores"}
    return Device.model_validate(
        {**known, "cores": (cores,), "memory_bytes_per_s": fact(bytes_per_s), "ram_bytes": fact(1e9), **more}
    )


@pytest.fixture(scope="module")
def conv() -> Net:
    return net_of(nn.Conv2d(8, 16, 3, padding=1, bias=False), shape=SHAPE)


@pytest.fixture(scope="module")
def residual() -> Net:
    return capture(hand_made("Residual"), (1, 6, 6))


def test_a_convolution_that_waits_for_arithmetic(conv: Net) -> None:
    found = estimate(conv, device(macs_per_s=1e6), threads=1)
    assert MACS == 115_200
    assert found.predicted_latency_ms == pytest.approx(1e3 * MACS / 1e6)  # 115.2 ms; the bytes take 0.014 ms
    assert found.bound_by("compute") == ("conv2d",)
    assert found.bound_by("memory") == ()
    assert found.memory_share == 0
    assert estimate(conv, device(macs_per_s=1e6)).predicted_latency_ms == pytest.approx(57.6)  # two cores


def test_a_convolution_that_waits_for_memory(conv: Net) -> None:
    found = estimate(conv, device(bytes_per_s=1e6))
    assert READ + WRITTEN + WEIGHTS == 3_200 + 6_400 + 4_608 == 14_208
    assert found.predicted_latency_ms == pytest.approx(1e3 * 14_208 / 1e6)  # 14.2 ms; the arithmetic takes 0.058 ms
    assert found.bound_by("memory") == ("conv2d",)
    assert found.memory_share == 1


@pytest.mark.parametrize(("precision", "size", "speed"), [("fp32", 1.0, 1), ("fp16", 0.5, 2), ("int8", 0.25, 4)])
def test_precision_scales_bytes_and_rate(conv: Net, precision: Precision, size: float, speed: int) -> None:
    slow_memory = estimate(conv, device(bytes_per_s=1e6), precision)
    assert slow_memory.predicted_latency_ms == pytest.approx(14.208 * size)
    assert slow_memory.weight_bytes == 4_608 * size
    assert slow_memory.peak_activation_bytes == 9_600 * size == count(conv).peak_activation_bytes * size
    slow_core = estimate(conv, device(macs_per_s=1e6), precision, threads=1)
    assert slow_core.predicted_latency_ms == pytest.approx(115.2 / speed)


def test_energy_is_operations_bytes_and_idle_power(conv: Net) -> None:
    energies: dict[str, Any] = {"energy_per_mac_pj": ByPrecision(fp32=fact(10.0)), "energy_per_byte_pj": fact(100.0)}
    found = estimate(conv, device(macs_per_s=1e6, **energies), threads=1)
    work_mj = 1e-9 * (10 * MACS + 100 * 14_208)
    assert found.predicted_energy_mj == pytest.approx(work_mj)
    idling = estimate(conv, device(macs_per_s=1e6, idle_power_w=fact(2.0), **energies), threads=1)
    assert idling.predicted_energy_mj == pytest.approx(work_mj + 2.0 * 115.2)  # W x ms = mJ


@pytest.mark.parametrize("missing", ["energy_per_mac_pj", "energy_per_byte_pj"])
def test_energy_that_is_not_known_is_not_predicted(conv: Net, missing: str) -> None:
    energies: dict[str, Any] = {"energy_per_mac_pj": ByPrecision(fp32=fact(10.0)), "energy_per_byte_pj": fact(100.0)}
    without: dict[str, Any] = {name: value for name, value in energies.items() if name != missing}
    assert estimate(conv, device(idle_power_w=fact(1.0), **without)).predicted_energy_mj is None
    assert estimate(conv, device(**energies), "int8").predicted_energy_mj is None  # known for fp32 only


def test_what_a_cache_may_hold_does_not_move(conv: Net) -> None:
    def moved(cache: float) -> float:
        return sum(layer.memory_bytes for layer in estimate(conv, device(cache_bytes=fact(cache))).layers)

    assert moved(1_000) == pytest.approx((READ - 1_000) + (WRITTEN - 1_000) + WEIGHTS - 1_000)
    assert moved(4_000) == pytest.approx(WRITTEN - 4_000 + WEIGHTS - 4_000)
    assert moved(5_000) == pytest.approx(WRITTEN - 5_000)
    assert moved(WRITTEN) == 0


def test_an_activation_behind_one_layer_moves_nothing_and_is_counted() -> None:
    net = net_of(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.ReLU(), shape=SHAPE)
    conv, relu = estimate(net, device(bytes_per_s=1e6)).layers[-2:]
    assert conv.memory_bytes == 14_208
    assert (relu.memory_bytes, relu.operations, relu.bound) == (0, 1_600, "compute")


def test_an_activation_of_the_image_or_of_a_value_that_others_read_moves(residual: Net) -> None:
    first = estimate(net_of(nn.ReLU(), nn.Conv2d(8, 4, 1), shape=SHAPE), device())
    assert first.layers[1].memory_bytes == 2 * READ
    layers = {layer.op: layer for layer in estimate(residual, device()).layers}
    assert layers["add"].memory_bytes == 3 * 4 * 6 * 36  # reads two, writes one


def test_a_net_is_the_sum_of_its_layers(residual: Net) -> None:
    found = estimate(residual, device(macs_per_s=5e8))
    assert [layer.name for layer in found.layers] == [node.name for node in residual.nodes]
    assert found.predicted_latency_ms == pytest.approx(sum(layer.predicted_latency_ms for layer in found.layers))
    bounds = {bound: found.bound_by(bound) for bound in ("compute", "memory", "none")}
    assert sorted(sum(bounds.values(), ())) == sorted(node.name for node in residual.nodes)
    assert residual.input.name in bounds["none"]
    assert 0 < found.memory_share < 1


def test_what_fits_where(conv: Net) -> None:
    def fits(**more: Any) -> tuple[bool | None, bool, bool | None]:
        found = estimate(conv, device(**more))
        return found.fits_cache, found.fits_ram, found.fits_storage

    assert fits() == (None, True, None)  # weights 4,608 and activations 9,600 bytes: 14,208
    assert fits(cache_bytes=fact(14_208), storage_bytes=fact(4_608)) == (True, True, True)
    assert fits(cache_bytes=fact(14_207), storage_bytes=fact(4_607)) == (False, True, False)
    assert fits(ram_bytes=fact(14_207)) == (None, False, None)
    assert fits(ram_bytes=fact(14_207), weights_in="storage") == (None, True, None)
    assert fits(ram_bytes=fact(9_599), weights_in="storage") == (None, False, None)


def test_what_is_not_sure_is_named_where_it_matters(conv: Net) -> None:
    energies: dict[str, Any] = {
        "energy_per_mac_pj": ByPrecision(fp32=fact(1.0, "estimate"), int8=fact(1.0, "estimate"))
    }
    unsure = device(cache_bytes=fact(10.0, "unverified"), weight_g=fact(5.0, "estimate"), **energies)
    found = estimate(conv, unsure)
    assert found.uncertain_latency == ("cache_bytes",)
    assert found.uncertain_energy == ("cache_bytes", "energy_per_mac_pj.fp32")
    assert estimate(conv, device()).uncertain_energy == ()


def test_threads_are_at_most_the_cores(conv: Net) -> None:
    assert [estimate(conv, device(), threads=n).threads for n in (1, 2, 9)] == [1, 2, 2]
    assert estimate(conv, device()).threads == 2
    with pytest.raises(ProfileError, match="0 threads"):
        estimate(conv, device(), threads=0)


def test_a_precision_without_a_rate_is_refused_and_left_out(conv: Net) -> None:
    coral = load_device("coral-dev-board")
    with pytest.raises(
        ProfileError, match="coral-dev-board does not compute in 'fp32'; its profile has rates for int8"
    ):
        estimate(conv, coral)
    assert list(estimates(conv, coral)) == ["int8"]
    assert list(estimates(conv, device())) == ["fp32", "fp16", "int8"]


rates = st.floats(1e5, 1e13)
caches = st.none() | st.floats(1.0, 1e5).map(fact)


@given(rates, rates, caches, st.floats(1.0, 100.0), st.sampled_from(["fp32", "fp16", "int8"]))
def test_more_of_anything_never_takes_longer(
    macs_per_s: float, bytes_per_s: float, cache: Fact | None, factor: float, precision: Precision
) -> None:
    def of(made: Device) -> Estimate:
        return estimate(NET, made, precision)

    base = of(device(macs_per_s, bytes_per_s, cache_bytes=cache))
    more_cache = fact(factor * (cache.value if cache else 1.0))
    for better in (
        of(device(macs_per_s * factor, bytes_per_s, cache_bytes=cache)),
        of(device(macs_per_s, bytes_per_s * factor, cache_bytes=cache)),
        of(device(macs_per_s, bytes_per_s, cache_bytes=more_cache)),
    ):
        assert better.predicted_latency_ms <= base.predicted_latency_ms * (1 + 1e-12)
    operations, moved = sum(each.operations for each in base.layers), sum(each.memory_bytes for each in base.layers)
    speed = {"fp32": 1, "fp16": 2, "int8": 4}[precision] * 2 * macs_per_s
    longest, both = max(operations / speed, moved / bytes_per_s), operations / speed + moved / bytes_per_s
    assert longest * (1 - 1e-9) <= base.predicted_latency_ms / 1e3 <= both * (1 + 1e-9)


@given(rates, rates, caches)
def test_narrower_numbers_and_more_threads_never_take_longer(
    macs_per_s: float, bytes_per_s: float, cache: Fact | None
) -> None:
    made = device(macs_per_s, bytes_per_s, cache_bytes=cache)
    times = [found.predicted_latency_ms for found in estimates(NET, made).values()]
    assert all(wide >= narrow for wide, narrow in pairwise(times))
    one, two = (estimate(NET, made, threads=n).predicted_latency_ms for n in (1, 2))
    assert two <= one <= 2 * two * (1 + 1e-12)


def test_a_value_is_not_changed_by_estimating(conv: Net) -> None:
    before, found = conv.digest, estimate(conv, device())
    assert conv.digest == before
    assert replace(found) == found == estimate(conv, device())


NET = net_of(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Flatten(), shape=SHAPE)
