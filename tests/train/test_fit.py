import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slimwright.data import ArrayData, split
from slimwright.errors import DataError
from slimwright.graph.store import replacing
from slimwright.progress import Event
from slimwright.train import Schedule, accuracy, fit
from slimwright.train.fit import loss_of, one_cycle

TINY = Schedule(epochs=4, batch_size=16)


class Killed(Exception):
    """The machine went down."""


def tiny_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Dropout(0.1), nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip


def dots(name: str = "dots") -> ArrayData:
    """80 images of noise in two classes: one brighter to the left, one to the right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    images = 0.3 * torch.randn(80, 1, 8, 8, generator=generator)
    images[labels == 0, :, :, :4] += 1
    images[labels == 1, :, :, 4:] += 1
    return ArrayData(name, ("left", "right"), split(images, labels, seed=0))


def small_net(seed: int = 0, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(width * 36, 2),
    )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def killed_after(epoch: int) -> tuple[list[Event], object]:
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        if event.done == epoch:
            raise Killed

    return told, tell


def test_a_tiny_net_learns_the_digits_in_three_epochs(digit_data: ArrayData) -> None:
    model = tiny_net()
    before = accuracy(model, digit_data, "validation")
    told: list[Event] = []
    trained = fit(model, digit_data, Schedule(epochs=3), tell=told.append)
    assert trained is model and not model.training
    assert before < 0.3 and accuracy(model, digit_data, "validation") > 0.8
    assert [(e.stage, e.done, e.total) for e in told] == [("train", n, 3) for n in (1, 2, 3)]


def test_the_seed_fixes_every_weight() -> None:
    one, same, other = (fit(small_net(), dots(), replace(TINY, seed=seed)) for seed in (1, 1, 2))
    assert_same_bits(one, same)
    assert not torch.equal(state(one)["0.weight"], state(other)["0.weight"])


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_killed_run_goes_on_to_the_same_bits(epoch: int, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    whole = fit(small_net(), dots(), TINY)
    told, tell = killed_after(epoch)
    with pytest.raises(Killed):
        fit(small_net(), dots(), TINY, checkpoint=checkpoint, tell=tell)  # type: ignore[arg-type]
    assert checkpoint.exists() is (epoch > 1)  # the epoch in which it was killed is not saved yet
    torch.manual_seed(99)
    resumed: list[Event] = []
    again = fit(small_net(seed=5), dots(), TINY, checkpoint=checkpoint, tell=resumed.append)
    if epoch > 1:
        assert_same_bits(again, whole)
    assert [event.done for event in resumed] == list(range(epoch, 5)) and len(told) == epoch
    assert not checkpoint.exists()  # a run that ended leaves nothing to go on from


def test_a_run_with_a_checkpoint_gives_the_bits_of_one_without(tmp_path: Path) -> None:
    assert_same_bits(fit(small_net(), dots(), TINY, checkpoint=tmp_path / "c"), fit(small_net(), dots(), TINY))


@pytest.mark.parametrize(
    ("width", "name", "schedule"),
    [(5, "dots", TINY), (4, "spots", TINY), (4, "dots", replace(TINY, rate=0.05)), (4, "dots", replace(TINY, seed=1))],
)
def test_the_checkpoint_of_another_run_is_not_used(width: int, name: str, schedule: Schedule, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        fit(small_net(), dots(), TINY, checkpoint=checkpoint, tell=killed_after(3)[1])  # type: ignore[arg-type]
    assert checkpoint.exists()
    resumed: list[Event] = []
    model = fit(small_net(width=width), dots(name), schedule, checkpoint=checkpoint, tell=resumed.append)
    assert [event.done for event in resumed] == [1, 2, 3, 4]
    assert_same_bits(model, fit(small_net(width=width), dots(name), schedule))


@pytest.mark.parametrize("data", [b"", b"garbage" * 9])
def test_a_damaged_checkpoint_is_not_used(data: bytes, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with replacing(checkpoint) as temporary:
        temporary.write_bytes(data)
    assert_same_bits(fit(small_net(), dots(), TINY, checkpoint=checkpoint), fit(small_net(), dots(), TINY))


def test_a_loss_that_is_no_number_is_told_with_the_rate() -> None:
    with pytest.raises(DataError, match=r"training loss is (nan|inf) in epoch .*lower the rate \(1e\+20\)"):
        fit(small_net(), dots(), replace(TINY, rate=1e20))


def test_a_teacher_is_followed_and_left_as_it_is() -> None:
    teacher = fit(small_net(seed=3), dots(), TINY)
    before = state(teacher)
    student = fit(small_net(), dots(), replace(TINY, teacher_share=1.0, epochs=20), teacher=teacher)
    assert all(torch.equal(before[name], tensor) for name, tensor in state(teacher).items())
    images = torch.cat([images for images, _ in dots().batches("test", 99)])
    alone = small_net().eval()
    wanted = teacher(images).softmax(1)
    assert float((student(images).softmax(1) - wanted).abs().mean()) < 0.5 * float(
        (alone(images).softmax(1) - wanted).abs().mean()
    )


def test_the_loss_is_the_formula_of_hinton() -> None:
    schedule = Schedule(teacher_share=0.7, temperature=2.0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    x, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    p, q = (teacher(x) / 2).softmax(1), (student(x) / 2).softmax(1)
    soft = 4 * (p * (p.log() - q.log())).sum(1).mean()
    hard = -student(x).log_softmax(1)[torch.arange(5), labels].mean()
    torch.testing.assert_close(loss_of(student, x, labels, schedule, teacher), 0.3 * hard + 0.7 * soft)
    plain = nn.functional.cross_entropy(student(x), labels, label_smoothing=0.05)
    torch.testing.assert_close(loss_of(student, x, labels, schedule, None), plain)


def test_a_teacher_that_agrees_leaves_no_loss() -> None:
    model = nn.Linear(4, 3)
    loss = loss_of(model, torch.randn(5, 4), torch.zeros(5, dtype=torch.int64), Schedule(teacher_share=1.0), model)
    assert abs(float(loss.detach())) < 1e-6


def test_the_rate_rises_for_a_fifth_and_falls_to_nothing() -> None:
    shares = [one_cycle(step / 1000) for step in range(1001)]
    assert shares[200] == max(shares) == 1.0
    assert all(a <= b for a, b in itertools.pairwise(shares[:201]))
    assert all(a >= b for a, b in itertools.pairwise(shares[200:]))
    assert 0 < shares[0] <= 0.01 and shares[1000] == pytest.approx(0, abs=1e-12)
    assert shares[100] == pytest.approx(0.5) and shares[600] == pytest.approx(0.5)


def test_accuracy_is_the_share_that_is_right() -> None:
    class Left(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([torch.ones(len(x)), torch.zeros(len(x))], 1)

    assert accuracy(Left(), dots(), "test") == 0.5
