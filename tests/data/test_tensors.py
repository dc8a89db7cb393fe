import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from slimwright.data import PARTS, tensor_file
from slimwright.errors import DataError


def written(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    safetensors.torch.save_file(tensors, path, metadata)
    return path


def forty() -> dict[str, Tensor]:
    return {"images": torch.rand(40, 3, 4, 4), "labels": torch.arange(40) % 2}


def test_a_file_becomes_four_parts(tmp_path: Path) -> None:
    data = tensor_file(written(tmp_path / "cats.safetensors", forty(), {"labels": json.dumps(["cat", "dog"])}))
    assert data.name == "cats" and data.labels == ("cat", "dog")
    assert [data.size(part) for part in PARTS] == [20, 6, 6, 8]
    assert data.image_shape == (3, 4, 4)


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    assert tensor_file(written(tmp_path / "d.safetensors", forty())).labels == ("0", "1")


def test_integer_images_are_read_as_numbers(tmp_path: Path) -> None:
    tensors = {**forty(), "images": torch.full((40, 1, 2, 2), 7, dtype=torch.uint8)}
    images = tensor_file(written(tmp_path / "d.safetensors", tensors)).parts["train"][0]
    assert images.dtype == torch.float32 and float(images.max()) == 7.0


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set at .*none\.safetensors"):
        tensor_file(tmp_path / "none.safetensors")


@pytest.mark.parametrize("data", [b"", b"short", pickle.dumps({"images": 1}), b"\x00" * 64])
def test_a_file_of_another_kind_is_told(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    path.write_bytes(data)
    with pytest.raises(DataError, match="not a safetensors file"):
        tensor_file(path)


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        tensor_file(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tensor named labels"):
        tensor_file(written(tmp_path / "d.safetensors", {"images": torch.zeros(3, 1, 2, 2)}))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(0, 1, 2, 2), torch.zeros(0)),
        (torch.zeros(9, 2, 2), torch.zeros(9)),
        (torch.zeros(9, 1, 2, 2), torch.zeros(8)),
        (torch.zeros(9, 1, 2, 2), torch.zeros(9, 1)),
        (torch.zeros(9, 1, 2, 2), torch.tensor(3)),
        (torch.zeros(9, 1, 2, 2), torch.full((9,), -1)),
        (torch.full((40, 1, 2, 2), float("nan")), torch.zeros(40)),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2)),  # too few for four parts
    ],
)
def test_wrong_shapes_are_told(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        tensor_file(written(tmp_path / "d.safetensors", {"images": images, "labels": labels}))


@pytest.mark.parametrize("names", ["", "{", "3", "null", '["cat"]'])
def test_class_names_that_do_not_fit_are_told(names: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        tensor_file(written(tmp_path / "d.safetensors", forty(), {"labels": names}))
