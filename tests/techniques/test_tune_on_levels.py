"""Fine-tuning behind `quantize`: weights stay on the levels of their bits, and learn."""

from pathlib import Path

import pytest
import torch

from proofs import share_right
from slimwright.data import labelled, whole
from slimwright.graph import Net
from slimwright.graph.levels import has_levels
from slimwright.storage import packed_bytes, read_packed, write_packed
from slimwright.techniques import Quantize, Recipe, Sparsify, Step, Tune, apply
from slimwright.techniques.fold import Fold
from slimwright.techniques.tune import scales_of
from small_digits import few_digits, matrices, small_digit_net

TUNE = Tune(epochs=8, rate=0.01)


def after(*steps: Step) -> Net:
    net = small_digit_net()
    return apply(Recipe(original=net.digest, steps=(Fold(), *steps)), net, few_digits())


def right(net: Net) -> float:
    images, labels = labelled(whole(few_digits(), "train"))
    return share_right(net.run(images)[0], labels)


def error(net: Net) -> float:
    """The mean squared error of scores on images that nothing was solved on, beside those of the original."""
    images, _ = labelled(whole(few_digits(), "validation"))
    wanted = small_digit_net().run(images)[0]
    return float((net.run(images)[0] - wanted).square().mean() / wanted.square().mean())


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(1, None), (2, None), (2, 4), (4, 3)])
def test_tuning_keeps_the_levels_and_comes_nearer(weight_bits: int, activation_bits: int | None) -> None:
    step = Quantize(images=130, rounding="nearest", weight_bits=weight_bits, activation_bits=activation_bits)
    before, tuned = after(step), after(step, TUNE)
    assert tuned.encodings == before.encodings and has_levels(tuned) == has_levels(before)
    assert [node.arguments for node in tuned.nodes] == [node.arguments for node in before.nodes]
    most = max(2 ** (weight_bits - 1) - 1, 1)
    scales = scales_of(tuned)
    for node in tuned.weighted():
        weight = tuned.tensors[node.tensors["weight"]].flatten(1)
        whole_numbers = weight / scales[node.tensors["weight"]][:, None]
        assert float((whole_numbers - whole_numbers.round()).abs().max()) < 1e-4
        assert float(whole_numbers.abs().max()) < most + 0.5
        assert weight_bits > 1 or all(len(row.abs().unique()) == 1 for row in weight)
    changed = [not torch.equal(matrices(before)[name], weight) for name, weight in matrices(tuned).items()]
    assert all(changed)
    assert error(tuned) < 0.7 * error(before) and right(tuned) >= right(before)


def test_zeros_stay_zero_on_trained_levels() -> None:
    steps = (Sparsify(share=0.5), Quantize(images=60, rounding="least squares", weight_bits=4))
    before, tuned = after(*steps), after(*steps, TUNE)
    for name, weight in matrices(after(Sparsify(share=0.5))).items():
        assert not matrices(before)[name][weight == 0].any() and not matrices(tuned)[name][weight == 0].any()
    assert any(not torch.equal(matrices(before)[name], weight) for name, weight in matrices(tuned).items())


def test_a_layer_that_stays_in_float_and_weights_that_a_runtime_rounds_are_trained_freely() -> None:
    last = [*small_digit_net().weighted()][-1]
    tuned = after(Quantize(images=60, rounding="nearest", weight_bits=2, keep_float=(last.name,)), TUNE)
    assert len(tuned.tensors[last.tensors["weight"]].unique()) > 1000
    assert last.tensors["weight"] not in scales_of(tuned)
    free = after(Quantize(images=60), TUNE)
    assert free.encodings and not scales_of(free)


@pytest.mark.parametrize(("bits", "entropy"), [(1, 1.0), (2, 1.585)])
def test_few_bits_are_packed_near_to_what_they_are(bits: int, entropy: float, tmp_path: Path) -> None:
    """Beside a scale of each output, signs take a bit each and ternary weights at most log2(3)."""
    net = after(Quantize(images=60, rounding="least squares", weight_bits=bits, activation_bits=None), TUNE)
    write_packed(net, tmp_path / "net.swz")
    assert read_packed(tmp_path / "net.swz").digest == net.digest
    weights = sum(weight.numel() for weight in matrices(net).values())
    rest = packed_bytes(net.edited(tensors={n: t * 0 for n, t in net.tensors.items() if t.ndim > 1}))
    outputs = sum(len(weight) for weight in matrices(net).values())
    assert packed_bytes(net) - rest <= 1.02 * entropy * weights / 8 + 4 * outputs
