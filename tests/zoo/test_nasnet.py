import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import lively
from slimwright.cost import count
from slimwright.errors import ModelError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.zoo.nasnet import NORMAL, REDUCTION, Cell, Halving, NasNet, Wiring, nasnet_mobile


@pytest.fixture(scope="module")
def mobile() -> Net:
    return capture(nasnet_mobile(classes=1000, in_channels=3), (3, 224, 224))


def cell(wiring: Wiring, filters: int = 4) -> Cell:
    """A cell whose inputs have their shape already; its batch norms differ from channel to channel."""
    made = Cell(wiring, filters, nn.Identity(), nn.Identity(), value_1=filters)
    lively(made)
    return made


def kernel(operation: nn.Module) -> int:
    """The size of the two depthwise convolutions of a separable operation."""
    ((height, width),) = {m.kernel_size for m in operation.modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    assert height == width
    return height


def average(x: Tensor, stride: int) -> Tensor:
    """3x3 means; what lies outside of the image does not count."""
    total = 9 * F.avg_pool2d(x, 3, stride, 1)
    return total / (9 * F.avg_pool2d(torch.ones_like(x), 3, stride, 1))


def test_counts_of_mobile(mobile: Net) -> None:  # 564 M and 5.3 M: TF-slim's README
    cost = count(mobile)
    assert cost.params == 5_289_978
    assert cost.macs == 563_638_816


def test_mobile_ends_in_1056_channels_of_7x7(mobile: Net) -> None:
    assert next(n for n in reversed(mobile.nodes) if n.op == "concat").shape == (1, 1056, 7, 7)


def test_each_cell_has_the_channels_and_size_of_the_paper() -> None:
    model = nasnet_mobile(classes=10, in_channels=3).eval()
    shapes: list[tuple[int, ...]] = []
    for made in model.cells:
        made.register_forward_hook(lambda _, __, result: shapes.append(tuple(result.shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    stem = [(44, 56, 56), (88, 28, 28)]
    assert shapes == [
        *stem,
        *[(264, 28, 28)] * 4,
        (352, 14, 14),
        *[(528, 14, 14)] * 4,
        (704, 7, 7),
        *[(1056, 7, 7)] * 4,
    ]


def test_a_normal_cell_computes_what_the_figure_draws() -> None:
    made = cell(NORMAL)
    h, earlier = torch.randn(2, 2, 4, 9, 9).unbind()
    op = list(made.operations)
    expected = [
        earlier,
        op[0](h) + op[1](earlier),
        op[2](earlier) + op[3](earlier),
        average(h, 1) + earlier,
        2 * average(earlier, 1),
        op[8](h) + h,
    ]
    torch.testing.assert_close(made(h, earlier), torch.cat(expected, 1))
    assert [kernel(op[i]) for i in (0, 1, 2, 3, 8)] == [5, 3, 5, 3, 3]


def test_a_reduction_cell_computes_what_the_figure_draws() -> None:
    made = cell(REDUCTION)
    h, earlier = torch.randn(2, 2, 4, 9, 9).unbind()
    op = list(made.operations)
    first = op[0](h) + op[1](earlier)
    second = F.max_pool2d(h, 3, 2, 1) + op[3](earlier)
    expected = [
        second,
        average(h, 2) + op[5](earlier),
        average(first, 1) + second,
        op[8](first) + F.max_pool2d(h, 3, 2, 1),
    ]
    torch.testing.assert_close(made(h, earlier), torch.cat(expected, 1))
    assert [kernel(op[i]) for i in (0, 1, 3, 5, 8)] == [5, 7, 7, 5, 3]


def test_macs_of_a_normal_cell_by_hand() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell(NORMAL, 44)

        def forward(self, x: Tensor) -> Tensor:
            return self.cell(x, x)  # type: ignore[no-any-return]

    separable3, separable5 = 2 * (44 * 9 + 44 * 44), 2 * (44 * 25 + 44 * 44)
    assert count(capture(Alone(), (44, 28, 28))).macs == 28 * 28 * (3 * separable3 + 2 * separable5)


@pytest.mark.parametrize("size", [4, 5])
def test_halving_takes_every_other_pixel_and_those_between(size: int) -> None:
    made = Halving(1, 2).eval()
    nn.init.ones_(made.even.weight)
    nn.init.ones_(made.odd.weight)
    x = torch.rand(1, 1, size, size)
    even, odd = (made(x) * (1 + made.bn.eps) ** 0.5)[0]
    torch.testing.assert_close(even, x[0, 0, ::2, ::2])
    half = size // 2
    torch.testing.assert_close(odd[:half, :half], x[0, 0, 1::2, 1::2])
    assert not odd[half:].any() and not odd[:, half:].any()  # nothing lies between the last pixel and the border


def test_the_first_cell_reads_the_stem_twice_once_as_it_is() -> None:
    first, second, *_ = (c for c in nasnet_mobile(classes=10, in_channels=3).cells if isinstance(c, Cell))
    x = torch.rand(1, 32, 15, 15)
    assert torch.equal(first.earlier(x), x)
    assert second.earlier(x).shape == (1, 22, 8, 8)


def test_filters_that_the_stem_cannot_quarter_are_refused() -> None:
    with pytest.raises(ModelError, match="multiple of 4"):
        NasNet(1, 10, classes=10, in_channels=3)


@pytest.mark.parametrize("size", [224, 97])
def test_scores_repeat_in_eval_mode_and_depend_on_the_image(size: int) -> None:
    model = nasnet_mobile(classes=7, in_channels=3).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        scores = model(images)
        assert scores.shape == (2, 7)
        assert torch.equal(scores, model(images))
    assert (scores[0] - scores[1]).abs().max() > 1e-3
