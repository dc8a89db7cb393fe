import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from example_nets import SHAPE, hand_made, net_of
from slimwright.coupling import couple
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.techniques.subset import subset

FLAT = capture(hand_made("Flat"), SHAPE)


def scores(net: Net, images: Tensor) -> Tensor:
    with torch.no_grad():
        return net.to_module()(images)  # type: ignore[no-any-return]


@given(classes=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
def test_the_scores_of_the_classes_are_what_they_were(classes: list[int]) -> None:
    images = torch.randn(4, *SHAPE)
    small = subset(Draft.of(FLAT), classes).net
    torch.testing.assert_close(scores(small, images), scores(FLAT, images)[:, classes])
    assert len(small.tensors["fc.bias"]) == len(classes)


def test_the_head_may_be_a_convolution_with_a_pooling_behind() -> None:
    net = net_of(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), shape=SHAPE
    )
    images = torch.randn(4, *SHAPE)
    small = subset(Draft.of(net), [3, 1]).net
    torch.testing.assert_close(scores(small, images), scores(net, images)[:, [3, 1]])
    assert tuple(small.tensors["2.weight"].shape) == (2, 5, 1, 1)


def test_scores_that_come_from_no_layer_alone_are_picked() -> None:
    net = net_of(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1), shape=SHAPE)
    images = torch.randn(4, *SHAPE)
    small = subset(Draft.of(net), [2, 0]).net
    torch.testing.assert_close(scores(small, images), scores(net, images)[:, [2, 0]])
    assert tuple(small.tensors["0.weight"].shape) == (4, 1, 3, 3)


def test_all_classes_in_order_are_no_change() -> None:
    draft = Draft.of(FLAT)
    assert subset(draft, [0, 1, 2]) is draft


def test_a_subset_can_be_pruned_and_solved() -> None:
    draft = subset(Draft.of(FLAT), [2, 0])
    images = torch.randn(300, *SHAPE)
    cut = draft.cut({couple(draft.net).groups[0].name: torch.tensor([0, 2, 3]).numpy()})
    solved = refit(cut, images)
    wanted = scores(FLAT, images)[:, [2, 0]]
    assert (scores(solved.net, images) - wanted).square().mean() < (scores(cut.net, images) - wanted).square().mean()


@pytest.mark.parametrize("classes", [[], [3], [-1], [0, 0]])
def test_classes_that_are_not_there_are_told(classes: list[int]) -> None:
    with pytest.raises(RequestError, match="no distinct classes of the 3"):
        subset(Draft.of(FLAT), classes)
