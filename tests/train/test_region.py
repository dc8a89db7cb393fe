from dataclasses import replace

import pytest
import torch

from dots import joined_stages, two_stages
from example_nets import SHAPE, hand_made
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.train import Match, Region, regions_in
from slimwright.train.region import part_of


def same(*names: str) -> list[Match]:
    return [Match(name, name) for name in names]


def every(net: Net) -> list[Match]:
    return same(*(node.name for node in net.nodes))


def spans(regions: list[Region]) -> list[tuple[str, str]]:
    return [(region.start, region.end.value) for region in regions]


@pytest.mark.parametrize(("start", "end"), [("input", "relu"), ("relu", "relu_2"), ("conv2d_1", "linear")])
def test_a_region_computes_what_the_net_computes_there(start: str, end: str) -> None:
    net = two_stages()
    part = part_of(net, Region(start, Match(end, end)))
    read, given = replace(net, outputs=(start, end)).to_module()(torch.randn(3, 1, 8, 8))
    assert torch.equal(part.to_module()(read), given)
    assert part.input.name == start and part.outputs == (end,)
    assert all(tensor is net.tensors[name] for name, tensor in part.tensors.items())


def test_a_region_with_a_branch_inside_is_one() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    names = [node.name for node in net.nodes]
    part = part_of(net, Region("relu", Match("relu_1", "relu_1")))
    assert [node.name for node in part.nodes] == names[names.index("relu") : names.index("relu_1") + 1]


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("conv2d_1", "add", "from 'conv2d_1' to 'add' reads more of the net than 'conv2d_1'"),
        ("x", "conv2d_1", "holds 'relu', which goes into add too"),
        ("relu_1", "relu", "'relu' does not follow from 'relu_1'"),
        ("relu", "relu", "'relu' does not follow from 'relu'"),
        ("relu", "nowhere", "'nowhere' does not follow from 'relu'"),
        ("nowhere", "relu_1", "'relu_1' does not follow from 'nowhere'"),
    ],
)
def test_another_way_in_or_out_is_refused(start: str, end: str, said: str) -> None:
    net = capture(hand_made("Residual"), SHAPE)
    with pytest.raises(RequestError, match=said):
        part_of(net, Region(start, Match(end, end)))


def test_a_value_that_the_net_returns_too_is_a_way_out() -> None:
    net = two_stages()
    with pytest.raises(RequestError, match="holds 'relu', which goes into the result too"):
        part_of(replace(net, outputs=("linear", "relu")), Region("input", Match("relu_1", "relu_1")))


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        (1, [("input", "relu"), ("relu", "relu_1"), ("relu_1", "flatten"), ("flatten", "linear")]),
        (2, [("input", "relu_1"), ("relu_1", "linear")]),
        (3, [("input", "flatten"), ("flatten", "linear")]),
        (9, [("input", "linear")]),
    ],
)
def test_regions_end_behind_the_activation_of_so_many_layers(layers: int, wanted: list[tuple[str, str]]) -> None:
    net = two_stages()
    assert spans(regions_in(net, every(net), layers=layers)) == wanted


def test_regions_end_only_in_values_that_stand_for_something() -> None:
    net = two_stages()
    assert spans(regions_in(net, same("conv2d_1", "relu_2"), layers=1)) == [
        ("input", "conv2d_1"),
        ("conv2d_1", "relu_2"),
    ]
    assert regions_in(net, []) == []


def test_a_sum_is_not_cut_in_two() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    found = regions_in(net, every(net), layers=1)
    assert spans(found) == [("x", "relu"), ("relu", net[net.outputs[0]].source), (net[net.outputs[0]].source, "linear")]
    for region in found:
        part_of(net, region)


@pytest.mark.parametrize("name", ["Concat", "Separable", "Gated", "Flat", "Twice", "SharedNorm", "Grouped"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_regions_of_every_structure_are_regions(name: str, layers: int) -> None:
    net = capture(hand_made(name), SHAPE)
    regions = regions_in(net, every(net), layers=layers)
    weighted = [sum(node.op in ("conv2d", "linear") for node in part_of(net, region).nodes[1:]) for region in regions]
    assert all(count >= layers for count in weighted[:-1])
    assert sum(weighted) == len(list(net.weighted()))
    assert [region.start for region in regions[1:]] == [region.end.value for region in regions[:-1]]


def test_regions_begin_behind_the_last_of_several_inputs() -> None:
    net = joined_stages()
    assert spans(regions_in(net, every(net), layers=1)) == [
        ("add", "relu_1"),
        ("relu_1", "flatten"),
        ("flatten", "linear"),
    ]
    assert spans(regions_in(net, same("relu", "relu_2"), layers=1)) == [("add", "relu_2")]
    with pytest.raises(RequestError, match="from 'input' to 'relu_1' reads more of the net than 'input'"):
        part_of(net, Region("input", Match("relu_1", "relu_1")))
    read, given = replace(net, outputs=("add", "relu_2")).to_module()(torch.randn(3, 1, 8, 8), torch.randn(3, 6, 6, 6))
    assert torch.equal(part_of(net, Region("add", Match("relu_2", "relu_2"))).to_module()(read), given)
