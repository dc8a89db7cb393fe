"""An original whose head is cut to some classes: its reading, and its own outputs, at those places."""

import pytest
import torch
from torch import nn

from example_nets import SHAPE, lively
from slimwright.cost import count
from slimwright.errors import RequestError
from slimwright.measure import Original, kept_to, original_of

HEADS = {
    "linear": lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 9)],
    "pointwise convolution": lambda: [nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 9, 1), nn.Flatten()],
    "pooled scores": lambda: [nn.Conv2d(6, 9, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    "softmax": lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 9), nn.Softmax(1)],
}


def original(head: str) -> Original:
    torch.manual_seed(0)
    return original_of(lively(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), *HEADS[head]())).eval(), [SHAPE])


@pytest.mark.parametrize("head", HEADS)
def test_outputs_are_the_originals_at_those_places(head: str) -> None:
    whole, images = original(head), torch.randn(5, *SHAPE)
    kept = kept_to(whole, (7, 0, 4))
    (wanted,), (own,), (read,) = whole.forward(images), kept.forward(images), kept.net.run(images)
    assert torch.equal(own, wanted[:, [7, 0, 4]])
    torch.testing.assert_close(read, own, rtol=1e-5, atol=1e-6)
    assert kept.framework == whole.framework == "torch"
    rows = [t.shape[0] for name, t in kept.net.tensors.items() if name.endswith("bias")][-1]
    assert rows == (9 if head == "softmax" else 3)  # scores that are normalised over all classes are picked
    assert (count(kept.net).params < count(whole.net).params) is (head != "softmax")


def test_all_classes_in_their_order_are_the_original_itself() -> None:
    whole = original("linear")
    assert kept_to(whole, range(9)) is whole


def test_what_gives_no_table_of_scores_or_has_no_such_class_is_refused() -> None:
    maps = original_of(nn.Conv2d(1, 6, 3).eval(), [SHAPE])
    with pytest.raises(
        RequestError, match=r"returns \[1, 6, 4, 4\]; classes are chosen of models that return one table"
    ):
        kept_to(maps, [0])
    with pytest.raises(RequestError, match=r"\[9\] are no distinct classes of the 9"):
        kept_to(original("linear"), [9])
