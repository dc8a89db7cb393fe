"""What a command line names: `load_data` finds every kind, and says what to write where a name is wrong."""

import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from slimwright.cli.sources import load_data, load_original
from slimwright.data import PARTS, labelled
from slimwright.errors import DataError, ModelError
from slimwright.zoo import build


def test_glyphs_are_named_with_and_without_options() -> None:
    assert load_data("glyphs").size("train") == 8_000
    data = load_data("glyphs:classes=10,size=64,train=50", seed=3)
    assert data.image_shape == (3, 64, 64) and len(data.labels) == 10 and data.size("train") == 50


def test_a_folder_of_pictures_is_named_with_its_size(tmp_path: Path) -> None:
    home = tmp_path / "pets@home"
    for name in ("cat", "dog"):
        (home / name).mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (20, 20)).save(home / name / f"{index}.png")
    data = load_data(f"folder:{home}@16")
    assert data.image_shape == (3, 16, 16) and [data.size(part) for part in PARTS] == [8, 10, 2, 4]
    assert load_data(f"folder:{home}@16x24").image_shape == (3, 16, 24)
    assert load_data(f"folder:{home}", preprocessing="size=24,channels=grey").image_shape == (1, 24, 24)
    assert load_data(f"folder:{home}@16", preprocessing="size=24").image_shape == (3, 16, 16)


def test_pictures_without_labels_train_no_network_of_the_zoo(tmp_path: Path) -> None:
    for index in range(12):
        Image.new("RGB", (40, 32)).save(tmp_path / f"{index}.png")
    data = load_data(f"folder:{tmp_path}@32")
    assert data.labels == () and [data.size(part) for part in PARTS] == [8, 9, 1, 2]
    with pytest.raises(ModelError, match=r"no labels to train resnet8 on; give its weights with --weights"):
        load_original("resnet8", data)
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(build("resnet8", classes=10, in_channels=3).state_dict(), weights)
    net = load_original("resnet8", data, weights=weights).net
    assert net.input.shape == (1, 3, 32, 32) and net[net.outputs[0]].shape == (1, 10)


@pytest.mark.parametrize("spec", ["folder:/pets", "folder:@64", "folder:/pets@", "folder:/pets@-4", "folder:/pets@9x"])
def test_a_folder_without_a_size_is_told(spec: str) -> None:
    with pytest.raises(DataError, match=r"does not say how large its pictures shall be; write folder:PATH@64"):
        load_data(spec)


@pytest.mark.parametrize("kind", ["mnist", "cifar10", "cifar100", "tiny-imagenet"])
def test_stored_data_sets_want_a_folder_that_is_there(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"name it as {kind}:FOLDER"):
        load_data(kind)
    with pytest.raises(DataError, match=r"nowhere does not exist; name the folder that holds"):
        load_data(f"{kind}:{tmp_path / 'nowhere'}")


def test_a_stored_data_set_is_read_with_the_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("data_batch_1", 100), ("test_batch", 10)):
        records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(count) % 10
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    one, same, other = (load_data(f"cifar10:{tmp_path}", seed) for seed in (1, 1, 2))
    images = [labelled(next(data.batches("validation", 10)))[0] for data in (one, same, other)]
    assert images[0].equal(images[1]) and not images[0].equal(images[2])


def test_a_callable_of_a_module_is_still_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_pictures.py").write_text("from slimwright.data import digits\n\ndef load():\n    return digits()\n")
    monkeypatch.chdir(tmp_path)
    assert load_data("my_pictures:load").name == "digits"
    sys.modules.pop("my_pictures")


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    with pytest.raises(DataError, match=r"use digits, glyphs, scenes:boxes, mnist:FOLDER, .* folder:PATH@SIZE"):
        load_data("imagenet")
