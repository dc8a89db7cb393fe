"""The networks that a command line names, to be looked at: without data a network of the zoo is as in its paper."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from slimwright.cli.sources import load_original, read_original
from slimwright.cli.trained import Training
from slimwright.data import PARTS, ArrayData, Dataset
from slimwright.errors import DataError, ModelError, RequestError
from slimwright.graph import Net, load_net
from slimwright.jobs.given import check_inputs, shapes_of
from slimwright.jobs.inspect import Subject
from slimwright.measure import MANIFEST, NET, Original, load_bundle, original_of
from slimwright.progress import Event, Tell, silent
from slimwright.zoo import ZOO, build, network

Shape = tuple[int, int, int]


def image_shape(text: str) -> Shape:
    """Return [C, H, W] of a text such as "3x224x224". Raises RequestError for anything else."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text.strip().lower())
    if found is None:
        raise RequestError(f"'{text}' is not an image's size; give channels x height x width, such as 3x224x224")
    channels, height, width = (int(number) for number in found.groups())
    return channels, height, width


def input_sizes(texts: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
    """Return the sizes [1, ...] of inputs by their names, of texts such as "x=1x3x48x192". Raises RequestError."""
    sizes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, shape = text.rpartition("=")
        if not name or re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape.strip().lower()) is None:
            raise RequestError(f"'{text}' is not an input and its size; give its name and numbers, as in x=1x3x48x192")
        sizes[name] = tuple(map(int, shape.strip().lower().split("x")))
    return sizes


def subjects(
    models: Sequence[str],
    *,
    data: Dataset | None = None,
    image: str | None = None,
    sizes: Sequence[str] | None = None,
    weights: Path | None = None,
    tell: Tell = silent,
) -> list[Subject]:
    """Return what each of `models` names, for images of `data`, else of `image`, else as it was made.

    `image` and `sizes` are texts as the command line has them. Sizes are for inputs of `.onnx` files; without, images
    say how large an input is that a file leaves open. Networks of the zoo are not trained: counts do not depend on the
    weights. Raises RequestError, saying what is wrong.
    """
    if weights and len(models) > 1:
        raise RequestError("--weights goes with one model; to compare several, save each with its weights first")
    shape, fixed = image_shape(image) if image else None, input_sizes(sizes or ())
    if data and shape and tuple(data.image_shape) != shape:
        raise DataError(f"--image is {_times(shape)}, but the images of '{data.name}' are {_times(data.image_shape)}")
    found = []
    for number, model in enumerate(models):
        tell(Event("load", number, len(models), model))
        found.append(_subject(model, data, shape, weights, fixed))
    tell(Event("load", len(models), len(models)))
    return found


def named_original(
    spec: str,
    data: Dataset | None,
    *,
    image: str | None = None,
    sizes: Sequence[str] | None = None,
    weights: Path | None = None,
    training: Training,
    tell: Tell = silent,
) -> Original:
    """Return the model that `spec` names: for `data`, where there is some (`load_original`), else as `subjects` do."""
    if data is not None:
        return load_original(spec, data, weights=weights, training=training, tell=tell)
    (subject,) = subjects([spec], image=image, sizes=sizes, weights=weights)
    return subject.original


def _subject(
    spec: str, data: Dataset | None, image: Shape | None, weights: Path | None, sizes: Mapping[str, Sequence[int]]
) -> Subject:
    shape = data.image_shape if data else image
    if spec in ZOO:
        shape = shape or network(spec).image_shape
        classes = len(data.labels) if data and data.labels else network(spec).classes
        if weights is None:
            return Subject(
                spec, original_of(build(spec, classes=classes, in_channels=shape[0]), [shape]), trained=False
            )
        return Subject(spec, load_original(spec, _blank(shape, classes), weights=weights))
    if ":" in spec and not Path(spec).exists():
        if shape is None:
            raise RequestError(
                f"how large are the images that {spec} takes? Give --image, such as 3x224x224, or --data"
            )
        return Subject(spec, _fitting(load_original(spec, data or _blank(shape, 1), weights=weights), data))
    if weights:
        raise ModelError(f"--weights goes with a zoo name or module:callable; {spec} brings its own")
    bundle = load_bundle(Path(spec)) if (Path(spec) / MANIFEST).exists() else None
    artefact = bundle.artefact("result") if bundle else None
    if bundle:
        original = original_of(load_net(bundle.path / NET), [])
    else:
        original = read_original(Path(spec), sizes or (shapes_of(data) if data else [image] if image else ()))
    if image and [node.shape[1:] for node in original.net.inputs] != [image]:
        original, artefact = _resized(original.net, spec, image), None
    return Subject(spec, _fitting(original, data), artefact=artefact)


def _fitting(original: Original, data: Dataset | None) -> Original:
    """Return the original; raise DataError unless it takes the images of `data`."""
    if data is not None:
        check_inputs(original.net, data)
    return original


def _resized(net: Net, spec: str, image: Shape) -> Original:
    """Return the net for images of another size. Raises ModelError where it is made for its own."""
    takes = " and ".join(_times(node.shape[1:]) for node in net.inputs)
    if len(net.inputs) > 1:
        raise ModelError(f"{spec} has {len(net.inputs)} inputs, of {takes}; --image is for networks with one")
    try:
        resized = net.edited({net.input.name: replace(net.input, shape=(1, *image))})
    except ModelError as error:
        raise ModelError(f"{spec} takes images of {takes}, not of {_times(image)}: {error}") from error
    if any(len(net[name].shape) == 2 and resized[name].shape != net[name].shape for name in net.outputs):
        raise ModelError(f"{spec} takes images of {takes}; its views do not fit {_times(image)}")
    return original_of(resized, [])


def _blank(shape: Shape, classes: int) -> ArrayData:
    """Data that says how large images are and how many classes there are, and nothing else."""
    nothing = torch.zeros(1, *shape), torch.zeros(1, dtype=torch.int64)
    return ArrayData("blank", tuple(map(str, range(classes))), dict.fromkeys(PARTS, nothing))


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
