"""Which layers a convolution takes in, and with what stride and padding."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import lively
from layers_by_hand import values_of
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.merge import streamline, streamlines
from slimwright.techniques.solver.draft import Draft


def pictures(*shape: int) -> Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))


class Chain(nn.Module):
    """Layers one after the other; the mean of what they give is read by a linear layer."""

    def __init__(self, *layers: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.layers, self.fc = nn.Sequential(*layers), nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.sigmoid(self.layers(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Halved(nn.Module):
    """An average pooling that names no stride: it is that of its window."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, (2, 1))


def chain(*layers: nn.Module, shape: tuple[int, int, int]) -> Net:
    torch.manual_seed(0)
    return capture(lively(Chain(*layers)), shape)


def lrn() -> nn.Module:
    return nn.LocalResponseNorm(3)


@pytest.mark.parametrize(
    ("layers", "shape", "stride", "padding"),
    [
        (
            # 8 x 14 positions, pooled to 6 x 5; 1 x 6 gives as many with padding 0 alone, and with 1, 2 or 3
            (nn.Conv2d(2, 3, (3, 5), (1, 2), (1, 2), (2, 1)), nn.ReLU(), nn.MaxPool2d(3, (1, 3), (0, 1))),
            (2, 10, 27),
            (1, 6),
            (0, 2),
        ),
        ((nn.Conv2d(2, 3, 3, padding=1), Halved(), nn.ReLU()), (2, 10, 9), (2, 1), (1, 1)),
        (
            (nn.Conv2d(2, 3, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.ReLU(), lrn(), nn.MaxPool2d(2)),
            (2, 16, 16),
            (4, 4),
            (1, 1),
        ),
        ((nn.Conv2d(2, 3, 3), lrn()), (2, 7, 7), (1, 1), (0, 0)),
        ((nn.Conv2d(2, 3, 3), lrn()), (2, 3, 3), (1, 1), (0, 0)),  # one position before and after
        ((nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d((3, 1), (3, 1))), (2, 5, 7), (3, 1), (0, 0)),
        ((nn.Conv2d(2, 3, 1), nn.ReLU(), nn.MaxPool2d(2, 2, ceil_mode=True)), (2, 11, 11), (2, 2), (0, 0)),
    ],
)
def test_a_convolution_takes_the_strides_of_all_poolings_and_the_nearest_padding(
    layers: Sequence[nn.Module], shape: tuple[int, int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    net = chain(*layers, shape=shape)
    assert streamlines(net) == ["conv2d"]
    slim = streamline(Draft.of(net), "conv2d").net
    (conv,) = (node for node in slim.nodes if node.op == "conv2d")
    assert (conv.arguments["stride"], conv.arguments["padding"]) == (stride, padding)
    assert conv.arguments["dilation"] == next(net.weighted()).arguments["dilation"]
    assert [node.op for node in slim.nodes if node.op in ("max_pool2d", "avg_pool2d", "lrn", "batch_norm")] == []
    assert slim["sigmoid"].shape == net["sigmoid"].shape
    assert values_of(slim, pictures(*shape))(slim.outputs[0]).shape == (3, 2)


@pytest.mark.parametrize(
    ("behind", "left"),
    [
        ((nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(3)), ["conv2d", "relu", "batch_norm"]),
        ((nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.ReLU()), ["conv2d", "relu"]),
        ((nn.MaxPool2d(2), nn.BatchNorm2d(3)), ["conv2d", "batch_norm"]),
        ((nn.MaxPool2d(2), nn.Sigmoid(), nn.MaxPool2d(2)), ["conv2d", "sigmoid", "max_pool2d"]),
    ],
)
def test_a_streamline_ends_with_a_pooling_a_normalisation_or_a_relu(
    behind: Sequence[nn.Module], left: list[str]
) -> None:
    """One ReLU stays where there was one; the last value keeps its name and what it stands for."""
    net = chain(nn.Conv2d(2, 3, 3, padding=1), *behind, shape=(2, 12, 12))
    slim = streamline(Draft.of(net), "conv2d")
    ops = [node.op for node in slim.net.nodes[1:]]
    assert ops[: len(left)] == left
    (end,) = (node for node in slim.net.nodes if node.op == ("relu" if "relu" in left else "conv2d"))
    assert end.name in net.readers and slim.origins[end.name].values == (end.name,)
    assert ("conv2d" in slim.origins) is ("relu" not in left and end.name == "conv2d")


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()),  # nothing to win
        (nn.Conv2d(2, 3, 3, padding=1), nn.Sigmoid(), nn.MaxPool2d(2)),
        (nn.Conv2d(2, 3, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        (nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AvgPool2d(10)),  # all positions
        (nn.Conv2d(2, 3, 1), nn.ReLU(), nn.MaxPool2d(3, 2)),  # 5 positions; a pointwise layer of stride 2 has 6
    ],
)
def test_other_chains_are_left_alone(layers: Sequence[nn.Module]) -> None:
    net = chain(*layers, shape=(2, 12, 12))
    assert streamlines(net) == []
    with pytest.raises(RequestError, match="no convolution 'conv2d' is followed"):
        streamline(Draft.of(net), "conv2d")


@pytest.mark.parametrize(
    ("returned", "end"),
    [("conv2d", None), ("relu", None), ("max_pool2d", "max_pool2d"), ("div", "div")],  # the norm is a division
)
def test_a_value_that_the_net_returns_is_not_swallowed(returned: str, end: str | None) -> None:
    net = chain(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), lrn(), shape=(2, 10, 10))
    net = replace(net, outputs=(*net.outputs, returned))
    assert streamlines(net) == ([] if end is None else ["conv2d"])
    if end is not None:
        slim = streamline(Draft.of(net), "conv2d").net
        assert slim.outputs == net.outputs and slim[end].op == "relu" and slim["conv2d"].arguments["stride"] == (2, 2)
        assert [node.op for node in slim.nodes[3:4]] == (["lrn"] if end == "max_pool2d" else ["sigmoid"])


def test_a_value_that_others_read_too_is_not_swallowed() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 3, 3), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.conv(x))
            return self.fc(torch.cat([y.mean((2, 3)), F.max_pool2d(y, 2).mean((2, 3))], 1))  # type: ignore[no-any-return]

    assert streamlines(capture(Fork().eval(), (2, 10, 10))) == []
