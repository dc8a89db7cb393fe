"""Recurrent layers, from modules and from ONNX files, against torch and ONNX Runtime."""

from itertools import product
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from exact import assert_cut_is_masked
from example_nets import lively
from onnx_files import apart, in_onnxruntime, saved
from slimwright.coupling import choose, couple
from slimwright.errors import UnsupportedOp
from slimwright.graph import load_net, save_net
from slimwright.importers import capture, read_onnx

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Crnn(nn.Module):
    """Convolutions, columns in a row, a recurrent layer."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()
        )
        self.rnn: nn.RNNBase = kind(12, 6, batch_first=True, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(6 * (1 + self.rnn.bidirectional), 5)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.features(x).mean(2).permute(0, 2, 1)
        return self.head(self.rnn(columns)[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2, "dropout": 0.5}], ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_is_carried_and_the_convolutions_before_it_can_be_cut(
    kind: type[nn.RNNBase], options: dict[str, Any], tmp_path: Path
) -> None:
    model = lively(Crnn(kind, **options)).eval()
    net, images = capture(model, (1, 8, 24)), torch.randn(3, 1, 8, 24)
    assert apart(net.run(images)[0], model(images)) <= 1e-6
    coupling = couple(net)
    assert [group.size for group in coupling.groups] == [8, 12]
    small = assert_cut_is_masked(net, choose(coupling, 0.5, seed=0), coupling)
    assert small.tensors["rnn.weight_ih_l0"].shape == (GATES[kind.__name__] * 6, 6)
    assert small.run(images)[0].shape == (3, 6, 5)
    save_net(small, tmp_path)
    assert torch.equal(load_net(tmp_path).run(images)[0], small.run(images)[0])


class Twice(nn.Module):
    """One recurrent layer on what two convolutions make, the state of the first call the start of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleList([nn.Conv1d(2, 8, 3), nn.Conv1d(2, 8, 5)])
        self.rnn, self.head = nn.GRU(8, 6, batch_first=True, bias=False), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for stem in self.stems:
            _, state = self.rnn(torch.relu(stem(x)).transpose(1, 2), state)
        assert state is not None
        return self.head(state[0])  # type: ignore[no-any-return]


def test_a_recurrent_layer_that_is_called_twice_loses_the_same_columns() -> None:
    net = capture(lively(Twice()), (2, 12))
    (group,) = (coupling := couple(net)).groups
    assert len([*group.of("out")]) == 2 == len([*group.of("in")])
    small = assert_cut_is_masked(net, choose(coupling, 0.5, seed=0), coupling)
    assert small.tensors["rnn.weight_ih_l0"].shape == (18, 4)


@pytest.mark.parametrize("way", ["forward", "bidirectional"])
def test_the_columns_of_a_layer_from_a_file_go_with_the_channels_before_it(way: str, tmp_path: Path) -> None:
    nodes, weights = recurrent("LSTM", way, layout=0, biased=True, started=False)
    conv = helper.make_node("Conv", ["x", "k"], ["v"], kernel_shape=[1])
    nodes[0] = helper.make_node("Transpose", ["v"], ["t"], perm=[2, 0, 1])
    weights["k"] = torch.randn(5, 3, 1)
    net = read_onnx(saved(tmp_path / "model.onnx", [conv, *nodes], ["n", 3, 7], weights))
    (group,) = (coupling := couple(net)).groups
    assert group.size == 5
    assert_cut_is_masked(net, choose(coupling, 0.6, seed=0), coupling)


def test_a_recurrent_layer_that_drops_at_random_is_refused() -> None:
    class Training(Crnn):
        def forward(self, x: Tensor) -> Tensor:
            self.rnn.train()
            return super().forward(x)

    with pytest.raises(UnsupportedOp, match=r"lstm.* drops a share of 0.5 at random; put the model into eval mode"):
        capture(Training(nn.LSTM, num_layers=2, dropout=0.5), (1, 8, 24))


def turned(of: str, to: str, layout: int) -> onnx.NodeProto:
    """What has the batch first, as it stands in a layout."""
    options: dict[str, Any] = {} if layout else {"perm": [1, 0, 2]}
    return helper.make_node("Identity" if layout else "Transpose", [of], [to], **options)


def recurrent(op: str, way: str, *, layout: int, biased: bool, started: bool) -> tuple[list[Any], dict[str, Tensor]]:
    """The nodes and weights of a file: a recurrent layer on [N, 7, 5], or on [7, N, 5]."""
    ways, rows, hidden = 1 + (way == "bidirectional"), GATES[op] * 4, 4
    generator = torch.Generator().manual_seed(0)
    weights = {
        "W": torch.randn(ways, rows, 5, generator=generator) / 2,
        "R": torch.randn(ways, rows, hidden, generator=generator) / 2,
        **({"B": torch.randn(ways, 2 * rows, generator=generator) / 4} if biased else {}),
    }
    inputs = ["t", "W", "R", "B" if biased else "", ""]
    nodes = [turned("x", "t", layout)]
    if started:
        nodes += [
            helper.make_node("Slice", ["x", "zero", "four", "last"], ["part"]),
            helper.make_node("ReduceMean", ["part", "middle"], ["mean"], keepdims=1),  # [N, 1, 4]
            helper.make_node("Tile", ["mean", "ways"], ["wide"]),  # [N, ways, 4]
            turned("wide", "h", layout),
        ]  # fmt: skip
        for name, value in (("zero", [0]), ("four", [4]), ("last", [2]), ("middle", [1]), ("ways", [1, ways, 1])):
            weights[name] = torch.tensor(value)
        inputs += ["h", *["h"] * (op == "LSTM")]
    options: dict[str, Any] = {"linear_before_reset": 1} if op == "GRU" else {}
    outputs = ["Y", "Yh", *["Yc"] * (op == "LSTM")]
    nodes.append(helper.make_node(op, inputs, outputs, hidden_size=hidden, direction=way, layout=layout, **options))
    sides = {
        "Y": (0, 1, 2, 3) if layout else (2, 0, 1, 3),
        **dict.fromkeys(outputs[1:], (0, 1, 2) if layout else (1, 0, 2)),
    }
    for name, order in sides.items():
        nodes.append(helper.make_node("Transpose", [name], [f"{name}_t"], perm=list(order)))
        nodes.append(helper.make_node("Flatten", [f"{name}_t"], [f"{name}_f"]))
    nodes.append(helper.make_node("Concat", [f"{name}_f" for name in outputs], ["y"], axis=1))
    return nodes, weights


@pytest.mark.parametrize(
    ("op", "way", "biased", "started"),
    list(product(GATES, ("forward", "reverse", "bidirectional"), (True, False), (True, False))),
)
def test_recurrent_layers_of_files(op: str, way: str, biased: bool, started: bool, tmp_path: Path) -> None:
    """All outputs: those of every step, the last states, and an LSTM's cells."""
    nodes, weights = recurrent(op, way, layout=0, biased=biased, started=started)
    path, x = saved(tmp_path / "model.onnx", nodes, ["n", 7, 5], weights), torch.randn(3, 7, 5)
    assert apart(read_onnx(path).run(x)[0], in_onnxruntime(path, x)) <= 1e-5


@pytest.mark.parametrize("op", GATES)
def test_a_layout_with_the_batch_first_gives_the_same(op: str, tmp_path: Path) -> None:
    """ONNX Runtime has no such kernels."""
    x, found = torch.randn(3, 7, 5), []
    for layout in (0, 1):
        nodes, weights = recurrent(op, "bidirectional", layout=layout, biased=True, started=True)
        found.append(read_onnx(saved(tmp_path / f"{layout}.onnx", nodes, ["n", 7, 5], weights)).run(x)[0])
    assert apart(*found) <= 1e-6


@pytest.mark.parametrize(
    ("op", "options", "said"),
    [
        ("LSTM", {"clip": 3.0}, "clips what goes into its activations"),
        ("LSTM", {"input_forget": 1}, "its gates are coupled"),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Relu"]}, "supported are sigmoid, tanh, tanh"),
        ("GRU", {"linear_before_reset": 0}, "it resets before it multiplies"),
        ("RNN", {"activations": ["Elu"]}, "supported are Tanh and Relu"),
        ("RNN", {"hidden_size": 5}, "do not fit one another"),
    ],
)
def test_what_torch_has_no_layer_for_is_refused(op: str, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    nodes, weights = recurrent(op, "forward", layout=0, biased=True, started=False)
    place = next(k for k, node in enumerate(nodes) if node.op_type == op)
    given = {a.name: helper.get_attribute_value(a) for a in nodes[place].attribute} | options
    nodes[place] = helper.make_node(op, list(nodes[place].input), list(nodes[place].output), **given)
    with pytest.raises(Exception, match=said):
        read_onnx(saved(tmp_path / "model.onnx", nodes, ["n", 7, 5], weights))
