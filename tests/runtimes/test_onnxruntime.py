"""The real runtime on small nets: what it computes, and that its measurements measure."""

from pathlib import Path

import onnx
import pytest
import torch

from example_nets import SHAPE
from slimwright.cost.latency import LayerShape
from slimwright.errors import ModelError, ProofError
from slimwright.graph import Net
from slimwright.proof import net_scores
from slimwright.rewrites.fold import fold_batch_norm
from slimwright.runner.timing import interleaved
from slimwright.runtimes import onnxruntime


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(24, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported(residual: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    onnxruntime.write_onnx(fold_batch_norm(residual), path)
    return path


def test_an_exported_net_computes_what_the_net_computes(residual: Net, exported: Path, images: torch.Tensor) -> None:
    found, expected = onnxruntime.Session(exported).scores(images), net_scores(residual, images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_an_exported_model_is_one_file_for_one_image_without_batch_norms(exported: Path) -> None:
    model = onnx.load(exported)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, *SHAPE]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert [file.name for file in exported.parent.iterdir()] == ["net.onnx"]


def test_int8_has_eight_bit_weights_and_follows_the_net(
    residual: Net, exported: Path, images: torch.Tensor, tmp_path: Path
) -> None:
    onnxruntime.quantize(exported, tmp_path / "int8.onnx", images)
    weights = onnx.load(tmp_path / "int8.onnx").graph.initializer
    assert any(w.data_type == onnx.TensorProto.INT8 and len(w.dims) == 4 for w in weights)
    found, expected = onnxruntime.Session(tmp_path / "int8.onnx").scores(images), net_scores(residual, images)
    assert (found - expected).abs().max() <= 0.25 * expected.abs().max()  # 8-bit products may saturate without VNNI
    assert not torch.equal(found, expected)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        onnxruntime.Session(tmp_path / "bad.onnx")
    with pytest.raises(ProofError, match=r"bad\.onnx"):
        onnxruntime.peak_rss_bytes(tmp_path / "bad.onnx")


def test_running_a_model_takes_memory_beyond_the_empty_runtime(exported: Path) -> None:
    empty, running = onnxruntime.peak_rss_bytes(None), onnxruntime.peak_rss_bytes(exported)
    assert 10_000_000 < empty < running < 1_000_000_000


@pytest.mark.parametrize(
    "shape",
    [
        LayerShape("linear", 64, 10),
        LayerShape("conv2d", 8, 16, (3, 3), padding=(1, 1), input_size=(12, 12)),
        LayerShape("conv2d", 16, 16, (3, 3), stride=(2, 2), padding=(1, 1), groups=16, input_size=(12, 12)),
        LayerShape("conv2d", 5, 7, (1, 3), padding=(0, 1), dilation=(1, 2), input_size=(9, 11)),
    ],
    ids=["linear", "conv", "depthwise", "odd"],
)
def test_every_kind_of_layer_can_be_timed(shape: LayerShape) -> None:
    assert 0 < onnxruntime.time_layer(shape, runs=5) < 100


def test_the_profile_names_the_kernels_that_ran(exported: Path) -> None:
    taken = onnxruntime.time_by_op(exported, runs=5)
    assert any("Conv" in op for op in taken)
    assert all(ms >= 0 for ms in taken.values())


def test_the_typical_time_of_kernels_is_a_median_over_runs(exported: Path) -> None:
    typical = onnxruntime.typical_by_op(exported, runs=5)
    assert typical.keys() == onnxruntime.time_by_op(exported, runs=1).keys()
    assert all(0 <= ms < 100 for ms in typical.values())


def test_interleaved_sides_run_in_turn_and_equally_often() -> None:
    ran: list[str] = []
    taken = interleaved({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, runs=6, warm_up=1)
    assert ran[2:] == ["a", "b", "b", "a"] * 3
    assert taken["a"].runs == taken["b"].runs == 6
    assert taken["a"].p10_ms <= taken["a"].median_ms <= taken["a"].p90_ms
