"""Layers spelled out: the same function, without the operator, and the rest of the net left as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import small_net
from example_nets import SHAPE
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.lowering.decompositions import (
    with_attention_spelled_out,
    with_hardsigmoid_spelled_out,
    with_logsumexp_spelled_out,
    with_lrn_spelled_out,
    with_means_spelled_out,
    with_whole_averages_as_means,
)
from slimwright.zoo import build

EVERY = (
    with_attention_spelled_out,
    with_hardsigmoid_spelled_out,
    with_logsumexp_spelled_out,
    with_lrn_spelled_out,
    with_means_spelled_out,
)
Result = Callable[[Tensor], Tensor]


class Doing(nn.Module):
    """A convolution, and something with what it gives."""

    def __init__(self, then: Result, channels: int = 6) -> None:
        super().__init__()
        self.conv, self.then = nn.Conv2d(SHAPE[0], channels, 3, padding=1), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x))


def same(net: Net, other: Net, tolerance: float, scale: float = 1.0) -> None:
    """Both give the same for a batch of two, to `tolerance` of the largest value."""
    images = scale * torch.randn(2, *net.input.shape[1:])
    with torch.no_grad():
        wanted, found = net.to_module()(images), other.to_module()(images)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
@pytest.mark.parametrize(("size", "channels"), [(5, 7), (4, 7), (3, 1), (2, 6), (9, 4)])
def test_a_response_norm_spelled_out_is_the_same_to_rounding(beta: float, size: int, channels: int) -> None:
    model = nn.Sequential(nn.Conv2d(1, channels, 1), nn.LocalResponseNorm(size, 0.3, beta, 1.5), nn.ReLU())
    net = capture(model, SHAPE)
    spelled = with_lrn_spelled_out(net)
    assert "lrn" not in {node.op for node in spelled.nodes}
    assert spelled.nodes[-1].op == "relu" and spelled[net.nodes[2].name].op == "mul"  # the last has the layer's name
    same(net, spelled, 1e-6, scale=5)


def test_the_band_of_a_response_norm_by_hand() -> None:
    net = capture(nn.LocalResponseNorm(3, alpha=0.6, beta=0.75, k=2.0), (4, 5, 5))
    spelled = with_lrn_spelled_out(net)
    (conv,) = spelled.weighted()
    weight, bias = spelled.tensor(conv, "weight"), spelled.tensor(conv, "bias")
    assert weight is not None and bias is not None
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]) * 0.2
    torch.testing.assert_close(weight[:, :, 0, 0], expected)
    assert bias.tolist() == [2.0] * 4
    assert conv.fixed == ("weight", "bias")  # they are no weights to train


def test_both_response_norms_of_googlenet_are_spelled_out() -> None:
    net = capture(build("googlenet", classes=10).eval(), (3, 64, 64))
    spelled = with_lrn_spelled_out(net)
    assert [n.op for n in net.nodes].count("lrn") == 2 and "lrn" not in {n.op for n in spelled.nodes}
    assert len(spelled.nodes) == len(net.nodes) + 2 * 5
    same(net, spelled, 1e-5)  # fifty layers of rounding behind them


class Attending(nn.Module):
    """Attention over the positions of an image, in windows or not."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.qkv, self.what = nn.Conv2d(1, 12, 1), what
        self.bias = nn.Parameter(torch.randn(1, 2, 36, 36))

    def forward(self, x: Tensor) -> Tensor:
        x = self.qkv(x)
        parts = x.view(x.shape[0], 3, 2, 2, -1).transpose(3, 4)  # batch, what, heads, positions, channels
        query, key, value = parts.unbind(1)
        if self.what == "five dimensions":
            query, key, value = (t.unsqueeze(1) for t in (query, key, value))
        mask = self.bias if self.what == "a bias" else None
        scale = 0.3 if self.what == "a scale" else None
        made = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale, is_causal=self.what == "causal"
        )
        return made.flatten(1)


@pytest.mark.parametrize("what", ["", "five dimensions", "a bias", "a scale"])
def test_attention_spelled_out_is_the_same_to_rounding(what: str) -> None:
    net = capture(Attending(what), SHAPE)
    plain = with_attention_spelled_out(net)
    assert "attention" not in {node.op for node in plain.nodes} and {n.op for n in net.nodes} >= {"attention"}
    same(net, plain, 1e-6)


def test_causal_attention_stays_as_it_is() -> None:
    net = capture(Attending("causal"), SHAPE)
    assert with_attention_spelled_out(net) is net


@pytest.mark.parametrize(
    ("dim", "keep"), [((1,), False), ((1,), True), ((2, 3), False), ((-1,), True), ((1, 3), False)]
)
def test_a_log_sum_exp_spelled_out_is_the_same_where_exponentials_overflow(dim: tuple[int, ...], keep: bool) -> None:
    net = capture(Doing(lambda x: torch.logsumexp(x, dim, keep)), SHAPE)
    spelled = with_logsumexp_spelled_out(net)
    assert not any("logsumexp" in node.op for node in spelled.nodes)
    same(net, spelled, 1e-6, scale=500)


def test_hard_sigmoids_and_means_in_a_squeeze_and_excitation_are_spelled_out() -> None:
    net = capture(Doing(lambda x: (x * F.hardsigmoid(x.mean((2, 3), True))).mean((-2, -1))), SHAPE)
    spelled = with_means_spelled_out(with_hardsigmoid_spelled_out(net))
    ops = [node.op for node in spelled.nodes]
    assert ops == ["input", "conv2d", "mean", "add", "hardtanh", "mul", "mul", "mean", "reshape"]
    assert all(node.arguments["keepdim"] for node in spelled.nodes if node.op == "mean")
    same(net, spelled, 1e-6, scale=20)


@pytest.mark.parametrize("dims", [(1,), (3,), (1, 2, 3)])
def test_means_over_anything_but_height_and_width_stay(dims: tuple[int, ...]) -> None:
    net = capture(Doing(lambda x: x.mean(dims)), SHAPE)
    assert with_means_spelled_out(net) is net


@pytest.mark.parametrize("size", [1, (1, 1)])
def test_an_average_over_a_whole_picture_is_a_mean(size: int | tuple[int, int]) -> None:
    net = capture(Doing(nn.AdaptiveAvgPool2d(size)), SHAPE)
    spelled = with_whole_averages_as_means(net)
    assert [node.op for node in spelled.nodes] == ["input", "conv2d", "mean"]
    same(net, spelled, 1e-6)


@pytest.mark.parametrize("size", [2, (1, 2), (None, 1)])
def test_an_average_that_keeps_places_stays(size: int | tuple[int | None, int]) -> None:
    net = capture(Doing(nn.AdaptiveAvgPool2d(size)), SHAPE)
    assert with_whole_averages_as_means(net) is net


@pytest.mark.parametrize("rewrite", EVERY)
def test_a_net_with_nothing_to_spell_out_is_the_same_object(rewrite: Callable[[Net], Net]) -> None:
    net = small_net("Concat")
    assert rewrite(net) is net
