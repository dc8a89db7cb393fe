"""`.onnx` files as untrusted input: what is wrong is said, and nothing is run, read or filled up that should not be."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor

from example_nets import SHAPE, hand_made
from onnx_files import apart, exported_by_torchscript, saved
from slimwright.cli.sources import read_original
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph import load_net, save_net
from slimwright.importers.onnx import read_onnx
from slimwright.runtimes import onnxruntime

Edit = Callable[[ModelProto], object]
CONV = {"w": torch.randn(4, 1, 3, 3), "b": torch.randn(4)}


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "good.onnx"
    return exported_by_torchscript(hand_made("Separable"), path, SHAPE, dynamic=True)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One convolution, its weights stored as raw bytes."""
    return saved(
        tmp_path / "small.onnx", [helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv")], [1, 1, 6, 6], CONV
    )


def changed(path: Path, edit: Edit) -> Path:
    """A copy of a file whose message `edit` has changed."""
    model = onnx.load(path)
    edit(model)
    target = path.with_name("bad.onnx")
    target.write_bytes(model.SerializeToString())
    return target


def test_a_file_is_read_by_its_name(good: Path) -> None:
    assert read_original(good).net.digest == read_onnx(good).digest


def test_the_missing_package_is_named(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r'pip install "slimwright\[onnxruntime\]"'):
        read_onnx(good)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(ModelError, match=path.name):
            read_onnx(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(good: Path, tmp_path: Path, share: float) -> None:
    path, data = tmp_path / "bad.onnx", good.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match="cut short"):
        read_onnx(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_text("PK not a model" * 100)
    with pytest.raises(ModelError, match=r"bad\.onnx is not an \.onnx file"):
        read_onnx(tmp_path / "bad.onnx")


def attribute(model: ModelProto, name: str) -> Any:
    (found,) = [a for a in model.graph.node[0].attribute if a.name == name]
    return found


def with_attribute(name: str, value: object) -> Edit:
    def edit(model: ModelProto) -> None:
        kept = [a for a in model.graph.node[0].attribute if a.name != name]
        del model.graph.node[0].attribute[:]
        model.graph.node[0].attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def quantized(model: ModelProto) -> None:
    model.graph.node[0].op_type, model.graph.node[0].domain = "QAttention", "com.microsoft"


def branched(model: ModelProto) -> None:
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "branch", [], [value])
    model.graph.node[0].input[0] = "q"
    model.graph.node.insert(0, helper.make_node("If", ["x"], ["q"], "choice", then_branch=branch, else_branch=branch))


def looped(model: ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.insert(0, helper.make_node("Loop", ["", "x", "x"], ["q"], "again", body=body))


def circular(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "z"
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"], "loop"))


def constant_output(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["w"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))


def resized(place: int, **dim: Any) -> Edit:
    """Change a dimension of the input."""

    def edit(model: ModelProto) -> None:
        found = model.graph.input[0].type.tensor_type.shape.dim[place]
        found.Clear()
        for key, value in dim.items():
            setattr(found, key, value)

    return edit


def another_input(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Add", ["y", "mask"], ["z"], "sum"))
    model.graph.output[0].name = "z"
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [4, 4, 4, 4]))


FAULTS: dict[str, tuple[Edit, str]] = {
    "no graph": (lambda m: m.ClearField("graph"), "holds no graph"),
    "no nodes": (lambda m: m.graph.ClearField("node"), "holds no graph"),
    "an old opset": (lambda m: setattr(m.opset_import[0], "version", 6), "asks for opset 6"),
    "a future opset": (lambda m: setattr(m.opset_import[0], "version", 99), "asks for opset 99"),
    "no opset": (lambda m: m.ClearField("opset_import"), "asks for opset .none."),
    "a quantized model": (quantized, "node 'conv' .com.microsoft.QAttention. .*with integers.*give the float model"),
    "a foreign domain": (lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"), "'conv' .* 'com.microsoft'"),
    "an unknown operator": (lambda m: setattr(m.graph.node[0], "op_type", "Abracadabra"), "Abracadabra .*node 'conv'"),
    "a branch on the images": (branched, "which way node 'choice' .If. .* goes depends on the images"),
    "an output of weights": (constant_output, "output 'z' .* does not depend on the images; leave it out"),
    "a loop": (looped, "node 'again' .Loop. .*runs a graph of its own"),
    "an output that is an input": (lambda m: setattr(m.graph.output[0], "name", "x"), "output 'x' .*leave it out"),
    "two outputs of one name": (lambda m: m.graph.output.append(m.graph.output[0]), "two outputs named 'y'"),
    "no output": (lambda m: m.graph.ClearField("output"), "has 0 outputs"),
    "an output of nothing": (lambda m: setattr(m.graph.output[0], "name", "z"), "output 'z' .* made by no node"),
    "two batches": (another_input, r"has 2 inputs .*\('x' \[1, 1, 6, 6\], 'mask' \[4, 4, 4, 4\]\).*seed"),
    "no input": (lambda m: m.graph.ClearField("input"), "reads 'x'"),
    "an open height": (resized(2, dim_param="h"), r"dimension 2 is 'h'; say it, as in --input x=1x1x\?x6"),
    "an image beyond any memory": (resized(2, dim_value=2**62), r"input 'x' .*\[1, 1, 4611686018427387904, 6\]"),
    "an empty image": (resized(2, dim_value=0), "it must be a batch of float32 images"),
    "a negative batch": (resized(0, dim_value=-2), "it must be a batch of float32 images"),
    "half precision": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT16), "is float16",
    ),
    "an input of no shape": (lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"), "'x' .* has no shape"),
    "a dangling input": (lambda m: m.graph.node[0].input.__setitem__(1, "nowhere"), "'conv' .* reads 'nowhere', which"),
    "a circle": (circular, "'conv' .* reads 'z' before it is made: .* in a circle"),
    "a value made twice": (lambda m: m.graph.node.append(m.graph.node[0]), "'conv' .* makes 'y', which exists already"),
    "two initializers of one name": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "two init.* 'w'"),
    "two inputs of one name": (lambda m: m.graph.input.append(m.graph.input[0]), "two inputs named 'x'"),
    "a missing operand": (lambda m: m.graph.node[0].input.__setitem__(1, ""), "'conv' .*weight .input 1. is missing"),
    "strides of the wrong kind": (with_attribute("strides", [1.5, 2.5]), "'conv' .*'strides' is .* list of integers"),
    "too few pads": (with_attribute("pads", [1, 1]), r"'conv' .*its pads is \[1, 1\]; it must be 4"),
    "a stride of nothing": (with_attribute("strides", [0, 1]), "'conv' .*its strides is"),
    "a kernel that is not the weight's": (with_attribute("kernel_shape", [5, 5]), "'conv' .*its kernel_shape is"),
    "groups that do not fit": (with_attribute("group", 3), "'conv'"),
    "an unknown padding": (with_attribute("auto_pad", "SOMEHOW"), "'conv' .*its auto_pad is 'SOMEHOW'"),
    "text that is none": (with_attribute("auto_pad", b"\xff\xfe"), "'conv' .*not text"),
    "a giant stride": (with_attribute("strides", [2**40, 1]), "'conv' .*its strides is"),
    "a giant padding": (with_attribute("pads", [2**20] * 4), "'conv' .*no device can hold"),
    "a sparse weight": (lambda m: m.graph.sparse_initializer.add(), "sparse"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_with_a_fault_is_refused_by_name(small: Path, fault: str) -> None:
    edit, message = FAULTS[fault]
    with pytest.raises(ModelError, match=message):
        read_onnx(changed(small, edit))


def test_a_quantized_model_of_the_house_is_the_net_that_it_was(tmp_path: Path) -> None:
    net = read_onnx(exported_by_torchscript(hand_made("Residual"), tmp_path / "float.onnx", SHAPE, dynamic=False))
    onnxruntime.write_onnx(net, tmp_path / "net.onnx")
    onnxruntime.quantize(tmp_path / "net.onnx", tmp_path / "int8.onnx", {"x": torch.randn(4, *SHAPE).numpy()})
    found = read_onnx(tmp_path / "int8.onnx")
    images = torch.randn(3, *SHAPE)
    assert [node.op for node in found.weighted()] == [node.op for node in net.weighted()]
    assert apart(found.run(images)[0], net.run(images)[0]) < 0.03  # weights of 8 bits


def weight(edit: Callable[[TensorProto], object]) -> Edit:
    return lambda model: edit(model.graph.initializer[0])


def typed(values: list[Any], field: str, data_type: int) -> Edit:
    def edit(tensor: TensorProto) -> None:
        tensor.ClearField("raw_data")
        getattr(tensor, field).extend(values)
        tensor.data_type = data_type

    return weight(edit)


LIES: dict[str, tuple[Edit, str]] = {
    "a size beyond the bytes": (weight(lambda t: t.dims.__setitem__(0, 10**9)), "holds 144"),
    "a size beyond 64 bits": (weight(lambda t: t.dims.extend([2**62, 2**62])), "holds 144"),
    "a negative size": (weight(lambda t: t.dims.__setitem__(0, -4)), "cannot be negative"),
    "bytes left over": (weight(lambda t: t.dims.__setitem__(0, 3)), "holds 144"),
    "a data type of another width": (weight(lambda t: setattr(t, "data_type", TensorProto.DOUBLE)), "holds 144"),
    "an unknown data type": (weight(lambda t: setattr(t, "data_type", 99)), "data type 99"),
    "text": (weight(lambda t: setattr(t, "data_type", TensorProto.STRING)), "data type 8"),
    "too few numbers": (typed([1.0] * 35, "float_data", TensorProto.FLOAT), "35 numbers in float_data"),
    "numbers that do not fit": (typed([300] * 36, "int32_data", TensorProto.INT8), "no int8 has"),
    "numbers that are not finite": (typed([float("nan")] * 36, "float_data", TensorProto.FLOAT), "36 values .* NaN"),
    "integers for weights": (typed([1] * 36, "int64_data", TensorProto.INT64), "conv"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_weight_that_lies_about_itself_is_refused(small: Path, lie: str) -> None:
    edit, message = LIES[lie]
    with pytest.raises(ModelError, match=message):
        read_onnx(changed(small, edit))


def test_numbers_stored_one_by_one_are_the_same_weights(small: Path) -> None:
    expected = read_onnx(small).digest
    flat = CONV["w"].flatten().tolist()
    assert read_onnx(changed(small, typed(flat, "float_data", TensorProto.FLOAT))).digest == expected


# weights in files of their own


def placed(path: Path, location: str, *, offset: str | None = None, length: str | None = None) -> Path:
    """A copy of a file whose first weight lies elsewhere."""

    def edit(tensor: TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            if value is not None:
                tensor.external_data.add(key=key, value=value)

    return changed(path, weight(edit))


def test_weights_beside_the_model_are_read(small: Path) -> None:
    (small.parent / "data").mkdir()
    raw = CONV["w"].numpy().tobytes()
    (small.parent / "data" / "weights.bin").write_bytes(b"12345678" + raw + b"rest")
    path = placed(small, "data/weights.bin", offset="8", length=str(len(raw)))
    assert read_onnx(path).digest == read_onnx(small).digest


def test_weights_that_onnx_itself_put_beside_the_model_are_read(good: Path, tmp_path: Path) -> None:
    model = onnx.load(good)
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="all.data", size_threshold=0)
    assert (tmp_path / "all.data").stat().st_size > 0
    assert read_onnx(tmp_path / "model.onnx").digest == read_onnx(good).digest


def test_weights_outside_of_the_folder_are_not_touched(small: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.bin"
    secret.write_bytes(bytes(144))
    (small.parent / "link.bin").symlink_to(secret)
    (small.parent / "inside").symlink_to(secret.parent)
    for location in (
        str(secret),
        f"../{secret.parent.name}/secret.bin",
        "link.bin",
        "inside/secret.bin",
        "",
        ".",
        "no",
    ):
        with pytest.raises(ModelError, match="no file inside the model's folder"):
            read_onnx(placed(small, location))


@pytest.mark.parametrize(
    ("offset", "length"), [("-1", "144"), ("1", "144"), ("0", "143"), ("0", "10000000000000"), (str(2**70), "144")]
)
def test_weights_beyond_their_file_are_refused(small: Path, offset: str, length: str) -> None:
    (small.parent / "weights.bin").write_bytes(bytes(144))
    with pytest.raises(ModelError, match=r"holds 144"):
        read_onnx(placed(small, "weights.bin", offset=offset, length=length))


@pytest.mark.parametrize(("location", "offset"), [("weights.bin", "a lot"), ("a\0b", "0"), ("a" * 5000, "0")])
def test_a_place_that_is_none_is_refused(small: Path, location: str, offset: str) -> None:
    (small.parent / "weights.bin").write_bytes(bytes(144))
    with pytest.raises(ModelError, match="no place"):
        read_onnx(placed(small, location, offset=offset))


# much out of little

HUGE = torch.tensor([2**20, 2**20])
BOMBS: dict[str, tuple[list[onnx.NodeProto], dict[str, Tensor]]] = {
    "a constant of any shape": ([helper.make_node("ConstantOfShape", ["s"], ["c"])], {"s": HUGE}),
    "an expanded number": ([helper.make_node("Expand", ["one", "s"], ["c"])], {"s": HUGE, "one": torch.ones(1)}),
    "a tiled number": ([helper.make_node("Tile", ["one", "s"], ["c"])], {"s": HUGE, "one": torch.ones(1, 1)}),
    "a range": (
        [helper.make_node("Range", ["low", "high", "step"], ["c"])],
        {"low": torch.tensor(0), "high": torch.tensor(2**45), "step": torch.tensor(1)},
    ),
    "a padded number": (
        [helper.make_node("Pad", ["one", "s"], ["c"])], {"s": torch.tensor([2**35, 2**5]), "one": torch.ones(1)},
    ),
    "an outer product": (
        [helper.make_node("Mul", ["a", "b"], ["c"])], {"a": torch.ones(2**16), "b": torch.ones(2**16, 1)},
    ),
    "many constants": (
        [helper.make_node("ConstantOfShape", ["s"], [f"c{i}"]) for i in range(40)]
        + [helper.make_node("Concat", [f"c{i}" for i in range(40)], ["c"], axis=0)],
        {"s": torch.tensor([2**13, 2**11])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_cannot_fill_the_memory(bomb: str, tmp_path: Path) -> None:
    nodes, weights = BOMBS[bomb]
    last = [helper.make_node("ReduceMax", ["c"], ["m"], "top"), helper.make_node("Mul", ["x", "m"], ["y"])]
    path = saved(tmp_path / "bomb.onnx", [*nodes, *last], ["n", 3], weights)
    with pytest.raises(ModelError, match=r"no model that a device can run|no device can hold"):
        read_onnx(path)


def test_drawn_weights_are_bounded_too(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = saved(tmp_path / "bomb.onnx", nodes, ["n", 2**20], {"s": HUGE})
    with pytest.raises(ModelError, match=r"the weights to draw .* take more than"):
        read_onnx(path, seed=0)


# names


def test_any_names_become_names_that_can_be_saved(tmp_path: Path) -> None:
    values = ["/a:b/c", "self", "class", "1x", "ünïcödé", "训练", "train", "a.b", "a_b", "a b", "x" * 300, "."]
    tensors = [
        "forward.weight",
        "a.weight",
        "a",
        "..",
        "0.1.bias",
        "weight",
        "a/b:c",
        "-",
        "code",
        "a.weight.b",
        "Ω",
        "_",
    ]
    nodes, last = [], "x"
    for value, tensor in zip(values, tensors, strict=True):
        nodes.append(helper.make_node("Add", [last, tensor], [value], f"node {value}"))
        last = value
    nodes.append(helper.make_node("Relu", [last], ["y"]))
    path = saved(tmp_path / "model.onnx", nodes, ["n", 3], {name: torch.randn(3) for name in tensors})
    net = read_onnx(path)
    save_net(net, tmp_path / "net")
    again = load_net(tmp_path / "net")
    images = torch.randn(2, 3)
    assert torch.equal(again.to_module()(images), net.to_module()(images))
    assert sum(node.op == "add" for node in net.nodes) == len(values)


# anything at all


def test_no_broken_byte_gives_anything_but_a_net_or_a_model_error(good: Path, tmp_path: Path) -> None:
    data, generator, read = good.read_bytes(), random.Random(0), 0
    graph = len(data) // 3
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(generator.randint(1, 3)):
            broken[generator.randrange(graph if generator.random() < 0.5 else len(data))] = generator.randrange(256)
        (tmp_path / "bad.onnx").write_bytes(broken)
        try:
            read += read_onnx(tmp_path / "bad.onnx").input.op == "input"
        except ModelError:
            continue
    assert 0 < read < 150


JUNK_INTS = st.one_of(st.integers(-3, 5), st.sampled_from([-(2**63), 2**31, 2**40, 2**63 - 1]))


@given(data=st.data())
def test_no_change_to_a_node_gives_anything_but_a_net_or_a_model_error(good: Path, data: st.DataObject) -> None:
    def spoil(model: ModelProto) -> None:
        node = data.draw(st.sampled_from(list(model.graph.node)))
        kind = data.draw(st.sampled_from(["op", "input", "attribute", "new", "shape"]))
        names = [name for other in model.graph.node for name in (*other.input, *other.output)]
        if kind == "op":
            node.op_type = data.draw(
                st.sampled_from([other.op_type for other in model.graph.node] + ["Gather", "Range"])
            )
        elif kind == "input" and node.input:
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from([*names, ""]))
        elif kind == "attribute" and node.attribute:
            found = data.draw(st.sampled_from(list(node.attribute)))
            found.i = data.draw(JUNK_INTS)
            found.ints[:] = data.draw(st.lists(JUNK_INTS, max_size=5))
            found.f = data.draw(st.floats(width=32))
        elif kind == "new":
            key = data.draw(
                st.sampled_from(["axis", "axes", "perm", "pads", "strides", "group", "to", "alpha", "auto_pad"])
            )
            value = data.draw(st.one_of(JUNK_INTS, st.lists(JUNK_INTS, min_size=1, max_size=4), st.just("NOTSET")))
            node.attribute.append(helper.make_attribute(key, value))
        elif kind == "shape":
            tensor = data.draw(st.sampled_from(list(model.graph.initializer)))
            size = numpy_helper.to_array(tensor).size
            tensor.dims[:] = data.draw(st.sampled_from([[size], [1, size], [size, 1, 1, 1], [0], []]))

    try:
        net = read_onnx(changed(good, spoil))
    except ModelError:
        return
    assert net.nodes[0].op == "input"


def test_unsupported_things_are_told_apart_from_damaged_ones(small: Path) -> None:
    with pytest.raises(UnsupportedOp):
        read_onnx(changed(small, branched))
    with pytest.raises(ModelError) as found:
        read_onnx(changed(small, circular))
    assert not isinstance(found.value, UnsupportedOp)
