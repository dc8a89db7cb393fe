from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from brute import assert_agrees, brute_force
from torch import Tensor, nn

from exact import small_net
from example_nets import HAND_MADE, SHAPE, classification, hand_made, net_of
from slimwright.data import Batch, labelled
from slimwright.errors import DataError, RequestError
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.progress import Event


def made_up(count: int, shape: tuple[int, ...] = SHAPE, classes: int = 3, size: int = 4) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    images, labels = torch.randn(count, *shape, generator=generator), torch.arange(count) * 2 % classes
    return list(zip(images.split(size), labels.split(size), strict=True))


def assert_same(one: Evidence, other: Evidence, *, without: tuple[str, ...] = ()) -> None:
    """Bit by bit."""
    assert one.tensors().keys() == other.tensors().keys()
    for name, tensor in one.tensors().items():
        if name.rpartition("/")[2] not in without:
            assert torch.equal(tensor, other.tensors()[name]), name


@pytest.mark.parametrize("name", HAND_MADE)
def test_every_sum_is_that_of_a_loop_over_images_and_positions(name: str) -> None:
    """To 1e-5 of the largest, since the net runs in float32; what a layer reads at each of its calls adds up."""
    net = small_net(name)
    seen = observe(net, made_up(7), task=classification(3), seed=3)
    assert_agrees(seen, brute_force(net, made_up(7), classes=3, seed=3))
    assert seen.images.tolist() == seen.taylor_images.tolist() == [3, 2, 2] and not seen.skipped


def test_convolutions_of_every_geometry_are_seen() -> None:
    shape = (2, 11, 9)
    net = net_of(
        nn.Conv2d(2, 4, 3, stride=2, padding=(2, 1)),  # [4, 7, 5]
        nn.ReLU(),
        nn.Conv2d(4, 6, (3, 2), padding="same", dilation=(2, 1), groups=2),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 2, padding="valid", groups=3),  # [6, 6, 4]
        nn.ReLU(),
        nn.Conv2d(6, 5, 1, stride=(2, 1)),
        nn.Flatten(),
        nn.Linear(60, 3),
        shape=shape,
    )
    assert_agrees(
        observe(net, made_up(5, shape), task=classification(3)), brute_force(net, made_up(5, shape), classes=3)
    )


class Tokens(nn.Module):
    """Linear layers on [N, T, C], and one convolution that another branch calls too."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 4, 2, stride=2)
        self.mix = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = y + torch.relu(self.mix(torch.relu(self.mix(y))))
        return self.fc(y.mean(1))  # type: ignore[no-any-return]


def test_linear_layers_read_every_token_and_what_a_shared_one_reads_at_both_calls() -> None:
    net = capture(Tokens(), SHAPE)
    seen = observe(net, made_up(6), task=classification(3))
    assert_agrees(seen, brute_force(net, made_up(6), classes=3))
    first, second = (node for node in net.weighted() if node.shape == (1, 9, 4))
    assert first.tensors == second.tensors
    assert net.layers[first.name] == (first.name, second.name) and second.name not in seen.layers
    assert seen.layers[first.name].count.tolist() == [36, 36, 36]


class Windows(Tokens):
    """Tokens laid out in windows: what a layer reads does not begin with the images."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = self.mix(y.reshape(-1, 3, 4)).reshape(-1, 9, 4)
        return self.fc(y.mean(1))  # type: ignore[no-any-return]


def test_layers_that_do_not_read_image_by_image_are_skipped_and_it_is_said() -> None:
    net = capture(Windows(), SHAPE)
    seen = observe(net, made_up(6), task=classification(3))
    (name,) = (node.name for node in net.weighted() if node.shape == (3, 3, 4))
    assert set(seen.skipped) == {name} and "not the images'" in seen.skipped[name]
    assert len(seen.layers) == 2 and name not in seen.layers


def test_taylor_by_hand() -> None:
    """Of one linear layer, dL/dx = (p - y) W, so the score of an input is |x_c ((p - y) W)_c|."""
    net = net_of(nn.Flatten(), nn.Linear(36, 3), shape=SHAPE)
    images, labels = labelled(made_up(1)[0])
    weight = net.tensors["1.weight"].double()
    p = net.to_module()(images).double().softmax(1)[0]
    p[labels[0]] -= 1
    sums = observe(net, [(images, labels)], task=classification(3)).layers[net.outputs[0]]
    wanted = (images.double().flatten() * (p @ weight)).abs()
    torch.testing.assert_close(sums.taylor[labels[0]], wanted, rtol=1e-5, atol=1e-7)


def test_without_taylor_the_other_sums_are_the_same_and_it_can_be_seen(residual: Net) -> None:
    """Bit by bit."""
    seen, less = (observe(residual, made_up(6), task=classification(3), taylor=wanted) for wanted in (True, False))
    assert_same(seen, less, without=("taylor", "taylor_images"))
    assert less.taylor_images.tolist() == [0, 0, 0] and seen.taylor_images.tolist() == [2, 2, 2]
    assert all(not bool(sums.taylor.any()) for sums in less.layers.values())


def test_fisher_is_the_squared_gradient_of_the_drawn_loss() -> None:
    """For the scores themselves it is known in closed form on average: E[(softmax - onehot)^2] = p (1 - p)."""
    net = net_of(nn.Flatten(), nn.Linear(36, 3), shape=SHAPE)
    images = torch.randn(4000, *SHAPE)
    sums = observe(net, [(images, torch.zeros(4000, dtype=torch.int64))], task=classification(3)).layers[net.outputs[0]]
    p = net.to_module()(images).detach().softmax(1)
    wanted = (p * (1 - p)).sum(0)
    assert float((sums.fisher[0] / wanted - 1).abs().max()) < 0.1  # 4000 draws


def test_labels_are_drawn_by_the_seed_and_the_number_of_the_batch_alone(residual: Net) -> None:
    seen = observe(residual, made_up(20), task=classification(3))
    assert_same(observe(residual, made_up(20), task=classification(3)), seen)
    other = observe(residual, made_up(20), task=classification(3), seed=1)
    assert_same(other, seen, without=("fisher",))
    assert not torch.equal(other.layers[residual.outputs[0]].fisher, seen.layers[residual.outputs[0]].fisher)
    last = observe(residual, made_up(20), task=classification(3), share=(4, 5))
    wanted = brute_force(residual, [(b[0][:0], b[1][:0]) for b in made_up(16)] + made_up(20)[4:], classes=3)
    assert_agrees(last, wanted)


@pytest.mark.parametrize("many", [1, 150, 10**9])
def test_a_batch_is_observed_a_few_images_at_a_time(residual: Net, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments are added at once, after some images, or at the batch's end; the same to 1e-6 of the largest."""
    at_once = observe(residual, made_up(19, size=19), task=classification(3))
    monkeypatch.setattr("slimwright.evidence.windows.MOST_ELEMENTS", 200)  # some rows
    monkeypatch.setattr("slimwright.evidence.windows.MANY", 1)
    monkeypatch.setattr("slimwright.evidence.observing.MANY", many)
    seen = observe(residual, made_up(19, size=19), task=classification(3), alive_bytes=20_000)  # 4 images
    for name, tensor in at_once.tensors().items():
        got = seen.tensors()[name]
        assert float((got - tensor).abs().max()) <= 1e-6 * float(tensor.abs().max()), name


def test_images_stream_through(residual: Net) -> None:
    """Batches are asked for one by one, and the sums take the same memory however many there are."""
    told: list[str] = []

    def batches() -> Iterator[Batch]:
        for number, batch in enumerate(made_up(20)):
            told.append(f"asked for batch {number}")
            yield batch

    def tell(event: Event) -> None:
        told.append(f"{event.done} of {event.total} images done")

    seen = observe(residual, batches(), task=classification(3), images=20, tell=tell)
    assert told == [line for n in range(5) for line in (f"asked for batch {n}", f"{4 * n + 4} of 20 images done")]
    less = observe(residual, made_up(4), task=classification(3))
    assert [t.shape for t in seen.tensors().values()] == [t.shape for t in less.tensors().values()]


def test_observing_changes_neither_the_net_nor_the_images(residual: Net) -> None:
    images, labels = labelled(made_up(20, size=20)[0])
    before, digest = images.clone(), residual.digest
    with torch.no_grad():
        observe(residual, [(images, labels)], task=classification(3))
    assert torch.equal(images, before) and not images.requires_grad and images.grad is None
    assert residual.edited().digest == digest


def test_a_device_may_be_named(residual: Net) -> None:
    assert_same(
        observe(residual, made_up(8), task=classification(3), device="cpu"),
        observe(residual, made_up(8), task=classification(3)),
    )
    with pytest.raises(RequestError, match="'nowhere'"):
        observe(residual, made_up(8), task=classification(3), device="nowhere")


def killed_at_40(net: Net, path: Path) -> None:
    def killed() -> Iterator[Batch]:
        yield from made_up(50, size=1)[:40]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observe(net, killed(), task=classification(3), checkpoint=path)


def test_a_pass_that_was_killed_goes_on(residual: Net, tmp_path: Path) -> None:
    """Bit by bit. The first 32 of 40 batches had been written and are not computed again."""
    path = tmp_path / "so-far.safetensors"
    killed_at_40(residual, path)
    told: list[Event] = []
    again = observe(residual, made_up(50, size=1), task=classification(3), checkpoint=path, tell=told.append)
    assert_same(again, observe(residual, made_up(50, size=1), task=classification(3)))
    assert [event.done for event in told] == [32] * 32 + list(range(33, 51))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", ["other images", "fewer images"])
def test_sums_over_other_images_are_not_gone_on_with(residual: Net, which: str, tmp_path: Path) -> None:
    path = tmp_path / "so-far.safetensors"
    killed_at_40(residual, path)
    images = (
        made_up(30, size=1) if which == "fewer images" else [(-x, y) for x, y in map(labelled, made_up(50, size=1))]
    )
    with pytest.raises(DataError, match="sums over other images"):
        observe(residual, images, task=classification(3), checkpoint=path)


@pytest.mark.parametrize("which", ["another net", "another seed", "garbage"])
def test_what_belongs_to_another_pass_is_begun_anew(residual: Net, which: str, tmp_path: Path) -> None:
    path = tmp_path / "so-far.safetensors"
    killed_at_40(residual, path)
    net = capture(hand_made("Residual", seed=1), SHAPE) if which == "another net" else residual
    if which == "garbage":
        path.write_bytes(b"garbage" * 100)
    seed = 1 if which == "another seed" else 0
    seen = observe(net, made_up(30, size=1), task=classification(3), seed=seed, checkpoint=path)
    assert_same(seen, observe(net, made_up(30, size=1), task=classification(3), seed=seed))


def test_no_images_are_refused(residual: Net) -> None:
    with pytest.raises(DataError, match="no calibration images"):
        observe(residual, [], task=classification(3))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_beyond_the_classes_is_refused(residual: Net, label: int) -> None:
    with pytest.raises(DataError, match=f"{label}.*3 classes"):
        observe(residual, [(torch.randn(2, *SHAPE), torch.tensor([0, label]))], task=classification(3))


def test_classes_without_scores_have_no_loss(residual: Net) -> None:
    with pytest.raises(DataError, match=r"\[1, 3\].*4 classes.*without taylor"):
        observe(residual, made_up(4), task=classification(4))
    assert int(observe(residual, made_up(4), task=classification(4), taylor=False).images.sum()) == 4


def test_images_that_give_no_numbers_are_refused(residual: Net) -> None:
    images, labels = labelled(made_up(4)[0])
    images[2, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        observe(residual, [(images, labels)], task=classification(3))


def test_a_net_without_scores_of_classes_is_refused() -> None:
    net = net_of(nn.Conv2d(1, 3, 1), shape=SHAPE)
    with pytest.raises(DataError, match=r"\[1, 3, 6, 6\]"):
        observe(net, made_up(4), task=classification(3))
