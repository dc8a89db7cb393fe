import math
import pickle
from dataclasses import replace

import pytest
import torch
from exact_fisher import assert_near, expected_hessian, mean_outer
from torch import Tensor, nn

from slimwright.data import PARTS, ArrayData, Inputs, images_of, split, tensors_of, whole
from slimwright.errors import DataError
from slimwright.tasks import Imitation, Outputs, Task, forward_of, imitating, imitation

SHAPES = [(), (1,), (5,), (3, 4, 4), (2, 7), (0,)]  # of an image


def noise(count: int = 40) -> ArrayData:
    images = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return ArrayData("noise", (), split(images, torch.zeros(count, 0), seed=0))


def many(inputs: Inputs) -> Outputs:
    """Outputs of many shapes: a number, scores, a map, whole numbers, a constant, nothing."""
    x = images_of(inputs)
    whole_numbers = (x.flatten(1) > 0).sum(1)
    return (
        x.mean((1, 2, 3)),
        10 * x.flatten(1),
        x + 3,
        whole_numbers,
        torch.full((len(x), 2), 4.0),
        x.new_zeros(len(x), 3),
    )


def test_deviations_are_those_of_each_output_over_the_calibration_part() -> None:
    task, (inputs, _) = imitating(noise(), many), whole(noise(), "calibration")
    for deviation, output in zip(task.deviations[:4], many(inputs)[:4], strict=True):
        assert deviation == pytest.approx(float(output.double().std(correction=0)), rel=1e-6)
    assert task.deviations[4:] == (4.0, 1.0)  # constant outputs are measured by their size; zeros by one
    assert task.outputs == 6 and len(task.classes) == 1


def test_an_output_far_from_zero_is_measured_by_how_it_varies() -> None:
    task, (inputs, _) = imitating(noise(), lambda x: (images_of(x) + 1000,)), whole(noise(), "calibration")
    assert task.deviations[0] == pytest.approx(float(images_of(inputs).double().std(correction=0)), rel=1e-3)


def test_the_loss_and_the_metric_by_hand() -> None:
    task: Task = Imitation((2.0, 0.5))
    outputs = torch.tensor([1.0, 5.0]), torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    wanted = torch.tensor([3.0, 5.0]), torch.tensor([[1.0, 1.0], [1.0, 3.0]])
    first, second = [4 / 4, 0.0], [0.5 / 0.25, 5 / 0.25]  # mean squares over squared deviations
    assert task.loss(outputs, wanted).tolist() == pytest.approx([(1 + 2) / 4, 20 / 4])
    assert float(task.distance(outputs, wanted, 4.0)) == pytest.approx((3 + 20) / 8)
    assert task.score(outputs, wanted) == pytest.approx(100 * math.sqrt(sum(first + second) / 4))
    assert not task.metric.higher_is_better and task.metric.drop(1.0, 3.0) == 2.0


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_of_any_shape_can_be_imitated(shape: tuple[int, ...]) -> None:
    task: Task = Imitation((0.5,))
    made = torch.randn(3, *shape, requires_grad=True)
    wanted = made.detach() + 1
    expected = 0.5 / 0.25 if made.numel() else 0.0
    assert task.loss((made,), wanted).tolist() == pytest.approx([expected] * 3, rel=1e-5)
    assert task.score((made,), (made.detach(),)) == 0.0
    numbers = torch.rand(3, dtype=torch.float64)
    drawn = task.drawn_loss((made,), numbers)
    parts = [task.drawn_loss((made[i : i + 1],), numbers[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(drawn, torch.stack(parts).sum())
    (task.loss((made,), wanted).sum() + drawn).backward()
    assert made.grad is not None and made.grad.shape == made.shape
    assert task.class_of(wanted).tolist() == [0, 0, 0]


def test_many_outputs_at_once() -> None:
    data = noise()
    task = imitating(data, many)
    inputs, _ = whole(data, "test")
    outputs = many(inputs)
    assert task.loss(outputs, outputs).tolist() == [0.0] * len(outputs[0])
    off = tuple(output + 1 for output in outputs)
    expected = sum(1 / deviation**2 for deviation in task.deviations) / 6
    assert task.score(off, outputs) == pytest.approx(100 * math.sqrt(expected), rel=1e-5)
    assert math.isfinite(float(task.drawn_loss(outputs, torch.rand(len(outputs[0]), dtype=torch.float64))))


def test_deviations_are_taken_over_images_spread_over_the_part() -> None:
    """Every third of 200, in whatever batches they come: an ordered part's first images may be alike."""
    images = torch.arange(200.0)[:, None, None, None].expand(200, 1, 2, 2)
    data = ArrayData("ordered", ("a",), dict.fromkeys(PARTS, (images, torch.zeros(200, dtype=torch.int64))))
    seen: list[float] = []

    def original(inputs: Inputs) -> tuple[Tensor]:
        seen.extend(images_of(inputs)[:, 0, 0, 0].tolist())
        return (images_of(inputs).flatten(1),)

    task = imitating(data, original)
    assert seen == [float(number) for number in range(0, 200, 3)]
    assert task.deviations == pytest.approx((float(torch.arange(0.0, 200, 3).std(correction=0)),), rel=1e-6)


def test_half_precision_does_not_overflow() -> None:
    task = Imitation((1.0,))
    made, wanted = torch.full((2, 3), 300.0, dtype=torch.float16), torch.zeros(2, 3)
    assert task.loss((made,), wanted).tolist() == [45_000.0] * 2  # its square is beyond float16
    flags = torch.tensor([True, False])
    assert task.loss((flags,), ~flags).tolist() == [0.5] * 2


def test_a_constant_output_is_imitated_in_shares_of_its_size() -> None:
    data = noise()
    task = imitating(data, lambda x: (torch.full((len(images_of(x)), 2), 50.0),))
    assert task.score((torch.full((4, 2), 51.0),), torch.full((4, 2), 50.0)) == pytest.approx(2.0)
    nothing = imitating(data, lambda x: (torch.zeros(len(images_of(x)), 2),))
    assert nothing.score((torch.full((4, 2), 0.01),), torch.zeros(4, 2)) == pytest.approx(1.0)


def test_squared_projections_are_the_gauss_newton_matrix() -> None:
    """Of a net of 12 weights and two outputs, by 8,000 draws an image; within 5 % of the norm."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(12, dtype=torch.float64, generator=generator)
    images = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    task = Imitation((0.7, 3.0))

    def net(w: Tensor, x: Tensor) -> Outputs:
        hidden = torch.tanh(x @ w[:6].reshape(3, 2))
        return hidden @ w[6:10].reshape(2, 2), (hidden @ w[10:])[:, None, None].expand(-1, 1, 3)

    def curvature(outputs: Outputs) -> Tensor:
        return torch.diag(torch.tensor([1 / (2 * 2 * 0.7**2)] * 2 + [1 / (2 * 3 * 3.0**2)] * 3, dtype=torch.float64))

    found = mean_outer(task, net, weights, images, 8_000)
    assert_near(found, expected_hessian(net, weights, images, curvature), within=0.05)

    def mean_loss(w: Tensor) -> Tensor:
        return task.loss(net(w, images), tuple(each.detach() for each in net(weights, images))).mean()

    exact = torch.func.hessian(mean_loss)(weights)  # where the error is zero, Gauss-Newton is all of it
    torch.testing.assert_close(expected_hessian(net, weights, images, curvature), exact, rtol=1e-9, atol=1e-9)


def softmax_net(w: Tensor, x: Tensor) -> Outputs:
    """Probabilities of three classes at two positions [N, 3, 2], and a map [N, 2] that is none."""
    hidden = torch.tanh(x @ w[:6].reshape(3, 2))
    return (hidden @ w[6:18].reshape(2, 6)).reshape(-1, 3, 2).softmax(1), hidden @ w[18:22].reshape(2, 2)


def test_probabilities_are_imitated_by_their_divergence() -> None:
    """By hand; the other output stays a Gaussian's, and the metric is that of both."""
    task: Task = Imitation((0.5, 0.5), dims=(1, 0))
    wanted = torch.tensor([[0.8, 0.2], [1.0, 0.0]]), torch.zeros(2, 1)
    found = torch.tensor([[0.5, 0.5], [0.9, 0.1]]), torch.tensor([[0.0], [1.0]])
    first = [0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5), math.log(1 / 0.9)]
    assert task.loss(found, wanted).tolist() == pytest.approx([first[0] / 2, (first[1] + 0.5 / 0.25) / 2], rel=1e-5)
    assert float(task.distance(found, wanted, 4.0)) == pytest.approx(float(task.loss(found, wanted).mean()))
    assert task.score(found, wanted) == pytest.approx(100 * math.sqrt((0.09 + 0.01 + 0.0 + 1.0) / 0.25 / 4))
    assert task.loss(wanted, wanted).tolist() == pytest.approx([0.0, 0.0], abs=1e-7)


def test_classes_that_are_drawn_give_the_curvature_of_the_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(22, dtype=torch.float64, generator=generator)
    images = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    task = Imitation((0.7, 3.0), dims=(1, 0))
    target = tuple(each.detach() for each in softmax_net(weights, images))

    def mean_loss(w: Tensor) -> Tensor:
        return task.loss(softmax_net(w, images), target).mean()

    exact = torch.func.hessian(mean_loss)(weights)  # where the error is zero, the Fisher matrix is all of it
    assert_near(mean_outer(task, softmax_net, weights, images, 20_000), exact, within=0.05)


def test_outputs_are_probabilities_where_they_add_up_to_one_for_every_image() -> None:
    def original(inputs: Inputs) -> Outputs:
        x = images_of(inputs)
        scores = x.flatten(1)
        half = scores.clone()
        half[1:] = half[1:].softmax(1)  # but not for the first image
        return scores.softmax(1), x.softmax(3), x.flatten(2).softmax(2), half, scores.sigmoid(), (scores > 0).long()

    task = imitating(noise(), original)
    assert task.dims == (1, 3, 2, 0, 0, 0)
    assert imitating(noise(), many).dims == ()


def test_nets_agree_where_outputs_that_look_like_scores_have_the_same_largest() -> None:
    task = Imitation((1.0, 1.0, 1.0))
    scores, map_, box = torch.eye(4), torch.randn(4, 2, 3, 3), torch.randn(4, 1)
    assert task.agreement((scores, -map_, -box), (2 * scores, map_, box)) == 1.0
    other = torch.eye(4)
    other[0] = other[1]
    assert task.agreement((scores, map_, other), (scores, map_, scores)) == 0.75
    assert Imitation((1.0,)).agreement((map_,), (-map_,)) == 1.0


def test_the_metric_of_outputs_that_are_no_numbers_is_infinite() -> None:
    task = Imitation((1.0,))
    assert task.score((torch.tensor([[float("nan"), 0.0]]),), torch.zeros(1, 2)) == math.inf
    assert task.score((torch.tensor([[float("inf"), 0.0]]),), torch.zeros(1, 2)) == math.inf


def test_its_data_has_the_outputs_of_the_original_as_targets() -> None:
    data, module = noise(), nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3))
    original = forward_of(module)
    task = imitating(data, original)
    taught = task.data(data, original)
    assert taught.labels == () and taught.name == "noise" and taught.image_shape == (1, 4, 4)
    assert taught.preprocessing is data.preprocessing and [taught.size(part) for part in PARTS] == [20, 6, 6, 8]
    for seed in (None, 3):
        plain = [images_of(inputs) for inputs, _ in data.batches("train", 7, seed=seed)]
        for (inputs, targets), seen in zip(taught.batches("train", 7, seed=seed), plain, strict=True):
            (given,) = tensors_of(targets)
            assert torch.equal(images_of(inputs), seen) and not given.requires_grad
            assert torch.equal(given, module.eval()(seen).detach())
    again = pickle.loads(pickle.dumps(taught))  # as it travels to other processes of ours
    assert torch.equal(tensors_of(whole(again, "test")[1])[0], tensors_of(whole(taught, "test")[1])[0])


def test_the_original_runs_once_over_a_part_that_is_read_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    data, module, runs = noise(), nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), list[int]()

    def original(inputs: Inputs) -> Outputs:
        runs.append(len(images_of(inputs)))
        return (module(images_of(inputs)).detach(),)

    task = Imitation((1.0,))
    taught = task.data(data, original)
    assert task.data(taught, original) is taught  # it has its targets
    next(iter(taught.batches("train", 7)))  # not read to its end: nothing is known of the part
    first = tensors_of(whole(taught, "train")[1])[0]
    assert runs == [7, *runs[1:]] and sum(runs) == 7 + 20
    runs.clear()
    again = [tensors_of(targets)[0] for _, targets in taught.batches("train", 6)]
    assert runs == [] and [len(each) for each in again] == [6, 6, 6, 2] and torch.equal(torch.cat(again), first)
    for _ in taught.batches("train", 7, seed=3):
        pass
    assert runs == [7, 7, 6]
    runs.clear()
    monkeypatch.setattr(imitation, "HELD_BYTES", 3 * 4 * 6 - 1)  # less than the six images of a part give
    for _ in range(2):
        whole(taught, "validation")
    assert sum(runs) == 2 * 6


def test_several_inputs_reach_the_original() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1) + y, y

    images, _ = whole(noise(), "train")
    parts = split((images_of(images), torch.arange(20.0)[:, None]), torch.zeros(20, 0), seed=0)
    data = ArrayData("two", (), parts)
    original = forward_of(Sum())
    inputs, targets = whole(imitating(data, original).data(data, original), "test")
    x, y = tensors_of(inputs)
    assert torch.equal(tensors_of(targets)[0], x.flatten(1) + y) and torch.equal(tensors_of(targets)[1], y)


def test_an_original_that_gives_no_numbers_is_told() -> None:
    with pytest.raises(DataError, match="outputs for some images are NaN or infinite"):
        imitating(noise(), lambda x: (images_of(x) / 0,))


def test_a_net_with_another_number_of_outputs_is_told() -> None:
    task = Imitation((1.0, 2.0))
    task.check([(1, 4), (1, 3, 2, 2)])
    with pytest.raises(DataError, match="the model returns 1 outputs, and the original that it shall imitate 2"):
        replace(task, name="other").check([(1, 4)])
