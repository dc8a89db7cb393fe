"""The step that makes weights zero: as many as it says, the net still does what it did, and they stay zero."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from example_nets import SHAPE, net_of
from guarded_data import Guarded
from slimwright.data import ArrayData
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.storage import packed_bytes
from slimwright.storage.tensors import stored
from slimwright.techniques import (
    Factorise,
    Prune,
    Ranks,
    Recipe,
    Regions,
    Solve,
    Sparsify,
    Step,
    Tune,
    applied,
    apply,
    sentences,
)
from small_digits import few_digits, made, matrices, right, small_digit_net


def zeros(net: Net) -> int:
    return sum(int((weight == 0).sum()) for weight in matrices(net).values())


def test_the_share_is_met_and_the_net_does_what_it_did() -> None:
    net = small_digit_net()
    size = sum(weight.numel() for weight in matrices(net).values())
    small = made(Sparsify(share=0.75))
    assert zeros(small) == round(0.75 * size)
    assert right(small) >= right(net) - 0.05
    assert small.tensors.keys() == net.tensors.keys()
    shares = [float((weight == 0).float().mean()) for weight in matrices(small).values()]
    assert shares[0] < min(shares[1:])  # the first layer has the fewest weights for what its outputs are worth
    assert right(small) > right(made(Sparsify(share=0.75, by="magnitude")))


def test_two_of_four_input_channels_stay_and_other_layers_are_left_alone() -> None:
    net = small_digit_net()
    work = applied(Recipe(original=None, steps=(Sparsify(n_of_m=(2, 4)),)), net, few_digits())
    small = work.draft.net
    (first, conv, linear), before = matrices(small).values(), next(iter(matrices(net).values()))
    assert ((conv != 0).unflatten(1, (-1, 4)).sum(2) == 2).all() and (
        (linear != 0).unflatten(1, (-1, 4)).sum(2) == 2
    ).all()
    assert torch.equal(first, before)
    assert work.draft.unsolved == {"conv2d": "its 1 input channels in a group are not a multiple of 4"}
    assert right(small) >= right(net) - 0.05


def test_blocks_are_zero_as_a_whole_and_dense_layers_stay_dense() -> None:
    small = made(Sparsify(share=0.5, block=(4, 1), keep_dense=("linear",)))
    first, conv, linear = matrices(small).values()
    assert not (linear == 0).any()
    for weight in (first, conv):
        zero = (weight == 0).unflatten(0, (-1, 4))
        assert torch.equal(zero.any(1), zero.all(1))
    assert int((first == 0).sum() + (conv == 0).sum()) == 4 * round(0.5 * (72 + 1152) / 4)


def test_least_magnitudes_go_by_each_layers_own_deviation_and_nothing_is_read() -> None:
    net = small_digit_net()
    guarded = Guarded(few_digits(), "train", "calibration", "validation", "test")
    small = apply(Recipe(original=None, steps=(Sparsify(share=0.6, by="magnitude"),)), net, guarded)
    assert guarded.read == []
    levels = []
    for before, after in zip(matrices(net).values(), matrices(small).values(), strict=True):
        assert torch.equal(after[after != 0], before[after != 0])
        gone = before[after == 0].abs() / before.std(correction=0)
        left = before[after != 0].abs() / before.std(correction=0)
        levels.append((float(gone.max()), float(left.min())))
    assert max(gone for gone, _ in levels) <= min(left for _, left in levels)


@pytest.mark.parametrize(
    "later",
    [(Tune(epochs=2, rate=0.02),), (Regions(epochs=2),), (Prune(keep={"conv2d": [0, 1, 2, 4, 5]}), Solve())],
)
def test_zeros_stay_zero_in_later_steps(later: tuple[Step, ...]) -> None:
    step = Sparsify(share=0.75, by="magnitude")
    sparse, after = made(step), made(step, *later)
    rows = slice(None) if not isinstance(later[0], Prune) else torch.tensor([0, 1, 2, 4, 5])
    first, conv, linear = matrices(sparse).values()
    expected = [first[rows], conv[:, rows], linear]
    for before, now in zip(expected, matrices(after).values(), strict=True):
        assert torch.equal(before == 0, now == 0)
    assert any(not torch.equal(a, b) for a, b in zip(expected, matrices(after).values(), strict=True))


def test_training_alone_keeps_no_zeros() -> None:
    """A net that has zeros of its own is not taken for a sparse one."""
    net = made(Sparsify(share=0.75, by="magnitude"))
    tuned = apply(Recipe(original=None, steps=(Tune(epochs=1, rate=0.02),)), net, few_digits())
    assert zeros(tuned) < zeros(net) / 2


def test_shares_grow_step_by_step() -> None:
    tune = Tune(epochs=1, rate=0.02)
    gradual = made(Sparsify(share=0.5), tune, Sparsify(share=0.75), tune, Sparsify(share=0.9), tune)
    size = sum(weight.numel() for weight in matrices(gradual).values())
    assert zeros(gradual) == round(0.9 * size)


def test_depthwise_and_grouped_layers_become_sparse_too() -> None:
    torch.manual_seed(0)
    net = net_of(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.LazyLinear(3), shape=SHAPE,
    )  # fmt: skip
    images = torch.randn(80, *SHAPE)
    parts = {part: (images, torch.arange(80) % 3) for part in ("train", "calibration", "validation", "test")}
    data = ArrayData("noise", ("a", "b", "c"), parts)  # type: ignore[arg-type]
    small = apply(Recipe(original=None, steps=(Sparsify(share=0.4),)), net, data)
    size = sum(weight.numel() for weight in matrices(small).values())
    assert zeros(small) == round(0.4 * size)
    (wanted,), (got,) = net.run((images,)), small.run((images,))
    assert float((got - wanted).square().mean() / wanted.var()) < 0.2


def test_both_layers_of_a_factorised_one_become_sparse() -> None:
    net = small_digit_net()
    pair = Factorise(layers={"conv2d_1": Ranks(kind="output", ranks=(12,))})
    small = made(pair, Solve(), Sparsify(share=0.6))
    assert len(matrices(small)) == len(matrices(net)) + 1
    assert all((weight == 0).any() for weight in matrices(small).values())


def test_a_sparse_net_takes_few_bytes() -> None:
    """Each matrix by a mask, of a bit or less for a weight, and at most 4 bytes for each weight that is left."""
    small = made(Sparsify(share=0.9))
    for name, weight in matrices(small).items():
        found, share = stored(weight), float((weight != 0).float().mean())
        mask_bits = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
        assert found.form == "masked", name
        assert len(found.data) <= weight.numel() * (mask_bits / 8 + 4 * share) + 16
    assert packed_bytes(small) < 0.2 * packed_bytes(small_digit_net())


def test_the_step_says_what_it_does_and_stands_in_a_file() -> None:
    steps = (
        Sparsify(share=0.8),
        Sparsify(n_of_m=(2, 4), images=64),
        Sparsify(share=0.5, block=(4, 1), by="magnitude", keep_dense=("linear",)),
    )
    recipe = Recipe(original=None, steps=steps)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert sentences(recipe) == [
        "Make 80 % of the weights zero on the calibration images, at one price for all layers; the others make up for "
        "them.",
        "Make all but 2 of each 4 weights of an output zero on 64 calibration images; the others make up for them.",
        "Make 50 % of the weights, in blocks of 4 x 1, zero, those of least magnitude for their layer; linear stay "
        "dense.",
    ]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"share": 0.5, "n_of_m": (2, 4)}, {"n_of_m": (4, 4)}, {"n_of_m": (8, 16)}, {"share": 1.0},
     {"share": 0.5, "block": (0, 1)}, {"n_of_m": (2, 4), "block": (4, 1)}],
)  # fmt: skip
def test_what_makes_no_pattern_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Sparsify(**wrong)


def test_a_layer_that_is_not_there_cannot_stay_dense() -> None:
    with pytest.raises(RequestError, match="there is no layer 'fc'"):
        made(Sparsify(share=0.5, keep_dense=("fc",)))
