import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import small_net
from example_nets import SHAPE
from slimwright.importers import capture
from slimwright.importers.patterns import with_lrn


class Divided(nn.Module):
    """A local response normalisation written out, with one thing changed."""

    def __init__(self, what: str = "") -> None:
        super().__init__()
        self.conv, self.what = nn.Conv2d(1, 6, 1), what

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        square = x * (x + 1) if self.what == "another factor" else x * x
        square = square.view(x.shape[0], 1, 6, x.shape[2], -1)
        before = 2 if self.what == "another padding" else 1
        square = F.pad(square, (0, 0, 0, 0, before, 2 - before), value=0.5 if self.what == "a padding value" else 0.0)
        square = F.avg_pool3d(square, (3, 1, 1), stride=1, count_include_pad=self.what != "fewer counted")
        near = square.squeeze(1).view(x.shape)
        if self.what == "a function between":
            near = near.relu()
        near = near.mul(0.1).add(2).pow(0.75)
        return (x.relu() if self.what == "another dividend" else x) / near


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("channels", [1, 4, 7])
def test_a_response_norm_is_one_node_that_gives_the_same_bits(size: int, channels: int) -> None:
    model = nn.Sequential(nn.Conv2d(1, channels, 1), nn.LocalResponseNorm(size, alpha=0.3, beta=0.6, k=1.5))
    net = capture(model, SHAPE)
    assert [n.op for n in net.nodes] == ["input", "conv2d", "lrn"]
    knobs = {k: v for k, v in net.nodes[-1].arguments.items() if k != "input"}
    assert knobs == {"size": size, "alpha": 0.3, "beta": 0.6, "k": 1.5}
    for batch in (1, 3):
        images = torch.randn(batch, *SHAPE)
        assert torch.equal(net.to_module()(images), model(images))


def test_two_response_norms_are_both_found() -> None:
    model = nn.Sequential(nn.LocalResponseNorm(3), nn.Conv2d(1, 4, 1), nn.LocalResponseNorm(5), nn.ReLU())
    assert [n.op for n in capture(model, SHAPE).nodes] == ["input", "lrn", "conv2d", "lrn", "relu"]


CHANGES = ("another factor", "another padding", "a padding value", "fewer counted", "a function between",
           "another dividend")  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_chain_that_is_almost_one_is_left_alone(what: str) -> None:
    model = Divided(what)
    net = capture(model, SHAPE)
    assert "lrn" not in {n.op for n in net.nodes} and "aten.div.Tensor" in {n.op for n in net.nodes}
    images = torch.randn(2, *SHAPE)
    assert torch.equal(net.to_module()(images), model(images))


def test_the_chain_written_out_is_found_and_gives_the_same_bits() -> None:
    model = Divided()
    net = capture(model, SHAPE)
    assert [n.op for n in net.nodes] == ["input", "conv2d", "lrn"]
    images = torch.randn(2, *SHAPE)
    assert torch.equal(net.to_module()(images), model(images))


def test_a_net_without_one_is_the_same_object() -> None:
    net = small_net("Residual")
    assert with_lrn(net) is net
