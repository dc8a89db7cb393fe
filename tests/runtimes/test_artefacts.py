"""Every runtime at every precision: a net that knows digits is converted, run in a fresh process, and still knows."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exact import small_net
from proofs import net_scores, parity, share_right, skip_if_saturating
from slimwright.data import ArrayData, labelled, whole
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.runtimes import RUNTIMES, Artefact, Precision, Workshop
from slimwright.runtimes.known import installed
from slimwright.targets import Effort, Local, Measurement, measure
from slimwright.techniques.fold import fold_batch_norm

PAIRS = [(runtime, precision) for runtime, known in RUNTIMES.items() for precision in known.precisions]
REDUCED = [pair for pair in PAIRS if pair[1] != "fp32"]
MOST = {"fp16": 0.65, "int8": 0.45}  # of the float32 weights, where the format itself takes little
CALIBRATION = 12
NAMES = {
    "onnxruntime": {"model.onnx"},
    "ort": {"model.ort"},
    "ncnn": {"model.param", "model.bin"},
    "mnn": {"model.mnn"},
    "executorch": {"model.pte"},
    "litert": {"model.tflite"},
    "openvino": {"model.xml", "model.bin"},
}


@dataclass
class Shelf:
    """A net's artefacts, each converted when it is first asked for; all of a runtime run in one fresh process."""

    net: Net
    images: Tensor
    calibration: Tensor
    workshop: Workshop
    folder: Path
    _made: dict[str, dict[str, Artefact]] = field(default_factory=dict)
    _seen: dict[str, dict[str, Measurement]] = field(default_factory=dict)

    def made(self, runtime: str) -> dict[str, Artefact]:
        """A runtime's artefacts by precision."""
        if not installed(runtime):
            pytest.skip(f"{RUNTIMES[runtime].title} or its converter is not installed")
        if runtime not in self._made:
            self._made[runtime] = {p: self._one(runtime, p) for p in RUNTIMES[runtime].precisions}
        return self._made[runtime]

    def seen(self, runtime: str) -> dict[str, Measurement]:
        """What a runtime's artefacts did, by precision."""
        if runtime not in self._seen:
            effort = Effort(runs=3, warm_up=1, profile_runs=2)
            self._seen[runtime] = measure(Local(), self.made(runtime), effort, inputs=[self.images])
        return self._seen[runtime]

    def scores(self, runtime: str, precision: str) -> Tensor:
        """[N, classes] as the runtime gives them."""
        found = self.seen(runtime)[precision].outputs
        assert found is not None
        return found[0]

    def _one(self, runtime: str, precision: Precision) -> Artefact:
        given = [self.calibration] if precision == "int8" else None
        return self.workshop.convert(
            self.net, runtime, precision, self.folder / f"{runtime}-{precision}", calibration=given
        )


@pytest.fixture(scope="module")
def shelf(
    trained: nn.Module, digit_data: ArrayData, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Shelf:
    net = fold_batch_norm(capture(trained, digit_data.image_shape))
    images, calibration = (labelled(whole(digit_data, part))[0] for part in ("validation", "calibration"))
    return Shelf(net, images, calibration[:CALIBRATION], workshop, tmp_path_factory.mktemp("shelf"))


@pytest.mark.parametrize(("runtime", "precision"), PAIRS)
def test_an_artefact_gives_the_scores_of_its_net(
    runtime: str, precision: Precision, shelf: Shelf, digit_data: ArrayData
) -> None:
    skip_if_saturating(runtime, precision)
    scores, expected = shelf.scores(runtime, precision), net_scores(shelf.net, shelf.images)
    found = parity(scores, expected, precision)
    assert found.passed, found
    assert found.max_relative_error <= {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.5}[precision]
    if precision != "fp32":
        assert found.max_relative_error > 1e-5  # what it computes is not what float32 does
    labels = labelled(whole(digit_data, "validation"))[1]
    assert share_right(scores, labels) >= share_right(expected, labels) - 0.015


@pytest.mark.parametrize(("runtime", "precision"), REDUCED)
def test_fewer_bits_make_a_smaller_file(runtime: str, precision: str, shelf: Shelf) -> None:
    sizes = {p: made.files[-1].stat().st_size for p, made in shelf.made(runtime).items()}  # the file with the weights
    assert sizes[precision] < MOST[precision] * sizes["fp32"]
    weights = sum(tensor.numel() for tensor in shelf.net.tensors.values())
    assert sizes["fp32"] > 3.9 * weights


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_artefact_is_the_files_of_its_runtime_and_nothing_else(runtime: str, shelf: Shelf) -> None:
    for precision, made in shelf.made(runtime).items():
        folder = shelf.folder / f"{runtime}-{precision}"
        assert {path.name for path in folder.iterdir()} == {path.name for path in made.files} == NAMES[runtime]
        assert made.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
        assert (made.runtime, made.precision, made.shapes) == (runtime, precision, ((1, 1, 32, 32),))
        assert made.fallbacks == ()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_a_runtime_tells_of_its_work_adds_up(runtime: str, shelf: Shelf) -> None:
    for precision, seen in shelf.seen(runtime).items():
        assert seen.latency is not None and seen.latency.runs == 3
        assert 0 < seen.latency.p10_ms <= seen.latency.median_ms <= seen.latency.p90_ms
        assert seen.load_ms > 0 and seen.first_run_ms > 0
        assert all(kernel.ms >= 0 for kernel in seen.kernels), precision
        if runtime in ("executorch", "litert"):
            assert not seen.kernels and seen.tensor_share == 1
        else:
            assert 0.05 < seen.tensor_share <= 1, (precision, seen.kernel_ms)


def test_an_ort_file_holds_nothing_that_only_this_processor_runs(shelf: Shelf, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "here.onnx")
    (source,) = shelf.made("onnxruntime")["fp32"].files
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    (portable,) = shelf.made("ort")["fp32"].files
    assert b"Reorder" not in portable.read_bytes()
    assert not {kernel.kind for kernel in shelf.seen("ort")["fp32"].kernels} & {"ReorderInput", "ReorderOutput"}
    assert any("Conv" in kernel.kind for kernel in shelf.seen("ort")["fp32"].kernels)
    if b"Reorder" not in (tmp_path / "here.onnx").read_bytes():
        pytest.skip("ONNX Runtime has no layouts of its own for this processor, so none could be left out")


def layers_of(param: Path) -> dict[str, tuple[str, bool]]:
    """Kind of each layer of a .param file, and whether it is marked as INT8."""
    lines = (line.split() for line in param.read_text().splitlines()[2:])
    return {words[1]: (words[0], any(word.startswith("8=") for word in words[4:])) for words in lines}


@pytest.mark.skipif(not installed("ncnn"), reason="ncnn or pnnx is not installed")
@pytest.mark.parametrize(
    ("name", "kept"), [("Separable", ["ConvolutionDepthWise"]), ("Grouped", ["ConvolutionDepthWise"]), ("Residual", [])]
)
def test_ncnn_quantizes_all_but_groups_of_several_channels(
    name: str, kept: list[str], workshop: Workshop, tmp_path: Path
) -> None:
    net = fold_batch_norm(small_net(name))  # Separable: one layer of depth multiplier 1, one of 2
    images = torch.randn(16, *net.input.shape[1:], generator=torch.Generator().manual_seed(1))
    made = workshop.convert(net, "ncnn", "int8", tmp_path / "made", calibration=[images])
    layers = layers_of(made.files[0])
    weighted = [mark for mark in layers.values() if mark[0] in ("Convolution", "ConvolutionDepthWise", "InnerProduct")]
    assert len(weighted) == len(list(net.weighted()))
    assert [kind for kind, marked in weighted if not marked] == kept
    assert not any(marked for kind, marked in layers.values() if kind in ("Input", "ReLU", "Pooling", "Reduction"))
    outputs = measure(Local(), {"net": made}, Effort(), inputs=[images])["net"].outputs
    assert outputs is not None
    (scores,) = outputs
    expected = net_scores(net, images)
    assert 1e-5 < float((scores - expected).abs().max() / expected.abs().max()) <= 0.1


def test_names_of_files_stay_apart_in_a_job_and_together_by_stem(shelf: Shelf, tmp_path: Path) -> None:
    made = shelf.made("ncnn")["fp32"]
    assert made.side("a", 0, 1).files == ("0-model.param", "0-model.bin")
    assert made.side("b", 12, 2).files == ("12-model.param", "12-model.bin")
    copy = made.copied(tmp_path, "original")
    assert [path.name for path in copy.files] == ["original.param", "original.bin"]
    assert copy.size_bytes == made.size_bytes
    assert [path.read_bytes() for path in copy.files] == [path.read_bytes() for path in made.files]
