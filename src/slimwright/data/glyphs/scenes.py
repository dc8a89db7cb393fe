"""Scenes: several characters in a picture, drawn when they are asked for, with the truth known from the drawing.

    boxes   targets [N, M, 5] float32: class, x1, y1, x2, y2 of the pixels that a character covers; class -1 is none
    masks   targets [N, H, W] int64: the class of each pixel, 0 where there is none; later characters lie on top
    double  the picture at half its size, and as targets the picture itself [N, 3, H, W], its levels as 0..1

Characters stand in the cells of a square grid, each moved about, so that few of them touch. Scene i of a part under a
seed is always the same, and no two parts share one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from math import ceil, sqrt
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.data.batch import Batch
from slimwright.data.dataset import PARTS, Part
from slimwright.data.glyphs.atlas import atlas
from slimwright.data.glyphs.counter_rng import Words, branched, keys
from slimwright.data.glyphs.distortions import THICKEST, Distortions, distortions
from slimwright.data.glyphs.fonts import FONTS
from slimwright.data.glyphs.options import Number, numbers_of
from slimwright.data.glyphs.scene import CHUNK, Draws, Pen, background, colours, exposed, painted, view_at
from slimwright.data.glyphs.strokes import MOST, chosen
from slimwright.errors import DataError

Kind = Literal["boxes", "masks", "double"]
TASKS: Mapping[Kind, str] = {"boxes": "detection", "masks": "segmentation", "double": "restoration"}
SIZES: Mapping[Part, int] = {"train": 1_000, "calibration": 200, "validation": 300, "test": 400}
MOST_IMAGES, MOST_GLYPHS = 1_000_000, 25
FILLED = 0.75  # chance that there is a character in a cell
SMALLEST, LARGEST, MOVED = 0.7, 1.05, 0.12  # of a cell: a character's height, and how far its centre moves either way
TINT = 0.25  # by how much the colours of one scene's characters differ
MEAN, STD = 0.505, 0.35  # of the pixels of 256 training images at the default difficulty, channels alike

Drawn: TypeAlias = tuple[Tensor, Tensor, Tensor]  # pictures uint8, classes [N, G] or -1, covered [N, G, H, W]


@dataclass(frozen=True)
class Scenes:
    """What to draw: up to `glyphs` characters of `classes` on squares of `size` pixels, `difficulty` 0..1."""

    kind: Kind = "boxes"
    classes: int = 10
    size: int = 64
    difficulty: float = 0.3
    glyphs: int = 4
    sizes: Mapping[Part, int] = field(default_factory=lambda: dict(SIZES))

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= MOST:
            raise DataError(f"scenes have 2 to {MOST} classes, not {self.classes}; set classes=10, say")
        if not 32 <= self.size <= 512 or self.size % 2:
            raise DataError(f"scenes are drawn at an even size of 32 to 512 pixels, not {self.size}; set size=64, say")
        if not 0 <= self.difficulty <= 1:
            raise DataError(f"the difficulty of scenes is between 0 and 1, not {self.difficulty}")
        if not 1 <= self.glyphs <= MOST_GLYPHS:
            raise DataError(f"a scene has 1 to {MOST_GLYPHS} glyphs at most, not {self.glyphs}; set glyphs=4, say")
        for part in PARTS:
            if not 1 <= self.sizes.get(part, 0) <= MOST_IMAGES:
                raise DataError(f"scenes cannot have {self.sizes.get(part, 0)} {part} images; set {part}=100, say")

    @property
    def name(self) -> str:
        """What a command line calls it: `scenes:KIND` and the options that are not the default."""
        given = [(f.name, getattr(self, f.name), f.default) for f in fields(self) if f.name not in ("kind", "sizes")]
        given += [(part, self.sizes[part], SIZES[part]) for part in PARTS]
        return ",".join([f"scenes:{self.kind}", *(f"{name}={value}" for name, value, usual in given if value != usual)])


@dataclass(frozen=True)
class SceneData:
    """The data set of some scenes; `maps` are the characters' distance maps, `characters` their names."""

    wanted: Scenes
    seed: int
    characters: tuple[str, ...]
    maps: Tensor = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """What a command line calls it."""
        return self.wanted.name

    @property
    def task(self) -> str:
        """The task that the targets are for."""
        return TASKS[self.wanted.kind]

    @property
    def labels(self) -> tuple[str, ...]:
        """The characters; of masks behind the background, and of pairs of pictures none."""
        return {"boxes": self.characters, "masks": ("background", *self.characters), "double": ()}[self.wanted.kind]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of every image."""
        side = self.wanted.size // 2 if self.wanted.kind == "double" else self.wanted.size
        return 3, side, side

    @property
    def preprocessing(self) -> Mapping[str, object]:
        """What was done to raw images."""
        said = {"input": "RGB levels 0..255", "size": list(self.image_shape[1:]), "scale": 1 / 255, "layout": "NCHW"}
        return {**said, "mean": [MEAN] * 3, "std": [STD] * 3}

    def size(self, part: Part) -> int:
        """Number of images in a part."""
        return self.wanted.sizes[part]

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield a part once: in order without a seed, shuffled with one."""
        order = torch.arange(self.size(part))
        if seed is not None:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))
        for some in order.split(batch_size):
            yield self._batch(keys(self.seed, PARTS.index(part), some.numpy()))

    def _batch(self, keyed: Words) -> Batch:
        drawn = [_draw(self.maps, keyed[at : at + CHUNK], self.wanted) for at in range(0, len(keyed), CHUNK)]
        pictures, classes, covered = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        levels = pictures.float() / 255
        if self.wanted.kind == "double":
            return (F.avg_pool2d(levels, 2) - MEAN) / STD, levels
        truth = _boxes(classes, covered) if self.wanted.kind == "boxes" else _masks(classes, covered)
        return (levels - MEAN) / STD, truth


def scenes(wanted: Scenes | None = None, seed: int = 0) -> SceneData:
    """Return the scenes that are wanted; `seed` fixes every one."""
    wanted = wanted or Scenes()
    members = {group: characters for group, characters in chosen(wanted.classes).items() if characters}
    names = tuple(character for characters in members.values() for character in characters)
    return SceneData(wanted, seed, names, atlas(members))


def parsed_scenes(text: str) -> Scenes:
    """Return what `boxes,classes=20,size=96,train=2000` asks for. Raises DataError, saying what there is."""
    kind, _, options = text.partition(",")
    if kind not in get_args(Kind):
        raise DataError(f"there are no scenes '{kind}'; write scenes:{', scenes:'.join(get_args(Kind))}, then options")
    plain = Scenes()
    known: dict[str, Number] = {
        f.name: getattr(plain, f.name) for f in fields(plain) if f.name not in ("kind", "sizes")
    }
    given = numbers_of(options, {**known, **{part: plain.sizes[part] for part in PARTS}}, "scenes")
    sizes = {part: int(given[part]) for part in PARTS}
    count = {name: int(given[name]) for name in ("classes", "size", "glyphs")}
    return Scenes(kind, difficulty=float(given["difficulty"]), sizes=sizes, **count)  # type: ignore[arg-type]


def _draw(maps: Tensor, keyed: Words, wanted: Scenes) -> Drawn:
    """Draw scenes, one for each word of `keyed` [N]."""
    draws, extent = Draws(keyed), distortions(wanted.difficulty)
    light, dark = colours(draws, extent)  # [N, 3, 1, 1]
    swap = (draws.take(1) < 0.5).float()
    ink = dark + (light - dark) * swap
    canvas = background(draws, light + (dark - light) * swap, wanted.size, extent)
    across = ceil(sqrt(wanted.glyphs))
    classes, covers = [], []
    for place in range(wanted.glyphs):
        own = Draws(branched(keyed, place))
        there = own.take() < FILLED  # [N, 1, 1]
        kinds = (own.take() * wanted.classes).long().flatten()
        cell = (torch.tensor(divmod(place, across)) + 0.5) * 2 / across - 1  # its middle, down and across
        covered, colour = _written(own, maps, kinds, (cell, across), (wanted.size, extent))
        covered = covered * there
        canvas = painted(canvas, covered, ink + colour)
        classes.append(torch.where(there.flatten(), kinds, -1))
        covers.append(covered > 0.5)
    pictures = torch.from_numpy(exposed(draws, canvas, extent))
    return pictures, torch.stack(classes, 1), torch.stack(covers, 1)


def _written(
    draws: Draws, maps: Tensor, kinds: Tensor, at: tuple[Tensor, int], how: tuple[int, Distortions]
) -> tuple[Tensor, Tensor]:
    """How much of each pixel [N, H, W] a character covers in a cell `at` its middle, and its tint [N, 3, 1, 1]."""
    (middle, across), (size, extent) = at, how
    centre = [middle[axis] + draws.either(2 * MOVED / across) for axis in (1, 0)]
    height = (SMALLEST + draws.take() * (LARGEST - SMALLEST)) / across
    font = (draws.take() * len(FONTS)).long().flatten()
    width = extent.thinnest + draws.take() * (THICKEST - extent.thinnest)
    tint = draws.either(TINT, 3)
    view = view_at(draws, (centre[0], centre[1]), height, size, extent)
    view = replace(view, sharpness=view.sharpness / (1 + draws.take() * extent.blur))
    return Pen(maps, font, width, tint).written(view, kinds), tint - tint.mean(1, keepdim=True)


def _boxes(classes: Tensor, covered: Tensor) -> Tensor:
    """Class, x1, y1, x2, y2 [N, G, 5] of what characters cover; -1 and zeros where there are none."""
    count, glyphs, height, width = covered.shape
    ends = []
    for axis, length in ((2, width), (3, height)):
        along = covered.any(axis)  # [N, G, W], then [N, G, H]
        place = torch.arange(length)
        ends.append(torch.where(along, place, length).amin(2))
        ends.append(torch.where(along, place + 1, 0).amax(2))
    left, right, top, bottom = ends
    rows = torch.stack([classes, left, top, right, bottom], 2).float()
    there = covered.any(3).any(2) & (classes >= 0)
    none = torch.tensor([-1.0, 0, 0, 0, 0]).expand(count, glyphs, 5)
    return torch.where(there[..., None], rows, none)


def _masks(classes: Tensor, covered: Tensor) -> Tensor:
    """The class of each pixel [N, H, W] behind the background, which is 0."""
    mask = torch.zeros(len(classes), *covered.shape[2:], dtype=torch.int64)
    for place in range(classes.shape[1]):
        mask = torch.where(covered[:, place], classes[:, place, None, None] + 1, mask)
    return mask
