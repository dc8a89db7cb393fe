"""Forecasts of planning and solving beside counts by hand, and what becomes of a step where memory is short."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from slimwright.cost import AIM
from slimwright.coupling import couple
from slimwright.data import ArrayData, Batch, Part, calibration_inputs, count_of
from slimwright.errors import RequestError
from slimwright.evidence import sums_bytes
from slimwright.evidence.memory_plan import empty_sums
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.progress import Event
from slimwright.techniques import Factorise, Recipe, Solve, applied
from slimwright.techniques.factorise import Ranks
from slimwright.techniques.memory_plan import (
    factorising_bytes,
    images_to_round,
    images_within,
    planning_bytes,
    solving_bytes,
    sums_within,
)
from slimwright.techniques.prune import Prune
from slimwright.techniques.round import Round
from slimwright.techniques.solver.draft import Draft

CONV_SUMS = 8 * (1 + 9 + 9 * 9 + 1 + 1 + 4 + 1 + 1)  # reads 1 channel in 3x3, gives 4
LINEAR_SUMS = 8 * (1 + 144 + 144 * 144 + 144 + 1 + 2 + 144 + 144)  # reads 4 channels of 6x6, gives 2
LINEAR_GROUP = 8 * (3 * 144 * 144 + 2 * 2 * 144)  # three matrices as large as the covariance, and the weights twice
LIBRARIES, SCIPY = 50_000_000, 40_000_000


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval(), (1, 8, 8))


@pytest.fixture
def data() -> ArrayData:
    torch.manual_seed(0)
    part = torch.randn(40, 1, 8, 8), torch.arange(40) % 2
    return ArrayData("made up", ("dark", "light"), dict.fromkeys(("train", "calibration", "validation", "test"), part))


def test_planning_by_hand(net: Net) -> None:
    """The largest piece is the group of four channels, which the linear layer reads."""
    conv, linear = net.layers
    coupling, sums = couple(net), CONV_SUMS + LINEAR_SUMS
    assert sums_bytes(net) == {conv: CONV_SUMS, linear: LINEAR_SUMS}
    assert planning_bytes(net, coupling, (conv, linear)) == 2 * sums + LINEAR_GROUP + LIBRARIES + SCIPY
    assert planning_bytes(net, coupling, (conv,)) == 2 * CONV_SUMS + 6 * 8 * 9 * 9 + LIBRARIES + SCIPY
    assert factorising_bytes(net, (linear,)) == 2 * sums + 2 * 8 * 144 * 144 + LIBRARIES + SCIPY


def test_solving_by_hand(net: Net) -> None:
    """40 images: the convolution is solved at all 36 positions of each, and the linear layer at one."""
    live = 4 * (64 + 144)  # bytes of an image's values while the convolution is computed
    conv = 4 * 9 * 1440 + 8 * 4 * 4 * 1440 + 5 * 8 * 9 * 9
    linear = 4 * 144 * 40 + 8 * 4 * 2 * 40 + 8 * (4 * 144 * 40 + 3 * 40 * 40)  # as many images as that: their products
    held = 2 * 40 * live
    assert held + conv > 2 * 40 * 4 * (144 + 2) + linear
    fixed = 3 * 4 * 330 + 40 * 4 * 64 + 2 * 40 * live + LIBRARIES
    assert solving_bytes(Draft.of(net), 40) == fixed + held + conv
    rounded = linear - 8 * (4 * 144 * 40 + 3 * 40 * 40) + 9 * 8 * 144 * 144
    assert solving_bytes(Draft.of(net), 40, rounded=True) == fixed + 2 * 40 * 4 * (144 + 2) + rounded


def test_where_memory_suffices_nothing_is_made_smaller(net: Net) -> None:
    told: list[Event] = []
    assert sums_within(net, couple(net), classes=10, sums=2e9, there=1e9) == 2e9
    assert images_within(Draft.of(net), 40, there=1e9, tell=told.append) == 40
    assert not told


def test_classes_are_observed_together_where_they_cannot_be_added_up(net: Net) -> None:
    """5000 classes would take 860 MB; 400 are there, of which adding up takes one group's share."""
    one = CONV_SUMS + LINEAR_SUMS
    found = sums_within(net, couple(net), classes=5000, sums=2e9, there=4e8)
    assert found == AIM * 4e8 - one
    assert not empty_sums(net, classes=5000, memory_bytes=found).skipped


def test_the_widest_layers_stay_as_they_are_where_planning_with_them_does_not_fit(net: Net) -> None:
    conv, linear = net.layers
    there = planning_bytes(net, couple(net), (conv,)) / AIM + 1
    found = sums_within(net, couple(net), classes=2, sums=2e9, there=there)
    assert found == CONV_SUMS
    assert set(empty_sums(net, classes=2, memory_bytes=found).skipped) == {linear}


def test_planning_that_cannot_fit_is_refused_in_advance(net: Net) -> None:
    with pytest.raises(RequestError, match=r"^planning needs about 90.* of memory, and 50.*are there: give a smaller"):
        sums_within(net, couple(net), classes=2, sums=2e9, there=5e7)


def test_fewer_images_are_solved_on_where_memory_is_short(net: Net) -> None:
    draft, told = Draft.of(net), list[Event]()
    there = solving_bytes(draft, 20) / AIM
    assert images_within(draft, 40, there=there, tell=told.append) == 20
    assert [event.note for event in told] == ["memory is short: weights are solved on 20 images instead of 40"]
    assert images_within(draft, 40, there=solving_bytes(draft, 20)) == 20  # the least, within all there is
    with pytest.raises(RequestError, match=r"^solving the weights needs about 50.* of memory, and 10.*are there: give"):
        images_within(draft, 40, there=1e7)


def test_steps_that_solve_take_fewer_images_or_say_what_they_lack(net: Net, data: ArrayData) -> None:
    cut, told = Draft.of(net).cut({"conv2d": np.array([0, 2, 3])}), list[Event]()
    for step in (Solve(), Round(price=1e-3, images=40)):
        short = int(solving_bytes(cut, 20, rounded=isinstance(step, Round)) / AIM) + 1
        recipe = Recipe(original=None, steps=(Prune(keep={"conv2d": [0, 2, 3]}), step))
        plenty = applied(recipe, net, data, memory_bytes=10**9, tell=told.append).draft.net
        assert not any(event.stage == "memory" for event in told)
        few = applied(recipe, net, data, memory_bytes=short, tell=told.append).draft.net
        assert "memory is short: weights are solved on 20 images instead of 40" in {event.note for event in told}
        assert few.tensors.keys() == plenty.tensors.keys()
        with pytest.raises(
            RequestError, match=rf"^step 2 of the recipe \({step.step}\): solving the weights needs about"
        ):
            applied(recipe, net, data, memory_bytes=20_000_000)
        told.clear()


def test_rounding_takes_training_images_too_where_a_large_layer_is_shown_too_few_positions() -> None:
    """64 inputs of one position ask for 640 images; 3x3 channels are shown 36 positions by each image."""
    few, many = torch.zeros(40, 1, 8, 8), torch.zeros(1000, 1, 8, 8)
    some = (few, torch.zeros(len(few), dtype=torch.int64))
    parts: dict[Part, Batch] = {"calibration": some, "validation": some, "test": some}
    parts["train"] = (many, torch.zeros(len(many), dtype=torch.int64))
    data = ArrayData("made up", ("dark",), parts)
    linear = capture(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval(), (1, 8, 8))
    conv = capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), (1, 8, 8))
    assert images_to_round(linear, data) == 10 * 64
    assert images_to_round(conv, data) == 40
    assert images_to_round(linear, replace(data, parts={**parts, "train": parts["test"]})) == 40 + 40


def test_factorising_by_what_is_observed_is_refused_in_advance_where_it_cannot_fit(net: Net, data: ArrayData) -> None:
    layers = {"linear": Ranks(kind="svd", ranks=(1,))}
    recipe = Recipe(original=None, steps=(Factorise(layers=layers, images=16),))
    with pytest.raises(RequestError, match=r"\(factorise\): factorising layers needs about 90.*: factorise without"):
        applied(recipe, net, data, memory_bytes=20_000_000)
    plain = Recipe(original=None, steps=(Factorise(layers=layers),))
    assert applied(plain, net, data, memory_bytes=20_000_000).draft.net["linear"].op == "linear"


def test_no_more_calibration_images_are_read_than_are_solved_on() -> None:
    read: list[int] = []

    class Counted(ArrayData):
        def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
            for batch in super().batches(part, batch_size, seed=seed):
                read.append(count_of(batch[0]))
                yield batch

    images = torch.arange(600.0).reshape(600, 1, 1, 1)
    parts: dict[Part, Batch] = dict.fromkeys(
        ("train", "calibration", "validation", "test"), (images, torch.zeros(600, dtype=torch.int64))
    )
    data = Counted("counted", ("one",), parts)
    assert torch.equal(torch.as_tensor(calibration_inputs(data, 300)), images[:300])
    assert read == [256, 256]
    assert torch.equal(torch.as_tensor(calibration_inputs(data)), images)
