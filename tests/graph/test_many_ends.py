"""Any number of inputs and outputs, of any shape, through the graph: captured, stored, read from files, cut."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export import Dim, export

from exact import assert_cut_is_masked
from many_ends import MANY_ENDS, inputs_of, model_of, net_of, outputs_of
from onnx_files import exported_ends
from slimwright.coupling import choose, couple
from slimwright.errors import ModelError
from slimwright.graph import Net, images_at_once, load_net, plan_memory, save_net
from slimwright.importers import capture, read_pt2
from slimwright.importers.onnx import read_onnx

# Groups of channels that may go; a tower that runs twice loses the same in both runs.
CUT = {"siamese": 3, "unet": 5, "heads": 2, "fused": 2, "joint": 1}


@pytest.fixture(scope="module", params=MANY_ENDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def net(name: str) -> Net:
    return net_of(name)


def test_a_captured_net_gives_the_same_bits_for_every_output(name: str, net: Net) -> None:
    for count in (1, 2, 3):
        inputs = inputs_of(name, count)
        wanted = outputs_of(model_of(name), inputs)
        module = net.to_module()
        for found in (net.run(inputs), outputs_of(module, inputs)):
            assert len(found) == len(wanted)
            assert all(torch.equal(mine, its) for mine, its in zip(found, wanted, strict=True))


def test_shapes_are_those_of_one_image_each_with_its_batch(name: str, net: Net) -> None:
    ends = MANY_ENDS[name]
    assert tuple(node.shape for node in net.inputs) == tuple((1, *shape) for shape in ends.shapes)
    assert tuple(net[output].shape for output in net.outputs) == ends.gives


def test_a_saved_net_comes_back(net: Net, tmp_path: Path) -> None:
    save_net(net, tmp_path)
    back = load_net(tmp_path)
    assert back.digest == net.digest and back.outputs == net.outputs
    assert [node.name for node in back.inputs] == [node.name for node in net.inputs]


def test_a_pt2_file_gives_the_same_net_as_the_module(name: str, net: Net, tmp_path: Path) -> None:
    inputs = tuple(inputs_of(name, 2))
    program = export(model_of(name), inputs, dynamic_shapes=tuple({0: Dim.AUTO} for _ in inputs), strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    read = read_pt2(tmp_path / "model.pt2")
    assert read.outputs == net.outputs
    more = inputs_of(name, 3)
    assert all(torch.equal(mine, its) for mine, its in zip(read.run(more), net.run(more), strict=True))


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_an_onnx_file_is_read_with_its_outputs_in_order(name: str, dynamo: bool, tmp_path: Path) -> None:
    model, inputs = model_of(name), inputs_of(name, 3)
    path = exported_ends(model, tmp_path / "model.onnx", inputs_of(name, 2), dynamo=dynamo)
    returned = [output.name for output in onnx.load(path).graph.output]
    if len(set(returned)) < len(returned):  # no valid file: torch's older exporter names a value twice
        with pytest.raises(ModelError, match="two outputs named"):
            read_onnx(path)
        return
    net = read_onnx(path)
    assert tuple(node.shape[1:] for node in net.inputs) == MANY_ENDS[name].shapes
    for mine, its in zip(net.run(inputs), outputs_of(model, inputs), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CUT)
def test_a_cut_net_equals_the_masked_one_at_every_output(name: str) -> None:
    net = net_of(name)
    coupling = couple(net)
    assert len(coupling.groups) == CUT[name]
    for seed, share in enumerate((0.3, 0.6)):
        small = assert_cut_is_masked(net, choose(coupling, share, seed=seed), coupling)
        assert sum(t.numel() for t in small.tensors.values()) < sum(t.numel() for t in net.tensors.values())
        assert [small[output].shape for output in small.outputs] == [net[output].shape for output in net.outputs]


def test_outputs_in_a_dict_are_called_as_it_calls_them() -> None:
    assert net_of("heads").outputs == ("where", "what", "size")


def test_the_names_of_a_pt2_file_and_of_an_onnx_file_are_kept(tmp_path: Path) -> None:
    inputs = inputs_of("heads", 2)
    program = export(model_of("heads"), tuple(inputs), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    assert read_pt2(tmp_path / "model.pt2").outputs == ("where", "what", "size")
    path = exported_ends(
        model_of("heads"), tmp_path / "model.onnx", inputs, dynamo=True, names=["boxes:0", "class", "n"]
    )
    assert read_onnx(path).outputs == ("boxes_0", "class_", "n")


class Returning(nn.Module):
    """What a function makes of two inputs."""

    def __init__(self, function: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> object:
        return self.function(x, y)


def test_outputs_in_lists_and_dicts_are_flattened_and_none_is_left_out() -> None:
    model = Returning(lambda x, y: ({"sum": x + 1, "none": None}, [y * 2, (x * 3, y.mean(1))]))
    x, y = torch.randn(2, 3), torch.randn(2, 4)
    found = capture(model, [(3,), (4,)]).run([x, y])
    wanted = (x + 1, y * 2, x * 3, y.mean(1))
    assert all(torch.equal(mine, its) for mine, its in zip(found, wanted, strict=True))


def test_an_output_may_be_given_twice_and_may_be_an_input() -> None:
    model = Returning(lambda x, y: (z := torch.relu(x), y, z))
    x, y = torch.randn(70, 3), torch.randn(70, 4)
    found = capture(model, [(3,), (4,)]).run([x, y])
    assert all(torch.equal(mine, its) for mine, its in zip(found, (x.relu(), y, x.relu()), strict=True))


def test_an_input_that_nothing_reads_is_still_an_input(tmp_path: Path) -> None:
    net = capture(Returning(lambda x, y: y + 1), [(3,), (4,)])
    save_net(net, tmp_path)
    assert [node.name for node in load_net(tmp_path).inputs] == ["x", "y"]
    y = torch.randn(2, 4)
    assert torch.equal(net.run([torch.randn(2, 3), y])[0], y + 1)


class Worded(nn.Module):
    """Numbers of words and a picture: an index of a table among the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.conv, self.last = nn.Embedding(9, 6), nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

    def forward(self, words: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        score = self.last(self.words(words).mean(1) * self.conv(image).mean((2, 3)))
        return score, score.argmax(1)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_inputs_and_outputs_of_integers_are_carried(dtype: str, tmp_path: Path) -> None:
    model = Worded().eval()
    net = capture(model, [(5,), (3, 8, 8)], dtypes=[dtype, "float32"])
    save_net(net, tmp_path)
    net = load_net(tmp_path)
    assert [node.dtype for node in net.inputs] == [dtype, "float32"]
    words = torch.randint(9, (3, 5), dtype=getattr(torch, dtype))
    image = torch.randn(3, 3, 8, 8)
    wanted = outputs_of(model, [words, image])
    found = net.run([words, image])
    assert all(torch.equal(mine, its) for mine, its in zip(found, wanted, strict=True))
    assert net[net.outputs[1]].dtype == "int64"


def test_what_is_no_input_is_refused() -> None:
    with pytest.raises(ModelError, match="float64 are no dtypes of 1 inputs; each is one of float32, int64, int32"):
        capture(nn.Identity(), (3,), dtypes=["float64"])
    with pytest.raises(ModelError, match="are no dtypes of 2 inputs"):
        capture(nn.Identity(), [(3,), (4,)], dtypes=["float32"])
    with pytest.raises(ModelError, match="neither the shape of one input nor a sequence of shapes"):
        capture(nn.Identity(), [3, (4,)])  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"cannot take inputs of shapes \[3\] and \[4\]"):
        capture(Returning(lambda x, y: x + y), [(3,), (4,)])


def test_the_one_input_of_a_net_with_two_is_refused_with_their_names() -> None:
    with pytest.raises(ModelError, match=r"takes 2 inputs \('image' \[1, 3, 16, 16\], 'numbers' \[1, 5\]\)"):
        _ = net_of("fused").input


def test_a_run_with_other_inputs_is_refused_with_both_shapes() -> None:
    net = net_of("fused")
    image, numbers = inputs_of("fused", 2)
    for wrong in ([image], [numbers, image], [image, numbers[:1]], [image, numbers[:, :4]], []):
        with pytest.raises(ModelError, match=r"takes 'image' \[N, 3, 16, 16\], 'numbers' \[N, 5\], with one N; it was"):
            net.run(wrong)


def test_an_output_without_a_row_for_each_image_is_refused_when_it_is_run() -> None:
    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(0)

    with pytest.raises(ModelError, match=r"output 'mean' of the net has the shape \[3\] for 2 images"):
        capture(Whole(), (3,)).run([torch.randn(2, 3)])


def test_a_run_in_batches_gives_what_one_batch_gives() -> None:
    net, inputs = net_of("heads"), inputs_of("heads", 130)
    found = net.run(inputs)
    assert [len(output) for output in found] == [130] * 3
    for mine, its in zip(found, outputs_of(net.to_module(), inputs), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


def test_as_many_images_are_computed_at_once_as_fit_into_caches() -> None:
    assert images_at_once(capture(nn.Conv2d(3, 8, 3, padding=1), (3, 224, 224))) == 32_000_000 // (4 * 8 * 224 * 224)
    assert images_at_once(capture(nn.Linear(4, 2), (4,))) == 64
    assert images_at_once(capture(nn.Conv2d(3, 64, 1), (3, 512, 512))) == 1


def test_what_a_net_returns_early_and_all_its_inputs_are_held_in_memory() -> None:
    net = capture(Returning(lambda x, y: (a := torch.sin(x), torch.cos(torch.sin(y)), a[:, :2])), [(64,), (32,)])
    plan = plan_memory(net)
    ends = {buffer.name: (buffer.first, buffer.last) for buffer in plan.buffers}
    last = len(net.nodes) - 1
    assert (ends["x"][0], ends["y"][0]) == (0, 0)
    assert all(
        ends[held][1] == last for held in ("sin", "sin_1", net.outputs[2])
    )  # the cosine is written over its input
    # x and y; the same; x, y and sin; sin, y and sin_1; sin and cos; sin, cos and the slice
    assert plan.live_bytes == tuple(4 * held for held in (96, 96, 160, 128, 96, 98))


def hand_written(
    path: Path, shapes: dict[str, list[int | str]], nodes: list[onnx.NodeProto], outputs: list[str]
) -> Path:
    """Write an ONNX file with several inputs and outputs."""
    kinds = {name: TensorProto.INT64 if name == "words" else TensorProto.FLOAT for name in shapes}
    graph = helper.make_graph(
        nodes, "test", [helper.make_tensor_value_info(n, kinds[n], s) for n, s in shapes.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_an_onnx_file_whose_outputs_are_one_value_or_a_row_of_numbers_is_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "strength"], ["m"]),
        helper.make_node("Identity", ["m"], ["one"]),
        helper.make_node("Identity", ["m"], ["other"]),
        helper.make_node("ReduceMax", ["m"], ["most"], keepdims=0, axes=[1]),
    ]
    nodes[3] = helper.make_node("ReduceMean", ["m", "axis"], ["most"], keepdims=0)
    nodes.insert(0, helper.make_node("Constant", [], ["axis"], value_ints=[1]))
    path = hand_written(tmp_path / "m.onnx", {"x": ["n", 3], "strength": [1, 1]}, nodes, ["one", "other", "most"])
    net, x, strength = read_onnx(path), torch.randn(4, 3), torch.rand(4, 1)
    one, other, most = net.run([x, strength])
    assert torch.equal(one, x * strength) and torch.equal(other, one)
    torch.testing.assert_close(most, one.mean(1), rtol=1e-6, atol=1e-6)
    session = ort.InferenceSession(str(path))
    given = {"x": x[:1].numpy(), "strength": strength[:1].numpy()}
    for mine, its in zip(net.run([x[:1], strength[:1]]), session.run(None, given), strict=True):
        np.testing.assert_allclose(mine.numpy(), its, rtol=1e-6, atol=1e-6)


def test_an_onnx_file_that_takes_integers_is_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["words"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["w", "x"], ["y"]),
    ]
    net = read_onnx(hand_written(tmp_path / "m.onnx", {"words": ["n", 3], "x": ["n", 3]}, nodes, ["y"]))
    assert [node.dtype for node in net.inputs] == ["int64", "float32"]
    words, x = torch.randint(9, (4, 3)), torch.randn(4, 3)
    assert torch.equal(net.run([words, x])[0], words + x)
