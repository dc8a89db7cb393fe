import pytest
import torch
from counted import macs_by_torch, parameters, without_memory
from torch import nn
from torch.nn import functional as F

from slimwright.cost import count
from slimwright.importers import capture
from slimwright.zoo import build
from slimwright.zoo.customnet import Gamma, Head, IntendedGamma

CIFAR = (3, 32, 32)


def statistics(model: nn.Module) -> int:
    return sum(2 * norm.num_features for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("name", "classes", "total"),
    [
        ("customnet", 10, 528_086),
        ("customnet", 43, 553_529),
        ("customnet", 100, 597_476),
        ("customnet2", 10, 897_878),
        ("customnet2", 43, 923_321),
        ("customnet2", 100, 967_268),
    ],
)
def test_numbers_in_the_authors_form_with_the_statistics_of_batch_norm(name: str, classes: int, total: int) -> None:
    model = without_memory(name, classes=classes)
    assert parameters(model) + statistics(model) == total


@pytest.mark.parametrize(
    ("name", "trained", "millions"), [("customnet", 518_358, 26.49), ("customnet2", 882_006, 51.58)]
)
def test_counts_of_captured_networks(name: str, trained: int, millions: float) -> None:
    cost = count(capture(build(name), CIFAR))
    assert cost.params == trained
    assert round(cost.macs / 1e6, 2) == millions


@pytest.mark.parametrize("name", ["customnet", "customnet2", "customnet-intended"])
def test_the_softmax_of_the_result_is_the_mean_of_the_branches_softmaxes(name: str) -> None:
    model = build(name).eval()
    images = torch.randn(3, *CIFAR)
    with torch.no_grad():
        scores = [branch(y) for branch, y in zip(model.branches, model.head(images), strict=True)]  # type: ignore[operator, arg-type]
        mean = torch.stack([score.softmax(1) for score in scores]).mean(0)
        assert torch.allclose(model(images).exp(), mean, rtol=1e-5, atol=1e-7)
        assert torch.allclose(model(images).softmax(1), mean, rtol=1e-5, atol=1e-7)
        assert torch.allclose(F.cross_entropy(model(images), torch.tensor([0, 1, 2])), -mean.diag().log().mean())


def test_branches_differ_in_their_weights_not_in_their_form() -> None:
    first, *others = [branch.state_dict() for branch in build("customnet2").branches]  # type: ignore[union-attr]
    for other in others:
        assert {key: t.shape for key, t in other.items()} == {key: t.shape for key, t in first.items()}
        assert not torch.equal(other["0.weight"], first["0.weight"])


def test_shapes_of_the_head() -> None:
    outputs = Head(3)(torch.rand(2, *CIFAR))
    assert [tuple(x.shape) for x in outputs] == [(2, 64, 15, 15)] * 3


def test_macs_of_the_head_by_hand() -> None:
    stem = 32**2 * 8 * 3 * 5 + 32**2 * 8 * 8 * 5 + 30**2 * 16 * 8 * 9
    wide, narrow = 16 * 16 * 9 + 32 * 16 * 9, 16 * 16 + 32 * 16 * 9
    deep, middle, shallow = 32 * 32 * 9 + 64 * 32 * 9, 64 * 32 * 9 + 64 * 32, 32 * 32 + 64 * 32 * 9
    assert macs_by_torch(Head(3).to("meta"), CIFAR) == stem + 15**2 * (wide + narrow + deep + middle + shallow)


def test_the_authors_gamma_block_by_hand() -> None:
    cost = count(capture(Gamma(128), (128, 7, 7)))
    assert cost.macs == 7 * 7 * 128 * 128
    assert cost.params == 128 * 128 + 128 + 2 * 128


def test_the_intended_gamma_block_by_hand() -> None:
    cost = count(capture(IntendedGamma(128), (128, 7, 7)))
    weights = 128 * 32 + 64 * 9 + 64 * 32 + 32 * 128
    assert cost.macs == 7 * 7 * weights
    assert cost.params == weights + (32 + 32 + 128) + 2 * (32 + 32 + 128)


@pytest.mark.parametrize("kind", [Gamma, IntendedGamma])
def test_a_gamma_block_adds_to_what_it_reads(kind: type[Gamma | IntendedGamma]) -> None:
    block = kind(16).eval()
    x = torch.rand(1, 16, 5, 5)
    with torch.no_grad():
        assert torch.equal(block(x), x + block.branch(x))
