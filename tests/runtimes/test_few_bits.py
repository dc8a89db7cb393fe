"""Few bits in the runtimes: binary and ternary weights, the levels that a net says, and weights with tiny steps.

No runtime has kernels of its own for binary and ternary weights: they are floats that stand on levels, or INT8.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from proofs import skip_if_saturating
from shared_workshop import shared_workshop
from slimwright.data import calibration_inputs
from slimwright.graph import Net
from slimwright.graph.levels import LEVELS, Levels
from slimwright.runtimes import RUNTIMES
from slimwright.runtimes.known import installed
from slimwright.targets import Effort, Local, measure
from slimwright.techniques import Quantize, Recipe, apply
from slimwright.techniques.fold import Fold
from slow import slow
from small_digits import few_digits, small_digit_net


def few(bits: int, activation_bits: int | None) -> Net:
    net = small_digit_net()
    step = Quantize(images=60, rounding="least squares", weight_bits=bits, activation_bits=activation_bits)
    return apply(Recipe(original=net.digest, steps=(Fold(), step)), net, few_digits())


@pytest.mark.parametrize("bits", [1, slow(2)])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_alone_in_few_bits_give_the_scores_of_their_net(runtime: str, bits: int, tmp_path: Path) -> None:
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
    net, images = few(bits, None), torch.as_tensor(calibration_inputs(few_digits(), 8))
    made = shared_workshop().convert(net, runtime, "fp32", tmp_path)
    outputs = measure(Local(), {"few": made}, Effort(runs=1, warm_up=0), inputs=[images])["few"].outputs
    assert outputs is not None
    wanted = net.run(images)[0]
    torch.testing.assert_close(outputs[0], wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("bits", [1, slow(2)])
@pytest.mark.parametrize("runtime", [name for name, known in RUNTIMES.items() if "int8" in known.precisions])
def test_with_activations_on_levels_kernels_for_int8_compute_them(runtime: str, bits: int, tmp_path: Path) -> None:
    """In the mean to a twentieth of the largest score: most runtimes find the activations' levels by themselves."""
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
    skip_if_saturating(runtime, "int8")
    net, images = few(bits, 8), torch.as_tensor(calibration_inputs(few_digits(), 60))
    made = shared_workshop().convert(net, runtime, "int8", tmp_path, calibration=[images])
    outputs = measure(Local(), {"few": made}, Effort(runs=1, warm_up=0), inputs=[images[:8]])["few"].outputs
    assert outputs is not None
    wanted = net.run(images[:8])[0]
    assert float((outputs[0] - wanted).abs().mean()) <= 0.05 * float(wanted.abs().max())
    assert not torch.allclose(wanted, small_digit_net().run(images[:8])[0], atol=0.05 * float(wanted.abs().max()))


@pytest.mark.parametrize("runtime", [name for name, known in RUNTIMES.items() if "int8" in known.precisions])
def test_small_weights_behind_large_values_keep_their_meaning(runtime: str, tmp_path: Path) -> None:
    """Values in thousands leave weights whose steps some tool-kits do not take: what comes out was garbage."""
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
    skip_if_saturating(runtime, "int8")
    plain, images = small_digit_net(), torch.as_tensor(calibration_inputs(few_digits(), 60))
    first, second, _ = (node.tensors for node in plain.weighted())
    larger = {name: plain.tensors[name] * 2.0**15 for name in first.values()}
    smaller = {second["weight"]: plain.tensors[second["weight"]] * 2.0**-15}
    sides = {"plain": plain, "scaled": plain.edited(tensors=larger | smaller)}
    made = {
        name: shared_workshop().convert(net, runtime, "int8", tmp_path / name, calibration=[images])
        for name, net in sides.items()
    }
    seen = measure(Local(), made, Effort(runs=1, warm_up=0), inputs=[images[:8]])
    (wanted,), (found,) = (seen[name].outputs or () for name in sides)
    assert float((found - wanted).abs().max()) <= 0.05 * float(wanted.abs().max())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "executorch", "litert"])
def test_values_have_the_levels_that_the_net_says(runtime: str, tmp_path: Path) -> None:
    """Each value is cut off at a quarter of what it takes, which no tool-kit would find by itself."""
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
    skip_if_saturating(runtime, "int8")
    whole, images = few(8, 8), torch.as_tensor(calibration_inputs(few_digits(), 60))
    levels = {node.name: Levels.of(node) for node in whole.nodes if node.op == LEVELS}
    finer = {name: replace(one, scale=one.scale / 4).node(name, whole[name].source) for name, one in levels.items()}
    net = whole.edited(finer)
    made = shared_workshop().convert(net, runtime, "int8", tmp_path, calibration=[images])
    outputs = measure(Local(), {"cut": made}, Effort(runs=1, warm_up=0), inputs=[images[:8]])["cut"].outputs
    assert outputs is not None
    wanted, uncut = net.run(images[:8])[0], whole.run(images[:8])[0]
    assert float((outputs[0] - wanted).abs().max()) <= 0.03 * float(wanted.abs().max())
    assert float((uncut - wanted).abs().max()) > 0.2 * float(wanted.abs().max())
