"""What a policy has learned: saved, loaded, gone on from, and refused where it is not that."""

from pathlib import Path

import pytest
import torch

from scripted_search import searched, space
from slimwright.errors import RequestError
from slimwright.kept import write_tensors
from slimwright.search import LEARNED, LEARNED_FILE, LEARNING, Parameters, Search, load_parameters
from slimwright.search.policies.ddpg import Actor, Critic
from slimwright.search.policies.parameters import learned
from slimwright.search.policies.reinforce import Remover, Shrinker

FEW = 8


def learned_by(method: str, folder: Path) -> Path:
    """The file of what a search leaves."""
    _, evaluate = searched(Search(method, FEW), folder, space())
    return evaluate.journal.files(LEARNED) / LEARNED_FILE


@pytest.mark.parametrize("method", LEARNING)
def test_what_was_learned_proposes_the_same_once_it_is_loaded(method: str, tmp_path: Path) -> None:
    file = learned_by(method, tmp_path / "before")
    parameters = load_parameters(file, method)
    parameters.save(tmp_path / "copy.safetensors")
    copied = load_parameters(tmp_path / "copy.safetensors", method)
    assert copied.digest == parameters.digest
    runs = [searched(Search(method, FEW, 5, each), tmp_path / name, space())[1].asked
            for name, each in (("one", parameters), ("two", copied), ("none", None))]  # fmt: skip
    assert runs[0] == runs[1] != runs[2]
    said = {Search(method, FEW, 5, each).said for each in (parameters, copied, None)}
    assert len(said) == 2  # they are part of a job's key


def fresh(method: str) -> dict[str, torch.Tensor]:
    if method == "ddpg":
        return learned(actor=Actor(), critic=Critic())
    return learned(remover=Remover(), shrinker=Shrinker())


@pytest.mark.parametrize("method", LEARNING)
def test_parameters_of_another_form_are_refused(method: str, tmp_path: Path) -> None:
    whole = fresh(method)
    name = sorted(whole)[0]
    missing = Parameters(method, {key: value for key, value in whole.items() if key != name})
    wide = Parameters(method, {**whole, name: torch.zeros(3, 3)})
    for parameters, said in ((missing, f"'{name}' is in one only"), (wide, r"has the shape \[3, 3\]")):
        with pytest.raises(RequestError, match=said):
            searched(Search(method, FEW, 0, parameters), tmp_path, space())


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path, notes = tmp_path / "p.safetensors", {"format": "1", "policy": "ddpg"}
    for tensors, with_notes, said in (
        ({"a": torch.full((2,), float("nan"))}, notes, "none of them infinite or NaN"),
        ({"a": torch.zeros(2, dtype=torch.float64)}, notes, "must hold float32"),
        ({"a": torch.zeros(2)}, {**notes, "policy": "reinforce"}, "has learned, not 'ddpg'"),
        ({"a": torch.zeros(2)}, {**notes, "format": "9"}, "is not the parameters of a policy"),
    ):
        write_tensors(path, tensors, with_notes)
        with pytest.raises(RequestError, match=said):
            load_parameters(path, "ddpg")
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(bytes(changed))
    for content in (bytes(changed), b"", b"no tensors at all"):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=r"p\.safetensors"):
            load_parameters(path, "ddpg")
    with pytest.raises(RequestError, match="missing"):
        load_parameters(tmp_path / "missing", "ddpg")


def test_a_policy_goes_on_from_its_own_kind_alone() -> None:
    with pytest.raises(RequestError, match="'ddpg' cannot start from what 'reinforce' has learned"):
        Search("ddpg", start=Parameters("reinforce", {}))
