from collections.abc import Callable

import pytest
import torch
from torch import nn

from slimwright.cost import count
from slimwright.importers import capture
from slimwright.zoo.resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet50, small_resnet18

PHOTO, SMALL = (3, 224, 224), (3, 32, 32)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_counts_of_resnet_18() -> None:
    cost = count(capture(resnet18(classes=1000, in_channels=3), PHOTO))
    assert cost.params == 11_689_512
    assert cost.macs == 1_814_073_344


def test_counts_of_resnet_50() -> None:
    cost = count(capture(resnet50(classes=1000, in_channels=3), PHOTO))
    assert cost.params == 25_557_032
    assert cost.macs == 4_089_184_256


def test_counts_of_resnet_18_for_small_images() -> None:
    cost = count(capture(small_resnet18(classes=10, in_channels=3), SMALL))
    assert cost.params == 11_173_962
    assert cost.macs == 555_422_720
    assert parameters(small_resnet18(classes=100, in_channels=3)) == 11_220_132


@pytest.mark.parametrize(("n", "millions"), [(3, 0.27), (9, 0.86)])
def test_parameters_of_the_networks_of_6n_plus_2_layers(n: int, millions: float) -> None:
    model = ResNet(n, classes=10, in_channels=3)
    stem, classifier = 16 * 27 + 32, 650
    shortcuts = 16 * 32 + 64 + 32 * 64 + 128
    first = 2 * n * (16 * 16 * 9 + 32)
    second = (16 + (2 * n - 1) * 32) * 32 * 9 + 2 * n * 64
    third = (32 + (2 * n - 1) * 64) * 64 * 9 + 2 * n * 128
    assert parameters(model) == stem + first + second + third + shortcuts + classifier
    assert round(parameters(model) / 1e6, 2) == millions


def test_macs_of_a_basic_block_by_hand() -> None:
    net = capture(BasicBlock(64, 128, 2), (64, 56, 56))
    assert count(net).macs == 28 * 28 * (64 * 9 * 128 + 128 * 9 * 128 + 64 * 128)


def test_macs_of_a_bottleneck_by_hand() -> None:
    net = capture(Bottleneck(256, 512, 2), (256, 56, 56))
    inner, shortcut = 128 * 9 * 128 + 128 * 512, 256 * 512
    assert count(net).macs == 56 * 56 * 256 * 128 + 28 * 28 * (inner + shortcut)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_shortcut_has_weights_only_where_the_shape_changes(block: type[BasicBlock | Bottleneck]) -> None:
    assert not list(block(8, 8, 1).shortcut.parameters())
    assert block(8, 8, 2).shortcut(torch.rand(1, 8, 6, 6)).shape == (1, 8, 3, 3)
    assert block(8, 16, 1).shortcut(torch.rand(1, 8, 6, 6)).shape == (1, 16, 6, 6)


@pytest.mark.parametrize(
    ("make", "size"), [(resnet18, 224), (resnet18, 97), (resnet50, 224), (small_resnet18, 32), (small_resnet18, 45)]
)
def test_scores_repeat_in_eval_mode_and_depend_on_the_image(make: Callable[..., nn.Module], size: int) -> None:
    model = make(classes=7, in_channels=3).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        scores = model(images)
        assert scores.shape == (2, 7)
        assert torch.equal(scores, model(images))
    assert (scores[0] - scores[1]).abs().max() > 1e-3
