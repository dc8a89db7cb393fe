import copy
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exact import EVERY, small_net
from example_nets import SHAPE
from slimwright.atomic import replacing
from slimwright.errors import ModelError
from slimwright.graph import Net, load_net, save_net
from slimwright.graph.inference import INPUT_DTYPES
from slimwright.graph.net import structure
from slimwright.graph.store import FORMAT, VERSION, net_of
from slimwright.importers import capture


def described(net: Net) -> dict[str, Any]:
    """What `save_net` writes, as JSON reads it."""
    found: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "version": VERSION, **structure(net)}))
    return found


def node(found: dict[str, Any], op: str) -> dict[str, Any]:
    return next(entry for entry in found["nodes"] if entry["op"] == op)


@pytest.mark.parametrize("name", EVERY)
def test_a_saved_net_comes_back_the_same(name: str, tmp_path: Path) -> None:
    net = small_net(name)
    save_net(net, tmp_path / "deep" / "folder")
    back = load_net(tmp_path / "deep" / "folder")
    images = torch.randn(2, *SHAPE)
    assert back.digest == net.digest
    assert back.nodes == net.nodes
    assert torch.equal(back.to_module()(images), net.to_module()(images))


def test_a_layer_whose_name_has_a_hyphen_comes_back(tmp_path: Path) -> None:
    model = torch.nn.Sequential(OrderedDict({"block1-0": torch.nn.Conv2d(1, 2, 3)}))
    net = capture(model, SHAPE)
    save_net(net, tmp_path)
    assert load_net(tmp_path).digest == net.digest and "block1-0.weight" in net.tensors
    assert load_net(tmp_path).to_module().state_dict().keys() == model.state_dict().keys()


def test_nothing_but_json_and_raw_tensors_is_written(residual: Net, tmp_path: Path) -> None:
    save_net(residual, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors"]
    assert json.loads((tmp_path / "net.json").read_text())["format"] == "slimwright-net"
    assert set(safetensors.torch.load_file(tmp_path / "net.safetensors")) == set(residual.tensors)


Tamper = Callable[[dict[str, Any]], object]
TAMPERED: dict[str, Tamper] = {
    "an unknown op": lambda f: node(f, "conv2d").update(op="system"),
    "a list as op": lambda f: node(f, "conv2d").update(op=["conv2d"]),
    "code as a name": lambda f: node(f, "conv2d").update(name="__import__('os')"),
    "two statements as a name": lambda f: node(f, "conv2d").update(name="a;b"),
    "a keyword as a name": lambda f: (
        f["nodes"][-1].update(name="class"),
        f.update(outputs=["class"]),
    ),
    "the module's own name": lambda f: (
        f["nodes"][-1].update(name="self"),
        f.update(outputs=["self"]),
    ),
    "a number as a name": lambda f: node(f, "conv2d").update(name=3),
    "a name twice": lambda f: f["nodes"][2].update(name=f["nodes"][1]["name"]),
    "code as a tensor's name": lambda f: node(f, "conv2d")["tensors"].update(weight="a'];os.system('true')#"),
    "a missing tensor": lambda f: node(f, "conv2d")["tensors"].update(weight="conv9.weight"),
    "another layer's tensor": lambda f: node(f, "linear")["tensors"].update(weight="conv2.weight"),
    "a tensor for a role the op has not": lambda f: node(f, "relu")["tensors"].update(weight="conv2.weight"),
    "no weight": lambda f: node(f, "conv2d")["tensors"].clear(),
    "a later node read": lambda f: node(f, "conv2d")["arguments"].update(input={"value_of": f["outputs"][0]}),
    "itself read": lambda f: node(f, "relu")["arguments"].update(self={"value_of": node(f, "relu")["name"]}),
    "arguments in a list": lambda f: node(f, "conv2d").update(arguments=[1, 2]),
    "a missing argument": lambda f: node(f, "conv2d")["arguments"].pop("stride"),
    "an argument that is no value": lambda f: node(f, "relu")["arguments"].update(self={"run": "os"}),
    "an input that is no image": lambda f: node(f, "relu")["arguments"].update(self=3),
    "a huge padding": lambda f: node(f, "conv2d")["arguments"].update(padding=[2**70, 2**70]),
    "a huge stride": lambda f: node(f, "conv2d")["arguments"].update(stride=2**63),
    "no groups at all": lambda f: node(f, "conv2d")["arguments"].update(groups=0),
    "a stride of nothing": lambda f: node(f, "conv2d")["arguments"].update(stride=[0, 0]),
    "a negative image": lambda f: f["nodes"][0].update(shape=[1, 1, -6, 6]),
    "a huge image": lambda f: f["nodes"][0].update(shape=[1, 2**40, 2**40, 2**40]),
    "an image beyond 64 bits": lambda f: f["nodes"][0].update(shape=[1, 1, 2**70, 6]),
    "an image of words": lambda f: f["nodes"][0].update(shape=[1, "one", 6, 6]),
    "an image of integers": lambda f: f["nodes"][0].update(dtype="int64"),
    "no dtype": lambda f: f["nodes"][0].update(dtype=None),
    "another channel count": lambda f: f["nodes"][0].update(shape=[1, 2, 6, 6]),
    "no input": lambda f: f["nodes"].pop(0),
    "an input among the layers": lambda f: f["nodes"].insert(2, {**f["nodes"][0], "name": "second"}),
    "two inputs of one name": lambda f: f["nodes"].insert(1, f["nodes"][0]),
    "no nodes": lambda f: f.update(nodes=[]),
    "nodes that are none": lambda f: f.update(nodes=[3]),
    "no outputs": lambda f: f.update(outputs=[]),
    "an output nobody makes": lambda f: f.update(outputs=["nobody"]),
    "an output that is a list": lambda f: f.update(outputs=[[1]]),
    "another format": lambda f: f.update(format="slimwright-nest"),
    "a later version": lambda f: f.update(version=VERSION + 1),
    "no version": lambda f: f.pop("version"),
}


def carries(op: str, **arguments: object) -> Tamper:
    """Put another operator in place of the first activation."""
    return lambda f: node(f, "relu").update(
        op=op, arguments={"self": {"value_of": node(f, "relu")["arguments"]["self"]["value_of"]}, **arguments}
    )


NOT_CARRIED: dict[str, Tamper] = {
    "a file": carries("aten.from_file.default", filename="/etc/passwd", shared=None, size=8),
    "in place": carries("aten.relu_.default"),
    "an output given": carries("aten.relu.out"),
    "random numbers": carries("aten.rand_like.default"),
    "more random numbers": carries("aten.bernoulli.default"),
    "random numbers from nothing": carries("aten.randn.default", size=[1, 6, 6, 6]),
    "dropout with its switch": carries("aten.dropout.default", p=0.5, train=True),
    "a size": carries("aten.sym_size.int", dim=0),
    "another namespace": carries("quantized.add.default"),
    "another namespace behind ours": carries("aten.quantized.add"),
    "python": carries("aten.__class__.__init__"),
    "an attribute of torch": carries("torch.load"),
    "an overload that is not there": carries("aten.relu.nothing"),
    "an operator without its overload": carries("aten.relu"),
    "an operator that trusts its arguments": carries("aten._nnpack_spatial_convolution.default"),
    "an operator that fills nothing": carries("aten.empty_like.default"),
    "an operator that is not there": carries("aten.nothing.default"),
    "a dotted path": carries("aten.relu.default.__globals__"),
    "nothing": carries(""),
    "its prefix alone": carries("aten."),
    "a missing argument": carries("aten.clamp.default", min=0),
    "a string for a number": carries("aten.clamp.default", min="0", max=None),
    "a number for an image": carries("aten.sin.default", self=3),
    "a memory format by number": carries("aten.clone.default", memory_format=-5),
    "a layout that is none": carries(
        "aten.zeros_like.default", dtype=None, layout="torch.load", device=None, pin_memory=None, memory_format=None
    ),
    "a type that is none": carries("softmax", dim=1, dtype="torch.load"),
    "a dtype by number": carries("mean", dim=[2, 3], keepdim=True, dtype=7777),
    "another dtype by number": carries("softmax", dim=1, dtype=1000),
    "a layer's weights that are computed": carries("aten.conv2d.default", input=1, weight=2),
    "a view that does not fit": carries("reshape", shape=[1, 7, 6, 6]),
    "a view with two free sizes": carries("reshape", shape=[-1, -1, 6, 6]),
    "a view of negative size": carries("reshape", shape=[1, -6, 6, 6]),
    "a view of no size": carries("reshape", shape=[0, -1]),
    "a view beyond 64 bits": carries("reshape", shape=[1, 2**70, 6, 6]),
    "a huge repeat": carries("aten.repeat.default", repeats=[2**40, 2**40, 1, 1]),
    "a transposition beyond the rank": carries("transpose", dim0=0, dim1=9),
    "a permutation that is none": carries("permute", dims=[0, 0, 1, 2]),
    "a slice beyond 64 bits": carries("slice", dim=1, start=0, end=2**70, step=1),
    "a slice of no step": carries("slice", dim=1, start=0, end=3, step=0),
    "a choice beyond the size": carries("select", dim=1, index=6),
    "a stride into foreign memory": carries(
        "aten.as_strided.default", size=[9, 9], stride=[10**6, 1], storage_offset=None
    ),
}


@pytest.mark.parametrize("what", NOT_CARRIED)
def test_an_operator_that_may_not_be_carried_or_does_not_fit_is_refused(
    what: str, residual: Net, tmp_path: Path
) -> None:
    save_net(residual, tmp_path)
    found = described(residual)
    NOT_CARRIED[what](found)
    (tmp_path / "net.json").write_text(json.dumps(found))
    with pytest.raises(ModelError):
        load_net(tmp_path)


def test_an_operator_that_may_be_carried_is_taken(residual: Net) -> None:
    found = described(residual)
    carries("aten.sin.default")(found)
    assert "aten.sin.default" in {n.op for n in net_of(found, dict(residual.tensors)).nodes}


def bare(found: dict[str, Any], op: str, tensor: str) -> None:
    """Put a bare parameter in place of what the linear layer reads."""
    place = len(found["nodes"]) - 1
    found["nodes"].insert(
        place, {"name": "own", "op": op, "arguments": {}, "tensors": {"value": tensor}, "shape": [], "dtype": "float32"}
    )
    node(found, "linear")["arguments"]["input"] = {"value_of": "own"}


PARAMETERS: dict[str, torch.Tensor] = {
    "of another shape": torch.zeros(5),
    "of no dimension": torch.tensor(1.0),
    "of nothing": torch.zeros(0),
    "of many dimensions": torch.zeros(*[1] * 20, 5),
}


@pytest.mark.parametrize("what", PARAMETERS)
@pytest.mark.parametrize("op", ["parameter", "constant"])
def test_a_bare_tensor_that_does_not_fit_is_refused(what: str, op: str, residual: Net) -> None:
    found = described(residual)
    bare(found, op, "stray")
    with pytest.raises(ModelError, match="linear"):
        net_of(found, {**residual.tensors, "stray": PARAMETERS[what]})


def test_a_bare_tensor_that_is_not_there_or_has_no_name_is_refused(residual: Net) -> None:
    for name, said in (("missing", "no tensor 'missing'"), ("a;b", "cannot own 'a;b'")):
        found = described(residual)
        bare(found, "parameter", name)
        with pytest.raises(ModelError, match=said):
            net_of(found, dict(residual.tensors))


@pytest.mark.parametrize("index", [[0, 6], [-7], [2**62], []])
def test_a_gather_beyond_its_source_never_reads_foreign_memory(index: list[int], residual: Net) -> None:
    found = described(residual)
    relu = node(found, "relu")
    relu.update(op="gather", arguments={**relu["arguments"], "dim": 1}, tensors={"index": "stray"})
    index = [*index, *[0] * (6 - len(index))] if index else []
    with pytest.raises(ModelError):
        net_of(found, {**residual.tensors, "stray": torch.tensor(index, dtype=torch.int64)})


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_net_is_refused(what: str, residual: Net, tmp_path: Path) -> None:
    save_net(residual, tmp_path)
    found = described(residual)
    TAMPERED[what](found)
    (tmp_path / "net.json").write_text(json.dumps(found))
    with pytest.raises(ModelError):
        load_net(tmp_path)


ENDS: dict[str, Any] = {
    "inputs": ["x"], "outputs": ["y"], "layouts": [{"axis": 0, "outer": 1, "inner": 1}], "open_batch": True,
    "opset": 17,
}  # fmt: skip
HEIGHT: dict[str, Any] = {"name": "height", "places": [[0, 2]], "step": 32}
WRONG_SIZES: dict[str, list[Any]] = {
    "a name that a shell reads": [{**HEIGHT, "name": "h;reboot"}],
    "no name": [{**HEIGHT, "name": ""}],
    "a number as a name": [{**HEIGHT, "name": 3}],
    "a name twice": [HEIGHT, {**HEIGHT, "places": [[0, 3]]}],
    "a place twice": [HEIGHT, {**HEIGHT, "name": "width"}],
    "no places": [{**HEIGHT, "places": []}],
    "the batch": [{**HEIGHT, "places": [[0, 0]]}],
    "a dimension that is not there": [{**HEIGHT, "places": [[0, 4]]}],
    "an input that is not there": [{**HEIGHT, "places": [[1, 2]]}],
    "an input from behind": [{**HEIGHT, "places": [[-1, 2]]}],
    "two sizes as one": [{**HEIGHT, "places": [[0, 1], [0, 2]]}],
    "a place of three numbers": [{**HEIGHT, "places": [[0, 2, 3]]}],
    "a place of words": [{**HEIGHT, "places": [["0", "2"]]}],
    "a step that takes all memory": [{**HEIGHT, "step": 2**40}],
    "a step backwards": [{**HEIGHT, "step": -1}],
    "a broken step": [{**HEIGHT, "step": 0.5}],
    "a truth as a step": [{**HEIGHT, "step": True}],
    "no step": [{"name": "height", "places": [[0, 2]]}],
    "words": ["height"],
}


@pytest.mark.parametrize("what", WRONG_SIZES)
def test_free_sizes_that_cannot_be_are_refused(what: str, residual: Net, tmp_path: Path) -> None:
    save_net(residual, tmp_path)
    (tmp_path / "net.json").write_text(
        json.dumps({**described(residual), "ends": {**ENDS, "sizes": WRONG_SIZES[what]}})
    )
    with pytest.raises(ModelError):
        load_net(tmp_path)


def test_free_sizes_come_back_and_older_nets_have_none(residual: Net, tmp_path: Path) -> None:
    save_net(residual, tmp_path)
    width = {**HEIGHT, "name": "width", "places": [[0, 3]], "step": 0}
    (tmp_path / "net.json").write_text(json.dumps({**described(residual), "ends": {**ENDS, "sizes": [HEIGHT, width]}}))
    net = load_net(tmp_path)
    assert net.ends is not None and [size.name for size in net.ends.free] == ["height"]
    save_net(net, tmp_path / "again")
    assert load_net(tmp_path / "again").ends == net.ends
    (tmp_path / "net.json").write_text(json.dumps({**described(residual), "ends": ENDS}))
    older = load_net(tmp_path)
    assert older.ends is not None and older.ends.sizes == ()
    assert described(older)["ends"] == ENDS  # and so its digest is what it was


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"net"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": "slimwright-net", "version": 1}',
    ],
)
def test_json_garbage_is_refused(garbage: bytes, residual: Net, tmp_path: Path) -> None:
    save_net(residual, tmp_path)
    (tmp_path / "net.json").write_bytes(garbage)
    with pytest.raises(ModelError):
        load_net(tmp_path)


@pytest.mark.parametrize("name", ["net.json", "net.safetensors"])
def test_a_missing_file_is_named(name: str, residual: Net, tmp_path: Path) -> None:
    save_net(residual, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match="holds no saved net"):
        load_net(tmp_path)


@pytest.mark.parametrize("size", [0, 7, 200])
def test_truncated_tensors_are_refused(size: int, residual: Net, tmp_path: Path) -> None:
    save_net(residual, tmp_path)
    path = tmp_path / "net.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match="damaged"):
        load_net(tmp_path)


def test_a_wrong_weight_shape_is_refused_with_the_nodes_name(residual: Net, tmp_path: Path) -> None:
    save_net(residual, tmp_path)
    tensors = {**residual.tensors, "conv2.weight": torch.zeros(6, 5, 3, 3)}
    safetensors.torch.save_file(dict(tensors), tmp_path / "net.safetensors")
    with pytest.raises(ModelError, match="conv2d_1"):
        load_net(tmp_path)


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-4, 8),
        st.integers(2**31, 2**66),
        st.floats(),
        st.sampled_from(["", "x", "conv2d", "linear", "size", "a;b", "int64", "float64", "self", "mean", "input"]),
        st.sampled_from(
            ["torch.int64", "torch.float16", "reshape", "item", "aten.abs.default", "aten.max.dim", "softmax"]
        ),
        st.sampled_from([{"value_of": "x"}, {"value_of": "conv2d"}, {"value_of": 3}, {"run": 1}]),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in [(*path, key), *spots(item, (*path, key))]]


@pytest.fixture(scope="session", params=["Flat", "Transformer", "Windows"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Net]:
    net = small_net(request.param)
    return json.dumps(described(net)), net


@settings(max_examples=120)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), JUNK), min_size=1, max_size=2))
def test_no_change_to_the_json_gives_anything_but_a_net_or_a_model_error(
    saved: tuple[str, Net], tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, Any]]
) -> None:
    text, net = saved
    found = json.loads(text)
    for where, junk in changes:
        places = spots(found)
        *way, last = places[where % len(places)]
        holder = found
        for key in way:
            holder = holder[key]
        holder[last] = copy.deepcopy(junk)  # never the same object in two places
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "net.json").write_text(json.dumps(found))
    safetensors.torch.save_file({k: t.contiguous() for k, t in net.tensors.items()}, folder / "net.safetensors")
    try:
        back = load_net(folder)
    except ModelError:
        return
    assert back.nodes[0].op == "input"
    back.to_module()  # what loads can also be built
    for images in (1, 3):
        back.run(tuple(torch.zeros(images, *given.shape[1:]).to(INPUT_DTYPES[given.dtype]) for given in back.inputs))


def test_extra_tensors_in_the_file_are_not_taken_in(residual: Net) -> None:
    tensors = {**residual.tensors, "stowaway": torch.zeros(3)}
    assert net_of(described(residual), tensors).digest == residual.digest


def test_a_save_that_fails_midway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]  # and no leftovers


def test_a_save_that_ends_well_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == path.parent
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_layer_named_like_a_modules_own_attribute_is_refused(residual: Net) -> None:
    conv = next(residual.weighted())
    renamed = {conv.tensors["weight"]: "forward.weight"}
    found = json.loads(json.dumps(described(residual)).replace(conv.tensors["weight"], "forward.weight"))
    net = net_of(found, {renamed.get(name, name): tensor for name, tensor in residual.tensors.items()})
    with pytest.raises(ModelError, match="'forward'"):
        net.to_module()


def test_a_net_of_another_precision_is_refused(residual: Net) -> None:
    found = described(residual)
    found["nodes"][0]["dtype"] = "float64"
    with pytest.raises(ModelError, match="float64"):
        net_of(found, {name: tensor.double() for name, tensor in residual.tensors.items()})
