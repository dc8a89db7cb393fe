import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from example_nets import HAND_MADE, SHAPE, hand_made, net_of
from slimwright.cost import Cost, count, count_layers
from slimwright.graph import Net, plan_memory
from slimwright.importers import capture
from slimwright.zoo import build
from zoo_nets import FAMILIES, zoo_net


def flops(net: Net) -> int:
    """What torch counts: 2 for each multiply-accumulate. Without data, which is quicker."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.to_module().to("meta")(torch.empty(net.input.shape, device="meta"))
    return int(counter.get_total_flops())


def test_macs_of_the_mobilenet_stem() -> None:  # 3x3, stride 2, 3->32 channels, 224^2 image
    net = net_of(nn.Conv2d(3, 32, 3, 2, 1, bias=False), shape=(3, 224, 224))
    assert count(net).macs == 112 * 112 * 32 * 3 * 3 * 3 == 10_838_016
    assert count(net).params == 32 * 27
    assert count(net).weight_bytes == 4 * 32 * 27


def test_macs_of_a_depthwise_convolution() -> None:
    net = net_of(nn.Conv2d(8, 8, 3, padding=1, groups=8), shape=(8, 10, 10))
    assert count(net).macs == 10 * 10 * 8 * 9 == 7_200
    assert count(net).params == 8 * 9 + 8


def test_macs_of_a_grouped_convolution() -> None:
    net = net_of(nn.Conv2d(8, 6, 3, groups=2, bias=False), shape=(8, 10, 10))
    assert count(net).macs == 8 * 8 * 6 * (8 // 2) * 9 == 13_824
    assert count(net).params == 6 * 4 * 9


def test_macs_of_a_linear_layer_leave_out_its_bias() -> None:
    net = net_of(nn.Flatten(), nn.Linear(36, 7), shape=SHAPE)
    assert count(net).macs == 36 * 7 == 252
    assert count(net).params == 36 * 7 + 7


def test_batch_norm_has_no_macs_and_its_statistics_are_no_parameters() -> None:
    cost = count(net_of(nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), shape=SHAPE))
    assert cost.macs == 36 * 4
    assert cost.params == 4 + 8
    assert cost.weight_bytes == 4 * (4 + 16)
    assert cost.latency_ms is None and cost.size_bytes is None


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_macs_of_a_zoo_net_are_half_the_flops_that_torch_counts(name: str) -> None:
    net = zoo_net(name)
    assert 2 * count(net).macs == flops(net)
    assert count(net).params == sum(p.numel() for p in build(name).parameters())


@pytest.mark.parametrize("name", HAND_MADE)
def test_macs_of_a_hand_made_net_are_half_the_flops_that_torch_counts(name: str) -> None:
    net = capture(hand_made(name), SHAPE)
    assert 2 * count(net).macs == flops(net)


def test_resnet_20_costs_what_its_layers_say() -> None:
    model = build("resnet20", classes=10, in_channels=3)
    cost = count(capture(model, (3, 32, 32)))
    stem = 32**2 * 16 * 3 * 9
    one = (
        32**2 * 16 * 16 * 9
    )  # one 3x3 convolution of a stage; the three stages' are alike, as width doubles and area falls to a quarter
    assert one == 16**2 * 32 * 32 * 9 == 8**2 * 64 * 64 * 9
    shortcuts = 16**2 * 32 * 16 + 8**2 * 64 * 32
    assert cost.macs == stem + 16 * one + 2 * (one // 2) + shortcuts + 64 * 10
    weights = 16 * 27 + 6 * 16 * 16 * 9 + (16 + 5 * 32) * 32 * 9 + (32 + 5 * 64) * 64 * 9 + 16 * 32 + 32 * 64
    norms = 2 * (7 * 16 + 7 * 32 + 7 * 64)
    assert cost.params == weights + norms + 64 * 10 + 10 == sum(p.numel() for p in model.parameters())


def test_layers_add_up_to_the_whole() -> None:
    net = capture(hand_made("Separable"), SHAPE)
    layers = count_layers(net)
    assert [layer.name for layer in layers] == [node.name for node in net.nodes]
    assert sum(layer.macs for layer in layers) == count(net).macs
    assert sum(layer.params for layer in layers) == count(net).params
    assert sum(layer.weight_bytes for layer in layers) == count(net).weight_bytes
    assert sum(layer.elementwise_ops for layer in layers) == count(net).elementwise_ops
    assert sum(layer.moved_bytes for layer in layers) == count(net).moved_bytes
    stem = next(layer for layer in layers if layer.op == "conv2d")
    assert stem.shape == (1, 4, 3, 3) and stem.output_bytes == 4 * 36


def test_shared_weights_count_once_but_work_twice() -> None:
    net = capture(hand_made("Twice"), SHAPE)
    assert count(net).params == sum(p.numel() for p in hand_made("Twice").parameters())
    assert count(net).macs == 36 * (4 * 9 + 2 * 4 * 4 * 9) + 12


def test_what_fvcore_counts_beyond_is_batch_norm_and_adaptive_pooling() -> None:
    layers = count_layers(zoo_net("mobilenet-v2"))  # fvcore: 314.193 million, our measurement, 2026-11
    work = {op: sum(each.elementwise_ops for each in layers if each.op == op) for op in {each.op for each in layers}}
    macs = sum(each.macs for each in layers)
    assert macs == 300_774_272
    assert work["adaptive_avg_pool2d"] == 1280 * 7 * 7
    assert round((macs + work["batch_norm"] + work["adaptive_avg_pool2d"]) / 1e3) == 314_193


def test_the_worked_example_of_the_manual() -> None:
    conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    net = net_of(conv, nn.BatchNorm2d(8), nn.ReLU(), *head, shape=(3, 32, 32))
    layers = {layer.op: layer for layer in count_layers(net)}
    assert {op: layer.macs for op, layer in layers.items() if layer.macs} == {"conv2d": 55_296, "linear": 80}
    work = {"batch_norm": 4_096, "relu": 2_048, "adaptive_avg_pool2d": 2_048, "linear": 10}
    assert {op: layer.elementwise_ops for op, layer in layers.items() if layer.elementwise_ops} == work
    moved = {"conv2d": 21_344, "batch_norm": 16_512, "relu": 16_384, "adaptive_avg_pool2d": 8_224, "linear": 432}
    assert {op: layer.moved_bytes for op, layer in layers.items() if layer.moved_bytes} == moved
    assert plan_memory(net).live_bytes == (12_288, 20_480, 16_384, 8_192, 8_224, 32, 72)
    assert count(net) == Cost(55_376, 322, 1_352, 20_480, elementwise_ops=8_202, moved_bytes=62_896)
    assert round(count(net).intensity or 0, 1) == 1.9
    assert [layer.kind for layer in layers.values()].count("non-tensor") == 3
