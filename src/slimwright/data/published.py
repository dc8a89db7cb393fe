"""How other libraries write down a preprocessing, in the words of `Described`.

timm: the `pretrained_cfg` of its config.json, as its `create_transform` reads it for evaluation. Hugging Face: the
preprocessor_config.json of its image processors. What either leaves out has the library's own default.
"""

import math
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, model_validator

from slimwright.data.preprocessing import LEVELS, MEAN, STD
from slimwright.errors import DataError

TIMM = frozenset({"input_size", "crop_mode"})  # keys that tell one kind of file from another
HUGGING_FACE = frozenset(
    {"image_mean", "image_processor_type", "feature_extractor_type", "do_resize", "do_rescale", "do_normalize"}
)
RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
SQUASHED = 384  # pixels from which ConvNeXt's processor, which has a crop_pct, stretches and does not crop

Several: TypeAlias = float | tuple[float, ...]


class Timm(BaseModel):
    """timm's `pretrained_cfg`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input_size: tuple[int, int, int]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"

    def said(self) -> dict[str, Any]:
        """Return the same as fields of `Described`. Raises DataError for what cannot be said in them."""
        if self.crop_mode not in ("center", "squash"):
            raise DataError(f"crop_mode is '{self.crop_mode}', and only center and squash are known; write it as text")
        channels, height, width = self.input_size
        return {
            "size": [height, width],
            "fit": "crop" if self.crop_mode == "center" else "stretch",
            "crop": self.crop_pct,
            "interpolation": self.interpolation,
            "channels": "grey" if channels == 1 else "RGB",
            "mean": list(self.mean),
            "std": list(self.std),
        }


class Size(BaseModel):
    """A size in Hugging Face's words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None


class HuggingFace(BaseModel):
    """Hugging Face's preprocessor_config.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    do_resize: bool = True
    size: int | Size | None = None
    crop_pct: float | None = None
    do_center_crop: bool = False
    crop_size: int | Size | None = None
    resample: Literal[0, 1, 2, 3, 4, 5] = 2
    do_rescale: bool = True
    rescale_factor: float = 1 / LEVELS
    rescale_offset: bool = False  # EfficientNet's: minus one after scaling
    do_normalize: bool | None = None
    image_mean: Several | None = None
    image_std: Several | None = None
    do_flip_channel_order: bool = False  # MobileViT's
    do_grayscale: bool = False

    @model_validator(mode="before")
    @classmethod
    def _given(cls, found: Any) -> Any:
        """What is null is not given: newer processors write all that they know."""
        return {key: value for key, value in found.items() if value is not None} if isinstance(found, dict) else found

    def said(self) -> dict[str, Any]:
        """Return the same as fields of `Described`. Raises DataError for what cannot be said in them."""
        if not self.do_resize:
            raise DataError("do_resize is false, but a network takes pictures of one size; remove that line")
        normal = self.image_mean is not None if self.do_normalize is None else self.do_normalize
        if normal and (self.image_mean is None or self.image_std is None):
            raise DataError("do_normalize is true, and image_mean or image_std is missing")
        mean, std = (_list(self.image_mean), _list(self.image_std)) if normal else ([0.0], [1.0])
        if self.rescale_offset:
            mean = [number + 1 for number in mean]
        channels = "grey" if self.do_grayscale else "BGR" if self.do_flip_channel_order else "RGB"
        scale = round(1 / self.rescale_factor, 9) if self.do_rescale and self.rescale_factor > 0 else 1.0
        return {
            **self._placed(),
            "interpolation": RESAMPLE[self.resample],
            "channels": channels,
            "scale": scale,
            "mean": mean,
            "std": std,
        }

    def _placed(self) -> dict[str, Any]:
        """Size, fit and crop."""
        size = self.size
        if isinstance(size, int):
            size = Size(shortest_edge=size) if self.do_center_crop else Size(height=size, width=size)
        edge = size.shortest_edge if size else None
        if edge is not None and self.crop_pct is not None and not self.do_center_crop:
            if edge >= SQUASHED:
                return {"size": [edge, edge], "fit": "stretch"}
            return {"size": [edge, edge], "fit": "crop", "crop": _share(edge, int(edge / self.crop_pct))}
        if size is None or (edge is None and (size.height is None or size.width is None)) or size.longest_edge:
            raise DataError(
                "size needs height and width, or shortest_edge without longest_edge; pictures whose sizes differ are "
                "placed into one by fit=letterbox, say, and size=640: write the preprocessing as text"
            )
        resized = (edge, edge) if edge is not None else (size.height, size.width)
        fit = "crop" if edge is not None else "stretch"
        if not self.do_center_crop:
            return {"fit": fit, **({} if edge is not None else {"size": list(resized)})}
        cut = self.crop_size if self.crop_size is not None else Size(height=resized[0], width=resized[1])
        cut = Size(height=cut, width=cut) if isinstance(cut, int) else cut
        wanted = (cut.height or cut.shortest_edge, cut.width or cut.shortest_edge)
        if wanted[0] is None or wanted[1] is None or resized[0] is None or resized[1] is None:
            raise DataError("crop_size needs height and width")
        if wanted[0] * resized[1] != wanted[1] * resized[0]:
            raise DataError(f"crop_size is {wanted} and size {resized}, of other proportions; write it as text")
        return {"size": list(wanted), "fit": fit, "crop": _share(wanted[0], resized[0])}


def _share(cut: int, whole: int) -> float:
    """The share of a side that a crop keeps, such that the side divided by it is the whole again."""
    share = cut / whole if whole else 1.0
    return share if int(cut / share) == whole else math.nextafter(share, 0)


def _list(value: Several | None) -> list[float]:
    return list(value) if isinstance(value, tuple) else [float(value or 0)]
