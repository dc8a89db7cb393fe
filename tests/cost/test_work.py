"""What single layers do, against arithmetic by hand: four channels of 6x6 go in."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from example_nets import net_of
from slimwright.cost import LayerCost, count, count_layers
from slimwright.graph import Net
from slimwright.importers import capture

SHAPE = (4, 6, 6)
IN = 4 * 36  # elements of the image


class Function(nn.Module):
    """A function between two layers, so that it reads a value and not the image."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def layer(net: Net, op: str) -> LayerCost:
    """The one layer of this op, or of an ATen operator of this name."""
    (found,) = (each for each in count_layers(net) if each.op == op or each.op.startswith(f"aten.{op}."))
    return found


def torch_macs(net: Net) -> float:
    """What torch counts; without data, as it knows no attention on a CPU."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.to_module().to("meta")(torch.empty(net.input.shape, device="meta"))
    return float(counter.get_total_flops()) / 2


@pytest.mark.parametrize(
    ("module", "op", "operations"),
    [
        (nn.Conv2d(4, 5, 3), "conv2d", 5 * 16),  # the bias
        (nn.Conv2d(4, 5, 3, bias=False), "conv2d", 0),
        (nn.BatchNorm2d(4), "batch_norm", 2 * IN),
        (nn.ReLU(), "relu", IN),
        (nn.GELU(), "gelu", IN),
        (nn.MaxPool2d(2), "max_pool2d", 4 * 9 * 4),  # 4 channels, 9 windows, 4 elements each
        (nn.MaxPool2d(3, 2, 1), "max_pool2d", 4 * 9 * 9),  # windows at the border count whole
        (nn.AvgPool2d((2, 3)), "avg_pool2d", 4 * 6 * 6),
        (nn.AdaptiveAvgPool2d(1), "adaptive_avg_pool2d", IN),
        (nn.AdaptiveAvgPool2d(4), "adaptive_avg_pool2d", 4 * 8 * 8),  # windows of 2 rows, four of them, over 6
        (nn.LayerNorm(6), "layer_norm", 7 * IN),
        (nn.LayerNorm(6, elementwise_affine=False), "layer_norm", 5 * IN),
        (nn.GroupNorm(2, 4), "group_norm", 7 * IN),
        (nn.RMSNorm(6), "rms_norm", 4 * IN),
        (nn.Softmax(1), "softmax", 5 * IN),
        (nn.LocalResponseNorm(3), "lrn", 7 * IN),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "upsample_bilinear2d", 7 * 4 * IN),
        (nn.Upsample(scale_factor=2), "upsample_nearest2d", 0),
        (Function(lambda x: x.mean((2, 3))), "mean", IN),
        (Function(lambda x: x + 1), "add", IN),
        (Function(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))), "mul", IN),
        (Function(lambda x: x.transpose(1, 2)), "transpose", 0),
        (Function(lambda x: torch.cat([x, x], 1)), "concat", 0),
        (Function(lambda x: F.pad(x, (1, 1, 1, 1))), "pad", 0),
        (Function(lambda x: torch.cumsum(x, 1)), "cumsum", IN),  # nothing is known of it
        (nn.BatchNorm2d(4, affine=False), "batch_norm", 2 * IN),
        (nn.PReLU(4), "prelu", IN),
        (nn.LayerNorm(6, bias=False), "layer_norm", 6 * IN),
        (nn.GroupNorm(2, 4, affine=False), "group_norm", 5 * IN),
        (nn.InstanceNorm2d(4, affine=True), "instance_norm", 7 * IN),
        (nn.InstanceNorm2d(4), "instance_norm", 5 * IN),
        (nn.RMSNorm(6, elementwise_affine=False), "rms_norm", 3 * IN),
        (nn.LogSoftmax(1), "log_softmax", 5 * IN),
        (nn.LocalResponseNorm(5), "lrn", 9 * IN),
        (nn.Upsample(scale_factor=2, mode="bicubic"), "upsample_bicubic2d", 31 * 4 * IN),
        (nn.Upsample(scale_factor=2, mode="nearest-exact"), "_upsample_nearest_exact2d", 0),
        (nn.Sequential(nn.Flatten(2), nn.Upsample(scale_factor=2, mode="linear")), "upsample_linear1d", 3 * 2 * IN),
        (nn.Sequential(nn.Flatten(2), nn.Upsample(scale_factor=2)), "upsample_nearest1d", 0),
        (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Upsample(scale_factor=2)), "upsample_nearest3d", 0),
        (
            nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Upsample(scale_factor=2, mode="trilinear")),
            "upsample_trilinear3d",
            15 * 8 * IN,
        ),
        (nn.AdaptiveMaxPool2d(4), "adaptive_max_pool2d", 4 * 8 * 8),  # of two results one is read
        (nn.AdaptiveAvgPool2d((4, 5)), "adaptive_avg_pool2d", 4 * 8 * 10),
        (nn.Sequential(nn.Flatten(2), nn.MaxPool1d(3, 2)), "max_pool1d", 4 * 17 * 3),
        (nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(5)), "adaptive_avg_pool1d", 4 * 40),
        (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.AvgPool3d((1, 2, 3))), "avg_pool3d", IN),
        (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.MaxPool3d(2)), "max_pool3d", IN),
        (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.AdaptiveAvgPool3d((2, 4, 3))), "adaptive_avg_pool3d", 2 * 2 * 8 * 6),
        (Function(lambda x: x.amax(1)), "amax", IN),
        (Function(lambda x: x.std((1, 2))), "std", IN),
        (Function(lambda x: x.sum((1, 2))), "sum", IN),
        (Function(lambda x: x.max(1)[0]), "max", IN),
        (Function(lambda x: torch.where(x > 0, x, 2.0)), "where", IN),
        (Function(lambda x: x[:, :2].sigmoid()), "sigmoid", IN // 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_elementwise_operations_of_one_layer(module: nn.Module, op: str, operations: int) -> None:
    net = net_of(module, nn.Flatten(), shape=SHAPE)
    assert layer(net, op).elementwise_ops == operations
    assert layer(net, op).macs == (0 if op != "conv2d" else 5 * 16 * 4 * 9)


COPIES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {  # and the elements that it gives
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), 2 * IN),
    "tile": (lambda x: x.tile(1, 2, 1, 1), 2 * IN),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), 2 * IN),
    "im2col": (lambda x: F.unfold(x, 2), 16 * 25),
    "unfold": (lambda x: x.unfold(2, 2, 3), 4 * 2 * 6 * 2),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IN),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), IN),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), IN),
    "tril": (lambda x: x.tril(), IN),
    "triu": (lambda x: x.triu(), IN),
    "zeros_like": (torch.zeros_like, IN),
    "ones_like": (torch.ones_like, IN),
    "full_like": (lambda x: torch.full_like(x, 2.0), IN),
    "roll": (lambda x: x.roll(1, 1), IN),
    "flip": (lambda x: x.flip(1), IN),
    "clone": (lambda x: x.clone(), IN),
    "select": (lambda x: x[:, 1], 36),
}


@pytest.mark.parametrize("op", COPIES)
def test_what_only_copies_computes_nothing_and_reads_no_more_than_it_gives(op: str) -> None:
    function, given = COPIES[op]
    net = net_of(nn.ReLU(), Function(function), nn.Sigmoid(), shape=SHAPE)
    copy = layer(net, op)
    assert (copy.macs, copy.elementwise_ops) == (0, 0)
    assert copy.moved_bytes == 4 * (given + min(given, IN))


PICKED: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {  # of so many elements, by so many 64-bit numbers
    "index": (lambda x: x[:, [2, 0]], 72, 2),
    "index_select": (lambda x: x.index_select(1, torch.tensor([2, 0, 3])), 108, 3),
    "gather": (lambda x: x.gather(1, torch.zeros(1, 1, 6, 6, dtype=torch.int64)), 36, 36),
    "embedding": (lambda x: F.embedding(torch.tensor([1, 0]), x.flatten(1, 2)[0]), 12, 2),
}


@pytest.mark.parametrize("op", PICKED)
def test_what_is_picked_by_numbers_moves_itself_and_the_numbers(op: str) -> None:
    """Of the numbers no more counts than what they pick."""
    function, given, numbers = PICKED[op]
    pick = layer(net_of(nn.ReLU(), Function(function), nn.Sigmoid(), shape=SHAPE), op)
    assert pick.elementwise_ops == 0
    assert pick.moved_bytes == 4 * 2 * given + min(8 * numbers, 4 * given)


@pytest.mark.parametrize(
    ("module", "op", "elements"),
    [
        (nn.Conv2d(4, 5, 3), "conv2d", IN + 5 * 16 + 5 * 4 * 9 + 5),
        (nn.BatchNorm2d(4), "batch_norm", 2 * IN + 4 * 4),
        (nn.ReLU(), "relu", 2 * IN),
        (nn.Flatten(), "flatten", 0),
        (nn.Dropout(), "dropout", 0),
        (Function(lambda x: x.permute(0, 2, 3, 1)), "permute", 2 * IN),
        (Function(lambda x: x[:, 1:2]), "slice", 2 * 36),  # reads what it picks
        (Function(lambda x: x + x), "add", 2 * IN),  # one value, read once
        (Function(lambda x: torch.cat([x, x[:, :2]], 1)), "concat", IN + IN // 2 + 3 * IN // 2),
        (Function(lambda x: x.topk(2, 1).values), "topk", IN + 2 * 36),  # of two results one is read
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_bytes_moved_by_one_layer(module: nn.Module, op: str, elements: int) -> None:
    # A view after the image keeps what comes before apart from the layer.
    net = net_of(Function(lambda x: torch.relu(x) - 1), module, Function(lambda x: x.flatten(1) * 2), shape=SHAPE)
    found = [each for each in count_layers(net) if each.op == op or each.op.startswith(f"aten.{op}.")]
    assert found[0].moved_bytes == 4 * elements


def test_intensity_is_two_operations_a_mac_per_byte() -> None:
    net = net_of(nn.Conv2d(4, 8, 1), nn.Flatten(), shape=SHAPE)
    conv = layer(net, "conv2d")
    assert conv.intensity == (2 * 36 * 8 * 4 + 8 * 36) / (4 * (IN + 8 * 36 + 8 * 4 + 8))
    assert layer(net, "flatten").intensity == 0
    assert count(net).intensity == conv.intensity


def masked(query: Tensor, key: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, key, torch.ones(query.shape[-2], key.shape[-2]))


PRODUCTS: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {  # [N, 4, 6, 6] -> ..., MACs, elementwise
    "matmul": (lambda x: x @ x.transpose(2, 3), 4 * 6 * 6 * 6, 0),
    "einsum": (lambda x: torch.einsum("nchw,nckw->nchk", x, x), 4 * 6 * 6 * 6, 0),
    "bmm": (lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)), 4 * 36 * 4, 0),
    "baddbmm": (lambda x: torch.baddbmm(x[:, 0, :4, :4], x.flatten(2), x.flatten(2).mT), 4 * 36 * 4, 16),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), 2 * 4 * 6 * 6 * 6, 6 * 4 * 6 * 6),
    "attention with a mask": (lambda x: masked(x, x), 2 * 4 * 6 * 6 * 6, 7 * 4 * 6 * 6),
    "attention to fewer": (lambda x: masked(x, x[:, :, :5]), 2 * 4 * 6 * 5 * 6, 7 * 4 * 6 * 5),
    "attention from fewer": (lambda x: masked(x[:, :, :2], x), 2 * 4 * 2 * 6 * 6, 7 * 4 * 2 * 6),
    "causal attention": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), 2 * 4 * 216, 6 * 4 * 36),
    "addmm": (lambda x: torch.addmm(x[:, 0, 0], x.flatten(1), x.reshape(-1, 1, 6)[:, 0][:6].repeat(24, 1)), 144 * 6, 6),
    "conv with computed weights": (lambda x: F.conv2d(x, x.mean(0)[:, None], groups=4), 4 * 36, 0),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_of_two_values_has_macs(name: str) -> None:
    function, macs, operations = PRODUCTS[name]
    net = capture(nn.Sequential(nn.ReLU(), Function(function)), SHAPE)
    products = [each for each in count_layers(net) if each.kind == "tensor"]
    assert sum(each.macs for each in products) == macs == torch_macs(net)
    assert sum(each.elementwise_ops for each in products) == operations


@pytest.mark.parametrize(
    ("module", "macs"),
    [
        (nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 5, 3)), 34 * 5 * 4 * 3),
        (nn.ConvTranspose2d(4, 5, 3, 2), 36 * 4 * 5 * 9),  # each input element meets every weight of its channel
        (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Conv3d(2, 5, (1, 3, 3))), 5 * 2 * 4 * 4 * 2 * 9),
        (nn.Sequential(nn.Flatten(2), nn.Linear(36, 3)), 4 * 36 * 3),
    ],
    ids=("conv1d", "transposed", "conv3d", "linear on rows"),
)
def test_other_layers_with_weights_have_macs(module: nn.Module, macs: int) -> None:
    net = net_of(nn.ReLU(), module, shape=SHAPE)
    biased = next(each for each in count_layers(net) if each.kind == "tensor")
    assert biased.elementwise_ops == math.prod(biased.shape)
    assert count(net).macs == macs == torch_macs(net)
    assert count(net).params == sum(p.numel() for p in module.parameters())


def test_stored_tensors_are_parameters_but_constants_are_not() -> None:
    class Stored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(4, 1, 1))
            self.shift = nn.Buffer(torch.rand(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale + self.shift

    net = capture(Stored(), SHAPE)
    assert count(net).params == 4
    assert count(net).weight_bytes == 4 * 8
    assert layer(net, "mul").moved_bytes == 4 * (2 * IN + 4)
    assert {each.kind for each in count_layers(net) if each.op in ("input", "parameter", "constant")} == {"none"}


def test_tensor_and_non_tensor_layers_are_those_of_deeprebirth() -> None:
    layers = (
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Dropout(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 3),
    )
    kinds = {each.op: each.kind for each in count_layers(net_of(*layers, shape=SHAPE))}
    assert {op for op, kind in kinds.items() if kind == "tensor"} == {"conv2d", "linear"}
    assert {op for op, kind in kinds.items() if kind == "non-tensor"} == {"batch_norm", "relu", "max_pool2d"}
