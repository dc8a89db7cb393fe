from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import SHAPE, hand_made, net_of
from slimwright.data import Batch
from slimwright.errors import DataError
from slimwright.evidence import Evidence, LayerSums, load_evidence, observe
from slimwright.graph import Net, capture

ROLES = tuple(LayerSums.__dataclass_fields__)


def images_and_labels(count: int = 40, classes: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, *SHAPE, generator=generator), torch.arange(count) % classes


def batches(size: int = 16) -> Iterator[Batch]:
    images, labels = images_and_labels()
    return zip(images.split(size), labels.split(size), strict=True)


@pytest.fixture(scope="module")
def seen(residual: Net) -> Evidence:
    return observe(residual, batches(), classes=3)


def assert_equal_sums(one: Evidence, other: Evidence, *, roles: tuple[str, ...] = ROLES) -> None:
    """To 1e-9 relative."""
    assert torch.equal(one.images, other.images) and one.layers.keys() == other.layers.keys()
    for name in one.layers:
        for role in roles:
            torch.testing.assert_close(
                getattr(one.layers[name], role), getattr(other.layers[name], role), rtol=1e-9, atol=1e-9
            )


def test_classes_add_up(seen: Evidence) -> None:
    parts, every = [seen.of([0]), seen.of([1, 2])], seen.all()
    assert int(every.images) == 40 == sum(int(part.images) for part in parts)
    for name, sums in every.layers.items():
        for role in ROLES:
            added = sum(getattr(part.layers[name], role) for part in parts)
            torch.testing.assert_close(added, getattr(sums, role), rtol=1e-12, atol=1e-12)
    assert_equal_sums(every.all(), every)
    assert_equal_sums(seen.of([2, 1, 1]), seen.of([1, 2]))


def test_two_halves_are_the_whole(residual: Net) -> None:
    """To 1e-9 relative in the same batches; to 1e-6 in others, since a batch's own sum runs in float32."""
    images, labels = images_and_labels()
    parts = [(images[at], labels[at]) for at in (slice(0, 23), slice(23, 40))]
    halves = [observe(residual, [part], classes=3) for part in parts]
    for batches_of_whole, tolerance in ((parts, 1e-9), ([(images, labels)], 1e-6)):
        whole = observe(residual, batches_of_whole, classes=3)
        for name, sums in whole.layers.items():
            for role in ("count", "places", "total", "gram", "magnitude"):  # fisher draws labels in order
                wanted = getattr(sums, role)
                added = torch.stack([getattr(half.layers[name], role) for half in halves]).sum(0)
                assert float((added - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def brute_force(net: Net, name: str, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Count, sum, second moments and |x| of what a 3x3 convolution with padding 1 reads, position by position."""
    node, read = net[name], []
    module = net.to_module()
    module.get_submodule(net.paths[name]).register_forward_hook(lambda _, x, __: read.append(x[0].detach().double()))
    module(images)
    x = F.pad(read[0], (1, 1, 1, 1))
    side = read[0].shape[2]
    rows = [x[n, :, i : i + 3, j : j + 3].reshape(-1) for n in range(len(x)) for i in range(side) for j in range(side)]
    stacked = torch.stack(rows)
    assert node.op == "conv2d"
    return torch.tensor(len(rows)), stacked.sum(0), stacked.T @ stacked, read[0].abs().sum((0, 2, 3))


def test_the_sums_are_those_of_a_loop_over_positions(residual: Net, seen: Evidence) -> None:
    """To 1e-5 relative: the network itself runs in float32."""
    images, labels = images_and_labels()
    conv = next(n.name for n in residual.nodes if n.tensors.get("weight") == "conv2.weight")
    for label in range(3):
        count, total, gram, magnitude = brute_force(residual, conv, images[labels == label])
        sums = seen.layers[conv]
        assert int(sums.count[label]) == int(count) and sums.gram.dtype == torch.float64
        for got, wanted in (
            (sums.total[label, 0], total),
            (sums.gram[label, 0], gram),
            (sums.magnitude[label], magnitude),
        ):
            assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
        assert int(sums.places[label]) == 36 * int((labels == label).sum())


def test_a_linear_layer_reads_one_position_per_image(residual: Net, seen: Evidence) -> None:
    sums = seen.layers[residual.outputs[0]]
    assert sums.count.tolist() == seen.images.tolist() == [14, 13, 13]
    assert sums.gram.shape == (3, 1, 6, 6) and sums.fisher.shape == (3, 3)


def test_fisher_is_the_squared_gradient_of_the_drawn_loss() -> None:
    """For the scores themselves it is known in closed form on average: E[(softmax - onehot)^2] = p (1 - p)."""
    net = net_of(nn.Flatten(), nn.Linear(36, 3), shape=SHAPE)
    images = torch.randn(4000, *SHAPE)
    sums = observe(net, [(images, torch.zeros(4000, dtype=torch.int64))], classes=1).layers[net.outputs[0]]
    p = net.to_module()(images).detach().softmax(1)
    wanted = (p * (1 - p)).sum(0)
    assert float((sums.fisher[0] / wanted - 1).abs().max()) < 0.1  # 4000 draws


def test_grouped_convolutions_keep_a_gram_per_group() -> None:
    net = capture(hand_made("Grouped"), SHAPE)
    seen = observe(net, batches(), classes=3)
    grouped = next(n.name for n in net.nodes if n.arguments.get("groups") == 2)
    assert seen.layers[grouped].gram.shape == (3, 2, 18, 18)
    x = seen.layers[grouped].gram
    torch.testing.assert_close(x, x.transpose(-1, -2))


def test_observing_changes_neither_the_net_nor_the_images(residual: Net) -> None:
    images, labels = images_and_labels()
    before, digest = images.clone(), residual.digest
    observe(residual, [(images, labels)], classes=3)
    assert torch.equal(images, before) and not images.requires_grad
    assert residual.edited().digest == digest


def test_the_seed_fixes_everything(residual: Net, seen: Evidence) -> None:
    assert_equal_sums(observe(residual, batches(), classes=3), seen)
    other = observe(residual, batches(), classes=3, seed=1)
    assert_equal_sums(other, seen, roles=("count", "total", "gram", "magnitude", "places"))
    assert not torch.equal(other.layers[residual.outputs[0]].fisher, seen.layers[residual.outputs[0]].fisher)


def test_saved_evidence_comes_back(seen: Evidence, tmp_path: Path) -> None:
    seen.save(tmp_path / "evidence.safetensors")
    back = load_evidence(tmp_path / "evidence.safetensors")
    assert back.net_digest == seen.net_digest
    assert_equal_sums(back, seen)
    assert all(torch.equal(back.layers[n].gram, seen.layers[n].gram) for n in seen.layers)


@pytest.mark.parametrize("data", [None, b"", b"garbage" * 10])
def test_what_is_no_evidence_is_refused(data: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "evidence.safetensors"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match="no saved evidence"):
        load_evidence(path)


def test_no_images_are_refused(residual: Net) -> None:
    with pytest.raises(DataError, match="no calibration images"):
        observe(residual, [], classes=3)


@pytest.mark.parametrize("classes", [[], [3], [-1], [0, 7]])
def test_classes_that_were_not_observed_are_refused(seen: Evidence, classes: list[int]) -> None:
    with pytest.raises(DataError, match="were not observed"):
        seen.of(classes)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_beyond_the_classes_is_refused(residual: Net, label: int) -> None:
    images = torch.randn(2, *residual.input.shape[1:])
    with pytest.raises(DataError, match=f"{label}.*3 classes"):
        observe(residual, [(images, torch.tensor([0, label]))], classes=3)
