import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from exact import small_net
from example_nets import net_of
from slimwright.cost.latency import COLD, MOST_MISSED, LatencyTable, LayerShape, one_by_one, shape_of, with_channels
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.kept import as_line, from_line
from stopwatch import Stopwatch

CONV = LayerShape("conv2d", 16, 16, (3, 3), padding=(1, 1), input_size=(8, 8))
DEPTHWISE = LayerShape("conv2d", 8, 8, (3, 3), padding=(1, 1), groups=8, input_size=(8, 8))


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


def test_interpolation_is_between_the_nearest_counts_of_the_grid() -> None:
    """Latencies that are no line: 1 at four channels, 9 at eight, 3 at sixteen; outputs ten times as much."""
    curve = {4: 1.0, 8: 9.0, 16: 3.0}
    table = LatencyTable(one_by_one(lambda s: curve[s.in_channels] + 10 * curve[s.out_channels]), None, {})
    for inputs, outputs, expected in ((4, 4, 11), (5, 4, 13), (7, 4, 17), (8, 4, 19), (12, 4, 16), (4, 6, 51)):
        assert table.interpolated(with_channels(CONV, inputs, outputs), [4, 8, 16], [4, 8, 16]) == expected


def test_interpolation_between_cold_times_is_apart_from_that_between_undisturbed_ones() -> None:
    table = LatencyTable(lambda shapes, evicted: [s.in_channels + evicted for s in shapes], None, {})
    for evicted in (0, COLD):
        assert table.interpolated(with_channels(CONV, 6, 16), [4, 8], [16], evicted) == 6 + evicted


def test_other_channels_leave_the_rest_of_a_layer_as_it_is() -> None:
    assert with_channels(CONV, 3, 5) == replace(CONV, in_channels=3, out_channels=5)
    one = replace(CONV, in_channels=1, groups=1)  # one group of one channel is nothing depthwise
    assert with_channels(one, 3, 5) == replace(CONV, in_channels=3, out_channels=5)
    grouped = replace(CONV, groups=4)
    assert with_channels(grouped, 8, 12) == replace(CONV, in_channels=8, out_channels=12, groups=4)
    doubled = replace(DEPTHWISE, out_channels=16)
    assert with_channels(doubled, 5, 99) == replace(DEPTHWISE, in_channels=5, out_channels=10, groups=5)


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


@pytest.mark.parametrize(("times", "held"), [
    ([1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0], 2**24.5),
    ([1.0, 1.0, 1.9, 1.0, 1.0, 2.0, 2.0], 2**24.5),  # something else disturbed the third
    ([1.0, 2.5, 1.4, 3.0, 1.6, 1.8, 2.0], 2**22.5),  # 0, 0.4, 0.4, 0.6, 0.6, 0.8 and 1 more, at least
    ([0.8, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], 2**20.5),  # faster than undisturbed is as fast
    ([1.6, 1.6, 1.8, 2.0, 2.0, 2.0, 2.0], 2**20),
])  # fmt: skip
def test_caches_hold_what_slows_a_layer_half_as_much_whatever_disturbs_a_measurement(
    times: list[float], held: float
) -> None:
    """How many times slower it is after 1 MiB to 64 MiB were read. Half of `held` is where half is missed."""
    by_size = {0: 1.0} | dict(zip((1 << power for power in range(20, 27)), times, strict=True))
    table = LatencyTable(lambda shapes, evicted: [2.5 * by_size[evicted] for _ in shapes], None, {})
    found = table.missed(64e6)
    assert found == pytest.approx(MOST_MISSED / (1 + (held / 2 / 64e6) ** 3), rel=1e-9)


@pytest.mark.parametrize(("mebibytes", "expected"), [
    (0.999, 0.0), (1, 0.7 / (1 + 8)), (2, 0.35), (4, 0.7 / (1 + 1 / 8)), (1e4, 0.7),
])  # fmt: skip
def test_half_of_what_the_caches_hold_is_where_half_is_missed_and_the_third_power_says_how_steeply(
    mebibytes: float, expected: float
) -> None:
    table = LatencyTable(with_cache(64 << 20), None, {}, cache_bytes=4 << 20)
    assert table.missed(mebibytes * 2**20) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("times_less", "missed"), [(3.2, True), (3.3, False)])
def test_what_is_hardly_missed_is_not_missed(times_less: float, missed: bool) -> None:
    """Of 16 MiB that caches hold half counts: 0.7 / (1 + 3.2 ** 3) is 2.07 %, and at 3.3 it is 1.9 %."""
    table = LatencyTable(with_cache(64 << 20), None, {}, cache_bytes=16 << 20)
    found = table.missed((8 << 20) / times_less)
    assert found == (pytest.approx(0.7 / (1 + times_less**3)) if missed else 0.0)


@pytest.mark.parametrize(("cold", "known"), [(1.09, False), (1.1, True), (1.11, True)])
def test_caches_are_only_told_of_where_emptying_them_slows_a_layer_by_a_tenth(cold: float, known: bool) -> None:
    for cache_bytes in (0, 8 << 20):
        times = {COLD: cold}
        table = LatencyTable(
            lambda shapes, evicted, times=times: [times.get(evicted, 1.0) for _ in shapes],  # type: ignore[misc]
            None, {}, cache_bytes=cache_bytes,
        )  # fmt: skip
        assert (table.missed(1e9) > 0) is known


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


def test_an_identity_is_the_same_in_any_order(tmp_path: Path) -> None:
    table = LatencyTable(one_by_one(Stopwatch()), tmp_path, {"runtime": "one", "threads": 1})
    table.time(CONV)
    table.save()
    assert len(LatencyTable(one_by_one(Stopwatch()), tmp_path, {"threads": 1, "runtime": "one"})) == 1


def test_a_device_is_asked_for_what_is_missing_and_must_answer_all_of_it() -> None:
    asked: list[int] = []

    def measure(shapes: Sequence[LayerShape], evicted: int) -> list[float]:
        asked.append(len(shapes))
        return [1.0]

    table = LatencyTable(measure, None, {})
    table.fill([CONV])
    table.fill([CONV])
    table.fill([CONV, DEPTHWISE])
    assert asked == [1, 1] and table.measured == 2
    with pytest.raises(ValueError, match="shorter"):
        table.fill([CONV, DEPTHWISE], COLD)


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
        '{"identity": IDENTITY, "milliseconds": {"LAYER": "fast"}}',
        '{"identity": IDENTITY, "milliseconds": {"LAYER": 0}}',
        '{"identity": IDENTITY, "milliseconds": {"LAYER": 0.0}}',
        '{"identity": IDENTITY, "milliseconds": {"LAYER": -1.0}}',
        f'{{"identity": IDENTITY, "milliseconds": {{"LAYER": 1{"0" * 400}}}}}',
        '{"identity": IDENTITY, "milliseconds": {"LAYER": 1e400}}',
        '{"identity": IDENTITY, "milliseconds": {"LAYER": NaN}}',
        '{"identity": IDENTITY, "milliseconds": {"LAYER": 1.5}}',  # a time that could be: without its checksum
    ],
)
def test_a_damaged_cache_is_measured_again(damage: str, tmp_path: Path) -> None:
    table = LatencyTable(one_by_one(Stopwatch()), tmp_path, {"runtime": "one"})
    time = table.time(CONV)
    table.save()
    (path,) = tmp_path.iterdir()
    (layer,) = from_line(path.read_text())["milliseconds"]
    text = damage.replace("IDENTITY", json.dumps(table.identity)).replace('"LAYER"', json.dumps(layer))
    with suppress(ValueError):  # what is no JSON, or infinite, cannot bear a checksum
        if "1.5" not in text:
            text = as_line(json.loads(text))
    path.write_text(text)
    watch = Stopwatch()
    again = LatencyTable(one_by_one(watch), tmp_path, {"runtime": "one"})
    assert again.time(CONV) == time and watch.asked
    again.save()
    assert len(LatencyTable(one_by_one(watch), tmp_path, {"runtime": "one"})) == 1


def test_nothing_is_written_where_nothing_was_measured(tmp_path: Path) -> None:
    LatencyTable(one_by_one(Stopwatch()), tmp_path / "none", {}).save()
    assert not (tmp_path / "none").exists()
    table = LatencyTable(one_by_one(Stopwatch()), tmp_path / "some", {})
    table.fill([CONV, DEPTHWISE, CONV])
    assert (table.measured, len(table)) == (2, 2)
    table.save()
    (path,) = (tmp_path / "some").iterdir()
    again = LatencyTable(one_by_one(Stopwatch()), tmp_path / "some", {})
    again.fill([CONV])
    written = path.read_text()
    path.write_text("")
    again.save()
    assert path.read_text() == "" != written


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
        ([nn.Hardtanh(-6, 6)], "none"),
        ([nn.ReLU(), nn.ReLU6()], "relu"),
        ([nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.ReLU()], "none"),
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


def test_a_batch_norm_behind_a_linear_layer_stands_between_it_and_its_activation() -> None:
    net = net_of(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), shape=(1, 2, 2))
    assert shapes(net) == [LayerShape("linear", 4, 3, activation="relu")]


def test_a_norm_that_two_read_hides_the_activation() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv(x))
            return (torch.relu(y) + y).mean((2, 3))  # type: ignore[no-any-return]

    (shape,) = shapes(capture(Twice().eval(), (2, 4, 4)))
    assert shape.activation == "none"


def test_padding_differs_by_direction_as_dilation_and_kernel_do() -> None:
    net = net_of(
        nn.Conv2d(2, 2, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        nn.Conv2d(2, 2, (3, 3), padding="same", dilation=(3, 1)),
        shape=(2, 9, 12),
    )
    first, second = shapes(net)
    assert (first.kernel, first.stride, first.padding, first.dilation) == ((3, 5), (2, 1), (1, 2), (1, 2))
    assert (first.input_size, second.input_size) == ((9, 12), (5, 8))
    assert (second.padding, second.dilation) == ((3, 1), (3, 1))
