import pytest
import torch
from torch import nn

from slimwright.cost import count, count_layers
from slimwright.errors import ModelError
from slimwright.importers import capture
from slimwright.zoo.mobilenet import InvertedResidual, MobileNetV1, MobileNetV2, scaled

PHOTO = (3, 224, 224)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("width", "macs", "millions"),
    [(1.0, 568_740_352, 569), (0.75, 325_400_448, 325), (0.5, 149_497_088, 149), (0.25, 41_030_272, 41)],
)
def test_macs_of_v1_at_each_width(width: float, macs: int, millions: int) -> None:  # arXiv 1707.01083 has the millions
    cost = count(capture(MobileNetV1(classes=1000, in_channels=3, width=width), PHOTO))
    assert cost.macs == macs
    assert round(macs / 1e6) == millions


@pytest.mark.parametrize(("width", "printed"), [(1.0, 4.24), (0.75, 2.59), (0.5, 1.34), (0.25, 0.47)])
def test_parameters_of_v1_are_those_that_tf_slim_prints(width: float, printed: float) -> None:
    model = MobileNetV1(classes=1001, in_channels=3, width=width)
    norm_channels = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert round((parameters(model) + norm_channels) / 1e6, 2) == printed


def test_parameters_of_v1_at_1000_classes() -> None:
    kernels, norms, classifier = 3_185_088, 2 * 10_944, 1024 * 1000 + 1000  # kernels: TF-slim's mobilenet_v1.py
    assert parameters(MobileNetV1(classes=1000, in_channels=3)) == kernels + norms + classifier == 4_231_976


def test_317_million_macs_at_width_075_are_those_without_the_first_convolution() -> None:
    assert round((325_400_448 - 112 * 112 * 24 * 27) / 1e6) == 317


def test_macs_of_v1_at_a_smaller_image() -> None:  # TF-slim's README
    net = capture(MobileNetV1(classes=1000, in_channels=3), (3, 160, 160))
    assert round(count(net).macs / 1e6) == 291


def test_macs_of_the_first_depthwise_separable_block_by_hand() -> None:
    net = capture(MobileNetV1(classes=10, in_channels=3), PHOTO)
    stem, depthwise, pointwise = [layer.macs for layer in count_layers(net) if layer.op == "conv2d"][:3]
    assert stem == 112 * 112 * 32 * 3 * 9
    assert depthwise == 112 * 112 * 32 * 9 == 3_612_672
    assert pointwise == 112 * 112 * 32 * 64 == 25_690_112


def test_counts_of_v2() -> None:
    cost = count(capture(MobileNetV2(classes=1000, in_channels=3), PHOTO))
    assert cost.params == 3_504_872
    assert cost.macs == 300_774_272


def test_counts_of_an_inverted_residual_by_hand() -> None:
    cost = count(capture(InvertedResidual(16, 24, 2, 6), (16, 112, 112)))
    assert cost.macs == 112 * 112 * 16 * 96 + 56 * 56 * 96 * 9 + 56 * 56 * 96 * 24
    assert cost.params == 16 * 96 + 96 * 9 + 96 * 24 + 2 * (96 + 96 + 24)


@pytest.mark.parametrize(("stride", "channels", "is_sum"), [(1, 8, True), (2, 8, False), (1, 16, False)])
def test_only_a_block_that_keeps_the_shape_has_a_shortcut(stride: int, channels: int, is_sum: bool) -> None:
    block = InvertedResidual(8, channels, stride, 6).eval()
    x = torch.rand(1, 8, 6, 6)
    y = block.branch(x)
    assert torch.equal(block(x), x + y if is_sum else y)


def test_a_narrow_v2_keeps_its_last_1280_channels_and_a_wide_one_does_not() -> None:
    assert MobileNetV2(classes=10, in_channels=3, width=0.5).fc.in_features == 1280
    assert MobileNetV2(classes=10, in_channels=3, width=1.4).fc.in_features == 1792


def test_channels_are_multiples_of_eight_and_lose_at_most_a_tenth() -> None:
    assert [scaled(c, 0.75) for c in (32, 64, 1024)] == [24, 48, 768]
    assert [scaled(c, 0.25) for c in (16, 32)] == [8, 8]
    assert scaled(24, 0.75) == 24  # 18: the nearest, 16, would lose more than a tenth
    for channels in range(16, 400, 4):
        assert scaled(channels, 0.35) % 8 == 0
        assert scaled(channels, 0.35) >= 0.9 * 0.35 * channels


def test_a_width_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ModelError, match="must be positive, not 0"):
        MobileNetV1(classes=10, in_channels=3, width=0)


@pytest.mark.parametrize("make", [MobileNetV1, MobileNetV2])
@pytest.mark.parametrize("size", [224, 97])
def test_scores_repeat_in_eval_mode_and_depend_on_the_image(make: type[MobileNetV1 | MobileNetV2], size: int) -> None:
    model = make(classes=7, in_channels=3, width=0.5).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        scores = model(images)
        assert scores.shape == (2, 7)
        assert torch.equal(scores, model(images))
    assert (scores[0] - scores[1]).abs().max() > 1e-3
