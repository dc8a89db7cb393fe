from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dots import SHAPE, TASK, dots, fit_labels, same_bits, two_stages
from slimwright.coupling import couple, cut
from slimwright.data import labelled, whole
from slimwright.errors import RequestError
from slimwright.tasks import Classification, Imitation
from slimwright.train import Match, Schedule, paired, score
from slimwright.train.loss import loss_of, outputs_of, relative_error

KEPT = (0, 2, 3, 5)
THREE = Classification(("a", "b", "c"))


def slim(seed: int = 0) -> tuple[Match, ...]:
    """Values of a `two_stages(widths=(4, 4, 5))` that stand for those of one with six channels in front."""
    return Match("relu", "relu", KEPT), Match("relu_2", "relu_2")


def images(count: int = 5) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_the_loss_is_the_formula_of_hinton() -> None:
    schedule = Schedule(teacher_share=0.7, temperature=2.0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    x, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    p, q = (teacher(x) / 2).softmax(1), (student(x) / 2).softmax(1)
    soft = 4 * (p * (p.log() - q.log())).sum(1).mean()
    hard = -student(x).log_softmax(1)[torch.arange(5), labels].mean()
    found = loss_of(student, (x, labels), schedule, task=THREE, teacher=teacher)
    torch.testing.assert_close(found, 0.3 * hard + 0.7 * soft)
    plain = nn.functional.cross_entropy(student(x), labels, label_smoothing=0.05)
    torch.testing.assert_close(loss_of(student, (x, labels), schedule, task=THREE), plain)


def test_a_teacher_without_a_share_leaves_the_labels_alone() -> None:
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    nn.init.constant_(teacher.weight, float("nan"))  # it is not even asked
    x, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    hard = -student(x).log_softmax(1)[torch.arange(5), labels].mean()
    found = loss_of(student, (x, labels), Schedule(teacher_share=0), task=THREE, teacher=teacher)
    torch.testing.assert_close(found, hard)


def test_a_teacher_that_agrees_leaves_no_loss() -> None:
    model = nn.Linear(4, 3)
    batch = torch.randn(5, 4), torch.zeros(5, dtype=torch.int64)
    loss = loss_of(model, batch, Schedule(teacher_share=1.0), task=THREE, teacher=model)
    assert abs(float(loss.detach())) < 1e-6


def test_matched_values_add_their_mean_relative_error() -> None:
    teacher, student = two_stages(1), two_stages(2, (4, 4, 5))
    mine, its = paired(student, teacher, slim())
    x, labels = images(), torch.tensor([0, 1, 1, 0, 1])
    scores, *values = mine(x)
    _, first, last = replace(teacher, outputs=("linear", "relu", "relu_2")).to_module()(x)
    errors = [
        ((value - wanted) ** 2).sum() / (wanted**2).sum()
        for value, wanted in zip(values, (first[:, list(KEPT)], last), strict=True)
    ]
    hard = nn.functional.cross_entropy(scores, labels)
    schedule = Schedule(teacher_share=0, feature_weight=3.0)
    found = loss_of(mine, (x, labels), schedule, task=TASK, teacher=its)
    torch.testing.assert_close(found, hard + 3 * (errors[0] + errors[1]) / 2)


def test_gradients_of_matched_values_reach_the_student_alone() -> None:
    student, teacher = paired(two_stages(2, (4, 4, 5)), two_stages(1), slim())
    batch = images(), torch.tensor([0, 1, 1, 0, 1])
    loss_of(student, batch, Schedule(teacher_share=0.5), task=TASK, teacher=teacher).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in student.parameters())
    assert len(list(teacher.parameters())) == 8 and all(p.grad is None for p in teacher.parameters())


def test_matched_values_alone_pull_only_the_layers_in_front() -> None:
    student, teacher = paired(two_stages(2), two_stages(1), [Match("relu_1", "relu_1")])
    for head in (student.get_submodule("7"), teacher.get_submodule("module.7")):
        nn.init.zeros_(head.get_parameter("weight"))  # both name the same scores, whatever they see
        nn.init.zeros_(head.get_parameter("bias"))
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    fit_labels(student, dots(), Schedule(2, teacher_share=1, weight_decay=0), teacher=teacher)
    moved = {name for name, p in student.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_values_come_to_match_and_the_net_takes_its_module_back() -> None:
    teacher = two_stages(1)
    teacher = teacher.trained(fit_labels(teacher.to_module(), dots(), Schedule(6, rate=0.05)))
    coupling = couple(teacher)
    (group,) = (group for group in coupling.groups if group.size == 6)
    small = cut(teacher, {group.name: np.array(KEPT)}, coupling)
    x, _ = labelled(whole(dots(), "test"))
    far = []
    for weight in (0.0, 1.0):
        student, guide = paired(small, teacher, slim())
        fit_labels(student, dots(), Schedule(20, rate=0.05, teacher_share=0.5, feature_weight=weight), teacher=guide)
        with torch.no_grad():
            far.append(float(relative_error(student(x)[2], guide(x)[2])))
    assert far[1] < 0.1 and far[1] < 0.2 * far[0]
    trained = small.trained(student)
    assert set(trained.to_module().state_dict()) == set(student.state_dict())
    assert torch.equal(trained.to_module()(x), student(x)[0])
    assert score(student, dots(), "test", TASK) == score(trained.to_module(), dots(), "test", TASK)


def test_values_that_match_leave_the_scores_training_alone() -> None:
    net = two_stages(2)
    student, teacher = paired(net, two_stages(1), [Match("relu", "relu")])
    ignored = fit_labels(student, dots(), Schedule(2, feature_weight=0), teacher=teacher)
    assert same_bits(ignored, fit_labels(net.to_module(), dots(), Schedule(2), teacher=two_stages(1).to_module()))


@pytest.mark.parametrize(
    ("match", "said"),
    [
        (Match("relu_9", "relu"), "the changed net has no node 'relu_9'"),
        (Match("relu", "relu_9"), "the original net has no node 'relu_9'"),
        (
            Match("relu", "relu_2", (0, 1, 2, 3)),
            r"\[1, 4, 6, 6\] and cannot .* 4 channels of 'relu_2', .*\[1, 5, 4, 4\]",
        ),
        (Match("relu", "relu"), r"\[1, 4, 6, 6\] and cannot be matched with 6 channels"),
        (Match("relu", "relu", (0, 1, 2, 6)), "'relu' has 6 channels; 6 is none of them"),
        (Match("relu", "relu", (0, -1, 2, 3)), "'relu' has 6 channels; -1 is none of them"),
    ],
)
def test_values_that_cannot_be_matched_are_refused(match: Match, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        paired(two_stages(2, (4, 4, 5)), two_stages(1), [match])


def test_values_without_a_teacher_that_gives_them_are_refused() -> None:
    student, _ = paired(two_stages(2), two_stages(1), [Match("relu", "relu")])
    x, labels = images(2), torch.tensor([0, 1])
    with pytest.raises(RequestError, match="there is no teacher"):
        loss_of(student, (x, labels), Schedule(), task=TASK)
    with pytest.raises(RequestError, match="gives 1 values to be matched, the teacher 0"):
        loss_of(student, (x, labels), Schedule(), task=TASK, teacher=two_stages(1).to_module())


def test_values_to_match_stand_behind_all_the_outputs() -> None:
    net, original = (replace(two_stages(seed), outputs=("conv2d_1", "linear")) for seed in (1, 2))
    student, teacher = paired(net, original, [Match("relu", "relu")])
    task, x = Imitation((2.0, 0.5)), images()
    outputs, values = outputs_of(student, x, task.outputs)
    told, wanted = outputs_of(teacher, x, task.outputs)
    assert [tuple(each.shape) for each in (*outputs, *values)] == [(5, 4, 6, 6), (5, 2), (5, 6, 6, 6)]
    assert all(torch.equal(one, other) for one, other in zip(outputs, net.to_module()(x), strict=True))
    targets = torch.randn(5, 4, 6, 6), torch.randn(5, 2)
    squares = [
        ((made - goal) ** 2).mean() / deviation**2
        for goals in (targets, told)
        for made, goal, deviation in zip(outputs, goals, task.deviations, strict=True)
    ]
    hard, soft = (squares[0] + squares[1]) / 4, (squares[2] + squares[3]) / 4
    far = relative_error(values[0], wanted[0])
    found = loss_of(student, (x, targets), Schedule(teacher_share=0.3, feature_weight=2), task=task, teacher=teacher)
    torch.testing.assert_close(found, 0.7 * hard + 0.3 * soft + 2 * far)


def test_a_model_with_too_few_outputs_is_refused() -> None:
    with pytest.raises(RequestError, match="the model gives 1 outputs, and its task has 2"):
        loss_of(nn.Linear(4, 3), (torch.randn(5, 4), (torch.zeros(5, 3),) * 2), Schedule(), task=Imitation((1.0, 1.0)))


def test_a_teacher_with_other_outputs_is_refused() -> None:
    student = replace(two_stages(2), outputs=("conv2d_1", "linear"))
    with pytest.raises(RequestError, match="the student has 2 outputs and its teacher 1"):
        paired(student, two_stages(1), [Match("relu", "relu")])
