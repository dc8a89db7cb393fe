import pytest
import torch

from slimwright.cost import count
from slimwright.importers import capture
from slimwright.zoo.densenet import DenseLayer, DenseNet, densenet121


def test_counts_of_densenet_121() -> None:
    cost = count(capture(densenet121(classes=1000, in_channels=3), (3, 224, 224)))
    assert cost.params == 7_978_856
    assert cost.macs == 2_834_161_664


def test_counts_of_a_dense_layer_by_hand() -> None:
    cost = count(capture(DenseLayer(64, 32), (64, 56, 56)))
    assert cost.macs == 56 * 56 * (64 * 128 + 128 * 9 * 32)
    assert cost.params == 2 * 64 + 64 * 128 + 2 * 128 + 128 * 9 * 32


def test_a_dense_layer_hands_on_what_it_read() -> None:
    x = torch.rand(1, 6, 5, 5)
    y = DenseLayer(6, 4).eval()(x)
    assert y.shape == (1, 10, 5, 5)
    assert torch.equal(y[:, :6], x)


def test_a_transition_halves_channels_and_image() -> None:
    model = DenseNet((2, 3), classes=5, in_channels=1, growth=4).eval()
    assert model.blocks[0](torch.rand(1, 8, 6, 6)).shape == (1, 16, 6, 6)
    assert model.blocks[1](torch.rand(1, 16, 6, 6)).shape == (1, 8, 3, 3)
    assert model.fc.in_features == 8 + 3 * 4


@pytest.mark.parametrize("size", [224, 97])
def test_scores_repeat_in_eval_mode_and_depend_on_the_image(size: int) -> None:
    model = densenet121(classes=7, in_channels=3).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        scores = model(images)
        assert scores.shape == (2, 7)
        assert torch.equal(scores, model(images))
    assert (scores[0] - scores[1]).abs().max() > 1e-3
