import json
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from example_nets import SHAPE, hand_made
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph import Net, Node, Ref, load_net, save_net, unlisted
from slimwright.graph.from_file import admitted
from slimwright.graph.net import checked, structure
from slimwright.graph.store import FORMAT, VERSION, net_of
from slimwright.importers import capture
from slimwright.runtimes import Workshop


def net(*nodes: Node, tensors: dict[str, Tensor] | None = None, shape: tuple[int, ...] = (1, 4)) -> Net:
    """The nodes behind one input 'x', the last of them returned."""
    return Net((Node("x", "input", shape=shape), *nodes), tensors or {}, (nodes[-1].name,))


def read(made: Net) -> Net:
    """The net as it comes back from a file."""
    found = json.loads(json.dumps({"format": FORMAT, "version": VERSION, **structure(made)}))
    return net_of(found, dict(made.tensors))


def carried(name: str, overload: str, **arguments: Any) -> Node:
    return Node(name, f"aten.{overload}", {"self": Ref("x"), **arguments})


CONV: dict[str, Any] = {"input": Ref("x"), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
OWNED = {"weight": "c.weight", "bias": "c.bias"}


def convolution(weight: Tensor, bias: Tensor, *, shape: tuple[int, ...] = (1, 1, 6, 6), **other: Any) -> Net:
    layer = Node("c", "conv2d", {**CONV, **other}, OWNED)
    return net(layer, tensors={"c.weight": weight, "c.bias": bias}, shape=shape)


PLACES = torch.tensor([0, 4])
HOSTILE: dict[str, tuple[Net, str]] = {
    "a bias of integers": (convolution(torch.ones(2, 1, 3, 3), torch.ones(2).int()), "bias is torch.int32"),
    "weights of integers": (convolution(torch.ones(2, 1, 3, 3).int(), torch.ones(2).int()), "weight is torch.int32"),
    "a dilation of zero": (convolution(torch.ones(2, 1, 1, 1), torch.ones(2), dilation=(1, 0)), "dilation is 0"),
    "a dilation below zero": (
        convolution(torch.ones(2, 1, 3, 3), torch.ones(2), dilation=(-1, 1)), "dilation is -1; it must be positive"
    ),
    "nested lists": (net(carried("y", "clamp.default", min=((((((1,),),),),),), max=None)), "nested more than 4 deep"),
    "several values as one": (
        net(carried("m", "max.dim", dim=1, keepdim=True), Node("y", "relu", {"self": Ref("m")})), "'y' .*cannot take"
    ),
    "several values as an output": (net(carried("m", "max.dim", dim=1, keepdim=True)), "'m', which is not a tensor"),
    "a size as an output": (net(Node("n", "size", {"self": Ref("x"), "dim": 0})), "'n', which is not a tensor"),
    "a view of memory": (
        net(carried("y", "_reshape_alias_copy.default", size=(10**9,), stride=(1,))), "'y'.*may name.*module:callable"
    ),
    "an operator that crashes": (
        net(carried("y", "_weight_norm_interface.default", g=Ref("x"), dim=0)), "_weight_norm_interface.default"
    ),
    "a view of one image": (net(Node("y", "reshape", {"self": Ref("x"), "shape": (1, 2, 2)})), "'y' .*cannot take"),
    "a place beyond the values": (
        net(Node("y", "gather", {"self": Ref("x"), "dim": 1}, {"index": "i"}), tensors={"i": PLACES}),
        "node 'y' .*cannot be computed: .*out of",
    ),
    "an operator without a kernel for integers": (
        net(carried("i", "to.dtype", dtype="torch.int64", non_blocking=False, copy=False, memory_format=None),
            Node("y", "softmax", {"self": Ref("i"), "dim": 1, "dtype": None})),
        "node 'y' .*cannot be computed.*not implemented",
    ),
    "a tensor of complex numbers": (
        net(Node("v", "constant", {}, {"value": "v"}), Node("y", "mul", {"self": Ref("x"), "other": Ref("v")}),
            tensors={"v": torch.zeros(4, dtype=torch.complex64)}),
        "tensor 'v' is torch.complex64",
    ),
    "an input of more than any device holds": (
        net(Node("y", "relu", {"self": Ref("x")}), shape=(1, 2**20, 2**20)), "input 'x' .* no tensor on a device"
    ),
    "values of many gigabytes": (
        net(Node("y", "relu", {"self": Ref("x")}), shape=(1, 64, 2048, 2048)), "needs 2147 MB for the values"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_net_is_refused_by_what_is_wrong(what: str) -> None:
    made, said = HOSTILE[what]
    start = time.monotonic()
    with pytest.raises(ModelError, match=said):
        read(made)
    assert time.monotonic() - start < 10


def test_a_net_that_would_take_long_is_read_at_once() -> None:
    """A hundred products of 2000 x 2000: minutes, if each were called."""
    size = 2000
    layers = [Node(f"y{k}", "matmul", {"self": Ref(f"y{k - 1}" if k else "x"), "other": Ref("w")}) for k in range(100)]
    weight = Node("w", "constant", {}, {"value": "w"})
    made = net(weight, *layers, tensors={"w": torch.ones(size, size)}, shape=(1, size, size))
    start = time.monotonic()
    assert read(made).digest == checked(made).digest
    assert time.monotonic() - start < 5


def test_a_net_that_can_be_run_is_left_as_it_is(residual: Net) -> None:
    assert admitted(residual) is residual


def test_a_node_that_fails_on_some_inputs_is_named() -> None:
    table = Node("w", "constant", {}, {"value": "w"})
    picked = Node("y", "aten.embedding.default", {"weight": Ref("w"), "indices": Ref("x"), "padding_idx": -1,
                  "scale_grad_by_freq": False, "sparse": False})  # fmt: skip
    made = Net(
        (Node("x", "input", shape=(1, 2), dtype="int64"), table, picked),
        {"w": torch.arange(12.0).reshape(3, 4)},
        ("y",),
    )
    back = read(made)
    assert back.run(torch.tensor([[2, 0]]))[0].tolist() == [[[8, 9, 10, 11], [0, 1, 2, 3]]]
    with pytest.raises(ModelError, match=r"node 'y' .*cannot be computed: index out of range"):
        back.run(torch.tensor([[0, 3]]))


class SummedWhereKnown(nn.Module):
    """A network with an operator that files may not name, behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nansum(self.conv(x), (2, 3))


def test_an_unlisted_operator_is_carried_in_the_process_that_captured_it(tmp_path: Path, workshop: Workshop) -> None:
    model = SummedWhereKnown().eval()
    captured = capture(model, SHAPE)
    assert unlisted(captured) == ("aten.nansum.default",)
    images = torch.randn(2, *SHAPE)
    assert torch.equal(captured.run(images)[0], model(images))
    save_net(captured, tmp_path)
    with pytest.raises(UnsupportedOp, match=r"operator nansum.default is not one .* in the process that captured it"):
        load_net(tmp_path)
    assert load_net(tmp_path, carried=unlisted(captured)).digest == captured.digest
    with pytest.raises(UnsupportedOp, match="nansum"):
        load_net(tmp_path, carried=["aten.kron.default"])
    workshop.convert(captured, "onnxruntime", "fp32", tmp_path / "artefact")


@pytest.mark.parametrize("garbage", [b"\x00" * 50, b"\xff" * 8 + b"{}", (2**62).to_bytes(8, "little") + b"{}"])
def test_tensors_that_are_garbage_are_refused(garbage: bytes, tmp_path: Path) -> None:
    save_net(capture(hand_made("Flat"), SHAPE), tmp_path)
    (tmp_path / "net.safetensors").write_bytes(garbage)
    with pytest.raises(ModelError, match="damaged"):
        load_net(tmp_path)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.json").mkdir()
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "net.safetensors")
    with pytest.raises(ModelError, match="is a folder"):
        load_net(tmp_path)
