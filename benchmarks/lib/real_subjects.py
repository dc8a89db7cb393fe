"""What `real_models.py` shrinks: a file, the sizes of its inputs, data without labels for the job, and a metric."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from lib.own_nets import OWN, judged_by_task
from lib.packaged import face_net, face_pictures, ocr_file, photograph
from lib.rendered_text import Scene, line, padded, scene
from slimwright.data import PARTS, ArrayData, Batch, Dataset, Part, Targets
from slimwright.tasks import Making, Metric, Outputs, scored

SEED = 0
THRESHOLD, LEAST_AREA, OVERLAP = 0.3, 12, 0.5  # of the text detector's map; pixels; intersection over union
UNCLIPPED = 1.6  # the detector draws its boxes smaller than the text, and RapidOCR widens them by so much
Boxes = NDArray[np.float64]  # [M, 4]: x1, y1, x2, y2


@dataclass(frozen=True)
class Subject:
    """A net in a file, and how to judge it. `sizes` are those of inputs that the file leaves open."""

    name: str
    file: Callable[[Path], Path]
    data: Callable[[Path], Dataset]
    task: Callable[[Path], Making]
    sizes: Mapping[str, Sequence[int]]


def judged(name: str, measure: Callable[[Outputs, Targets], float], metric: Metric) -> Callable[[Path], Making]:
    """Return how the task is made, whatever the folder is."""
    return lambda _: scored(name, measure, metric)


# ---- text ----------------------------------------------------------------------------------------------------------


def lines_either_way(_: Path) -> ArrayData:
    """Lines of text [3, 48, 192], half of them upside down: labels 0 and 1."""

    def drawn(rng: np.random.Generator, count: int) -> Batch:
        images, turned = [], rng.integers(0, 2, count)
        for upside_down in turned:
            pixels = line(rng, height=48, most_width=192)[0]
            images.append(padded(pixels[::-1, ::-1] if upside_down else pixels, 192))
        return torch.from_numpy(np.stack(images)), torch.from_numpy(turned)

    return _dealt("lines", drawn, {"train": 8192, "calibration": 1024, "validation": 1024, "test": 1024}, ("0", "180"))


def read_lines(_: Path) -> ArrayData:
    """Lines of text [3, 48, 320]; targets are the letters' code points [N, 12], and 0 behind them."""

    def drawn(rng: np.random.Generator, count: int) -> Batch:
        found = [line(rng, height=48, most_width=320, letters=12) for _ in range(count)]
        codes = [np.pad(np.array([ord(c) for c in text], np.int64), (0, 12 - len(text))) for _, text in found]
        images = np.stack([padded(pixels, 320) for pixels, _ in found])
        return torch.from_numpy(images), (torch.from_numpy(np.stack(codes)),)

    return _dealt("read-lines", drawn, {"train": 1536, "calibration": 256, "validation": 256, "test": 384})


def text_scenes(_: Path) -> ArrayData:
    """Scenes [3, 320, 320] of lines of text; targets are the boxes [N, 6, 4], and -1 behind them."""

    def drawn(rng: np.random.Generator, count: int) -> Batch:
        found = [scene(rng, 320) for _ in range(count)]
        images = np.stack([padded(one.pixels, 320) for one in found])
        return torch.from_numpy(images), (torch.from_numpy(np.stack([_box_rows(one) for one in found])),)

    return _dealt("text-scenes", drawn, {"train": 512, "calibration": 96, "validation": 96, "test": 192})


def _box_rows(one: Scene) -> NDArray[np.float32]:
    rows = np.full((6, 4), -1, np.float32)
    rows[: len(one.boxes)] = np.array(one.boxes, np.float32)
    return rows


def named_right(outputs: Outputs, targets: Targets) -> float:
    """Share of images whose class is named, in percent."""
    assert isinstance(targets, Tensor)
    return 100 * float((outputs[0].argmax(1) == targets).double().mean())


def read_right(characters: Sequence[str]) -> Callable[[Outputs, Targets], float]:
    """Return the measure of how many lines are read right, in percent; the first class is the blank."""

    def measure(outputs: Outputs, targets: Targets) -> float:
        (codes,) = (targets,) if isinstance(targets, Tensor) else targets
        right = 0
        for best, wanted in zip(outputs[0].argmax(2).tolist(), codes.tolist(), strict=True):
            kept = [c for place, c in enumerate(best) if c and (place == 0 or best[place - 1] != c)]
            text = "".join(characters[c - 1] for c in kept if c <= len(characters))
            right += text.strip() == "".join(chr(code) for code in wanted if code)
        return 100 * right / len(codes)

    return measure


def characters_of(path: Path) -> list[str]:
    """Return what each class but the first stands for: the file's metadata has a line for each; the last is a space."""
    found = {prop.key: prop.value for prop in onnx.load(str(path)).metadata_props}
    return [*found["character"].splitlines(), " "]


def boxes_found(outputs: Outputs, targets: Targets) -> float:
    """F-measure of boxes around the parts of the map above the threshold, in percent, at the usual overlap."""
    (wanted,) = (targets,) if isinstance(targets, Tensor) else targets
    hits = made = there = 0
    for found, truth in zip(outputs[0][:, 0].numpy(), wanted.numpy(), strict=True):
        boxes, real = _boxes(found), truth[truth[:, 0] >= 0]
        made, there = made + len(boxes), there + len(real)
        overlaps = np.array([[_overlap(box, its) for its in real] for box in boxes]).reshape(len(boxes), len(real))
        while overlaps.size and overlaps.max() >= OVERLAP:
            row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
            overlaps[row], overlaps[:, column], hits = 0, 0, hits + 1
    return 200 * hits / max(made + there, 1)


def _boxes(found: NDArray[np.float32]) -> list[Boxes]:
    """Boxes of connected parts of a map, widened as RapidOCR does."""
    marked, _ = ndimage.label(found > THRESHOLD)
    boxes = []
    for rows, columns in ndimage.find_objects(marked):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if height * width >= LEAST_AREA:
            wider = UNCLIPPED * height * width / (2 * (height + width))
            corners = [columns.start - wider, rows.start - wider, columns.stop + wider, rows.stop + wider]
            boxes.append(np.array(corners))
    return boxes


def _overlap(one: Boxes, other: Boxes) -> float:
    corner, far = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = float(np.prod(np.clip(far - corner, 0, None)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    return both / max(sum(areas) - both, 1e-9)


# ---- faces ---------------------------------------------------------------------------------------------------------


def faces(size: int) -> Callable[[Path], ArrayData]:
    """Return how patches [3, size, size] are made: faces, and what is none; labels 0 and 1.

    Each face is in one part only. Patches without a face are LFW's and pieces of photographs.
    """

    def made(home: Path) -> ArrayData:
        levels = (255 * face_pictures(home)).astype(np.uint8)
        photographs = [
            np.asarray(Image.open(photograph(home, name)).convert("L"))
            for name in ("coffee.png", "chelsea.png", "gravel.png", "text.png", "motorcycle_left.png", "rocket.jpg")
        ]
        members = np.random.default_rng(SEED).permutation(100)
        ends = {"train": (0, 40), "calibration": (40, 60), "validation": (60, 75), "test": (75, 100)}
        sizes = {"train": 4096, "calibration": 1024, "validation": 1024, "test": 1024}
        parts: dict[Part, Batch] = {}
        for number, part in enumerate(PARTS):
            rng, chosen = np.random.default_rng((SEED, number)), members[slice(*ends[part])]
            labels = rng.integers(0, 2, sizes[part])
            pixels = [_patch(rng, bool(label), levels, chosen, photographs) for label in labels]
            parts[part] = torch.stack([_face_input(image, size) for image in pixels]), torch.from_numpy(labels)
        return ArrayData(f"faces-{size}", ("other", "face"), parts)

    return made


def _patch(
    rng: np.random.Generator,
    face: bool,
    levels: NDArray[np.uint8],
    members: NDArray[np.int64],
    photographs: Sequence[NDArray[np.uint8]],
) -> Image.Image:
    """One of the part's faces, or one of as many patches without, or a piece of a photograph."""
    if face or rng.random() < 0.3:
        return _varied(rng, Image.fromarray(levels[rng.choice(members) + 100 * (not face)]))
    return _piece(rng, photographs)


def _varied(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """A patch moved, turned and lit a little differently."""
    turned = image.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR, translate=tuple(rng.integers(-2, 3, 2)))
    turned = turned.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else turned
    levels = np.asarray(turned, np.float64) * rng.uniform(0.6, 1.2) + rng.normal(0, 5, (25, 25))
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def _piece(rng: np.random.Generator, photographs: Sequence[NDArray[np.uint8]]) -> Image.Image:
    photo = photographs[int(rng.integers(len(photographs)))]
    side = int(rng.integers(25, 80))
    top, left = (int(rng.integers(0, extent - side)) for extent in photo.shape)
    return Image.fromarray(photo[top : top + side, left : left + side])


def _face_input(image: Image.Image, size: int) -> Tensor:
    levels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    return torch.from_numpy((levels - 127.5) / 128).expand(3, size, size)


def faces_told(outputs: Outputs, targets: Targets) -> float:
    """Share of patches of which the net says rightly whether they show a face, in percent."""
    assert isinstance(targets, Tensor)
    return 100 * float(((outputs[-1].reshape(len(targets), 2)[:, 1] > 0.5) == targets.bool()).double().mean())


def face_file(name: str, size: int) -> Callable[[Path], Path]:
    """Return how a face net's `.onnx` file is found, made once by torch's exporter."""
    return lambda home: exported(home / f"{name}.onnx", lambda: face_net(home, name), [(3, size, size)])


def own(name: str) -> Subject:
    """Return one of the nets that are trained here, which is trained and exported once."""
    made = OWN[name]
    file = f"{name.replace(' ', '-')}.onnx"
    return Subject(
        f"{name} (ours)", lambda home: exported(home / file, made.trained, made.shapes), lambda _: made.data(),
        lambda _: judged_by_task, {},
    )  # fmt: skip


def exported(path: Path, make: Callable[[], torch.nn.Module], shapes: Sequence[Sequence[int]]) -> Path:
    """Return an `.onnx` file that torch's exporter writes once, with a free batch."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        inputs = tuple(torch.randn(2, *shape) for shape in shapes)
        batch = torch.export.Dim("batch")
        program = torch.onnx.export(
            make().eval(), inputs, dynamo=True, dynamic_shapes=tuple({0: batch} for _ in inputs), verbose=False
        )
        assert program is not None
        program.save(str(path))
    return path


def _dealt(
    name: str,
    drawn: Callable[[np.random.Generator, int], Batch],
    sizes: Mapping[Part, int],
    labels: tuple[str, ...] = (),
) -> ArrayData:
    parts = {part: drawn(np.random.default_rng((SEED, number)), sizes[part]) for number, part in enumerate(PARTS)}
    return ArrayData(name, labels, parts)


ACCURACY = Metric("accuracy")
SUBJECTS = (
    Subject(
        "text direction (PaddleOCR)", lambda home: ocr_file(home, "direction"), lines_either_way,
        judged("direction", named_right, ACCURACY), {"x": (1, 3, 48, 192)},
    ),
    Subject(
        "text detector (PaddleOCR)", lambda home: ocr_file(home, "detector"), text_scenes,
        judged("text boxes", boxes_found, Metric("F-measure")), {"x": (1, 3, 320, 320)},
    ),
    Subject(
        "text recogniser (PaddleOCR)", lambda home: ocr_file(home, "recogniser"), read_lines,
        lambda home: scored("text", read_right(characters_of(ocr_file(home, "recogniser"))), Metric("exact match")),
        {"x": (1, 3, 48, 320)},
    ),
    *(
        Subject(
            f"{name} (MTCNN)", face_file(name.lower().replace("-", ""), size), faces(size),
            judged("faces", faces_told, ACCURACY), {},
        )
        for name, size in (("P-Net", 12), ("R-Net", 24), ("O-Net", 48))
    ),
    *(own(name) for name in OWN),
)  # fmt: skip
