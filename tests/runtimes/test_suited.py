"""Nets that a runtime fails on as they are, and converts, loads and runs in the form that suits it: the real ones."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import small_net
from example_nets import SHAPE, hand_made, lively
from proofs import net_scores, parity
from slimwright.coupling import choose, couple, cut
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.runtimes import RUNTIMES, Artefact, Workshop
from slimwright.runtimes.known import installed
from slimwright.runtimes.suited import FOR, suited
from slimwright.targets import Effort, Local, measure
from slimwright.techniques.fold import fold_batch_norm


def error_in(made: Artefact, net: Net) -> float:
    images = torch.randn(4, *net.input.shape[1:], generator=torch.Generator().manual_seed(1))
    outputs = measure(Local(), {"net": made}, Effort(runs=1, warm_up=0), inputs=[images])["net"].outputs
    assert outputs is not None
    return parity(outputs[0], net_scores(net, images), made.precision).max_relative_error


class Normed(nn.Module):
    """A pooling that counts its padding, a response norm and a squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(SHAPE[0], 8, 3, padding=1), nn.LocalResponseNorm(5, 0.5, 0.75, 1.0)
        self.excite, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.norm(self.conv(x).relu()), 3, 1, 1)
        x = F.avg_pool2d(x, 3, 2, 1)
        x = x * F.hardsigmoid(self.excite(x.mean((2, 3), True)))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class Together(nn.Module):
    """The logarithm of a mean of probabilities over three classifiers; padding takes a row away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(SHAPE[0], 6, 3)
        self.parts = nn.ModuleList(nn.Linear(6, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.conv(x).relu(), (-1, 1, -1, 1)).mean((2, 3))
        return torch.logsumexp(torch.stack([part(x).log_softmax(1) for part in self.parts]), 0)


@pytest.fixture(scope="module")
def normed() -> Net:
    torch.manual_seed(0)
    return capture(Normed().eval(), SHAPE)


@pytest.fixture(scope="module")
def together() -> Net:
    torch.manual_seed(0)
    return capture(Together().eval(), SHAPE)


def test_every_runtime_has_its_column() -> None:
    assert set(FOR) == set(RUNTIMES)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_suits_already_is_the_same_object(runtime: str) -> None:
    net = fold_batch_norm(small_net("Concat"))
    assert suited(net, runtime) is net


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_suits_a_runtime_computes_the_same_and_suits_it_again(runtime: str, normed: Net, together: Net) -> None:
    images = torch.randn(4, *SHAPE)
    for net in (normed, together):
        other = suited(net, runtime)
        expected, found = net_scores(net, images), net_scores(other, images)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert suited(other, runtime) is other


@pytest.mark.slow
def test_executorch_takes_it_whole_in_eight_bits(workshop: Workshop, normed: Net, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    made = workshop.convert(normed, "executorch", "int8", tmp_path / "int8", calibration=[torch.randn(8, *SHAPE)])
    assert made.fallbacks == () and error_in(made, normed) <= 0.1


def test_executorch_tells_what_it_left_out(workshop: Workshop, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    net = capture(nn.Sequential(nn.Conv2d(1, 4, 1), nn.ELU(), nn.Conv2d(4, 2, 1), nn.Flatten()), (1, 4, 4))
    made = workshop.convert(net, "executorch", "fp32", tmp_path / "made")
    assert [(f.op, f.node) for f in made.fallbacks] == [("elu", "elu")]


@pytest.mark.skipif(not installed("litert"), reason="the converter of LiteRT is not installed")
def test_litert_takes_a_transposed_convolution_with_a_norm_in_eight_bits(workshop: Workshop, tmp_path: Path) -> None:
    """Its tool-kit folds such norms, too, and then writes scales that LiteRT refuses (ai-edge-quantizer 0.10.0)."""
    layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, 2, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    torch.manual_seed(0)
    net = fold_batch_norm(capture(lively(nn.Sequential(*layers, nn.Flatten())), SHAPE))
    made = workshop.convert(net, "litert", "int8", tmp_path / "int8", calibration=[torch.randn(64, *SHAPE)])
    assert error_in(made, net) <= 0.3


@pytest.mark.skipif(not installed("litert"), reason="the converter of LiteRT is not installed")
def test_litert_takes_a_response_norm_in_eight_bits(workshop: Workshop, normed: Net, tmp_path: Path) -> None:
    made = workshop.convert(normed, "litert", "int8", tmp_path / "int8", calibration=[torch.randn(8, *SHAPE)])
    assert error_in(made, normed) <= 0.3
    assert not {fallback.op for fallback in made.fallbacks} & {"RSQRT", "SQRT"}  # XNNPACK takes those in float alone


@pytest.mark.skipif(not installed("litert"), reason="the converter of LiteRT is not installed")
def test_litert_takes_weights_that_are_next_to_nothing_in_eight_bits(workshop: Workshop, tmp_path: Path) -> None:
    """A quarter of the channels give their bias alone; without steps for it the outputs are off by two fifths."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU(), nn.Conv2d(16, 24, 1),
        nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight[::4] *= 1e-9  # type: ignore[operator, index]
            layer.bias[::4] = 1.0  # type: ignore[operator]
    net = capture(model.eval(), SHAPE)
    made = workshop.convert(net, "litert", "int8", tmp_path / "int8", calibration=[torch.randn(32, *SHAPE)])
    assert error_in(made, net) <= 0.15


@pytest.mark.parametrize("runtime", ["mnn", "ncnn"])
def test_logarithms_of_sums_and_paddings_that_take_away_run(
    workshop: Workshop, runtime: str, together: Net, tmp_path: Path
) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    assert error_in(workshop.convert(together, runtime, "fp32", tmp_path / "made"), together) <= 1e-4


def test_ncnn_takes_a_shuffle_of_channels_that_were_cut(workshop: Workshop, tmp_path: Path) -> None:
    pytest.importorskip("pnnx")
    whole = small_net("ShuffleV1")
    net = fold_batch_norm(cut(whole, choose(couple(whole), 0.6, seed=1)))
    assert "gather" in {node.op for node in net.nodes}
    other, images = suited(net, "ncnn"), torch.randn(4, *SHAPE)
    assert "gather" not in {node.op for node in other.nodes} and suited(other, "ncnn") is other
    assert torch.equal(net_scores(other, images), net_scores(net, images))
    assert error_in(workshop.convert(net, "ncnn", "fp32", tmp_path / "fp32"), net) <= 1e-5
    eight_bits = workshop.convert(net, "ncnn", "int8", tmp_path / "int8", calibration=[torch.randn(64, *SHAPE)])
    assert error_in(eight_bits, net) <= 0.3


def test_ncnn_takes_layers_that_are_called_by_numbers(workshop: Workshop, tmp_path: Path) -> None:
    pytest.importorskip("pnnx")
    net = capture(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), (3, 4, 4))
    assert error_in(workshop.convert(net, "ncnn", "fp32", tmp_path / "made"), net) <= 1e-5


def test_values_too_large_for_half_precision_come_out_right(workshop: Workshop, tmp_path: Path) -> None:
    first, last = nn.Conv2d(1, 8, 3), nn.Linear(128, 4)
    with torch.no_grad():
        first.weight.mul_(1e6)
        last.weight.mul_(1e-6)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), last)
    net = capture(model, (1, 8, 8))
    assert error_in(workshop.convert(net, "onnxruntime", "fp16", tmp_path / "made"), net) <= 0.01


def test_ncnn_averages_what_is_there_where_a_pooling_rounds_up(workshop: Workshop, tmp_path: Path) -> None:
    if not installed("ncnn"):
        pytest.skip("ncnn or its converter is not installed")
    net = capture(hand_made("Flat"), SHAPE)
    assert error_in(workshop.convert(net, "ncnn", "fp32", tmp_path), net) <= 1e-5
