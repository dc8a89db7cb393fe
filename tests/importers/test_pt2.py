import copy
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim, export

from exact import small_net
from example_nets import HAND_MADE, SHAPE, hand_made, lively
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers import capture, read_pt2
from slimwright.zoo import build
from structures import structure

Edit = Callable[[dict[str, bytes]], None]


def exported(model: nn.Module, path: Path, shape: tuple[int, ...] = SHAPE) -> Path:
    program = export(model, (torch.zeros(2, *shape),), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(hand_made("Residual"), tmp_path_factory.mktemp("pt2") / "good.pt2")


def changed(good: Path, edit: Edit) -> Path:
    """A copy of the good file whose entries `edit` has changed."""
    with zipfile.ZipFile(good) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    edit(entries)
    path = good.with_name("bad.pt2")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def edited_json(entries: dict[str, bytes], ending: str, edit: Callable[[Any], None]) -> None:
    (name,) = [n for n in entries if n.endswith(ending)]
    found = json.loads(entries[name])
    edit(found)
    entries[name] = json.dumps(found).encode()


def weights(edit: Callable[[dict[str, Any]], None]) -> Edit:
    """Change what the file says about its first weight."""
    return lambda entries: edited_json(
        entries, "model_weights_config.json", lambda found: edit(next(iter(found["config"].values())))
    )


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.sprung}",)


FILED = (
    "ShuffleV2", "LinearGate", "Cascade", "LayerScale", "FusedAttention", "Transformer", "Windows", "Standardised",
    "BlurPool", "ResponseNorm", "SplitAttention", "Selective", "Coordinates", "Pyramid",
)  # fmt: skip


@pytest.mark.parametrize("name", (*HAND_MADE, *FILED))
def test_a_file_gives_the_same_net_as_its_model(name: str, tmp_path: Path) -> None:
    model = hand_made(name) if name in HAND_MADE else structure(name)
    net = read_pt2(exported(model, tmp_path / "model.pt2"))
    assert net.digest == small_net(name).digest
    images = torch.randn(3, *SHAPE)
    assert torch.equal(net.to_module()(images), model(images))


def test_a_file_knows_nothing_of_stochastic_depth_but_computes_the_same(tmp_path: Path) -> None:
    model = structure("Paths")
    net = read_pt2(exported(model, tmp_path / "model.pt2"))
    assert "drop_path" not in {n.op for n in net.nodes}
    images = torch.randn(3, *SHAPE)
    assert torch.equal(net.to_module()(images), model(images))


class Function(nn.Module):
    """A function of the images and one parameter."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


@torch.no_grad()
def _without_gradient(x: Tensor, _: Tensor) -> Tensor:
    return torch.sigmoid(x) * x


def _in_float32(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return x.float() * weight[0]


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "several results": lambda x, _: torch.cat([*x.flatten(2).topk(3, dim=2)], 1),
    "one of several results": lambda x, _: x.max(2)[0] + x.sort(2)[0][:, :, 0],
    "a part of the picture": lambda x, w: x[:, :, [1, 0], :4] * w,
    "a computed index": lambda x, _: x.gather(3, x.argmax(3, keepdim=True)),
    "the batch size": lambda x, w: x.new_zeros(x.shape[0], 4) + w,
    "another precision": lambda x, w: (x.double() * w[0]).to(torch.float32),
    "no gradient": lambda x, w: _without_gradient(x, w) + x,
    "autocast off": _in_float32,
    "nothing at all": lambda x, _: x,
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_arguments_and_results_of_all_kinds_survive_the_file(what: str, tmp_path: Path) -> None:
    model = Function(FUNCTIONS[what]).eval()
    net = read_pt2(exported(model, tmp_path / "model.pt2"))
    for batch in (1, 3):
        images = torch.randn(batch, *SHAPE)
        assert torch.equal(net.to_module()(images), model(images))


def _written(x: Tensor, _: Tensor) -> Tensor:
    y = x * 2
    y.flatten(1).relu_()
    return y


def _branched(x: Tensor, _: Tensor) -> Tensor:
    found: Tensor = torch.cond(x.mean() > 0, lambda y: y * 2, lambda y: y * 3, (x,))
    return found


def _autocast(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x.flatten(1)[:, :4] @ weight[:, None]).float()


REFUSED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "a write through a view": (_written, "in place through a view"),
    "a branch": (_branched, "cond runs a graph of its own"),
    "autocast": (_autocast, "switches autocast on"),
    "random numbers": (lambda x, _: x + torch.rand_like(x), "may draw random numbers"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_net_can_hold_is_refused_by_name(what: str, tmp_path: Path) -> None:
    function, said = REFUSED[what]
    with pytest.raises(UnsupportedOp, match=said):
        read_pt2(exported(Function(function), tmp_path / "model.pt2"))


def test_a_zoo_net_survives_the_file(tmp_path: Path) -> None:
    model = lively(build("resnet8", classes=10, in_channels=3))
    path = exported(model, tmp_path / "model.pt2", (3, 32, 32))
    assert read_pt2(path).digest == capture(model, (3, 32, 32)).digest


def test_weights_that_are_not_contiguous_are_read_in_place(tmp_path: Path) -> None:
    model = hand_made("Residual")
    weight = model.get_parameter("conv2.weight")
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    path = exported(model, tmp_path / "model.pt2")
    assert not weight.is_contiguous()
    assert read_pt2(path).digest == capture(model, SHAPE).digest


def test_a_pickle_in_the_archive_is_never_read(good: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    pickle.loads(trap)
    assert sprung.exists()  # the trap works
    sprung.unlink()

    def lay(entries: dict[str, bytes]) -> None:
        weights(lambda payload: payload.update(use_pickle=True))(entries)
        for name in entries:
            if "/data/weights/weight" in name or name.endswith(".pt"):
                entries[name] = trap

    with pytest.raises(ModelError, match="stored as a pickle"):
        read_pt2(changed(good, lay))
    assert not sprung.exists()


def test_pickled_example_inputs_are_passed_over(good: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"

    def lay(entries: dict[str, bytes]) -> None:
        names = [name for name in entries if "sample_inputs" in name]
        assert names
        entries |= dict.fromkeys(names, pickle.dumps(Trap(sprung)))

    assert read_pt2(changed(good, lay)).digest == read_pt2(good).digest
    assert not sprung.exists()


def test_a_renamed_pickle_is_refused_unread(tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "model.pt2"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(ModelError, match=r"not a \.pt2 file"):
        read_pt2(path)
    assert not sprung.exists()


def test_a_checkpoint_of_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch.save(hand_made("Residual").state_dict(), path)
    with pytest.raises(ModelError, match="exported graph"):
        read_pt2(path)


def test_compressed_entries_are_refused(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt2"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ModelError, match="compressed"):
        read_pt2(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(good: Path, tmp_path: Path, share: float) -> None:
    path, data = tmp_path / "bad.pt2", good.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"cut short|0 exported graphs"):
        read_pt2(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pt2", tmp_path):
        with pytest.raises(ModelError, match=path.name):
            read_pt2(path)


def number(value: int) -> dict[str, int]:
    return {"as_int": value}


LIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "an offset beyond the bytes": lambda meta: meta.update(storage_offset=number(10**6)),
    "a negative offset": lambda meta: meta.update(storage_offset=number(-1)),
    "a size beyond the bytes": lambda meta: meta["sizes"].__setitem__(0, number(10**9)),
    "a negative size": lambda meta: meta["sizes"].__setitem__(0, number(-6)),
    "a stride beyond the bytes": lambda meta: meta["strides"].__setitem__(0, number(10**9)),
    "a huge size out of one number": lambda meta: meta.update(sizes=[number(2**40)], strides=[number(0)]),
    "a size beyond 64 bits": lambda meta: meta.update(sizes=[number(0), number(2**70)], strides=[number(0)] * 2),
    "fewer strides than sizes": lambda meta: meta["strides"].pop(),
    "an unknown dtype": lambda meta: meta.update(dtype=99),
    "a dtype of another width": lambda meta: meta.update(dtype=8),
    "no sizes": lambda meta: meta.pop("sizes"),
    "a list as dtype": lambda meta: meta.update(dtype=[7]),
    "a dynamic size": lambda meta: meta["sizes"].__setitem__(0, {"as_expr": {"expr_str": "__import__('os')"}}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_weight_that_lies_about_its_bytes_is_refused(good: Path, lie: str) -> None:
    with pytest.raises(ModelError):
        read_pt2(changed(good, weights(lambda payload: LIES[lie](payload["tensor_meta"]))))


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe\x00", b"{}", b'{"graph_module": []}', b"[" * 100_000]
)
@pytest.mark.parametrize("ending", ["models/model.json", "model_weights_config.json", "model_constants_config.json"])
def test_json_garbage_is_refused(good: Path, ending: str, garbage: bytes) -> None:
    def spoil(entries: dict[str, bytes]) -> None:
        (name,) = [n for n in entries if n.endswith(ending)]
        entries[name] = garbage

    with pytest.raises(ModelError):
        read_pt2(changed(good, spoil))


def test_a_file_without_its_weights_is_refused(good: Path) -> None:
    def rob(entries: dict[str, bytes]) -> None:
        for name in [n for n in entries if "/data/weights/weight" in n]:
            del entries[name]

    with pytest.raises(ModelError):
        read_pt2(changed(good, rob))


def test_an_operator_from_elsewhere_is_refused_by_name(good: Path) -> None:
    def plant(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = "os.system"

    with pytest.raises(UnsupportedOp, match=r"os\.system"):
        read_pt2(changed(good, lambda entries: edited_json(entries, "models/model.json", plant)))


@pytest.mark.parametrize("target", ["_reshape_alias_copy.default", "_weight_norm_interface.default", "nansum.default"])
def test_an_operator_that_a_file_may_not_name_is_refused_by_name(good: Path, target: str) -> None:
    def plant(program: Any) -> None:
        node = next(n for n in program["graph_module"]["graph"]["nodes"] if "relu" in n["target"])
        node["target"] = f"torch.ops.aten.{target}"

    with pytest.raises(UnsupportedOp, match=rf"operator {target} is not one of those .*module:callable"):
        read_pt2(changed(good, lambda entries: edited_json(entries, "models/model.json", plant)))


def test_weights_that_are_one_entry_many_times_are_refused(tmp_path: Path) -> None:
    small = exported(nn.Conv2d(1, 512, 3), tmp_path / "small.pt2")

    def repeat(config: Any) -> None:
        first = next(iter(config["config"].values()))
        config["config"] |= {f"again{k}": first for k in range(1000)}

    with pytest.raises(ModelError, match="4 times what it holds"):
        read_pt2(changed(small, lambda entries: edited_json(entries, "model_weights_config.json", repeat)))


def test_an_input_beyond_any_memory_is_refused(good: Path) -> None:
    def grow(program: Any) -> None:
        program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][-1] = number(2**62)

    with pytest.raises(ModelError, match="which no tensor on a device can have"):
        read_pt2(changed(good, lambda entries: edited_json(entries, "models/model.json", grow)))


def test_two_inputs_are_read_in_order(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (x + 2 * y).mean((2, 3))

    path = tmp_path / "two.pt2"
    torch.export.save(export(Two(), (torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE))), path)
    one, two = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    (found,) = read_pt2(path).run((one, two))
    torch.testing.assert_close(found, Two()(one, two))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(2**62, 2**66),
    st.floats(),
    st.text("ab;_.'", max_size=4),
    st.just([]),
    st.just({}),
    st.just([[1]]),
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in [(*path, key), *spots(item, (*path, key))]]


@settings(max_examples=150)
@given(where=st.integers(0, 10**6), junk=JUNK, weights_too=st.booleans())
def test_no_change_to_the_json_gives_anything_but_a_net_or_a_model_error(
    good: Path, where: int, junk: object, weights_too: bool
) -> None:
    def spoil(found: Any) -> None:
        places = spots(found if weights_too else found["graph_module"])
        *way, last = places[where % len(places)]
        holder = found if weights_too else found["graph_module"]
        for key in way:
            holder = holder[key]
        holder[last] = copy.deepcopy(junk)  # never the same object in two places

    ending = "model_weights_config.json" if weights_too else "models/model.json"
    try:
        net = read_pt2(changed(good, lambda entries: edited_json(entries, ending, spoil)))
    except ModelError:
        return
    assert net.nodes[0].op == "input"
