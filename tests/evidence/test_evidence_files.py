import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from example_nets import SHAPE, classification
from slimwright.errors import DataError
from slimwright.evidence import Evidence, load_evidence, observe
from slimwright.graph import Net
from slimwright.kept import read_tensors, write_tensors

Parts = tuple[dict[str, Tensor], dict[str, str]]


@pytest.fixture(scope="module")
def seen(residual: Net) -> Evidence:
    images, labels = torch.randn(9, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3
    return observe(residual, [(images, labels)], task=classification(3))


@pytest.fixture
def saved(seen: Evidence, tmp_path: Path) -> Path:
    seen.save(tmp_path / "evidence.safetensors")
    return tmp_path / "evidence.safetensors"


def parts_of(path: Path) -> Parts:
    return read_tensors(path, "evidence", DataError)


def test_saved_evidence_comes_back(seen: Evidence, saved: Path) -> None:
    """Bit by bit."""
    back = load_evidence(saved)
    for what in ("net_digest", "groups", "skipped"):
        assert getattr(back, what) == getattr(seen, what)
    assert back.tensors().keys() == seen.tensors().keys()
    assert all(torch.equal(tensor, back.tensors()[name]) for name, tensor in seen.tensors().items())


def test_groups_and_skipped_layers_come_back(residual: Net, tmp_path: Path) -> None:
    images, labels = torch.randn(9, *SHAPE), torch.arange(9) % 3
    seen = observe(residual, [(images, labels)], task=classification(3), memory_bytes=1500)
    seen.save(tmp_path / "some")
    back = load_evidence(tmp_path / "some")
    assert len(back.groups) < 3 and back.groups == seen.groups and back.skipped == seen.skipped != {}


Damage = Callable[[dict[str, Tensor], dict[str, str], str], object]
DAMAGES: dict[str, Damage] = {
    "a sum is missing": lambda t, _, layer: t.pop(f"{layer}/fisher"),
    "images are missing": lambda t, _, __: t.pop("images"),
    "a Gram matrix of other taps": lambda t, _, layer: t.update({f"{layer}/gram": torch.zeros(3, 1, 2, 2).double()}),
    "a sum of other classes": lambda t, _, layer: t.update({f"{layer}/count": torch.zeros(4).double()}),
    "a number for a matrix": lambda t, _, layer: t.update({f"{layer}/total": torch.zeros(()).double()}),
    "fewer Taylor scores than channels": lambda t, _, layer: t.update({f"{layer}/taylor": torch.zeros(3, 1).double()}),
    "float32 sums": lambda t, _, layer: t.update({f"{layer}/zeros": t[f"{layer}/zeros"].float()}),
    "NaN": lambda t, _, layer: t[f"{layer}/magnitude"].fill_(torch.nan),
    "images that are no numbers": lambda t, _, __: t.update(images=torch.zeros(3)),
    "fewer than no images": lambda t, _, __: t["images"].fill_(-1),
    "a tensor of nothing": lambda t, _, __: t.update(more=torch.zeros(3)),
    "a sum too many": lambda t, _, layer: t.update({f"{layer}/more": torch.zeros(3)}),
    "groups that overlap": lambda _, m, __: m.update(groups="[[0], [1], [1, 2]]"),
    "groups that are empty": lambda _, m, __: m.update(groups="[[0], [], [1, 2]]"),
    "no groups": lambda _, m, __: m.update(groups="[]"),
    "groups of texts": lambda _, m, __: m.update(groups='[["0"], ["1"], ["2"]]'),
    "groups that are a number": lambda _, m, __: m.update(groups="3"),
    "groups of lists": lambda _, m, __: m.update(groups="[[[0]], [[1]], [[2]]]"),
    "groups that are no JSON": lambda _, m, __: m.update(groups="[" * 100_000),
    "skipped layers that are a list": lambda _, m, __: m.update(skipped="[1]"),
    "reasons that are numbers": lambda _, m, __: m.update(skipped=json.dumps({"conv": 1})),
    "another format": lambda _, m, __: m.update(format="slimwright-evidence 1"),
    "no format": lambda _, m, __: m.pop("format"),
    "no net": lambda _, m, __: m.pop("net"),
}


@pytest.mark.parametrize("which", DAMAGES)
def test_damaged_evidence_is_refused(which: str, seen: Evidence, saved: Path) -> None:
    tensors, metadata = parts_of(saved)
    write_tensors(saved, tensors, metadata)
    assert load_evidence(saved).images.tolist() == [3, 3, 3]
    DAMAGES[which](tensors, metadata, list(seen.layers)[-1])
    write_tensors(saved, tensors, metadata)
    with pytest.raises(DataError, match="saved evidence"):
        load_evidence(saved)


@given(at=st.integers(0, 1500), byte=st.integers(0, 255))
def test_a_file_with_one_byte_changed_is_read_or_refused(at: int, byte: int, seen: Evidence) -> None:
    """Most of the first bytes are the header's: whatever it says then, no error but ours comes out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "evidence"
        seen.save(path)
        content = bytearray(path.read_bytes())
        content[at] = byte
        path.write_bytes(content)
        try:
            assert load_evidence(path).layers.keys()
        except DataError as error:
            assert "saved evidence" in str(error)


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 10])
def test_what_is_no_evidence_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "evidence.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="saved evidence"):
        load_evidence(path)
    with pytest.raises(DataError, match="saved evidence"):
        load_evidence(tmp_path)
