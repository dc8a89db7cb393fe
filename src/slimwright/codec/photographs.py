"""Photographs of scikit-image and scikit-learn: those that the shipped parameters come from, and those of tests."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from slimwright.errors import DataError, check_extra

TRAINING = (
    "motorcycle_left.png", "rocket.jpg", "flower.jpg", "retina.jpg", "hubble_deep_field.jpg", "ihc.png", "camera.png",
    "brick.png", "grass.png", "gravel.png", "coins.png", "moon.png",
)  # fmt: skip
TEST = ("astronaut.png", "chelsea.png", "coffee.png", "china.jpg")
FOLDERS = (("skimage", "data"), ("sklearn", "datasets/images"))


def photographs(names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return pictures [3, H, W] of whole numbers from 0 to 255, by name. Raises MissingExtra without the packages."""
    check_extra("data", "the photographs need", *(package for package, _ in FOLDERS))
    return {name: as_tensor(Image.open(_found(name))) for name in names}


def as_tensor(picture: Image.Image) -> Tensor:
    """Return a picture as colours [3, H, W] from 0 to 255."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def _found(name: str) -> Path:
    for package, folder in FOLDERS:
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(root) / folder / name).is_file():
                return path
    raise DataError(f"neither scikit-image nor scikit-learn holds {name} any more; give a folder of pictures instead")
