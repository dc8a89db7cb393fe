"""Pixels against the libraries whose words are read, where they are installed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slimwright.data import PARTS, Preprocessing, StreamedData, described, image_folder, images_of, whole


@pytest.fixture(scope="module")
def transforms() -> Any:
    pytest.importorskip("PIL")
    try:
        import torchvision
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:  # its compiled part is of another torch: what it describes is defined in its place
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float most) -> Tensor")
        import torchvision
    return torchvision.transforms


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of different sizes: parts of a photograph that scikit-learn brings along."""
    from sklearn.datasets import load_sample_image

    home, photo = tmp_path_factory.mktemp("photos"), Image.fromarray(load_sample_image("china.jpg"))
    for number, size in enumerate([(200, 120), (97, 131), (64, 64), (333, 90), (50, 250), (40, 37)]):
        photo.crop((60, 60, 60 + size[0], 60 + size[1])).save(home / f"{number}.png")
    return home


def by_name(data: StreamedData) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for part in PARTS:
        images = images_of(whole(data, part)[0])
        found.update(zip(data.shares[part].numbers.tolist(), images, strict=True))
    return found


def expected(photos: Path, transform: Any) -> list[torch.Tensor]:
    return [transform(Image.open(photos / f"{number}.png").convert("RGB")) for number in range(6)]


def resized(transforms: Any, height: int, width: int) -> list[Any]:
    """Across and then down, which is the order that we always take, and Pillow 13 for most pictures."""
    across = transforms.Lambda(lambda image: transforms.functional.resize(image, [image.height, width]))
    return [across, transforms.Resize((height, width))]


def compare(photos: Path, how: Preprocessing, transform: Any) -> None:
    found = by_name(image_folder(photos, how))
    for number, wanted in enumerate(expected(photos, transform)):
        assert float((found[number] - wanted).abs().max()) <= 1e-6 * float(wanted.abs().max())


@pytest.mark.parametrize("share", [1.0, 0.875, 0.95])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_a_crop_has_torchvisions_pixels(share: float, interpolation: str, photos: Path, transforms: Any) -> None:
    how = Preprocessing(56, 56, crop_share=share, interpolation=interpolation)
    mode = transforms.InterpolationMode(interpolation)
    steps = [transforms.Resize(int(56 / share), mode), transforms.CenterCrop(56), transforms.ToTensor()]
    compare(photos, how, transforms.Compose([*steps, transforms.Normalize(how.mean, how.std)]))


def test_a_stretched_picture_has_torchvisions_pixels(photos: Path, transforms: Any) -> None:
    how = Preprocessing(40, 64, fit="stretch", mean=(0.5,) * 3, std=(0.25,) * 3)
    steps = [*resized(transforms, 40, 64), transforms.ToTensor(), transforms.Normalize(how.mean, how.std)]
    compare(photos, how, transforms.Compose(steps))
    squashed = Preprocessing(32, 32, fit="stretch", crop_share=0.8)
    steps = [*resized(transforms, 40, 40), transforms.CenterCrop(32), transforms.ToTensor()]
    compare(photos, squashed, transforms.Compose([*steps, transforms.Normalize(squashed.mean, squashed.std)]))


def test_pixels_are_pillows(photos: Path) -> None:
    how = Preprocessing(40, 64, fit="stretch", scale=1.0, mean=(10.0, 20.0, 30.0), std=(2.0,))
    found = by_name(image_folder(photos, how))
    for number in range(6):
        image = Image.open(photos / f"{number}.png").convert("RGB")
        image = image.resize((64, image.height), Image.Resampling.BILINEAR).resize((64, 40), Image.Resampling.BILINEAR)
        wanted = (np.asarray(image, np.float64) - (10, 20, 30)) / 2
        assert np.abs(found[number].numpy() - wanted.transpose(2, 0, 1)).max() <= 1e-6 * 127


@pytest.mark.parametrize(
    "name",
    ["resnet50.a1_in1k", "inception_v3.tv_in1k", "convnext_tiny.fb_in22k", "vit_base_patch16_clip_224.openai_ft_in1k"],
)
def test_timms_config_has_the_pixels_of_its_transform(name: str, photos: Path, transforms: Any, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    config = timm.get_pretrained_cfg(name).to_dict()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"architecture": name.partition(".")[0], "pretrained_cfg": config}, default=str))
    keys = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
    said = {key: config[key] for key in keys if config.get(key) is not None}
    compare(photos, described(str(path)).preprocessing(), timm.data.create_transform(**said))
