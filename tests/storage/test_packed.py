"""Nets as one small file: the same net to the bit, or a refusal that names the file and the fault."""

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from example_nets import SHAPE, hand_made, net_of
from random_nets import Command, commands, random_net
from slimwright.errors import ModelError
from slimwright.graph import Net, load_net, save_net, structure
from slimwright.importers import capture
from slimwright.storage import packed_bytes, read_packed, read_tensor, tensor_bytes, write_packed
from slimwright.swz import file as module
from slimwright.swz.file import START


def same(one: Net, other: Net) -> bool:
    """Whether two nets are the same to the bit, their encodings and ends too."""
    return (one.digest, structure(one), one.ends) == (other.digest, structure(other), other.ends)


def on_grids(net: Net, density: float = 0.1) -> Net:
    """A net whose matrices are pruned and rounded to multiples of a step."""
    chance = np.random.default_rng(0)

    def rounded(values: Tensor) -> Tensor:
        kept = torch.from_numpy(chance.random(values.shape) < density)
        return torch.where(kept, (values * 100).round(), torch.zeros(())) * 0.01

    return net.edited(tensors={k: rounded(v) if v.ndim > 1 else v for k, v in net.tensors.items()})


@pytest.fixture
def net() -> Net:
    return on_grids(net_of(nn.Flatten(), nn.Linear(36, 60), nn.ReLU(), nn.Linear(60, 40), shape=SHAPE))


@given(commands(), st.booleans(), st.booleans())
def test_any_net_comes_back(
    tmp_path_factory: pytest.TempPathFactory, program: list[Command], flat: bool, gridded: bool
) -> None:
    path = tmp_path_factory.mktemp("packed") / "net.swz"
    net = random_net(program, flat=flat)
    net = on_grids(net) if gridded else net
    found = write_packed(net, path)
    assert found.size_bytes == path.stat().st_size == packed_bytes(net)
    carried = {node.op for node in net.nodes}
    assert same(read_packed(path, carried=carried), net)


@pytest.mark.parametrize("name", ["Residual", "Concat", "Separable", "Gated", "Flat", "InPlace"])
def test_what_is_beside_the_tensors_comes_back(name: str, tmp_path: Path) -> None:
    net = capture(hand_made(name), SHAPE).in_precision("int8")
    write_packed(net, tmp_path / "net.swz")
    assert same(read_packed(tmp_path / "net.swz"), net)


def test_a_net_has_one_file_whatever_the_order_of_its_tensors(net: Net, tmp_path: Path) -> None:
    turned = replace(net, tensors=dict(reversed(list(net.tensors.items()))))
    save_net(turned, tmp_path / "saved")
    for name, one in {"a": net, "b": turned, "c": load_net(tmp_path / "saved")}.items():
        write_packed(one, tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def test_values_that_are_no_numbers_come_back(net: Net, tmp_path: Path) -> None:
    name = next(iter(net.tensors))
    values = net.tensors[name].clone()
    values.view(-1)[:5] = torch.tensor([float("nan"), float("inf"), float("-inf"), -0.0, 1e-45])
    strange = net.edited(tensors={name: values})
    write_packed(strange, tmp_path / "net.swz")
    assert same(read_packed(tmp_path / "net.swz"), strange)


def test_a_file_is_much_smaller_than_a_saved_net(net: Net, tmp_path: Path) -> None:
    save_net(net, tmp_path / "net")
    found = write_packed(net, tmp_path / "net.swz")
    assert found.size_bytes < sum(path.stat().st_size for path in (tmp_path / "net").iterdir()) / 10
    assert found.header_bytes + sum(one.size_bytes for one in found.tensors) == found.size_bytes
    assert [tensor_bytes(net.tensors[one.name]) for one in found.tensors] == [one.size_bytes for one in found.tensors]


def test_one_tensor_is_read_without_the_others(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "net.swz"
    found = write_packed(net, path)
    for name, values in net.tensors.items():
        assert torch.equal(read_tensor(path, name), values)
    data = bytearray(path.read_bytes())
    first, *others = found.tensors
    data[found.header_bytes + first.size_bytes :] = bytes(len(data) - found.header_bytes - first.size_bytes)
    path.write_bytes(data)
    assert torch.equal(read_tensor(path, first.name), net.tensors[first.name])
    with pytest.raises(ModelError, match=f"net.swz.*checksum.*'{others[0].name}'"):
        read_tensor(path, others[0].name)
    with pytest.raises(ModelError, match="no tensor 'other'"):
        read_tensor(path, "other")


def test_a_net_on_a_base_holds_what_differs(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "net.swz"
    whole = write_packed(net, path)
    assert write_packed(net, path, base=net).size_bytes < whole.header_bytes + 60  # a digest has 64 digits
    assert same(read_packed(path, base=net), net)
    name = list(net.tensors)[-1]
    tuned = net.edited(tensors={name: net.tensors[name] + 1e-3})
    found = write_packed(tuned, path, base=net)
    assert [one.form == "same" for one in found.tensors] == [one.name != name for one in found.tensors]
    assert same(read_packed(path, base=net), tuned)
    assert torch.equal(read_tensor(path, name, base=net), tuned.tensors[name])
    with pytest.raises(ModelError, match="base"):
        read_packed(path)
    with pytest.raises(ModelError, match="another base"):
        read_packed(path, base=tuned)


def test_a_net_that_uses_nothing_of_its_base_needs_none(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "net.swz"
    other = net.edited(tensors={name: tensor.flip(0) * 3 + 1 for name, tensor in net.tensors.items()})
    found = write_packed(net, path, base=other)
    assert not found.is_delta and found.size_bytes == write_packed(net, tmp_path / "alone.swz").size_bytes
    assert same(read_packed(path), net)
    assert write_packed(net, path, base=net).is_delta


def test_numbers_that_a_file_cannot_hold_are_padded_for(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = packed_bytes(net)
    monkeypatch.setattr(module, "FREE_VALUES", 0)
    monkeypatch.setattr(module, "VALUES_PER_BYTE", 1)
    found = write_packed(net, tmp_path / "net.swz")
    assert found.size_bytes == sum(values.numel() for values in net.tensors.values()) > usual
    assert same(read_packed(tmp_path / "net.swz"), net)


def rewritten(path: Path, graph: bytes | None = None, table: bytes | None = None) -> None:
    """Put another graph or table into a file, with checksums that are right."""
    data = path.read_bytes()
    magic, version, graph_bytes, table_bytes, _ = START.unpack(data[: START.size])
    old_graph = data[START.size : START.size + graph_bytes]
    old_table = data[START.size + graph_bytes : START.size + graph_bytes + table_bytes]
    graph, table = old_graph if graph is None else graph, old_table if table is None else table
    start = START.pack(magic, version, len(graph), len(table), zlib.crc32(table, zlib.crc32(graph)))
    path.write_bytes(start + graph + table + data[START.size + graph_bytes + table_bytes :])


def deflated(said: Any) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(json.dumps(said).encode()) + packer.flush()


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (deflated([]), "net.swz"),
        (deflated({"nodes": [1], "tensors": [], "base": "", "outputs": []}), "a node is a list"),
        (deflated({"nodes": [], "tensors": ["a", "a"], "base": "", "outputs": []}), "two are the same"),
        (deflated({"nodes": [], "tensors": [], "base": "", "outputs": []}), "names 0 tensors"),
        (deflated({"nodes": [], "tensors": [], "base": "", "outputs": []})[:-2], "ends early"),
        (b"\x00" * 9, "net.swz"),
    ],
)
def test_a_graph_that_is_none_is_refused(graph: bytes, said: str, net: Net, tmp_path: Path) -> None:
    write_packed(net, tmp_path / "net.swz")
    rewritten(tmp_path / "net.swz", graph=graph)
    with pytest.raises(ModelError, match=said):
        read_packed(tmp_path / "net.swz")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"\x00\x02" + b"\xff\xff\xff\x7f" * 2 + b"\x04" + bytes(4), "claims the shape|numbers in"),
        (b"\x00\x02" + b"\xff\x7f" * 2 + b"\x04" + bytes(4), "claims 268,402,689 numbers|numbers in"),
        (b"\x00\x01\x01\xff\xff\x7f" + bytes(4), "cut short"),
        (b"\xff\x01\x01\x04" + bytes(4), "unknown form"),
        (b"\x00\x09" + b"\x01" * 9 + b"\x04" + bytes(4), "at most 8"),
        (b"\x00\x01", "claimed where"),
    ],
)
def test_a_table_that_claims_too_much_is_refused(row: bytes, said: str, tmp_path: Path) -> None:
    net = net_of(nn.Conv2d(1, 2, 1, bias=False), shape=SHAPE)
    write_packed(net, tmp_path / "net.swz")
    rewritten(tmp_path / "net.swz", table=row)
    with pytest.raises(ModelError, match=said):
        read_packed(tmp_path / "net.swz")


def test_another_version_and_another_file_are_refused(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "net.swz"
    write_packed(net, path)
    data = path.read_bytes()
    for changed, said in (
        (data[:3] + b"\x02" + data[4:], "version 2"),
        (b"PK" + data[2:], "does not begin as one"),
        (data[:10], "does not begin as one"),
        (data[:40], "cut short"),
        (data[:-1], "cut short"),
    ):
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=said):
            read_packed(path)
