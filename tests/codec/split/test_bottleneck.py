from collections.abc import Callable

import pytest
import torch
from torch import nn

from slimwright.codec.split.bottleneck import Transform, parts, transform_of
from slimwright.codec.split.cuts import cuts
from slimwright.codec.split.moments import Moments, moments, patch_of, patches
from slimwright.data import Dataset
from slimwright.errors import DataError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.tasks import Classification
from small_digits import few_digits, small_digit_net
from small_split import twofold

IMAGES = 130


def seen(net: Net) -> dict[str, Moments]:
    data: Dataset = few_digits()
    names = [name for cut in cuts(net) for name in cut.values]
    return moments(net, names, data.batches("calibration", 64), Classification(data.labels), images=IMAGES)


@pytest.fixture(scope="module")
def fitted() -> tuple[Net, dict[str, Moments]]:
    return small_digit_net(), seen(small_digit_net())


def value_of(net: Net, name: str) -> torch.Tensor:
    images, _ = few_digits().parts["calibration"]
    assert isinstance(images, torch.Tensor)
    (found,) = Net(net.nodes, net.tensors, (name,)).run(images[:IMAGES])
    return found


def test_moments_are_those_of_all_patches(fitted: tuple[Net, dict[str, Moments]]) -> None:
    net, found = fitted
    for name, one in found.items():
        x = patches(value_of(net, name), one.patch).double()
        assert torch.allclose(one.mean, x.mean(0), atol=1e-4)
        assert torch.allclose(one.covariance, torch.cov(x.T, correction=0), atol=1e-3)


def test_the_fisher_information_is_that_of_drawn_labels() -> None:
    net = capture(
        nn.Sequential(nn.Flatten(), nn.Linear(1024, 3, bias=False), nn.Linear(3, 10, bias=False)), (1, 32, 32)
    )
    (one,) = seen(net).values()
    scores = value_of(net, net.outputs[0])
    likely = scores.softmax(1)
    weight = net.tensors[net[net.outputs[0]].tensors["weight"]]
    exact = torch.stack([weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight for p in likely]).mean(0)
    assert float((one.fisher - exact).norm() / exact.norm()) < 0.35  # one label drawn for each of 130 images


def test_patches_are_put_together_again_as_pixels_are_shuffled() -> None:
    x = torch.randn(2, 3, 4, 8)
    flat = patches(x, 2)
    back = torch.nn.functional.pixel_shuffle(flat.reshape(2, 2, 4, 12).permute(0, 3, 1, 2), 2)
    assert torch.equal(back, x)


@pytest.mark.parametrize(
    ("shape", "images", "patch"),
    [((1, 16, 32, 32), 1000, 4), ((1, 256, 2, 2), 1000, 1), ((1, 64, 7, 7), 1000, 1), ((1, 9, 7, 7), 1000, 7),
     ((1, 10), 5, 1), ((1, 128, 2, 2), 100, 1)],
)  # fmt: skip
def test_patches_are_as_large_as_what_is_seen_allows(shape: tuple[int, ...], images: int, patch: int) -> None:
    assert patch_of(shape, images) == patch


@pytest.mark.parametrize("make", [small_digit_net, twofold])
def test_with_all_components_and_no_rounding_the_net_is_the_same(make: Callable[[], Net]) -> None:
    net = make()
    images = torch.randn(20, *net.input.shape[1:])
    (whole,) = net.run(images)
    for cut in cuts(net):
        transforms = [transform_of(full(net[name].shape)) for name in cut.values]
        phone, server = parts(net, cut, transforms, 0.125)
        (made,) = server.run(phone.run(images))
        assert float((made - whole).abs().max() / whole.abs().max()) < 1e-4


def full(shape: tuple[int, ...]) -> Moments:
    """Moments of a value that varies in every direction, all of which matter."""
    patch = patch_of(shape, 1000)
    width = shape[1] * patch**2
    x, g = (torch.randn(4 * width, width, dtype=torch.float64) for _ in range(2))
    return Moments(patch, torch.randn(width, dtype=torch.float64), x.T @ x / len(x), g.T @ g / len(g))


def test_dropped_components_cost_their_variances(fitted: tuple[Net, dict[str, Moments]]) -> None:
    for one in fitted[1].values():
        whole = transform_of(one)
        few = whole.kept(3)
        expected = float(whole.variances[3:].sum())
        assert cost(one, few) == pytest.approx(expected, rel=1e-3, abs=1e-6 * float(whole.variances.sum()))


def test_no_other_components_cost_less(fitted: tuple[Net, dict[str, Moments]]) -> None:
    for one in fitted[1].values():
        few = transform_of(one).kept(3)
        other = torch.randn(few.encoder.shape, dtype=torch.float64)
        decoder = one.covariance @ other.T @ torch.linalg.pinv(other @ one.covariance @ other.T)
        assert cost(one, few) < cost(one, Transform(few.patch, other, decoder, few.mean, few.variances))


def cost(one: Moments, transform: Transform) -> float:
    """E[e^T F e] of what a transform gives back, with the ridge that the transform takes for what was never seen."""
    lost = torch.eye(len(one.mean), dtype=torch.float64) - transform.decoder @ transform.encoder
    ridge = 1e-4 * torch.trace(one.fisher) / len(one.mean)
    return float(torch.trace(lost.T @ (one.fisher + ridge * torch.eye(len(lost))) @ lost @ one.covariance))


def test_without_images_there_are_no_moments() -> None:
    with pytest.raises(DataError, match="no calibration images"):
        moments(small_digit_net(), ["relu"], [], Classification(few_digits().labels), images=10)
