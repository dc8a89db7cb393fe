import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from exact import small_net
from example_nets import net_of
from slimwright.cost.latency import COLD, MOST_MISSED, LatencyTable, LayerShape, one_by_one, shape_of, with_channels
from slimwright.graph import Net

CONV = LayerShape("conv2d", 16, 16, (3, 3), padding=(1, 1), input_size=(8, 8))
DEPTHWISE = LayerShape("conv2d", 8, 8, (3, 3), padding=(1, 1), groups=8, input_size=(8, 8))


class Stopwatch:
    """A device whose latency is a formula; it remembers what it was asked."""

    def __init__(self, step: int = 1) -> None:
        self.step = step
        self.asked: list[LayerShape] = []

    def __call__(self, shape: LayerShape) -> float:
        self.asked.append(shape)
        return 0.5 + 0.01 * (self._up(shape.in_channels) * self._up(shape.out_channels)) ** 2

    def _up(self, count: int) -> int:
        return -(-count // self.step) * self.step


@pytest.mark.parametrize("step", [2, 4, 8, 16, 32])
def test_the_step_of_a_sawtooth_is_found(step: int) -> None:
    assert LatencyTable(one_by_one(Stopwatch(step)), None, {}).step() == step


def test_a_smooth_device_has_no_step_that_costs_nothing() -> None:
    assert LatencyTable(one_by_one(lambda s: float(s.in_channels**4 * s.out_channels**4)), None, {}).step() == 1


@given(inputs=st.integers(4, 64), outputs=st.integers(4, 64))
def test_interpolation_is_exact_where_latency_is_bilinear(inputs: int, outputs: int) -> None:
    bilinear = one_by_one(lambda s: 1 + 2 * s.in_channels + 3 * s.out_channels + 0.5 * s.in_channels * s.out_channels)
    table = LatencyTable(bilinear, None, {})
    got = table.interpolated(with_channels(CONV, inputs, outputs), [4, 10, 64], [4, 33, 64])
    assert got == pytest.approx(1 + 2 * inputs + 3 * outputs + 0.5 * inputs * outputs, rel=1e-12)


def test_a_count_beyond_the_grid_takes_its_end() -> None:
    table = LatencyTable(one_by_one(lambda s: float(s.in_channels)), None, {})
    assert table.interpolated(with_channels(CONV, 2, 16), [4, 8], [16]) == 4
    assert table.interpolated(with_channels(CONV, 99, 16), [4, 8], [16]) == 8


def test_a_depthwise_layer_is_only_measured_in_shapes_that_exist() -> None:
    watch = Stopwatch()
    table = LatencyTable(one_by_one(watch), None, {})
    doubled = replace(DEPTHWISE, out_channels=16)
    for shape in (DEPTHWISE, doubled):
        table.interpolated(with_channels(shape, 5, 5), [2, 4, 8], [3, 7, 8])
    assert {(s.in_channels, s.out_channels, s.groups) for s in watch.asked} == {
        (4, 4, 4),
        (8, 8, 8),
        (4, 8, 4),
        (8, 16, 8),
    }


def with_cache(size: int, slower: float = 2.0) -> Callable[[Sequence[LayerShape], int], list[float]]:
    """A device whose layers take `slower` times more once `size` bytes were read, and part of that before."""
    return lambda shapes, evicted: [1 + slower * min(evicted / (2 * size), 1.0) for _ in shapes]


@given(used=st.floats(0, 1e9), more=st.floats(1, 10))
def test_the_more_a_run_uses_the_less_of_it_is_in_a_cache(used: float, more: float) -> None:
    table = LatencyTable(with_cache(8 << 20), None, {})
    assert 0 <= table.missed(used) <= table.missed(used * more) <= MOST_MISSED


def test_half_of_what_slows_a_layer_half_as_much_slows_a_network_half_as_much() -> None:
    for size in (4 << 20, 8 << 20, 16 << 20):
        assert LatencyTable(with_cache(size), None, {}).missed(size / 2) == pytest.approx(MOST_MISSED / 2)


def test_what_a_device_tells_of_its_caches_is_taken_for_it() -> None:
    table = LatencyTable(with_cache(8 << 20), None, {}, cache_bytes=32 << 20)
    assert table.missed(16 << 20) == pytest.approx(MOST_MISSED / 2)
    assert table.measured == 2


def test_a_device_without_caches_misses_nothing() -> None:
    for cache_bytes in (0, 8 << 20):
        table = LatencyTable(with_cache(8 << 20, slower=0.01), None, {}, cache_bytes=cache_bytes)
        assert table.missed(1e9) == 0.0
    noisy = iter([1.2, 1.4, 0.9, 1.3, 1.1, 1.0, 1.02, 1.0])
    assert LatencyTable(lambda shapes, _: [next(noisy) for _ in shapes], None, {}).missed(1e9) == 0.0


def test_what_uses_little_needs_no_measuring() -> None:
    def never(shapes: Sequence[LayerShape], evicted: int) -> list[float]:
        raise AssertionError("a layer was measured")

    assert LatencyTable(never, None, {}).missed(1e6) == 0.0


def test_times_with_and_without_a_cache_are_kept_apart(tmp_path: Path) -> None:
    table = LatencyTable(with_cache(8 << 20), tmp_path, {})
    assert (table.time(CONV), table.time(CONV, COLD)) == (1.0, 3.0)
    table.save()
    again = LatencyTable(with_cache(1 << 20), tmp_path, {})
    assert (again.time(CONV), again.time(CONV, COLD), again.measured) == (1.0, 3.0, 0)


def test_each_shape_is_measured_once() -> None:
    times = iter([3.0, 1.0])
    table = LatencyTable(one_by_one(lambda _: next(times)), None, {})
    assert table.time(CONV) == 3.0 == table.time(CONV)
    assert table.measured == 1 == len(table)
    assert table.time(DEPTHWISE) == 1.0


def test_what_was_measured_is_read_again(tmp_path: Path) -> None:
    first, second = Stopwatch(), Stopwatch()
    table = LatencyTable(one_by_one(first), tmp_path / "cache", {"runtime": "one"})
    time = table.time(CONV)
    table.save()
    again = LatencyTable(one_by_one(second), tmp_path / "cache", {"runtime": "one"})
    assert again.time(CONV) == time
    assert not second.asked and first.asked


def test_a_cached_time_never_answers_for_another_identity(tmp_path: Path) -> None:
    table = LatencyTable(one_by_one(Stopwatch()), tmp_path, {"runtime": "one"})
    table.time(CONV)
    table.save()
    (path,) = tmp_path.iterdir()
    other = LatencyTable(one_by_one(Stopwatch()), tmp_path, {"runtime": "two"})
    assert len(other) == 0
    other.time(CONV)
    other.save()
    (theirs,) = set(tmp_path.iterdir()) - {path}
    theirs.write_text(path.read_text())  # a file under the right name, but with another identity inside
    assert len(LatencyTable(one_by_one(Stopwatch()), tmp_path, {"runtime": "two"})) == 0
    assert len(LatencyTable(one_by_one(Stopwatch()), tmp_path, {"runtime": "one"})) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        "{}",
        '{"identity": IDENTITY}',
        '{"identity": IDENTITY, "milliseconds": 3}',
        '{"identity": IDENTITY, "milliseconds": {"a": "fast"}}',
    ],
)
def test_a_damaged_cache_is_measured_again(damage: str, tmp_path: Path) -> None:
    table = LatencyTable(one_by_one(Stopwatch()), tmp_path, {"runtime": "one"})
    time = table.time(CONV)
    table.save()
    (path,) = tmp_path.iterdir()
    path.write_text(damage.replace("IDENTITY", json.dumps(table.identity)))
    watch = Stopwatch()
    again = LatencyTable(one_by_one(watch), tmp_path, {"runtime": "one"})
    assert again.time(CONV) == time and watch.asked
    again.save()
    assert len(LatencyTable(one_by_one(watch), tmp_path, {"runtime": "one"})) == 1


def shapes(net: Net) -> list[LayerShape]:
    return [shape_of(net, node) for node in net.weighted()]


def test_shapes_of_layers() -> None:
    net = net_of(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, (3, 5), padding="same", dilation=2, groups=4),
        nn.Conv2d(4, 3, 1, padding="valid"),
        nn.Flatten(),
        nn.Linear(27, 5),
        shape=(2, 6, 6),
    )
    assert shapes(net) == [
        LayerShape("conv2d", 2, 4, (3, 3), (2, 2), (1, 1), input_size=(6, 6), activation="none"),
        LayerShape("conv2d", 4, 4, (3, 5), (1, 1), (2, 4), (2, 2), 4, input_size=(3, 3), activation="none"),
        LayerShape("conv2d", 4, 3, input_size=(3, 3), activation="none"),
        LayerShape("linear", 27, 5, activation="none"),
    ]


@pytest.mark.parametrize(
    ("behind", "activation"),
    [
        ([nn.ReLU()], "relu"),
        ([nn.BatchNorm2d(3), nn.ReLU()], "relu"),
        ([nn.ReLU6()], "relu6"),
        ([nn.BatchNorm2d(3), nn.Hardtanh(0, 6)], "relu6"),
        ([nn.Hardtanh(0, 5)], "none"),
        ([nn.SiLU()], "none"),
        ([nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.ReLU()], "none"),
        ([], "none"),
    ],
)
def test_an_activation_right_behind_a_layer_is_part_of_its_shape(behind: list[nn.Module], activation: str) -> None:
    (shape,) = shapes(net_of(nn.Conv2d(2, 3, 1), *behind, nn.Flatten(), shape=(2, 4, 4)))
    assert shape.activation == activation


def test_an_activation_that_is_not_alone_in_reading_a_layer_is_no_part_of_it() -> None:
    found = {shape.in_channels: shape.activation for shape in shapes(small_net("Residual"))}
    assert found == {1: "relu", 6: "none"}  # the convolution into the sum, and the linear layer
