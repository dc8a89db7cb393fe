"""Weights as people save them with torch, read without running anything."""

import argparse
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from example_nets import hand_made
from slimwright.errors import ModelError
from slimwright.importers import weights_for
from slimwright.importers.checkpoint import Foreign, read_checkpoint

SAVED: dict[str, Callable[[Mapping[str, Tensor]], object]] = {
    "a state dict": lambda state: state,
    "lightning": lambda state: {
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "pytorch-lightning_version": "2.4.0", "epoch": 3, "hyper_parameters": argparse.Namespace(lr=0.1),
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]}
        ],
    },
    "timm": lambda state: {"epoch": 9, "arch": "resnet", "state_dict": dict(state), "metric": 81.2},
    "data parallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled, under a key": lambda state: {"model": {f"_orig_mod.{n}": t for n, t in state.items()}, "best": True},
    "under an attribute of another name": lambda state: {
        "state_dict": {**{f"resnet.{name}": t for name, t in state.items()}, "loss.weight": torch.ones(3)}
    },
    "wrapped twice": lambda state: {"state_dict": {f"module.model.{name}": t for name, t in state.items()}},
    "under a key that trainers of another kind use": lambda state: {"params_ema": dict(state), "iter": 5},
    "keys within keys": lambda state: {"model": {"state_dict": dict(state)}, "optimizer": {"state": {}}},
    "averaged": lambda state: {**{f"module.{name}": t for name, t in state.items()}, "n_averaged": torch.tensor(4)},
    "in a list": lambda state: [dict(state), {"epoch": 3}],
    "parameters": lambda state: {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in state.items()},
    "views of one storage": lambda state: {
        name: torch.stack([tensor, tensor])[1] if tensor.ndim else tensor for name, tensor in state.items()
    },
}  # fmt: skip


@pytest.fixture
def model() -> nn.Module:
    return hand_made("Residual")


@pytest.mark.parametrize("how", SAVED)
def test_weights_are_found_wherever_they_stand(how: str, model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(SAVED[how](model.state_dict()), path)
    found = weights_for(hand_made("Residual"), path)
    assert found.tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.tensors.items())


def test_where_they_stood_is_said(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(SAVED["lightning"](model.state_dict()), path)
    assert weights_for(model, path).said == "weights of last.ckpt under 'state_dict', without the prefix 'model.'"


def test_of_several_that_fit_the_first_is_taken_and_the_others_are_said(model: nn.Module, tmp_path: Path) -> None:
    path, state = tmp_path / "best.pth", model.state_dict()
    none = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"params_ema": none, "student": {f"net.{n}": t for n, t in state.items()}, "state_dict": state}, path)
    found = weights_for(model, path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.tensors.items())
    said = "under 'state_dict'; those under 'params_ema' and those under 'student', without the prefix 'net.' fit, too"
    assert found.said == f"weights of best.pth {said}"


def test_a_tensor_that_two_layers_share_may_be_stored_once(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        two = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        two[1].weight = two[0].weight
        return two

    model, state = tied(), tied().state_dict()
    del state["1.weight"]
    torch.save(state, tmp_path / "tied.pth")
    model.load_state_dict(weights_for(model, tmp_path / "tied.pth").tensors, strict=False)
    assert torch.equal(model.state_dict()["1.weight"], state["0.weight"])
    del state["0.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ModelError, match=r"'0\.bias' is missing"):
        weights_for(model, tmp_path / "less.pth")


def test_a_module_under_a_key_is_refused_with_the_lines_that_convert_it(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"epoch": 3, "model": model, "optimizer": None}, path)
    with pytest.raises(
        ModelError, match=r"last.pt under 'model' is a whole pickled object of class .*Residual"
    ) as told:
        weights_for(model, path)
    exec("\n".join(line.strip() for line in str(told.value).split("\n")[1:]), {})
    assert weights_for(model, tmp_path / "last-weights.pth").tensors.keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    ],
)
def test_tensors_of_every_kind_and_layout(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = (torch.arange(24).reshape(2, 3, 4) % 2).to(dtype)
    given = {
        "whole": tensor,
        "turned": tensor.transpose(0, 2),
        "part": tensor[:, 1:, ::2],
        "none": tensor[:0],
        "one": tensor[0, 0, 0],
    }
    torch.save(given, tmp_path / "t.pth")
    found = read_checkpoint(tmp_path / "t.pth")
    assert isinstance(found, dict)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == dtype for name, tensor in given.items())


class Trap:
    """An object that would run code, were it unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("trapped"),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nothing_in_a_file_is_run(
    protocol: int, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": model.state_dict(), "trap": Trap()}, "model.pth", pickle_protocol=protocol)
    assert weights_for(model, Path("model.pth")).tensors.keys() == model.state_dict().keys()
    torch.save(Trap(), "trap.pth", pickle_protocol=protocol)
    assert isinstance(read_checkpoint(Path("trap.pth")), Foreign)
    assert not Path("trapped").exists()


def test_a_whole_module_is_refused_with_the_lines_that_convert_it(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(model, path)
    with pytest.raises(ModelError, match=r"is a whole pickled object of class .*Residual") as told:
        weights_for(model, path)
    lines = str(told.value).split("\n")[1:]
    exec("\n".join(line.strip() for line in lines), {})
    assert weights_for(model, tmp_path / "whole-weights.pth").tensors.keys() == model.state_dict().keys()


def test_a_file_of_an_older_torch_is_refused_with_the_lines_that_convert_it(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"is no file that torch has written since 1\.6") as told:
        weights_for(model, path)
    exec("\n".join(line.strip() for line in str(told.value).split("\n")[1:]), {})
    assert weights_for(model, tmp_path / "old-weights.pth").tensors.keys() == model.state_dict().keys()


def test_weights_that_do_not_fit_are_named(model: nn.Module, tmp_path: Path) -> None:
    state = dict(model.state_dict())
    first, second, *_ = [name for name in state if name.endswith("weight")]
    state[first] = torch.zeros(3, 3)
    state["head.other"] = state.pop(second)
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    with pytest.raises(ModelError) as told:
        weights_for(model, tmp_path / "model.pth")
    for said in (
        f"'{first}' is [3, 3], not",
        f"'{second}' is missing",
        "the model has no 'head.other'",
        "under 'state_dict'",
    ):
        assert said in str(told.value)


def test_a_file_without_tensors_is_refused(model: nn.Module, tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "model.pth")
    with pytest.raises(ModelError, match="holds no dict of tensors; its keys are epoch"):
        weights_for(model, tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ModelError, match=r"there is no data\.pkl in it"):
        weights_for(model, tmp_path / "other.pth")


def rewritten(path: Path, to: Path, change: Callable[[bytes], bytes]) -> Path:
    """The same archive with another pickle."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            held = old.read(name)
            new.writestr(name, change(held) if name.endswith("data.pkl") else held)
    return to


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_pickle_is_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    torch.save(
        {"state_dict": {"w": torch.ones(2, 3), "b": torch.ones(3).T}, "n": [1, 2.5, None, True]}, folder / "t.pth"
    )

    def damaged(pickled: bytes) -> bytes:
        held = bytearray(pickled)
        for _ in range(data.draw(st.integers(1, 4))):
            held[data.draw(st.integers(0, len(held) - 1))] = data.draw(st.integers(0, 255))
        return bytes(held)

    try:
        read_checkpoint(rewritten(folder / "t.pth", folder / "damaged.pth", damaged))
    except ModelError as error:
        assert str(error).startswith(str(folder))


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(7)}, tmp_path / "t.pth")
    seven = pickle.dumps(7, protocol=2)[2:-1]
    path = rewritten(
        tmp_path / "t.pth",
        tmp_path / "beyond.pth",
        lambda held: held.replace(seven, b"K\xff", 2).replace(b"K\xff", seven, 1),
    )
    with pytest.raises(ModelError, match="reaches beyond its storage of 7 numbers"):
        read_checkpoint(path)
