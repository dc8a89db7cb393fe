import pytest
import torch
from counted import without_memory
from torch import nn

from slimwright.cost import count
from slimwright.importers import capture
from slimwright.zoo import build
from slimwright.zoo.dropnet import ResidualBlock


def filters(name: str) -> list[int]:
    return [module.out_channels for module in without_memory(name).modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dropnet-b", [64, 64]),
        ("dropnet-c", [64, 64, 128, 128]),
        ("dropnet-resnet18", [64] * 5 + [128] * 5 + [256] * 5 + [512] * 5),
        ("dropnet-vgg19", [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8),
    ],
)
def test_filters_that_can_be_dropped(name: str, expected: list[int]) -> None:
    assert filters(name) == expected


def test_model_c_has_384_filters() -> None:
    assert sum(filters("dropnet-c")) == 384


def test_counts_of_model_a_by_hand() -> None:
    cost = count(capture(build("dropnet-a"), (1, 28, 28)))
    assert cost.macs == 784 * 40 + 40 * 40 + 40 * 10
    assert cost.params == cost.macs + 40 + 40 + 10


def test_counts_of_model_c_by_hand() -> None:
    cost = count(capture(build("dropnet-c"), (3, 32, 32)))
    convs = [3 * 64 * 9, 64 * 64 * 9, 64 * 128 * 9, 128 * 128 * 9]
    linears = 512 * 256 + 256 * 10
    assert cost.macs == sum(side**2 * conv for side, conv in zip((32, 16, 8, 4), convs, strict=True)) + linears
    assert cost.params == sum(convs) + linears + 64 + 64 + 128 + 128 + 256 + 10


def test_a_residual_block_that_widens_has_a_third_convolution() -> None:
    same, wider = ResidualBlock(8, 8).eval(), ResidualBlock(8, 16).eval()
    x = torch.rand(1, 8, 4, 4)
    with torch.no_grad():
        assert torch.equal(same(x), x + same.branch(x))
        assert torch.equal(wider(x), wider.shortcut(x) + wider.branch(x))
    assert count(capture(wider, (8, 4, 4))).macs == 16 * (8 * 16 + 16 * 16 + 8 * 16) * 9
    assert (wider.shortcut(x) >= 0).all() and (wider.branch(x) >= 0).all()  # activations before the sum


def test_the_resnet_has_no_batch_norm_and_the_vgg_one_in_each_stage() -> None:
    norms = {
        name: sum(isinstance(module, nn.BatchNorm2d) for module in without_memory(name).modules())
        for name in ("dropnet-resnet18", "dropnet-vgg19")
    }
    assert norms == {"dropnet-resnet18": 0, "dropnet-vgg19": 5}
