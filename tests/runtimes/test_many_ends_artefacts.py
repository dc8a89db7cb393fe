"""Every runtime takes several inputs and gives several outputs, each of its own shape, in the order of the net."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from many_ends import inputs_of, net_of
from slimwright.errors import ConversionError, ProofError, RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.runtimes import RUNTIMES, Artefact, Precision, Workshop
from slimwright.runtimes.half import within_half
from slimwright.runtimes.known import installed
from slimwright.targets import Effort, Local, measure
from slimwright.techniques.fold import fold_batch_norm
from slow import slow

PAIRS = [
    slow(runtime, precision) if precision == "fp16" else (runtime, precision)
    for runtime, known in RUNTIMES.items()
    for precision in known.precisions
]
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.7}  # of the largest error over an output's largest value


@pytest.fixture(scope="module")
def joint() -> Net:
    """Three inputs, two of one shape; six outputs, of which two have one shape, one is given twice, one is an input."""
    return net_of("joint")


def outputs_in(made: Artefact, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    found = measure(Local(), {"net": made}, Effort(), inputs=inputs)["net"].outputs
    assert found is not None
    return found


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(("runtime", "precision"), PAIRS)
def test_outputs_are_those_of_the_net_in_its_order(
    runtime: str, precision: Precision, joint: Net, workshop: Workshop, tmp_path: Path
) -> None:
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
    given = inputs_of("joint", 24, seed=1) if precision == "int8" else None
    made = workshop.convert(joint, runtime, precision, tmp_path, calibration=given)
    assert made.shapes == tuple(node.shape for node in joint.inputs)
    assert made.output_shapes == tuple(joint[name].shape for name in joint.outputs)
    inputs = inputs_of("joint", 3)
    found, wanted = outputs_in(made, inputs), joint.run(inputs)
    assert len(found) == len(wanted) == 6
    for mine, its in zip(found, wanted, strict=True):
        assert mine.dtype == torch.float32 and mine.shape == its.shape
        assert apart(mine, its) <= TOLERANCE[precision]
    assert apart(found[0], wanted[3]) > 0.5 and apart(found[3], wanted[0]) > 0.5  # the two of one shape
    left, numbers, right = inputs
    assert apart(wanted[1], joint.run([right, numbers, left])[1]) > 0.5


UNET = [("onnxruntime", "fp16"), ("ncnn", "fp32"), ("openvino", "fp16")]


@pytest.mark.parametrize(("runtime", "precision"), UNET, ids=["-".join(pair) for pair in UNET])
def test_a_map_comes_out_as_a_map(runtime: str, precision: Precision, workshop: Workshop, tmp_path: Path) -> None:
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
    net, inputs = fold_batch_norm(net_of("unet")), inputs_of("unet", 2)
    (found,), (wanted,) = outputs_in(workshop.convert(net, runtime, precision, tmp_path), inputs), net.run(inputs)
    assert found.shape == wanted.shape == (2, 4, 16, 16)
    assert apart(found, wanted) <= TOLERANCE[precision]


@pytest.mark.parametrize(("runtime", "precision"), [("mnn", "fp32"), ("ncnn", "int8"), ("executorch", "fp32")])
def test_samples_in_time_come_out_as_samples(
    runtime: str, precision: Precision, workshop: Workshop, tmp_path: Path
) -> None:
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
    net, inputs = net_of("signal"), inputs_of("signal", 2)
    made = workshop.convert(net, runtime, precision, tmp_path, calibration=inputs)
    (found,), (wanted,) = outputs_in(made, inputs), net.run(inputs)
    assert found.shape == wanted.shape == (2, 3, 32)
    assert apart(found, wanted) <= TOLERANCE[precision]


@pytest.mark.slow
def test_a_tower_that_runs_twice_is_quantized_for_what_each_run_reads(workshop: Workshop, tmp_path: Path) -> None:
    if not installed("executorch"):
        pytest.skip("ExecuTorch is not installed")
    net, inputs = fold_batch_norm(net_of("siamese")), inputs_of("siamese", 4)
    made = workshop.convert(net, "executorch", "int8", tmp_path, calibration=inputs_of("siamese", 16, seed=1))
    (found,), (wanted,) = outputs_in(made, inputs), net.run(inputs)
    assert 1e-5 < apart(found, wanted) <= 0.05


class Worded(nn.Module):
    """Numbers of words in; scores and the number of the best out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(9, 6), nn.Linear(6, 4)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.last(self.words(words).mean(1))
        return scores, scores.argmax(1)


@pytest.mark.parametrize("runtime", ["onnxruntime", "mnn"])
def test_integers_go_in_and_come_out(runtime: str, workshop: Workshop, tmp_path: Path) -> None:
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
    net = capture(Worded(), [(5,)], dtypes=["int64"])
    words = torch.randint(9, (4, 5))
    made = workshop.convert(net, runtime, "fp32", tmp_path)
    assert (made.dtypes, made.output_dtypes) == (("int64",), ("float32", "int64"))
    (scores, best), wanted = outputs_in(made, [words]), net.run([words])
    assert apart(scores, wanted[0]) <= 1e-5
    assert best.dtype == torch.int64 and torch.equal(best, wanted[1])


class Spatial(nn.Module):
    """A convolution over three dimensions, whose values are given and read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv3d(2, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = torch.relu(self.conv(x))
        return values, self.last(values.mean((2, 3, 4)))


@pytest.mark.parametrize("runtime", ["mnn", "executorch"])
def test_a_volume_goes_through_or_is_refused_with_the_reason(runtime: str, workshop: Workshop, tmp_path: Path) -> None:
    """MNN's converter would merge the ReLU, whose values are given, into the convolution, and lose the output."""
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
    net = capture(Spatial(), (2, 4, 6, 6))
    if runtime == "executorch":
        with pytest.raises(ConversionError, match=r"no kernel for convolutions over three dimensions \('conv3d'\)"):
            workshop.convert(net, runtime, "fp32", tmp_path)
        return
    inputs = [torch.randn(2, 2, 4, 6, 6)]
    found = outputs_in(workshop.convert(net, runtime, "fp32", tmp_path), inputs)
    assert all(apart(mine, its) <= 1e-5 for mine, its in zip(found, net.run(inputs), strict=True))


def test_names_inside_a_file_give_way_to_those_of_its_ends(workshop: Workshop, tmp_path: Path) -> None:
    """The exporter numbers values by itself: "relu" is another one there than in the net."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, image: Tensor, scores: Tensor) -> dict[str, Tensor]:
            first = torch.relu(self.conv(image))
            return {"getitem": torch.relu(self.other(first)), "val_0": scores.sigmoid(), "conv2d": first.mean((2, 3))}

    torch.manual_seed(1)  # not one of those with which all is zero behind the ReLU
    net, inputs = capture(Named(), [(3, 4, 4), (7,)]), [torch.randn(2, 3, 4, 4), torch.randn(2, 7)]
    made = workshop.convert(net, "onnxruntime", "fp32", tmp_path)
    assert made.input_names == ("image", "scores") and made.output_names == net.outputs
    assert all(apart(mine, its) <= 1e-5 for mine, its in zip(outputs_in(made, inputs), net.run(inputs), strict=True))


def test_what_the_artefact_does_not_take_is_refused(joint: Net, workshop: Workshop, tmp_path: Path) -> None:
    made = workshop.convert(joint, "onnxruntime", "fp32", tmp_path)
    left, numbers, right = inputs_of("joint", 2)
    with pytest.raises(RequestError, match="artefact 'net' takes 3 inputs; it was given 2"):
        measure(Local(), {"net": made}, Effort(), inputs=[left, numbers])
    with pytest.raises(ProofError, match=r"input 1 is \[1, 3, 16, 16\]; it takes \[1, 5\]"):
        measure(Local(), {"net": made}, Effort(), inputs=[left, right, numbers])


def test_what_no_runtime_could_run_or_be_calibrated_on_is_refused_before_anything_starts(
    joint: Net, workshop: Workshop, tmp_path: Path
) -> None:
    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten()

    with pytest.raises(RequestError, match=r"output 'flatten' of the net has the shape \[12\] for one image"):
        workshop.convert(capture(Whole(), (3, 4)), "onnxruntime", "fp32", tmp_path / "made")
    with pytest.raises(RequestError, match=r"a tensor for each input, of \[\[3, 16, 16\], \[5\], \[3, 16, 16\]\], not"):
        workshop.convert(joint, "onnxruntime", "int8", tmp_path / "made", calibration=inputs_of("joint", 4)[:2])
    assert not (tmp_path / "made").exists()


def test_half_precision_is_looked_at_with_every_input() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.last = nn.Linear(4, 4), nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            values = torch.relu(self.one(x) + self.other(y))
            return self.last(values), values.sum(1)

    model = Large()
    with torch.no_grad():
        model.other.weight.mul_(1e5)
        model.last.weight.mul_(1e-5)
    net, inputs = capture(model, [(4,), (5,)]), [torch.randn(3, 4), torch.randn(3, 5)]
    scaled = within_half(net)
    assert scaled is not net
    for mine, its in zip(scaled.run(inputs), net.run(inputs), strict=True):
        assert torch.equal(mine, its)  # a power of two: the same bits
