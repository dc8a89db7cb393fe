"""What a choice is predicted to cost, against arithmetic by hand and against the net that comes of the choice."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import small_net
from example_nets import SHAPE, classification, hand_made, net_of
from slimwright.cost import count, count_layers
from slimwright.cost.latency import COLD, LatencyTable, LayerShape, one_by_one, shape_of
from slimwright.coupling import couple, cut
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.search import Predictor, factorisable
from slimwright.techniques.low_rank import Factors, factorise
from slimwright.techniques.ranks import CP_RANK, IN_RANK, OUT_RANK, damages, rank_damages


class Device(LatencyTable):
    """A device whose layers take 1 + 2 inputs + 3 outputs, and with empty caches more; it remembers what was asked."""

    def __init__(
        self, cold: Callable[[LayerShape], float] = lambda shape: 5.0 * shape.out_channels, missed: float = 0.0
    ) -> None:
        super().__init__(self._timed, None, {})
        self.cold, self.share, self.asked = cold, missed, list[tuple[LayerShape, int]]()

    def _timed(self, shapes: Sequence[LayerShape], evicted: int) -> list[float]:
        self.asked += [(shape, evicted) for shape in shapes]
        return [1 + 2 * s.in_channels + 3 * s.out_channels + (self.cold(s) if evicted else 0.0) for s in shapes]

    def missed(self, used: float) -> float:
        """Return the same share for every net."""
        return self.share


def predictor_of(net: Net, table: LatencyTable | None = None, step: int = 1, ranks: Sequence[str] = ()) -> Predictor:
    return Predictor(net, couple(net), Device() if table is None else table, step, ranks=ranks)


RESIDUAL = capture(hand_made("Residual"), SHAPE)  # 1 -> 6, 6 -> 6 and 6 -> 3 channels; one group of 6
HALF = {"conv2d": 3}


# milliseconds


@pytest.mark.parametrize(("share", "expected"), [(1.0, 44 / 74), (0.25, 0.25 * 44 / 74 + 0.75 * 1884 / 3624)])
def test_latency_is_that_of_the_whole_by_the_shares_of_layers_and_of_others(share: float, expected: float) -> None:
    """The layers take 21 + 31 + 22 = 74, with half of the channels 12 + 16 + 16 = 44.

    The image has 144 bytes, each of four maps 864 and the means 24; with half of the channels 432 and 12.
    """
    predictor = predictor_of(RESIDUAL)
    assert (predictor.other_bytes(predictor.whole), predictor.other_bytes(HALF)) == (3624, 1884)
    latency = predictor.latency(10.0, share)
    assert latency(predictor.whole) == pytest.approx(10)
    assert latency(HALF) == pytest.approx(10 * expected)


def test_without_a_share_all_time_is_the_layers() -> None:
    assert predictor_of(RESIDUAL).latency(10.0)(HALF) == pytest.approx(10 * 44 / 74)


def test_what_is_not_in_a_cache_takes_its_share_of_the_cold_time() -> None:
    """Cold layers take 5 an output more: 75 of the whole, 45 of the half; 40 % of what a run needs is in no cache."""
    predictor = predictor_of(RESIDUAL, Device(missed=0.4))
    assert predictor.layer_ms(HALF) == pytest.approx({"conv2d": 12 + 6, "conv2d_1": 16 + 6, "linear": 16 + 6})
    assert predictor.latency(10.0)(HALF) == pytest.approx(10 * (44 + 0.4 * 45) / (74 + 0.4 * 75))
    assert predictor.latency(10.0, 0.5)(HALF) == pytest.approx(5 * 62 / 104 + 5 * 1884 / 3624)


class Large(Device):
    """All that a net larger than the half of the residual one needs is in no cache."""

    def missed(self, used: float) -> float:
        return 1.0 if used > 4_000 else 0.0


def test_a_choice_is_as_cold_as_what_it_uses_itself() -> None:
    predictor = predictor_of(RESIDUAL, Large())
    assert predictor.used_bytes(HALF) < 4_000 < predictor.used_bytes(predictor.whole)
    assert predictor.latency(10.0)(HALF) == pytest.approx(10 * 44 / (74 + 75))
    assert predictor.latency(10.0)(predictor.whole) == pytest.approx(10)


def test_a_layer_that_is_no_slower_with_empty_caches_is_not_predicted_to_be_faster() -> None:
    """A cold convolution is measured to take less, as noise has it, and a cold linear layer 7 more."""
    device = Device(lambda shape: 7.0 if shape.op == "linear" else -0.5, missed=0.5)
    predictor = predictor_of(RESIDUAL, device)
    assert predictor.layer_ms(HALF) == pytest.approx({"conv2d": 12, "conv2d_1": 16, "linear": 16 + 3.5})
    assert predictor.latency(10.0)(HALF) == pytest.approx(10 * 47.5 / 77.5)


@pytest.mark.parametrize(("missed", "measured"), [(0.0, {0}), (0.3, {0, COLD})])
def test_layers_are_measured_cold_where_caches_do_not_hold_all(missed: float, measured: set[int]) -> None:
    device = Device(missed=missed)
    predictor_of(RESIDUAL, device).measure()
    assert {evicted for _, evicted in device.asked} == measured
    shapes = [{shape for shape, evicted in device.asked if evicted == when} for when in measured]
    assert all(found == shapes[0] for found in shapes)
    assert len(device.asked) == len(set(device.asked))


# what is counted


def test_products_of_values_count_as_in_the_whole_net() -> None:
    """One of two heads is left: layers have fewer multiply-accumulates, and scores count as before."""
    net = small_net("Attention")
    coupling = couple(net)
    predictor = predictor_of(net)
    assert predictor.macs(predictor.whole) == count(net).macs
    heads = next(group for group in coupling.groups if group.size == 2)
    small = cut(net, {heads.name: np.array([1])}, coupling)
    scores = 2 * 2 * 36 * 36 * 4  # queries with keys, then with values: 2 heads of 4 channels over 36 places
    layers = {node.name for node in small.weighted()}
    left = sum(layer.macs for layer in count_layers(small) if layer.name in layers)
    assert predictor.macs({**predictor.whole, heads.name: 1}) == left + scores


def test_transformed_weights_are_those_of_plain_three_by_three_convolutions() -> None:
    """The first alone: others have a stride, a dilation, groups, or another kernel."""
    net = net_of(
        *(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, stride=(1, 2)), nn.Conv2d(4, 4, 3, dilation=2, padding=2)),
        *(nn.Conv2d(4, 4, 3, groups=2, padding=1), nn.Conv2d(4, 4, 3, groups=4, padding=1)),
        *(nn.Conv2d(4, 4, (3, 1)), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4 * 4 * 3, 3)),
        shape=(1, 10, 10),
    )
    plain = predictor_of(net)
    transformed = Predictor(net, couple(net), Device(), 1, transformed=4.0)
    whole = plain.whole
    assert plain.used_bytes(whole) == plain.weight_bytes(whole) + plain.other_bytes(whole)
    assert transformed.used_bytes(whole) - plain.used_bytes(whole) == 3 * 4 * 4 * 9
    assert transformed.weight_bytes(whole) == plain.weight_bytes(whole)


# sizes and ranks to choose from


def sizes_of(channels: int, step: int, groups: int = 1) -> list[int]:
    """What the channels of a convolution may be cut to, or those that a grouped one makes."""
    layers = [nn.Conv2d(1, channels, 1)] + [nn.Conv2d(channels, channels, 1, groups=groups)] * (groups > 1)
    found = predictor_of(net_of(*layers, nn.Conv2d(channels, 3, 6), shape=SHAPE), step=step).sizes
    return list(found["conv2d" if groups == 1 else "conv2d_1"])


@pytest.mark.parametrize(("channels", "step", "sizes"), [
    (47, 1, [*range(47, 0, -1)]),
    (48, 1, [*range(48, 0, -2)]),  # 24 are enough: every second has to do
    (72, 1, [72, *range(69, 0, -3)]),
    (94, 2, [*range(94, 0, -2)]),
    (96, 2, [*range(96, 0, -4)]),
    (16, 16, [16, 8, 4]),
    (20, 16, [20, 16, 8, 4]),
    (9, 8, [9, 8, 4]),
    (8, 8, [8, 4]),
    (4, 8, [4]),
    (5, 32, [5, 4]),
    (24, 8, [24, 16, 8, 4]),
])  # fmt: skip
def test_at_most_about_two_dozen_sizes_are_multiples_of_the_step_with_its_halves_down_to_four(
    channels: int, step: int, sizes: list[int]
) -> None:
    assert sizes_of(channels, step) == sizes


@pytest.mark.parametrize(("channels", "groups", "step", "sizes"), [
    (32, 2, 8, [32, 24, 16, 8]),  # sixteen in each part: four of them are a step, so that there are four sizes
    (64, 2, 8, [64, 48, 32, 16, 8]),
    (6, 2, 8, [6, 4, 2]),
    (12, 3, 1, [12, 9, 6, 3]),
    (12, 3, 2, [12, 9, 6, 3]),
])  # fmt: skip
def test_parts_that_stay_equal_have_about_four_sizes_where_they_are_narrow(
    channels: int, groups: int, step: int, sizes: list[int]
) -> None:
    assert sizes_of(channels, step, groups) == sizes


@pytest.mark.parametrize(("layer", "ranks"), [
    (nn.Conv2d(9, 2, 3), {OUT_RANK: [2, 1], IN_RANK: [9, 5, 4, 3, 2, 1]}),  # 6 x (9 + 18) are all of the 162 weights
    (nn.Conv2d(1, 16, 3), {OUT_RANK: [9, 5, 4, 3, 2, 1], IN_RANK: [1]}),  # as many as taps; 6 x (9 + 16) are more
    (nn.Conv2d(4, 4, 1), {OUT_RANK: [4, 1]}),  # 2 x (4 + 4) are all of the 16 weights
    (nn.Conv2d(4, 4, (1, 3)), {OUT_RANK: [4, 2, 1], IN_RANK: [4, 2, 1]}),
])  # fmt: skip
def test_ranks_are_those_with_fewer_weights(layer: nn.Conv2d, ranks: Mapping[str, list[int]]) -> None:
    net = net_of(nn.Conv2d(1, layer.in_channels, 1), layer, nn.Flatten(), nn.LazyLinear(3), shape=SHAPE)
    found = predictor_of(net, ranks=["conv2d_1"]).sizes
    assert {item: found[item + "conv2d_1"] for item in ranks} == ranks
    assert (CP_RANK + "conv2d_1" in found) is (IN_RANK in ranks)


def test_a_linear_layer_has_one_rank() -> None:
    net = net_of(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3), shape=SHAPE)
    found = predictor_of(net, ranks=["linear"]).sizes
    assert {name for name in found if name.endswith("linear")} == {"linear", OUT_RANK + "linear"}
    assert found[OUT_RANK + "linear"] == [12, 8, 7, 6, 5, 4, 3, 2, 1]  # 9 x (36 + 12) are all of the 432 weights


@pytest.mark.parametrize(("inputs", "offered"), [(128, True), (129, False)])
def test_the_terms_of_a_layer_that_reads_very_many_are_not_looked_for(inputs: int, offered: bool) -> None:
    net = net_of(nn.Conv2d(1, inputs, 1), nn.Conv2d(inputs, 4, 3), nn.Conv2d(4, 3, 4), shape=SHAPE)
    assert (CP_RANK + "conv2d_1" in predictor_of(net, step=8, ranks=["conv2d_1"]).sizes) is offered


def test_the_cp_rank_is_whole_one_above_the_last_that_saves_weights() -> None:
    """A term takes 6 + 9 + 6 of the 324 weights: fifteen save some, sixteen do not."""
    found = predictor_of(RESIDUAL, ranks=["conv2d_1"]).sizes
    assert found[CP_RANK + "conv2d_1"] == [*range(16, 0, -1)]


# what is measured


def counts_measured(net: Net, name: str, ranks: Sequence[str] = ()) -> tuple[list[int], list[int]]:
    """The counts of inputs and of outputs at which the pieces with a layer's kernel and input are measured."""
    device = Device()
    predictor_of(net, device, ranks=ranks).measure()
    like = shape_of(net, net[name])
    found = [s for s, _ in device.asked if replace(like, in_channels=s.in_channels, out_channels=s.out_channels) == s]
    return sorted({s.in_channels for s in found}), sorted({s.out_channels for s in found})


def test_layers_are_measured_at_four_counts_that_a_choice_can_lead_to() -> None:
    flat, concat = small_net("Flat"), small_net("Concat")
    assert counts_measured(flat, "conv2d_1") == ([1, 2, 3, 4], [1, 2, 3, 5])
    assert counts_measured(flat, "linear") == ([4, 8, 12, 20], [1, 2, 4, 7])  # four places of each channel
    assert counts_measured(flat, "linear_1") == ([1, 2, 4, 7], [3])
    assert counts_measured(concat, "conv2d_2") == ([1, 2, 4, 7], [1, 2, 3, 5])  # of two groups
    assert counts_measured(concat, "linear") == ([2, 3, 6, 12], [3])  # of three


def test_a_layer_with_ranks_is_measured_at_two_of_them_too() -> None:
    """Input ranks 1 to 11, at which 156 weights a rank are fewer than 1728, output ranks 1 to 13, CP ranks 1 to 46."""
    net = net_of(nn.Conv2d(1, 12, 3), nn.Conv2d(12, 16, 3), nn.Conv2d(16, 3, 2), shape=SHAPE)
    assert counts_measured(net, "conv2d_1") == ([1, 2, 5, 12], [1, 3, 6, 16])
    assert counts_measured(net, "conv2d_1", ["conv2d_1"]) == ([1, 2, 5, 12], [1, 3, 6, 16])
    device = Device()
    predictor_of(net, device, ranks=["conv2d_1"]).measure()
    pointwise = {(s.in_channels, s.out_channels) for s, _ in device.asked if s.kernel == (1, 1)}
    assert pointwise == {(i, r) for i in (1, 2, 5, 12) for r in (1, 11, 46)} | {
        (r, o) for r in (1, 13, 46) for o in (1, 3, 6, 16)
    }
    narrow = net_of(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, (1, 3)), nn.Conv2d(4, 3, (4, 2)), shape=SHAPE)
    assert counts_measured(narrow, "conv2d_1", ["conv2d_1"]) == ([1, 2, 3, 4], [1, 2, 3, 4])


# layers in several pieces


class Uneven(nn.Module):
    """A convolution that is not square in any way, between two others, and a linear layer on rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 5, 1)
        self.middle = nn.Conv2d(5, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1))
        self.rows, self.fc = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.middle(F.silu(self.first(x))))
        return self.fc(F.silu(self.rows(F.silu(y))).mean((1, 2)))  # type: ignore[no-any-return]


FORMS = {
    "input": ("conv2d_1", {IN_RANK: 2}),
    "output": ("conv2d_1", {OUT_RANK: 2}),
    "tucker2": ("conv2d_1", {IN_RANK: 2, OUT_RANK: 1}),
    "cp": ("conv2d_1", {CP_RANK: 2}),
    "svd": ("linear", {OUT_RANK: 1}),
}


def by_all(shape: LayerShape) -> float:
    """Milliseconds that every field but the activation changes; linear in the channels."""
    size = 1 + 3 * shape.input_size[0] + 7 * shape.input_size[1]
    window = shape.kernel[0] + 2 * shape.kernel[1] + 5 * shape.stride[1] + 11 * shape.padding[0] + 13 * shape.padding[1]
    kind = 1.0 if shape.op == "linear" else 2.0
    return kind * size * (1 + window + 17 * shape.dilation[0]) * (shape.in_channels + 0.5 * shape.out_channels)


@pytest.mark.parametrize("kind", FORMS)
def test_the_pieces_of_a_layer_are_the_layers_that_factorising_makes(kind: str) -> None:
    net = capture(Uneven().eval(), (1, 7, 8))
    layer, ranks = FORMS[kind]
    predictor = predictor_of(net, LatencyTable(one_by_one(by_all), None, {}), ranks=["conv2d_1", "linear"])
    predictor.measure()
    measured = predictor.table.measured
    counts = {**predictor.whole, **{item + layer: rank for item, rank in ranks.items()}}
    factors = predictor.factors(counts)
    assert factors == {layer: Factors(kind, tuple(ranks.values()))}  # type: ignore[arg-type]
    small = factorise(net, factors)
    shapes = [shape_of(small, node) for node in small.weighted()]
    made = [shape for shape in shapes if shape not in predictor.shapes.values()]
    pieces = predictor.pieces.of(layer, counts)
    assert [replace(piece.shape, activation="none") for piece in pieces] == [
        replace(shape, activation="none") for shape in made
    ]
    assert predictor.layer_ms(counts)[layer] == pytest.approx(sum(by_all(shape) for shape in made))
    assert predictor.macs(counts) == count(small).macs
    assert predictor.table.measured == measured


# which layers have ranks


def observed(net: Net) -> Evidence:
    images = torch.randn(30, *net.input.shape[1:], generator=torch.Generator().manual_seed(2))
    return observe(net, [(images, torch.arange(30) % 3)], task=classification(net[net.outputs[0]].shape[1]))


class Mixed(nn.Module):
    """Layers of eight channels: one, grouped, called twice, one whose bias another shares; and a narrow one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.plain = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.grouped, self.twice = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 8, 3, padding=1)
        self.one, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.other.bias = self.one.bias
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.grouped(torch.relu(self.plain(torch.relu(self.first(x)))))
        y = self.other(torch.relu(self.one(torch.relu(self.twice(torch.relu(self.twice(y)))))))
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


def test_layers_that_are_wide_observed_not_grouped_and_share_nothing_may_be_factorised() -> None:
    net = capture(Mixed().eval(), SHAPE)
    evidence = observed(net)
    paths = {step: [net.paths[name] for name in factorisable(net, evidence, step)] for step in (1, 2, 3)}
    assert paths == {1: ["first", "plain"], 2: ["first", "plain"], 3: []}  # four steps of two are eight channels
    (plain,) = (name for name in factorisable(net, evidence, 1) if net.paths[name] == "plain")
    unseen = replace(evidence, layers={name: sums for name, sums in evidence.layers.items() if name != plain})
    assert [net.paths[name] for name in factorisable(net, unseen, 1)] == ["first"]


def test_a_layer_is_as_wide_as_the_smaller_of_what_it_reads_and_makes() -> None:
    """The first reads nine values for each of eight; the last reads eight and makes three."""
    net = net_of(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3), shape=SHAPE)
    evidence = observed(net)
    assert factorisable(net, evidence, 2) == ["conv2d"]
    thin = net_of(nn.Conv2d(1, 8, (1, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 24, 4), shape=SHAPE)
    assert factorisable(thin, observed(thin), 1) == ["linear"]  # three values for each of eight are too few


def test_each_rank_has_the_damage_of_its_kind() -> None:
    net = net_of(
        *(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)),
        shape=SHAPE,
    )
    evidence = observed(net)
    predictor = predictor_of(net, ranks=["conv2d_1", "conv2d_2", "linear"])
    found = rank_damages(predictor.net, evidence, predictor.sizes)
    kinds = {
        IN_RANK + "conv2d_1": "input", OUT_RANK + "conv2d_1": "output", CP_RANK + "conv2d_1": "cp",
        OUT_RANK + "conv2d_2": "output", OUT_RANK + "linear": "svd",
    }  # fmt: skip
    assert found.keys() == kinds.keys()
    for item, kind in kinds.items():
        layer = next(name for name in predictor.shapes if item in (IN_RANK + name, OUT_RANK + name, CP_RANK + name))
        expected = damages(net, evidence, {layer: kind})[layer]  # type: ignore[dict-item]
        assert np.allclose(found[item], expected, rtol=1e-9, atol=0)
        assert math.isclose(found[item][0], max(found[item]))
