"""How a picture becomes what a network reads: placed into the wanted size, its channels ordered, then normalized.

    value = (level / scale - mean) / std         a negative std exchanges dark and bright

`fit` says how a picture of another size is placed. It is resized to the wanted size divided by `crop_share`, and then
its middle is cut out:

- "crop": it covers that size. For squares this is what torchvision's `Resize` and `CenterCrop` do, and timm with
  `crop_pct`.
- "stretch": it gets that size, whatever that does to its proportions.
- "letterbox": it fits into that size, in the middle of a frame of the level `fill`.
- "cut": it is not resized; its middle is cut out, in a frame of the level `fill` where it is smaller.
- "line": it is resized to the wanted height, and as wide as its proportions make it, but at most as wide as wanted; it
  begins at the left, and what is right of it is zero once the picture is normalized. This is how PaddleOCR's
  recognisers are trained and run (its `resize_norm_img`), but for the resampling.

Every pixel is Pillow's, resized across first and then down: Pillow 13 itself goes down first for some tall pictures,
earlier ones never do, and the levels differ by one in places. The original's sizes and where they went are a
`Placement`, so that boxes, points and masks follow their picture.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from slimwright.errors import DataError

# Means and standard deviations over ImageNet: what torchvision's pretrained models expect (its documentation, "Models
# and pre-trained weights"), and so most networks that were trained on photographs.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALLEST, LARGEST = 8, 4096  # pixels of a side

Fit = Literal["crop", "stretch", "letterbox", "cut", "line"]
Channels = Literal["RGB", "BGR", "grey", "grey3"]  # grey3: three equal channels
LEVELS = 255.0  # the largest level of 8 bits
Values: TypeAlias = tuple[float, ...]
FILTERS: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


@dataclass(frozen=True)
class Placement:
    """Where a picture's pixels went: `width` x `height` after resizing, its corner at (`left`, `top`) of the result."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int
    height: int

    def times(self, factor: int) -> "Placement":
        """Return where a picture goes that is larger by a whole factor, in a result that is."""
        sides = (factor * side for side in (self.left, self.top, self.width, self.height))
        return Placement(self.scale_x, self.scale_y, *sides)

    def moved(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points [..., 2] (x, y) of the picture in pixels of the result; some may lie outside of it."""
        return points * [self.scale_x, self.scale_y] + [self.left, self.top]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture. Raises DataError for a size or numbers that make no sense."""

    height: int
    width: int
    fit: Fit = "crop"
    crop_share: float = 1.0  # of the resized picture that a crop keeps
    interpolation: str = "bilinear"  # antialiased, half-pixel centres
    channels: Channels = "RGB"
    scale: float = LEVELS  # levels are divided by it first; 1 for networks that read 0..255
    mean: Values = MEAN  # of levels after that, one for each channel in the order of `channels`, or one for all
    std: Values = STD
    fill: int = 0  # level of a frame
    upright: bool = False  # turned as the orientation in its metadata says

    def __post_init__(self) -> None:
        if not (SMALLEST <= self.height <= LARGEST and SMALLEST <= self.width <= LARGEST):
            raise DataError(
                f"pictures can have {SMALLEST} to {LARGEST} pixels a side, not {self.height}x{self.width} (height x "
                "width)"
            )
        if not 0.1 <= self.crop_share <= 1:
            raise DataError(f"the crop's share of a side is between 0.1 and 1, not {self.crop_share:g}")
        if self.interpolation not in FILTERS:
            raise DataError(f"there is no interpolation '{self.interpolation}'; there are {', '.join(FILTERS)}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.shape[0]) or not all(np.isfinite(value) for value in values):
                raise DataError(f"{name} needs one number, or {self.shape[0]}, one for each channel, not {values}")
        if not all(self.std):
            raise DataError(f"no number of std may be 0, and they are {self.std}")
        if not 0 < self.scale < np.inf:
            raise DataError(f"scale, which levels are divided by, must be above 0, not {self.scale:g}")
        if not 0 <= self.fill <= LEVELS:
            raise DataError(f"fill is a level from 0 to 255, not {self.fill}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, H, W] of the result."""
        return 1 if self.channels == "grey" else 3, self.height, self.width

    @property
    def said(self) -> Mapping[str, object]:
        """What a device must do to do the same: all fields by the names that `described` reads, but for the numbers.

        Those are said by the data set, which normalizes.
        """
        return {
            "channels": self.channels,
            "orientation": "upright" if self.upright else "stored",
            "fit": self.fit,
            "size": [self.height, self.width],
            "crop": self.crop_share,
            "interpolation": self.interpolation,
            "fill": [self.scale * mean for mean in self.mean] if self.fit == "line" else self.fill,
        }

    def placement(self, width: int, height: int) -> Placement:
        """Return where a picture of this size goes."""
        (tall, wide), boxed = self.covered, self.fit == "letterbox"
        whole = round if boxed else int  # as Ultralytics does the one, and torchvision the other
        if self.fit == "cut":
            new_width, new_height = width, height
        elif self.fit == "stretch":
            new_width, new_height = wide, tall
        elif self.fit == "line":
            new_width, new_height = min(math.ceil(tall * width / height), wide), tall
        elif (tall * width <= wide * height) == boxed:  # the height decides
            new_width, new_height = max(whole(tall * width / height), 1), tall
        else:
            new_width, new_height = wide, max(whole(wide * height / width), 1)
        spare = np.array([self.width - new_width, self.height - new_height])
        left, top = map(int, spare // 2 if boxed else np.round(spare / 2) * (self.fit != "line"))
        return Placement(new_width / width, new_height / height, left, top, new_width, new_height)

    def placed(
        self, image: Image.Image, *, interpolation: str | None = None, fill: float | None = None, factor: int = 1
    ) -> Image.Image:
        """Return an upright picture of the wanted size; a mask takes the interpolation "nearest" and its own fill.

        A picture and a result that are larger by a whole `factor` are placed as the smaller ones are.
        """
        where = self.placement(image.width // factor, image.height // factor).times(factor)
        across, down = factor * self.width, factor * self.height
        if image.size != (where.width, where.height):
            kernel = FILTERS[interpolation or self.interpolation]
            image = image.resize((where.width, image.height), kernel).resize((where.width, where.height), kernel)
        if (where.left, where.top, *image.size) == (0, 0, across, down):
            return image
        level = self.fill if fill is None else fill
        frame = Image.new(image.mode, (across, down), (level,) * 3 if image.mode == "RGB" else level)
        frame.paste(image, (where.left, where.top))
        return frame

    def turned(self, image: Image.Image) -> Image.Image:
        """Return a picture as it is looked at: turned if that is wanted, in this order of channels but for BGR."""
        image = ImageOps.exif_transpose(image) if self.upright else image
        if self.channels in ("RGB", "BGR"):
            return image.convert("RGB")
        grey = image.convert("L")
        return grey if self.channels == "grey" else grey.convert("RGB")

    def levels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the levels [C, H, W] of a picture."""
        found = np.asarray(self.placed(self.turned(image)), np.uint8)
        found = found[None] if found.ndim == 2 else found.transpose(2, 0, 1)
        return found[::-1] if self.channels == "BGR" else found

    def normalized(self, image: Image.Image) -> NDArray[np.float32]:
        """Return a picture [C, H, W] as a network reads it."""
        mean, std = (np.asarray(given, np.float32).reshape(-1, 1, 1) for given in (self.mean, self.std))
        levels = self.levels(image).astype(np.float32)
        values = np.asarray((levels / self.scale - mean) / std, np.float32)
        if self.fit == "line":
            values[:, :, self.placement(*self.turned(image).size).width :] = 0
        return values

    @property
    def covered(self) -> tuple[int, int]:
        """The height and width that a picture is resized to, at least, at most or exactly."""
        return int(self.height / self.crop_share), int(self.width / self.crop_share)


def square(side: int) -> Preprocessing:
    """Return the usual preprocessing of photographs: the middle square, ImageNet's mean and deviation."""
    return Preprocessing(side, side)
