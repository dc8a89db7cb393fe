"""Glyphs: a data set that is drawn when it is asked for, with a difficulty that can be set, and without any file.

Characters of five super-classes in twelve fonts stand on textured backgrounds. Image i of a part under a seed is always
the same, and no two parts share one. The default difficulty leaves room to lose: `resnet20` reaches 90.7 % of the test
images after 8 epochs in batches of 64, 202 s of one core (our measurement, November 2026).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.data.dataset import PARTS, Part
from slimwright.data.glyphs.atlas import atlas
from slimwright.data.glyphs.counter_rng import keys
from slimwright.data.glyphs.distortions import distortions
from slimwright.data.glyphs.options import numbers_of
from slimwright.data.glyphs.scene import pictures
from slimwright.data.glyphs.strokes import MOST, chosen
from slimwright.data.streamed import Numbers, Share, StreamedData, cropped
from slimwright.errors import DataError

SIZES: Mapping[Part, int] = {"train": 8_000, "calibration": 1_000, "validation": 2_000, "test": 4_000}
LEAST, LARGEST_SIZE, MOST_IMAGES = 10, 256, 1_000_000
MEAN, STD = 0.504, 0.303  # of the pixels of 2,000 training images at the default difficulty, channels alike


@dataclass(frozen=True)
class Glyphs:
    """What to draw: `classes` of 10 to 100, square pictures of `size` pixels, `difficulty` 0..1, images per part."""

    classes: int = 20
    size: int = 32
    difficulty: float = 0.85
    sizes: Mapping[Part, int] = field(default_factory=lambda: dict(SIZES))

    def __post_init__(self) -> None:
        if not LEAST <= self.classes <= MOST:
            raise DataError(f"glyphs has {LEAST} to {MOST} classes, not {self.classes}; set classes=20, say")
        if not 16 <= self.size <= LARGEST_SIZE:
            raise DataError(f"glyphs are drawn at 16 to {LARGEST_SIZE} pixels, not {self.size}; set size=32 or size=64")
        if not 0 <= self.difficulty <= 1:
            raise DataError(f"the difficulty of glyphs is between 0 and 1, not {self.difficulty}")
        for part in PARTS:
            if not self.classes <= self.sizes.get(part, 0) <= MOST_IMAGES:
                raise DataError(
                    f"glyphs cannot have {self.sizes.get(part, 0)} {part} images for {self.classes} classes; every "
                    f"class needs at least one: set {part}={self.classes} or more, up to {MOST_IMAGES}"
                )

    @property
    def name(self) -> str:
        """What a command line calls it: `glyphs` and the options that are not the default."""
        given = [(f.name, getattr(self, f.name), f.default) for f in fields(self) if f.name != "sizes"]
        given += [(part, self.sizes[part], SIZES[part]) for part in PARTS]
        options = ",".join(f"{name}={value}" for name, value, default in given if value != default)
        return f"glyphs:{options}" if options else "glyphs"


def glyphs(wanted: Glyphs | None = None, seed: int = 0) -> StreamedData:
    """Return the glyphs that are wanted; `seed` fixes every picture."""
    wanted = wanted or Glyphs()
    members = chosen(wanted.classes)
    maps, shares = atlas(members), {}
    for stream, part in enumerate(PARTS):
        numbers = np.arange(wanted.sizes[part])
        shares[part] = Share(
            partial(_drawn, maps, wanted, (seed, stream)), numbers, torch.from_numpy(numbers % wanted.classes)
        )
    ends = np.cumsum([0, *map(len, members.values())])
    return StreamedData(
        name=wanted.name,
        labels=tuple(character for characters in members.values() for character in characters),
        image_shape=(3, wanted.size, wanted.size),
        shares=shares,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        raw={"channels": "RGB", "size": [wanted.size, wanted.size]},
        augment=partial(cropped, margin=wanted.size // 16, mirror=False),
        superclasses={name: tuple(range(ends[i], ends[i + 1])) for i, name in enumerate(members)},
    )


def parsed(options: str) -> Glyphs:
    """Return what `classes=20,size=64,difficulty=0.5,train=2000` asks for. Raises DataError, saying what there is."""
    plain = Glyphs()
    known: dict[str, int | float] = {"classes": plain.classes, "size": plain.size, "difficulty": plain.difficulty}
    known.update({part: plain.sizes[part] for part in PARTS})
    given = numbers_of(options, known, "glyphs")
    sizes = {part: int(given[part]) for part in PARTS}
    return Glyphs(int(given["classes"]), int(given["size"]), float(given["difficulty"]), sizes)


def _drawn(maps: Tensor, wanted: Glyphs, key: tuple[int, int], numbers: Numbers) -> NDArray[np.uint8]:
    """The pictures of these numbers in the stream that `key`, a seed and a part, names."""
    seed, stream = key
    extent = distortions(wanted.difficulty)
    return pictures(maps, numbers % wanted.classes, keys(seed, stream, numbers), wanted.size, extent)
