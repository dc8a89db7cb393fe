import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from slimwright.data import PARTS, images_of, labelled, tensor_file, tensors_of, whole
from slimwright.errors import DataError


def written(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    safetensors.torch.save_file(tensors, path, metadata)
    return path


def forty() -> dict[str, Tensor]:
    return {"images": torch.rand(40, 3, 4, 4), "labels": torch.arange(40) % 2}


def same_rows(one: Tensor, other: Tensor) -> bool:
    """The same images in any order."""
    return sorted(one.flatten(1).tolist()) == sorted(other.flatten(1).tolist())


def test_a_file_becomes_four_parts(tmp_path: Path) -> None:
    data = tensor_file(written(tmp_path / "cats.safetensors", forty(), {"labels": json.dumps(["cat", "dog"])}))
    assert data.name == "cats" and data.labels == ("cat", "dog")
    assert [data.size(part) for part in PARTS] == [20, 6, 6, 8]
    assert data.image_shape == (3, 4, 4)


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    assert tensor_file(written(tmp_path / "d.safetensors", forty())).labels == ("0", "1")


def test_integer_images_are_read_as_numbers(tmp_path: Path) -> None:
    tensors = {**forty(), "images": torch.full((40, 1, 2, 2), 7, dtype=torch.uint8)}
    images = labelled(tensor_file(written(tmp_path / "d.safetensors", tensors)).parts["train"])[0]
    assert images.dtype == torch.float32 and float(images.max()) == 7.0


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.safetensors does not exist"):
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
    with pytest.raises(
        DataError, match=r"d\.safetensors has no tensor named images; it needs images .* or inputs\.NAME"
    ):
        tensor_file(written(tmp_path / "d.safetensors", {"labels": torch.zeros(3)}))


def test_images_alone_are_unlabelled(tmp_path: Path) -> None:
    images = torch.rand(41, 3, 4, 4)
    data = tensor_file(written(tmp_path / "d.safetensors", {"images": images}, {"labels": json.dumps(["cat", "dog"])}))
    assert data.labels == () and [data.size(part) for part in PARTS] == [20, 7, 6, 8]
    read, targets = zip(*(whole(data, part) for part in PARTS), strict=True)
    assert [tuple(count.shape) for (count,) in map(tensors_of, targets)] == [(20, 0), (7, 0), (6, 0), (8, 0)]
    assert same_rows(torch.cat([images_of(some) for some in read]), images)
    other = tensor_file(tmp_path / "d.safetensors", seed=1)
    assert not torch.equal(images_of(other.parts["test"][0]), images_of(data.parts["test"][0]))


def test_a_tensor_that_is_misnamed_does_not_make_images_unlabelled(tmp_path: Path) -> None:
    tensors = {"images": torch.rand(40, 1, 2, 2), "label": torch.arange(40) % 2}
    with pytest.raises(DataError, match=r"holds 'label', which is none of images, labels, .*; rename it, or remove it"):
        tensor_file(written(tmp_path / "d.safetensors", tensors))
    assert tensor_file(written(tmp_path / "d.safetensors", {**forty(), "ids": torch.arange(40)})).labels == ("0", "1")


def test_zeros_and_ones_for_each_class_are_several_labels(tmp_path: Path) -> None:
    flags = (torch.rand(40, 3) < 0.4).to(torch.uint8)
    tensors = {"images": torch.arange(40).reshape(40, 1, 1, 1), "labels": flags}
    names = json.dumps(["sky", "sea", "sand"])
    for metadata, expected in ((None, ("0", "1", "2")), ({"labels": names}, ("sky", "sea", "sand"))):
        data = tensor_file(written(tmp_path / "d.safetensors", tensors, metadata))
        assert data.labels == expected
        for part in PARTS:
            inputs, targets = whole(data, part)
            (shown,) = tensors_of(targets)
            assert torch.equal(shown, flags[images_of(inputs).flatten().long()].long())


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (torch.full((40, 3), 2), "zeros and ones"),
        (torch.zeros(40, 3), "all 0; a class must be marked by a 1"),
        (torch.full((40, 3), 0.5), "whole numbers"),
        (torch.full((40,), 0.5), "whole numbers"),
        (torch.zeros(40, 2, 2), "whole numbers"),
    ],
)
def test_labels_that_are_neither_numbers_nor_flags_are_told(labels: Tensor, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=why):
        tensor_file(written(tmp_path / "d.safetensors", {"images": torch.rand(40, 1, 2, 2), "labels": labels}))


def two_inputs() -> dict[str, Tensor]:
    numbers = torch.arange(40)
    return {
        "inputs.photo": numbers.reshape(40, 1, 1, 1).to(torch.uint8),
        "inputs.depth": numbers.reshape(40, 1, 1, 1).double() / 2,
        "inputs.camera": numbers,
        "targets.pose": numbers.reshape(40, 1).float() * 3,
        "targets.seen": numbers > 7,
    }


def test_several_inputs_and_targets_come_by_name_or_as_listed(tmp_path: Path) -> None:
    listed = {"inputs": json.dumps(["photo", "camera", "depth"]), "targets": json.dumps(["seen", "pose"])}
    for metadata, photo, camera, pose in ((None, 2, 0, 0), (listed, 0, 1, 1)):
        data = tensor_file(written(tmp_path / "d.safetensors", two_inputs(), metadata))
        assert data.labels == () and data.image_shape == (1, 1, 1)
        for part in PARTS:
            inputs, targets = map(tensors_of, whole(data, part))
            number = inputs[camera]
            assert (number.dtype, inputs[photo].dtype) == (torch.int64, torch.float32) and len(inputs) == 3
            assert torch.equal(inputs[photo].flatten().long(), number)
            assert torch.equal(targets[pose][:, 0], number * 3.0) and torch.equal(targets[1 - pose], number > 7)


def test_one_named_input_is_images_and_named_targets_stay_named(tmp_path: Path) -> None:
    tensors = {"inputs.photo": torch.rand(40, 1, 2, 2), "targets.count": torch.arange(40)}
    data = tensor_file(written(tmp_path / "d.safetensors", tensors))
    inputs, targets = data.parts["train"]
    assert isinstance(inputs, Tensor) and isinstance(targets, tuple)


@pytest.mark.parametrize(
    ("more", "metadata", "why"),
    [
        ({"images": torch.rand(40, 1, 2, 2)}, {}, r"both 'images' and 'inputs\.camera'; keep one"),
        ({"labels": torch.zeros(40)}, {}, r"both 'labels' and 'targets\.pose'; keep one"),
        (
            {},
            {"inputs": '["photo"]'},
            r"lists inputs\.photo under \"inputs\" in its metadata, and holds inputs\.camera, ",
        ),
        ({}, {"targets": '["pose", "pose", "seen"]'}, "list each tensor once"),
        ({}, {"inputs": "photo"}, "inputs as 'photo' in the metadata; they must be a JSON list"),
        ({"inputs.camera": torch.zeros(39)}, {}, r"inputs\.camera \[39\] .*the first dimension of each must be N"),
        ({"targets.pose": torch.tensor(1.0)}, {}, "the first dimension of each must be N"),
    ],
)
def test_inputs_and_targets_that_do_not_fit_are_told(
    more: dict[str, Tensor], metadata: dict[str, str], why: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=why):
        tensor_file(written(tmp_path / "d.safetensors", {**two_inputs(), **more}, metadata))


def test_inputs_without_images_among_them_are_told(tmp_path: Path) -> None:
    tensors = {"inputs.a": torch.zeros(40, 2), "inputs.b": torch.zeros(40, 3)}
    with pytest.raises(DataError, match=r"inputs\.a \[40, 2\] and inputs\.b \[40, 3\]; images must be \[N, C, H, W\]"):
        tensor_file(written(tmp_path / "d.safetensors", tensors))


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
