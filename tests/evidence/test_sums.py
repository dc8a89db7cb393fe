from dataclasses import replace

import pytest
import torch
from torch import Tensor

from example_nets import SHAPE, classification
from slimwright.errors import DataError
from slimwright.evidence import Evidence, merged, observe
from slimwright.evidence.sums import said
from slimwright.graph import Net

CLASSES = 5


def batches(count: int = 30) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    images, labels = torch.randn(count, *SHAPE, generator=generator), torch.arange(count) % CLASSES
    return list(zip(images.split(6), labels.split(6), strict=True))


@pytest.fixture(scope="module")
def seen(residual: Net) -> Evidence:
    return observe(residual, batches(), task=classification(CLASSES), taylor=False)


@pytest.fixture(scope="module")
def by_pairs(residual: Net, seen: Evidence) -> Evidence:
    """Evidence of the classes 0 and 1, 2 and 3, and 4, which is what half the memory holds."""
    needed = 8 * sum(t.numel() for name, t in seen.tensors().items() if "/" in name)
    return observe(residual, batches(), task=classification(CLASSES), taylor=False, memory_bytes=needed * 3 / 5)


def assert_close(one: Evidence, other: Evidence, tolerance: float = 1e-12) -> None:
    """To a tolerance relative to the largest of each kind."""
    assert one.tensors().keys() == other.tensors().keys()
    for name, tensor in one.tensors().items():
        wanted = other.tensors()[name]
        assert float((tensor - wanted).abs().max()) <= tolerance * float(wanted.abs().max()), name


def test_classes_add_up(seen: Evidence) -> None:
    parts, every = [seen.of([0, 3]), seen.of([4]), seen.of([1, 2])], seen.all()
    assert int(every.images) == 30 and [int(part.images) for part in parts] == [12, 6, 12]
    for name, tensor in every.tensors().items():
        assert len(tensor) == 1
        added = sum(part.tensors()[name] for part in parts)
        torch.testing.assert_close(added, tensor, rtol=1e-12, atol=1e-12)
    assert every.all() is every and every.groups == ((0, 1, 2, 3, 4),)
    assert_close(seen.of([2, 1, 1]), seen.of([1, 2]), 0.0)


def test_groups_of_classes_add_up_to_the_same(seen: Evidence, by_pairs: Evidence) -> None:
    """To 1e-6: float32 sums are taken over other sets of images."""
    assert by_pairs.groups == ((0, 1), (2, 3), (4,)) and by_pairs.images.tolist() == [12, 12, 6]
    for classes in ([0, 1], [2, 3, 4], [4], range(5)):
        assert_close(by_pairs.of(classes), seen.of(classes), 1e-6)


def test_half_a_group_is_refused_by_name(by_pairs: Evidence) -> None:
    with pytest.raises(DataError, match=r"classes 2 to 3 were observed together, and 3 cannot .* memory_bytes"):
        by_pairs.of([2, 4])
    with pytest.raises(DataError, match="0 to 4"):
        by_pairs.all().of([4])


@pytest.mark.parametrize("classes", [[], [5], [-1], [0, 7]])
def test_classes_that_were_not_observed_are_refused(seen: Evidence, classes: list[int]) -> None:
    with pytest.raises(DataError, match="were not observed; there are 0 to 4"):
        seen.of(classes)


def test_shares_merge_into_the_whole(residual: Net, seen: Evidence) -> None:
    """To 1e-12: only the order in which float64 sums are added differs."""
    shares = [observe(residual, batches(), task=classification(CLASSES), taylor=False, share=(i, 3)) for i in range(3)]
    assert [int(share.images.sum()) for share in shares] == [12, 12, 6]
    before = shares[0].images.clone()
    assert_close(merged(iter(shares)), seen)
    assert torch.equal(shares[0].images, before)


def test_it_is_told_over_how_many_images_taylor_was_taken(residual: Net) -> None:
    (one, of_one), (two, of_two) = batches(12)
    parts = [
        observe(residual, [(one, of_one % 3)], task=classification(3)),
        observe(residual, [(two, of_two % 3)], task=classification(3), taylor=False),
    ]
    both = merged(parts)
    assert int(both.images.sum()) == 12 and torch.equal(both.taylor_images, parts[0].images)
    name = residual.outputs[0]
    assert torch.equal(both.layers[name].taylor, parts[0].layers[name].taylor)


def test_what_does_not_belong_together_is_not_merged(seen: Evidence, by_pairs: Evidence) -> None:
    with pytest.raises(DataError, match="no evidence"):
        merged([])
    with pytest.raises(DataError, match="different groups"):
        merged([seen, by_pairs])
    with pytest.raises(DataError, match="different net_digest"):
        merged([seen, replace(seen, net_digest="another")])


def test_runs_of_classes_are_said_in_short() -> None:
    assert said([7, 1, 2, 3, 9, 10]) == "1 to 3, 7, 9 to 10"
