"""What is written as ONNX files: one image in, what the net computes out, in one, two or four bytes a weight."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from example_nets import SHAPE
from onnx_files import onnx_scores
from proofs import net_scores
from slimwright.errors import ProofError
from slimwright.graph import Net, zero_inputs
from slimwright.importers import capture
from slimwright.runtimes import onnxruntime
from slimwright.runtimes.artefact import Written
from slimwright.techniques.fold import fold_batch_norm

WRITTEN = Written(("model.onnx",), ("image",), ("scores",))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(24, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported(residual: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    onnxruntime.write_onnx(fold_batch_norm(residual), path)
    return path


def error(path: Path, net: Net, images: Tensor) -> float:
    """The largest error over the largest score."""
    expected = net_scores(net, images)
    return float((onnx_scores(path, images) - expected).abs().max() / expected.abs().max())


def stored_as(path: Path) -> set[int]:
    """The types of what has as many dimensions as a convolution's weight."""
    return {held.data_type for held in onnx.load(path).graph.initializer if len(held.dims) == 4}


def test_an_exported_net_computes_what_the_net_computes(residual: Net, exported: Path, images: Tensor) -> None:
    assert error(exported, residual, images) <= 1e-5


def test_an_exported_model_is_one_file_for_one_image_without_batch_norms(exported: Path) -> None:
    model = onnx.load(exported)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, *SHAPE]
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("image", "scores")
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert [file.name for file in exported.parent.iterdir()] == ["net.onnx"]
    assert stored_as(exported) == {onnx.TensorProto.FLOAT}


class Varied(nn.Module):
    """Operators of many kinds; a batch norm that nothing folds is one that the exporter has to decompose."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(SHAPE[0], 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.gate, self.wide = nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.scores = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(functional.hardswish(self.conv(x)))
        x = x * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(x, 1)))
        one, other = functional.gelu(self.wide(x)).chunk(2, dim=1)
        x = torch.cat([one, functional.max_pool2d(other, 3, stride=1, padding=1), functional.silu(other), one + 1], 1)
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        both = torch.cat([functional.adaptive_avg_pool2d(x, 1), x.amax((2, 3), keepdim=True)[:, :8]], 1)
        return torch.softmax(self.scores(both[:, :16].flatten(1)), dim=1)


@pytest.mark.parametrize("net", ["residual", "without a norm", "with a norm"])
def test_a_file_is_what_torch_writes(residual: Net, net: str, tmp_path: Path) -> None:
    """Its operators are gathered once for all files, and decomposed where one must be."""
    given = residual if net == "residual" else capture(Varied(net == "with a norm"), SHAPE)
    folded = fold_batch_norm(given)
    written = torch.onnx.export(folded.to_module(), zero_inputs(folded), dynamo=True, opset_version=18, verbose=False)
    assert written is not None
    onnxruntime.write_onnx(folded, tmp_path / "net.onnx")
    expected, found = written.model_proto.graph, onnx.load(tmp_path / "net.onnx").graph
    operators = [[(node.op_type, list(node.attribute)) for node in graph.node] for graph in (found, expected)]
    assert operators[0] == operators[1]
    weights = [[held.SerializeToString() for held in graph.initializer] for graph in (found, expected)]
    assert weights[0] == weights[1]


def test_int8_has_eight_bit_weights_and_follows_the_net(
    residual: Net, exported: Path, images: Tensor, tmp_path: Path
) -> None:
    before = exported.read_bytes()
    onnxruntime.quantize(exported, tmp_path / "int8.onnx", {"image": images.numpy()})
    assert stored_as(tmp_path / "int8.onnx") == {onnx.TensorProto.INT8}
    assert 1e-5 < error(tmp_path / "int8.onnx", residual, images) <= 0.25  # products may saturate without VNNI
    assert exported.read_bytes() == before


def test_int8_weights_have_a_scale_for_each_output_channel(exported: Path, images: Tensor, tmp_path: Path) -> None:
    onnxruntime.quantize(exported, tmp_path / "int8.onnx", {"image": images.numpy()})
    graph = onnx.load(tmp_path / "int8.onnx").graph
    held = {one.name: one for one in graph.initializer}
    sizes = [
        (held[node.input[0]].dims[0], list(held[node.input[1]].dims))
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in held and len(held[node.input[0]].dims) == 4
    ]
    assert sizes == [(6, [6]), (6, [6])]


def test_calibration_sets_the_range_of_the_activations(exported: Path, images: Tensor, tmp_path: Path) -> None:
    def input_scale(name: str, shown: Tensor) -> float:
        onnxruntime.quantize(exported, tmp_path / name, {"image": shown.numpy()})
        graph = onnx.load(tmp_path / name).graph
        (node,) = (node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "image")
        (scale,) = (held for held in graph.initializer if held.name == node.input[1])
        return float(onnx.numpy_helper.to_array(scale))

    spread = float(images.max() - images.min())
    assert input_scale("once.onnx", images) == pytest.approx(spread / 255, rel=1e-5)
    assert input_scale("thrice.onnx", 3 * images) == pytest.approx(3 * spread / 255, rel=1e-5)


def test_half_precision_stays_inside(residual: Net, images: Tensor, tmp_path: Path) -> None:
    assert onnxruntime.export(fold_batch_norm(residual), tmp_path, "fp16", None) == WRITTEN
    path = tmp_path / "model.onnx"
    assert stored_as(path) == {onnx.TensorProto.FLOAT16}
    graph = onnx.load(path).graph
    ends = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert ends == {onnx.TensorProto.FLOAT}
    assert 0 < error(path, residual, images) <= 5e-3


def test_int8_takes_the_place_of_what_it_was_made_from(residual: Net, images: Tensor, tmp_path: Path) -> None:
    assert onnxruntime.export(fold_batch_norm(residual), tmp_path, "int8", [images.numpy()]) == WRITTEN
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert stored_as(tmp_path / "model.onnx") == {onnx.TensorProto.INT8}


def test_what_onnx_has_no_operator_for_is_told_by_its_first_cause(tmp_path: Path) -> None:
    class Bessel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x).flatten(1)  # type: ignore[no-any-return]

    with pytest.raises(ProofError, match=r"^torch\.onnx cannot export the net: .*bessel_j0"):
        onnxruntime.write_onnx(capture(Bessel().eval(), SHAPE), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


class Sequenced(nn.Module):
    """Linear layers at every position, whose weights exporters store transposed under names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, HW/4, 5]."""
        y: Tensor = self.second(self.first(self.conv(x).relu().flatten(2).permute(0, 2, 1)).relu())
        return y


@pytest.mark.parametrize(("floating", "left"), [("first", "second"), ("second", "first")])
def test_a_layer_stays_in_float_whatever_the_file_calls_its_weights(floating: str, left: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = capture(Sequenced().eval(), (3, 16, 16))
    layers = {net.paths[node.name]: node.name for node in net.weighted()}
    path, made = tmp_path / "net.onnx", tmp_path / "int8.onnx"
    (name,), _ = onnxruntime.write_onnx(net, path)
    seen = {name: torch.randn(8, 3, 16, 16).numpy()}
    onnxruntime.quantize(path, made, seen, keep_float=onnxruntime.weights_of(net, [layers[floating]]))
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(made).graph.initializer]

    def whole(layer: str) -> bool:
        weights = net.tensors[net[layers[layer]].tensors["weight"]].numpy()
        return any(values.shape == weights.T.shape and bool((values == weights.T).all()) for values in stored)

    assert whole(floating) and not whole(left)


def test_weights_that_no_file_has_are_named(exported: Path, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="the file has no weights 'none', so their layer cannot stay in float"):
        onnxruntime.quantize(
            exported, tmp_path / "int8.onnx", {"image": images.numpy()}, keep_float={"none": torch.ones(3, 3).numpy()}
        )


def test_a_file_says_nothing_of_the_machine_that_wrote_it(residual: Net, tmp_path: Path) -> None:
    onnxruntime.write_onnx(residual, tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in data and b"stack_trace" not in data
