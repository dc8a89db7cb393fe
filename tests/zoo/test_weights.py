import torch
from torch import nn

from slimwright.zoo.weights import he_normal


def deep() -> nn.Sequential:
    """20 depthwise and 20 1x1 convolutions in turn, a ReLU behind each."""
    layers: list[nn.Module] = []
    for _ in range(20):
        layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False), nn.ReLU()]
        layers += [nn.Conv2d(64, 64, 1, bias=False), nn.ReLU()]
    return nn.Sequential(*layers)


def test_a_signal_keeps_its_size_through_forty_convolutions() -> None:
    model, x = deep(), torch.randn(2, 64, 16, 16)
    with torch.no_grad():
        assert model(x).std() < 1e-6  # PyTorch's own first weights
        he_normal(model)
        assert 0.03 < model(x).std() < 30


def test_only_convolution_weights_are_drawn_anew() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    he_normal(model)
    assert {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])} == {"0.weight"}
