"""Three examples with what the model gives for them, for a kit's self-test.

samples/N.png           a picture as the data set has it, where it has pictures; N.ppm for C++
samples/N.input.bin     else what the network reads, float32, little-endian
samples/N.outputK.bin   each output that the artefact gave in its runtime, likewise
"""

from pathlib import Path

from PIL import Image, ImageOps
from torch import Tensor

from slimwright.data import Dataset, Part, Preprocessing, StreamedData, count_of, opened, tensors_of
from slimwright.errors import DataError
from slimwright.measure import Bundle
from slimwright.targets import Effort, Local, measure

SAMPLES = 3
PART: Part = "calibration"  # the test part takes no part in anything but the proof


def write_samples(bundle: Bundle, data: Dataset, how: Preprocessing | None, folder: Path, suffix: str) -> bool:
    """Write the samples into `folder`; return whether they are pictures.

    Raises DataError for other data than the bundle was proven on, and ProofError where its model cannot be run.
    """
    card = bundle.manifest.data
    if list(data.image_shape) != card.image_shape or list(data.labels) != card.labels:
        raise DataError(f"the bundle was proven on '{card.name}' {card.image_shape}; '{data.name}' is other data")
    inputs, _ = next(data.batches(PART, min(SAMPLES, data.size(PART))))
    folder.mkdir()
    pictures = data.pictures(PART, SAMPLES) if isinstance(data, StreamedData) else []
    pictured = how is not None and len(pictures) == count_of(inputs)
    for number, image in enumerate(tensors_of(inputs)[0]):
        if pictured and how is not None:
            root, path = pictures[number]
            opened(root, path, upright if how.upright else as_stored).save(folder / f"{number}.{suffix}")
        else:
            _write(image, folder / f"{number}.input.bin")
    seen = measure(Local(), {"model": bundle.artefact("result")}, Effort(), inputs=tensors_of(inputs))["model"]
    assert seen.outputs is not None
    for place, output in enumerate(seen.outputs):
        for number, one in enumerate(output):
            _write(one, folder / f"{number}.output{place}.bin")
    return pictured


def as_stored(image: Image.Image) -> Image.Image:
    """Return a picture's colours, without transparency."""
    return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Return a picture's colours, turned as its metadata says: a file that is written here has none."""
    return ImageOps.exif_transpose(image).convert("RGB")


def _write(values: Tensor, path: Path) -> None:
    path.write_bytes(values.numpy().astype("<f4").tobytes())
