"""Files for one image, and outputs whose batch is not their first dimension: nets take any batch, files keep theirs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import NodeProto, helper
from torch import Tensor, nn

from onnx_files import apart, exported_by_torchscript, saved
from slimwright.errors import ModelError
from slimwright.graph import load_net, save_net
from slimwright.graph.ends import Layout
from slimwright.importers.onnx import read_onnx
from slimwright.runtimes.file_layout import in_file_layout
from slimwright.runtimes.onnxruntime import write_onnx

STORED = {
    "w": torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(1)), "m": torch.randn(64, 3),
    "zeroth": torch.tensor([0]), "4 x 64": torch.tensor([4, 64]), "4 x 8 x 8": torch.tensor([4, 8, 8]),
    "1 x -1": torch.tensor([1, -1]), "-1": torch.tensor([-1]), "8 x 4 x 8": torch.tensor([8, -1, 8]),
}  # fmt: skip


def node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(", "), [output], **attributes)


BAKED: dict[str, tuple[list[NodeProto], Layout]] = {  # behind a convolution that gives "c" [1, 4, 8, 8]
    "one row": ([node("Reshape", "c, 1 x -1", "y")], Layout()),
    "no batch at all": ([node("Reshape", "c, 4 x 64", "y")], Layout(0, 1, 4)),
    "one vector": ([node("Reshape", "c, -1", "y")], Layout(0, 1, 256)),
    "squeezed, then multiplied": (
        [node("Squeeze", "c, zeroth", "s"), node("Reshape", "s, 4 x 64", "r"), node("MatMul", "r, m", "y")],
        Layout(0, 1, 4),
    ),
    "dropped and back": (
        [node("Reshape", "c, 4 x 8 x 8", "s"), node("Relu", "s", "r"), node("Unsqueeze", "r, zeroth", "y")], Layout()
    ),
    "second": ([node("Transpose", "c", "y", perm=[1, 0, 2, 3])], Layout(1)),
    "last": ([node("Transpose", "c", "y", perm=[1, 2, 3, 0])], Layout(3)),
    "between others": (
        [node("Transpose", "c", "t", perm=[2, 0, 1, 3]), node("Reshape", "t, 8 x 4 x 8", "y")], Layout(1, 1, 4)
    ),
    "outside and inside": (
        [node("Transpose", "c", "t", perm=[2, 0, 1, 3]), node("Reshape", "t, -1", "y")], Layout(0, 8, 32)
    ),
}  # fmt: skip


def in_file(path: Path, images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", BAKED)
@pytest.mark.parametrize("batch", [1, "n"])
def test_a_net_takes_any_batch_and_has_it_first(tmp_path: Path, case: str, batch: int | str) -> None:
    nodes, layout = BAKED[case]
    if batch == "n" and case not in ("second", "last", "between others"):
        return  # with any number of images, such a file would mix them
    conv = node("Conv", "x, w", "c", pads=[1, 1, 1, 1])
    path = saved(tmp_path / "m.onnx", [conv, *nodes], [batch, 1, 8, 8], STORED)
    net = read_onnx(path)
    assert net.ends is not None and net.ends.layouts == (layout,) and net.ends.open_batch == (batch == "n")
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    found = net.run(images)[0]
    assert found.shape == (3, *net[net.outputs[0]].shape[1:])
    for image, mine in zip(images, found, strict=True):
        its = in_file(path, image[None])  # for one image, the batch may stand anywhere: memory is the same
        assert apart(mine.reshape(-1), torch.from_numpy(its).reshape(-1)) < 1e-5
    again = in_file_layout(net).to_module()(images[:1])
    assert apart(again, torch.from_numpy(in_file(path, images[:1]))) < 1e-5
    if batch == "n":
        assert apart(in_file_layout(net).to_module()(images), torch.from_numpy(in_file(path, images))) < 1e-5


class Reader(nn.Module):
    """A text reader as CRNN is one: columns of an image are steps in time; it returns [T, N, classes]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.LSTM(8, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(torch.relu(self.conv(x)).mean(2).permute(2, 0, 1))
        return self.last(steps).log_softmax(2)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_reader_with_time_first_is_read_with_the_batch_first(tmp_path: Path, dynamic: bool) -> None:
    path = exported_by_torchscript(Reader().eval(), tmp_path / "m.onnx", (1, 8, 8), dynamic=dynamic)
    net, images = read_onnx(path), torch.randn(2, 1, 8, 8)
    expected = np.concatenate([in_file(path, image[None]) for image in images], axis=1)
    assert apart(net.run(images)[0], torch.from_numpy(expected).transpose(0, 1)) < 1e-5


def test_a_batch_that_no_dimension_holds_is_refused(tmp_path: Path) -> None:
    nodes = [node("Conv", "x, w", "c"), node("ReduceMean", "c", "y", keepdims=0)]
    with pytest.raises(ModelError, match="images must not mix"):
        read_onnx(saved(tmp_path / "m.onnx", nodes, [1, 1, 8, 8], STORED))


def test_a_file_that_is_written_keeps_names_layout_batch_and_opset(tmp_path: Path) -> None:
    nodes = [node("Conv", "x, w", "c", pads=[1, 1, 1, 1]), node("Transpose", "c", "y", perm=[1, 0, 2, 3])]
    path = saved(tmp_path / "m.onnx", nodes, ["n", 1, 8, 8], STORED, opset=13)
    model = onnx.load(path)
    model.graph.node[0].input[0] = model.graph.input[0].name = "image:0"
    model.graph.node[1].output[0] = model.graph.output[0].name = "model/scores"
    onnx.save(model, path)
    net = read_onnx(path)
    save_net(net, tmp_path / "net")
    net = load_net(tmp_path / "net")  # as a converter gets it
    assert write_onnx(net, tmp_path / "again.onnx") == (("image:0",), ("model/scores",))
    again = onnx.load(tmp_path / "again.onnx")
    assert [entry.version for entry in again.opset_import] == [13]  # torch itself writes 18
    (image,), (scores,) = again.graph.input, again.graph.output
    dims = [[d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim] for end in (image, scores)]
    assert dims == [["batch", 1, 8, 8], [4, "batch", 8, 8]]
    for count in (1, 3):
        images = torch.randn(count, 1, 8, 8)
        assert apart(*(torch.from_numpy(in_file(p, images)) for p in (tmp_path / "again.onnx", path))) < 1e-5


def test_a_file_for_one_image_stays_one_for_one_image(tmp_path: Path) -> None:
    nodes = [node("Conv", "x, w", "c", pads=[1, 1, 1, 1]), node("Reshape", "c, 4 x 64", "y")]
    path = saved(tmp_path / "m.onnx", nodes, [1, 1, 8, 8], STORED)
    write_onnx(read_onnx(path), tmp_path / "again.onnx")
    images = torch.randn(1, 1, 8, 8)
    found, expected = (in_file(p, images) for p in (tmp_path / "again.onnx", path))
    assert found.shape == (4, 64) and apart(*map(torch.from_numpy, (found, expected))) < 1e-5


def test_a_dimension_of_minus_one_is_open(tmp_path: Path) -> None:
    """As Paddle2ONNX wrote the batch of its files."""
    path = saved(tmp_path / "m.onnx", [node("Conv", "x, w", "y")], [-1, 1, 8, 8], STORED)
    assert read_onnx(path).input.shape == (1, 1, 8, 8)
