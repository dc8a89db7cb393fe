from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import HAND_MADE, SHAPE, hand_made, lively, net_of
from slimwright.graph import Net
from slimwright.graph.net import Ref
from slimwright.importers import capture
from slimwright.techniques.fold import fold_batch_norm
from slimwright.techniques.fold import folded as folded_draft
from slimwright.techniques.solver.draft import Draft
from slimwright.zoo import build


def ops(net: Net) -> list[str]:
    return [node.op for node in net.nodes]


def assert_same_function(net: Net, folded: Net) -> None:
    """To 1e-5 of the largest score: float32 rounding."""
    images = torch.randn(4, *net.input.shape[1:])
    wanted, got = net.to_module()(images), folded.to_module()(images)
    assert float((got - wanted).abs().max()) <= 1e-5 * max(float(wanted.abs().max()), 1.0)


@pytest.mark.parametrize("name", HAND_MADE)
def test_folding_keeps_the_function_of_a_hand_made_net(name: str) -> None:
    net = capture(hand_made(name), SHAPE)
    assert_same_function(net, fold_batch_norm(net))


@pytest.mark.parametrize("name", ["resnet20", "vgg6"])
def test_folding_empties_a_zoo_net_of_batch_norms(name: str) -> None:
    net = capture(lively(build(name, classes=10, in_channels=1)), (1, 32, 32))
    folded = fold_batch_norm(net)
    assert "batch_norm" in ops(net) and "batch_norm" not in ops(folded)
    assert len(folded.nodes) == len(net.nodes) - ops(net).count("batch_norm")
    assert not any("running" in name for name in folded.tensors)
    assert_same_function(net, folded)


def test_folding_twice_is_folding_once(residual: Net) -> None:
    folded = fold_batch_norm(residual)
    assert fold_batch_norm(folded) is folded


def test_a_conv_with_a_bias_and_one_without_both_end_with_one() -> None:
    for bias in (True, False):
        net = net_of(nn.Conv2d(1, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.Flatten(), shape=SHAPE)
        folded = fold_batch_norm(net)
        assert ops(folded) == ["input", "conv2d", "flatten"]
        assert set(folded.tensors) == {"0.weight", "0.bias"}
        assert_same_function(net, folded)


def test_a_batch_norm_without_weights_is_folded_too() -> None:
    net = net_of(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), shape=SHAPE)
    assert ops(fold_batch_norm(net)) == ["input", "conv2d", "flatten"]
    assert_same_function(net, fold_batch_norm(net))


def test_zeros_stay_zeros_without_a_sign() -> None:
    net = net_of(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), shape=SHAPE)
    sparse = net.tensors["0.weight"].clone()
    sparse[:, :, 0] = 0.0
    folded = fold_batch_norm(net.edited(tensors={"0.weight": sparse, "1.weight": torch.tensor([-1.0, 1.0, -2.0, 0.5])}))
    weight = folded.tensors["0.weight"]
    assert torch.equal(weight == 0, sparse == 0) and not torch.signbit(weight[:, :, 0]).any()


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.bn(y) + y).mean((2, 3))  # type: ignore[no-any-return]


def test_a_conv_with_two_readers_is_left_alone() -> None:
    net = capture(lively(TwoReaders()), SHAPE)
    assert fold_batch_norm(net) is net


def test_a_conv_that_is_called_twice_is_left_alone() -> None:
    net = capture(hand_made("Twice"), SHAPE)
    folded = fold_batch_norm(net)
    assert torch.equal(folded.tensors["conv.weight"], net.tensors["conv.weight"])
    assert ops(folded).count("batch_norm") == 1
    assert_same_function(net, folded)


def test_a_batch_norm_behind_something_else_is_left_alone() -> None:
    net = net_of(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), shape=SHAPE)
    assert fold_batch_norm(net) is net
    assert fold_batch_norm(first := net_of(nn.BatchNorm2d(1), nn.Flatten(), shape=SHAPE)) is first


def test_the_net_that_is_folded_stays_as_it_was(residual: Net) -> None:
    digest = residual.digest
    fold_batch_norm(residual)
    assert residual.edited().digest == digest


class PerChannel(nn.Module):
    """Adds a number to each channel, as some exporters write a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x.add(self.bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("between", [[], [PerChannel(6)]])
def test_a_transposed_convolution_takes_the_norm_in(bias: bool, groups: int, between: list[nn.Module]) -> None:
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3, 2, groups=groups, bias=bias), *between]
    net = net_of(*layers, nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), shape=SHAPE)
    folded = fold_batch_norm(net)
    assert "batch_norm" in ops(net) and not {"batch_norm", "add"} & {*ops(folded)}
    assert_same_function(net, folded)
    assert fold_batch_norm(folded) is folded


def test_a_transposed_convolution_whose_weights_another_layer_owns_is_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.norm = nn.Conv2d(4, 4, 2, 2), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(F.conv_transpose2d(self.down(x), self.down.weight, stride=2))
            return y.flatten(1)

    net = capture(lively(Tied()), (4, 8, 8))
    assert fold_batch_norm(net) is net


def test_the_new_bias_takes_no_name_that_is_there() -> None:
    net = net_of(nn.ConvTranspose2d(1, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), shape=SHAPE)
    *others, relu, flatten = net.nodes
    taken = "conv_transpose2d_bias"
    last = replace(relu, name=taken), replace(flatten, arguments={**flatten.arguments, "self": Ref(taken)})
    renamed = replace(net, nodes=(*others, *last))
    folded = fold_batch_norm(renamed)
    assert "batch_norm" not in ops(folded)
    assert_same_function(renamed, folded)


def test_a_transposed_convolution_that_something_else_reads_is_left_alone() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm = nn.ConvTranspose2d(1, 4, 2, 2), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.up(x)
            product: Tensor = y * self.norm(y)
            return product.flatten(1)

    net = capture(lively(Both()), SHAPE)
    assert fold_batch_norm(net) is net


class Constant(nn.Module):
    """Some arithmetic with constants."""

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor], *, over: int = 2, trained: bool = True) -> None:
        super().__init__()
        self.compute = compute
        numbers = torch.tensor([0.5, -2.0, 3.0, 0.25]).reshape(4, *[1] * over)
        self.numbers: Tensor
        if trained:
            self.numbers = nn.Parameter(numbers)
        else:
            self.register_buffer("numbers", numbers)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x, self.numbers)


FOLDED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a product": lambda x, _: x * 0.3,
    "a product, the other way round": lambda x, _: -0.3 * x,
    "a product and a sum": lambda x, _: x * 0.3 + 0.7,
    "a sum with a factor": lambda x, each: torch.add(x, each, alpha=2),
    "a factor of what is read": lambda x, each: torch.add(each, x, alpha=2),
    "a difference": lambda x, each: x - each,
    "a difference, the other way round": lambda x, each: each - x,
    "a quotient": lambda x, each: x / each,
    "numbers of channels": lambda x, each: x * each + each,
    "by a zero": lambda x, each: x * 0.0 + each,
}


@pytest.mark.parametrize("name", FOLDED)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_arithmetic_with_constants_goes_into_the_layer_before_it(
    name: str, norm: bool, trained: bool, kind: type[nn.Module]
) -> None:
    constant = Constant(FOLDED[name], trained=trained)
    layers = [kind(1, 4, 3), constant, *([nn.BatchNorm2d(4)] if norm else []), nn.ReLU(), nn.Flatten()]
    net = net_of(*layers, shape=SHAPE)
    folded = fold_batch_norm(net)
    assert "constant" not in ops(folded)
    assert [op for op in ops(folded) if op != "parameter"] == ["input", *ops(folded)[-3:]]
    assert_same_function(net, folded)


@pytest.mark.parametrize("name", FOLDED)
def test_a_linear_layer_takes_constants_and_its_norm_in(name: str) -> None:
    net = net_of(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), Constant(FOLDED[name], over=0), shape=(1, 8, 8))
    folded = fold_batch_norm(net)
    assert ops(folded) == ["input", "flatten", "linear"]
    assert_same_function(net, folded)


class Rows(nn.Module):
    """Numbers that lie along other dimensions than that of the channels."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.numbers


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class WithoutEnd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x * float("inf"))


OTHERS = {
    "a number a row": Rows(6, 1),
    "a number a column of as many": Rows(1, 4),
    "a number an element": Rows(4, 6, 6),
    "its square": Squared(),
    "a number over it": Constant(lambda x, each: each / x),
    "infinity": WithoutEnd(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_arithmetic_is_left_alone(name: str) -> None:
    net = net_of(nn.Conv2d(1, 4, 3), OTHERS[name], nn.Flatten(), shape=(1, 8, 6 if "column" in name else 8))
    assert fold_batch_norm(net) is net


def test_folding_ends_at_a_value_that_two_nodes_read() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x) * 0.5
            return torch.cat([y + 1.0, y.relu()], 1).flatten(1)

    net = capture(lively(Both()), SHAPE)
    folded = fold_batch_norm(net)
    assert {"mul", "add"} <= {*ops(net)} and "mul" not in ops(folded) and "add" in ops(folded)
    assert_same_function(net, folded)


def test_a_layer_stands_for_what_the_constants_behind_it_gave() -> None:
    net = net_of(nn.Conv2d(1, 4, 3), Constant(FOLDED["a product and a sum"]), nn.ReLU(), nn.Flatten(), shape=SHAPE)
    draft = folded_draft(Draft.of(net))
    origin = draft.origins["conv2d"]
    assert origin is not None and origin.values == (net.nodes[3].name,) and net.nodes[3].op == "add"
