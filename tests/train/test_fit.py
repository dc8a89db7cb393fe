from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dots import TASK, Killed, dots, fit_labels, killed_after, same_bits, set_clock, small_net, state
from slimwright.atomic import replacing
from slimwright.data import ArrayData, Part, labelled, whole
from slimwright.errors import DataError, RequestError
from slimwright.progress import Event
from slimwright.tasks import Classification
from slimwright.train import Schedule, fit, mean_loss, score
from slimwright.train.run import Run

TINY = Schedule(epochs=4, batch_size=16)  # 3 steps an epoch
EVERYTHING = {
    "plain": TINY,
    "averaged": replace(TINY, average_over=1),
    "with patience": replace(TINY, patience=2, rate=0.3, average_over=1),
    "at several rates": replace(TINY, faster={"0": 0.1, "5": 3}),
    "by the clock": replace(TINY, minutes=4.6 / 60, average_over=1),
}


def tiny_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Dropout(0.1), nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip


def mistaken(part: Part) -> ArrayData:
    """The dots, every label of one part being wrong."""
    data = dots()
    images, labels = labelled(data.parts[part])
    return replace(data, parts={**data.parts, part: (images, 1 - labels)})


class Sum(nn.Module):
    """A model of two layers by name, with a whole number among its buffers."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.ModuleDict({"first": nn.Linear(64, 3), "last": nn.Linear(3, 3)})
        self.fc = nn.Linear(3, 2)
        self.register_buffer("index", torch.tensor([7, 11]))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.body["last"](torch.tanh(self.body["first"](x.flatten(1)))))
        scores: Tensor = self.fc(y)
        return scores


def test_a_tiny_net_learns_the_digits_in_three_epochs(digit_data: ArrayData) -> None:
    model, task = tiny_net(), Classification(digit_data.labels)
    before = score(model, digit_data, "validation", task)
    told: list[Event] = []
    trained = fit_labels(model, digit_data, Schedule(epochs=3), tell=told.append)
    assert trained is model and not model.training
    assert before < 30 and score(model, digit_data, "validation", task) > 80
    assert [(e.stage, e.done, e.total) for e in told] == [("train", n, 3) for n in (1, 2, 3)]


def test_the_seed_fixes_every_weight() -> None:
    one, same, other = (fit_labels(small_net(), dots(), replace(TINY, seed=seed)) for seed in (1, 1, 2))
    assert same_bits(one, same)
    assert not torch.equal(state(one)["0.weight"], state(other)["0.weight"])


@pytest.mark.parametrize("kind", EVERYTHING)
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_killed_run_goes_on_to_the_same_bits(
    kind: str, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    whole: list[Event] = []
    set_clock(monkeypatch)
    wanted = fit_labels(small_net(), dots(), EVERYTHING[kind], tell=whole.append)
    set_clock(monkeypatch)
    with pytest.raises(Killed):
        fit_labels(small_net(), dots(), EVERYTHING[kind], checkpoint=checkpoint, tell=killed_after(epoch)[1])
    assert checkpoint.exists() is (epoch > 1)  # the epoch in which it was killed is not saved yet
    torch.manual_seed(99)
    set_clock(monkeypatch)
    resumed: list[Event] = []
    assert same_bits(
        fit_labels(small_net(), dots(), EVERYTHING[kind], checkpoint=checkpoint, tell=resumed.append), wanted
    )
    assert resumed == whole[epoch - 1 :] and len(whole) > 3
    assert not checkpoint.exists()  # a run that ended leaves nothing to go on from


def test_a_run_with_a_checkpoint_gives_the_bits_of_one_without(tmp_path: Path) -> None:
    assert same_bits(
        fit_labels(small_net(), dots(), TINY, checkpoint=tmp_path / "c"), fit_labels(small_net(), dots(), TINY)
    )


@pytest.mark.parametrize(
    ("seed", "width", "name", "schedule"),
    [
        (0, 5, "dots", TINY),
        (1, 4, "dots", TINY),
        (0, 4, "spots", TINY),
        (0, 4, "dots", replace(TINY, rate=0.05)),
        (0, 4, "dots", replace(TINY, seed=1)),
        (0, 4, "dots", replace(TINY, faster={"5": 2})),
    ],
)
def test_the_checkpoint_of_another_run_is_not_used(
    seed: int, width: int, name: str, schedule: Schedule, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        fit_labels(small_net(), dots(), TINY, checkpoint=checkpoint, tell=killed_after(3)[1])
    assert checkpoint.exists()
    resumed: list[Event] = []
    model = fit_labels(small_net(seed, width), dots(name), schedule, checkpoint=checkpoint, tell=resumed.append)
    assert [event.done for event in resumed] == [1, 2, 3, 4]
    assert same_bits(model, fit_labels(small_net(seed, width), dots(name), schedule))


def test_the_checkpoint_under_another_teacher_is_not_used(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        fit_labels(small_net(), dots(), TINY, teacher=small_net(1), checkpoint=checkpoint, tell=killed_after(3)[1])
    resumed: list[Event] = []
    fit_labels(small_net(), dots(), TINY, teacher=small_net(2), checkpoint=checkpoint, tell=resumed.append)
    assert len(resumed) == 4


@pytest.mark.parametrize("data", [b"", b"garbage" * 9])
def test_a_damaged_checkpoint_is_not_used(data: bytes, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with replacing(checkpoint) as temporary:
        temporary.write_bytes(data)
    assert same_bits(
        fit_labels(small_net(), dots(), TINY, checkpoint=checkpoint), fit_labels(small_net(), dots(), TINY)
    )


def test_a_loss_that_is_no_number_is_told_with_the_rate() -> None:
    with pytest.raises(DataError, match=r"training loss is \S+ in epoch .*lower the rate \(1e\+20\)"):
        fit_labels(small_net(), dots(), replace(TINY, rate=1e20))


def bare_net() -> nn.Module:
    """No batch norms: a high rate makes its loss explode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2)
    )  # fmt: skip


WILD = Schedule(epochs=6, batch_size=16, rate=16.0)


def test_a_loss_that_explodes_is_trained_again_at_half_the_rate_and_it_says_so() -> None:
    told: list[Event] = []
    model = fit_labels(bare_net(), dots(), WILD, tell=told.append)
    restarts = [event.note for event in told if event.stage == "restart"]
    assert "in epoch 2; it starts over at half the rate, 8" in restarts[0]
    assert "it goes on after epoch 1 at half the rate, 4" in restarts[1]
    assert (told[-1].stage, told[-1].done) == ("train", 6)
    assert score(model, dots(), "test", TASK) > 80
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())


def test_a_rate_that_is_not_too_high_is_left_as_it_is() -> None:
    told: list[Event] = []
    fit_labels(bare_net(), dots(), replace(WILD, rate=0.1), tell=told.append)
    assert [event.stage for event in told] == ["train"] * 6


@pytest.mark.parametrize("heard", [2, 4, 6, 9])
def test_a_run_that_was_killed_after_its_rate_was_halved_goes_on_to_the_same_bits(heard: int, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    wanted = fit_labels(bare_net(), dots(), WILD)
    with pytest.raises(Killed):
        fit_labels(bare_net(), dots(), WILD, checkpoint=checkpoint, tell=killed_after(heard)[1])
    assert same_bits(fit_labels(bare_net(), dots(), WILD, checkpoint=checkpoint), wanted)


def test_images_that_make_no_sense_at_any_rate_are_an_error() -> None:
    model = bare_net()
    with torch.no_grad():
        model.get_parameter("0.bias").fill_(torch.inf)
    with pytest.raises(
        DataError, match=r"training loss is nan in epoch 1; lower the rate \(0\.1\), which was halved 8"
    ):
        fit_labels(model, dots(), TINY)


def test_a_teacher_is_followed_and_left_as_it_is() -> None:
    teacher = fit_labels(small_net(seed=3), dots(), TINY)
    before = state(teacher)
    student = fit_labels(small_net(), dots(), replace(TINY, teacher_share=1.0, epochs=20), teacher=teacher.train())
    assert all(torch.equal(before[name], tensor) for name, tensor in state(teacher).items())
    images, _ = labelled(whole(dots(), "test"))
    with torch.no_grad():
        wanted = teacher(images).softmax(1)
        alone = (small_net().eval()(images).softmax(1) - wanted).abs().mean()
        assert float((student(images).softmax(1) - wanted).abs().mean()) < 0.5 * float(alone)


@pytest.mark.parametrize(("seconds", "steps"), [(2.0, 6), (1.3, 4), (0.2, 0), (10.0, 30)])
def test_minutes_are_kept_to_within_a_step(seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)  # a look per step and one per epoch of three steps: a second an epoch
    model, taken, told = small_net(), [0], list[Event]()

    def counted(module: nn.Module, _: object) -> None:
        taken[0] += module.training

    model.register_forward_pre_hook(counted)
    fit_labels(model, dots(), replace(TINY, epochs=1, minutes=seconds / 60), tell=told.append)
    assert taken[0] == steps
    assert (told[-1].done, told[-1].total) == (-(-seconds // 1), -(-seconds // 1))
    assert [event.done for event in told[:-1]] == list(range(1, len(told)))


def test_the_rate_falls_to_nothing_when_the_minutes_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)
    run = Run.of(small_net(), dots(), replace(TINY, minutes=10 / 60))
    rates = []
    for _ in range(39):
        run.clock.look()
        run.descend(run.model(torch.randn(4, 1, 8, 8)).square().mean(), run.done(0))
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert rates.index(max(rates)) == 7 and max(rates) == 0.1  # after 2 of 10 seconds
    assert rates[-1] < 0.001


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_each_layer_learns_at_its_own_rate(momentum: float) -> None:
    factors = {"body.first": 2.0, "body.last": 0.0, "fc": 10.0, "fc.bias": 5.0}
    schedule = Schedule(
        1, rate=0.5, faster={"body": 2, "body.last": 0, "fc": 10, "fc.bias": 5}, batch_size=99,
        weight_decay=0.01, momentum=momentum, label_smoothing=0,
    )  # fmt: skip
    model, (images, labels) = Sum(), labelled(whole(dots(), "train"))
    F.cross_entropy(model(images), labels).backward()
    wanted = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        factor = factors.get(name, factors[name.rpartition(".")[0]])
        slope = parameter.grad + 0.01 * parameter.detach()
        step = slope + momentum * slope  # Nesterov's, the momentum being the first slope
        wanted[name] = parameter.detach() - 0.5 * 0.01 * factor * step  # the first rate of a cycle is 1 % of the peak
    trained = fit_labels(Sum(), dots(), schedule)
    for name, parameter in trained.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted[name], rtol=1e-5, atol=1e-7)
    before = dict(Sum().named_parameters())
    assert torch.equal(trained.get_parameter("body.last.weight"), before["body.last.weight"])
    assert not torch.equal(trained.get_parameter("body.first.weight"), before["body.first.weight"])


@pytest.mark.parametrize("path", ["bod", "body.lost", "fc.weight.x", ""])
def test_a_rate_for_a_layer_that_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(RequestError, match=f"no parameter is called '{path}' or lies in it"):
        fit_labels(Sum(), dots(), replace(TINY, faster={path: 2}))


def test_a_run_that_gets_worse_stops_and_gives_back_its_best() -> None:
    plain = Schedule(epochs=100, rate=0.05, patience=3, momentum=0, weight_decay=0, label_smoothing=0)
    told: list[Event] = []
    losses = []
    model = small_net()

    def tell(event: Event) -> None:
        told.append(event)
        losses.append(mean_loss(model, mistaken("validation"), "validation", TASK))

    fit_labels(model, mistaken("validation"), plain, tell=tell)  # the better it knows the train part, the worse
    assert losses.index(min(losses)) == 0 and len(losses) == 4
    assert (told[-1].done, told[-1].total) == (100, 100) and "after epoch 1" in told[-1].note
    assert mean_loss(model, mistaken("validation"), "validation", TASK) == losses[0]
    assert same_bits(model, fit_labels(small_net(), mistaken("validation"), replace(plain, epochs=1)))


def test_a_run_that_gets_better_is_not_stopped() -> None:
    schedule = Schedule(epochs=12, rate=0.02, patience=1, momentum=0, label_smoothing=0)
    told: list[Event] = []
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    fit_labels(model, dots(), schedule, tell=told.append)
    assert [event.done for event in told] == list(range(1, 13))
    assert f"{mean_loss(model, dots(), 'validation', TASK):.3f} after epoch 12" in told[-1].note


def test_the_average_is_that_of_the_weights_behind_each_step() -> None:
    run = Run.of(Sum(), dots(), replace(TINY, average_over=2))  # 6 steps long: each adds a sixth
    assert run.average is not None
    images, labels = labelled(whole(dots(), "train"))
    wanted: Mapping[str, Tensor] = {}
    for _ in range(5):
        run.descend(F.cross_entropy(run.model(images), labels), 0.2)
        now = {name: tensor.double() for name, tensor in run.model.state_dict().items()}
        wanted = {name: 5 / 6 * wanted[name] + 1 / 6 * new if wanted else new for name, new in now.items()}
    averaged = run.average.module.state_dict()
    for name in wanted:
        torch.testing.assert_close(averaged[name].double(), wanted[name], rtol=1e-5, atol=1e-6)
    assert averaged["index"].tolist() == [7, 11]  # whole numbers are no matter of averages
    assert not torch.equal(averaged["fc.weight"], run.model.state_dict()["fc.weight"])


def test_statistics_of_batch_norms_are_averaged_too() -> None:
    run = Run.of(small_net(), dots(), replace(TINY, average_over=1))
    assert run.average is not None
    means = []
    for images, labels in map(labelled, dots().batches("train", 16)):
        run.descend(F.cross_entropy(run.model(images), labels), 0.2)
        means.append(run.model.state_dict()["1.running_mean"].clone())
    assert len(means) == 3
    torch.testing.assert_close(
        run.average.module.state_dict()["1.running_mean"], 4 / 9 * means[0] + 2 / 9 * means[1] + 3 / 9 * means[2]
    )


@pytest.mark.parametrize("better", [True, False])
def test_the_average_is_taken_only_where_it_is_better(better: bool) -> None:
    data = mistaken("validation") if better else dots()  # the average has learned less: the better, if it is wrong
    schedule = replace(TINY, rate=0.001)
    plain = fit_labels(small_net(), data, schedule)
    averaged = fit_labels(small_net(), data, replace(schedule, average_over=2))
    assert same_bits(plain, averaged) is not better
    assert (mean_loss(averaged, data, "validation", TASK) < mean_loss(plain, data, "validation", TASK)) is better


def test_the_test_part_decides_nothing() -> None:
    schedule = replace(TINY, patience=2, average_over=1, rate=0.3)
    assert same_bits(fit_labels(small_net(), dots(), schedule), fit_labels(small_net(), mistaken("test"), schedule))


def test_the_score_is_the_metric_of_the_whole_part() -> None:
    class Left(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([torch.ones(len(x)), torch.zeros(len(x))], 1)

    assert score(Left(), dots(), "test", TASK) == 50.0


def test_the_mean_loss_is_that_of_all_images() -> None:
    model, data = small_net().eval(), dots()
    images, labels = labelled(data.parts["validation"])
    with torch.no_grad():
        scores = model(images)
    assert mean_loss(model, data, "validation", TASK) == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-6)
    right = float((scores.argmax(1) == labels).float().mean())
    assert score(model, data, "validation", TASK) == pytest.approx(100 * right)


def moved(longest: float | None) -> Tensor:
    """How far one step of plain descent moves every weight."""
    model = small_net()
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    schedule = Schedule(epochs=1, batch_size=99, momentum=0, weight_decay=0, rate=10.0, longest_gradient=longest)
    fit(model, dots(), schedule, task=TASK)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - before


def test_a_gradient_that_is_too_long_is_cut_to_its_length_and_keeps_its_direction() -> None:
    """One step at a hundredth of the rate, as a run begins; up to rounding."""
    rate, free = 0.1, moved(None)
    length = float(free.norm()) / rate
    for longest in (0.5 * length, 0.01 * length):
        step = moved(longest)
        assert float(step.norm()) == pytest.approx(rate * longest, rel=1e-3)
        assert float(torch.dot(step, free) / step.norm() / free.norm()) == pytest.approx(1, abs=1e-4)
    assert torch.equal(moved(2 * length), free)
