"""A wrong set-up never passes as a success, and a right one always passes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from slimwright.data import ArrayData, Batch, Dataset, Part, labelled, of_classes
from slimwright.errors import DataError, RequestError
from slimwright.graph import Net
from slimwright.jobs.given import check_inputs
from slimwright.jobs.setups import check_setup, expectation
from slimwright.measure import original_of
from slimwright.tasks import Classification, Imitation, Metric
from small_digits import few_digits, small_digit_net

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def changed(change: Change) -> ArrayData:
    """Few digits, every part of them changed."""
    data = few_digits()
    parts: dict[Part, Batch] = {part: change(*labelled(batch)) for part, batch in data.parts.items()}
    return replace(data, parts=parts)


def judged(data: Dataset, net: Net | None = None, expect: str | None = None) -> str:
    """What is said of a set-up; "" where it passes."""
    original = original_of(net or small_digit_net(), [])
    try:
        check_setup(original, Classification(data.labels), data, expect=expect)
    except DataError as error:
        return str(error)
    return ""


def test_a_right_set_up_passes_with_and_without_an_expectation() -> None:
    assert judged(few_digits()) == "" == judged(few_digits(), expect="80%")


def test_below_what_is_expected_nothing_is_done() -> None:
    said = judged(few_digits(), expect="0.9999")
    assert "on 110 validation images, and 99.99 % was expected; no other" in said
    assert judged(changed(lambda x, y: (x, (y + 1) % 10)), expect="0") == ""


def test_labels_that_are_one_off_are_named() -> None:
    said = judged(changed(lambda x, y: (x, (y + 1) % 10)))
    assert "chance alone gives" in said and "with its classes in each class one score earlier" in said
    assert "name the model's outputs in their order with --classes, or go on with --expect 0" in said


def test_classes_in_any_other_order_are_named() -> None:
    said = judged(changed(lambda x, y: (x, (3 * y + 4) % 10)))
    assert "another order (the score of '0' is number 2, the score of '1' is number 9, " in said


def test_exchanged_dark_and_bright_and_another_normalization_are_named() -> None:
    own = few_digits().preprocessing
    mean, std = float(own["mean"][0]), float(own["std"][0])  # type: ignore[index]
    bare = {"input": "as stored"}

    def stored(change: Callable[[Tensor], Tensor]) -> str:
        """What is said of digits in a file, as shares of ink that are changed."""
        data = replace(changed(lambda x, y: (change(x * std + mean).clamp(0, 1), y)), preprocessing=bare)
        return judged(data)

    assert "dark and bright exchanged" in stored(lambda ink: 1 - ink)


def test_labels_by_lot_and_an_untrained_net_are_as_good_as_chance() -> None:
    def by_lot(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return images, labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]

    for said in (judged(changed(by_lot)), judged(few_digits(), worn(4.0))):
        assert "chance alone gives" in said and "no other normalization" in said and "--expect 0" in said


@pytest.mark.parametrize("noise", [0.5, 0.55, 0.6])
def test_a_net_that_is_just_bad_passes(noise: float) -> None:
    net = worn(noise)
    task = Classification(few_digits().labels)
    images, labels = labelled(few_digits().parts["train"])
    assert 25 < task.score(net.run(images), labels) < 90
    assert judged(few_digits(), net) == ""


def worn(noise: float) -> Net:
    """The small net with noise on its weights, in shares of their deviation."""
    net, generator = small_digit_net(), torch.Generator().manual_seed(3)
    return net.edited(
        tensors={
            name: t + noise * t.std(correction=0) * torch.randn(t.shape, generator=generator)
            for name, t in net.tensors.items()
        }
    )


def test_few_images_cannot_tell_and_pass() -> None:
    data = few_digits()
    few: dict[Part, Batch] = {part: (images[:4], labels[:4]) for part, (images, labels) in data.parts.items()}
    assert judged(replace(data, parts=few), worn(4.0)) == ""


def test_two_classes_that_are_exchanged_are_told() -> None:
    two = of_classes(few_digits(), (3, 8))
    net = small_digit_net()
    head = net[net.outputs[0]]
    kept = {name: net.tensors[head.tensors[role]][[8, 3]] for role, name in head.tensors.items()}
    assert "score" in judged(two, net.edited(tensors=kept))


def test_a_task_without_right_and_wrong_is_only_judged_by_what_is_expected() -> None:
    original, data = original_of(small_digit_net(), []), few_digits()
    check_setup(original, Imitation((1.0,)), data)
    check_setup(original, Imitation((1.0,)), data, expect="5%")
    twisted = replace(original, forward=lambda inputs: tuple(2 * y for y in original.forward(inputs)))

    @dataclass(frozen=True)
    class Stubborn(Imitation):
        def data(self, data: Dataset, forward: object) -> Dataset:
            return Imitation.data(self, data, original.forward)

    with pytest.raises(DataError, match=r"relative error .* validation images, and 5\.00 % was expected"):
        check_setup(twisted, Stubborn((1.0,)), data, expect="5%")
    check_setup(twisted, Stubborn((1.0,)), data, expect="0")  # takes every error, though none is below 0


@pytest.mark.parametrize(
    ("text", "value"), [("0.76", 76), ("76%", 76), ("76", 76), ("1", 100), ("0.5%", 0.5), (" 76 %", 76), ("0", 0)]
)
def test_what_is_expected_is_read_as_people_write_it(text: str, value: float) -> None:
    assert expectation(text, Metric("accuracy")) == pytest.approx(value)


def test_other_units_are_taken_as_they_are_and_nonsense_is_told() -> None:
    assert expectation("0.8", Metric("error", "px", "pixels", higher_is_better=False)) == 0.8
    for text in ("much", "7%6", "nan", ""):
        with pytest.raises(RequestError, match=r"write 0\.76 or 76%"):
            expectation(text, Metric("accuracy"))


def test_images_that_do_not_fit_are_told_with_what_to_do(tmp_path: Path) -> None:
    def of(shape: tuple[int, ...]) -> ArrayData:
        batch: Batch = torch.rand(4, *shape), torch.tensor([0, 1, 0, 1])
        return ArrayData("mine", ("a", "b"), dict.fromkeys(few_digits().parts, batch))

    net = small_digit_net()  # [1, 32, 32]
    with pytest.raises(DataError, match=r"for its 1 channels give --preprocessing channels=grey$"):
        check_inputs(net, of((3, 32, 32)))
    with pytest.raises(DataError, match=r"for its size name pictures as folder:PATH@32x32$"):
        check_inputs(net, of((1, 48, 64)))
    with pytest.raises(DataError, match="their channels last: store them as"):
        check_inputs(net, of((32, 32, 1)))
