"""A data set in one safetensors file. Nothing in it can run code.

    images        [N, C, H, W]; for a net with several inputs `inputs.NAME` instead, each [N, ...], one at least images
    labels        [N], the number of each image's class; or [N, K], zeros and ones for K classes
    targets.NAME  in place of labels, for tasks that have others: each [N, ...]

Without labels and targets the images are unlabelled. Several inputs come in the order of their names, and so do
targets; a JSON list of the names in the metadata, under "inputs" or "targets", sets another. Class names may stand in
the metadata, too, as a JSON list under "labels".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from slimwright.data.batch import Inputs, Targets, tensors_of
from slimwright.data.dataset import ArrayData, split
from slimwright.errors import DataError
from slimwright.reading import is_text, parsed, stored_tensors

Tensors = Mapping[str, Tensor]
MOST_CLASSES = 100_000


def tensor_file(path: Path, seed: int = 0) -> ArrayData:
    """Return the data set in `path`; `seed` deals its images into the parts.

    Raises DataError, naming what is missing or does not fit.
    """
    tensors, metadata = _read(path)
    inputs, targets = _inputs(path, tensors, metadata), _targets(path, tensors, metadata)
    _check_rows(path, tensors)
    if targets is None:
        targets = torch.zeros(len(tensors_of(inputs)[0]), 0)
        names: tuple[str, ...] = ()
    else:
        names = _names(path, "labels", metadata["labels"]) if "labels" in metadata else _numbered(targets)
    return ArrayData(path.stem, names, split(inputs, targets, seed=seed), {"input": "as stored", "layout": "NCHW"})


def _read(path: Path) -> tuple[Tensors, Mapping[str, str]]:
    return stored_tensors(path, "a safetensors file", DataError)


def _inputs(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> Inputs:
    names = _called(path, "images", "inputs", tensors, metadata)
    if not names:
        raise DataError(
            f"{path} has no tensor named images; it needs images [N, C, H, W], or inputs.NAME for each of several"
        )
    found = [_as_read(tensors[name]) for name in names]
    if all(tensor.ndim != 4 for tensor in found):
        raise DataError(f"{path} holds {_said(tensors, names)}; images must be [N, C, H, W]")
    return found[0] if len(found) == 1 else tuple(found)


def _as_read(tensor: Tensor) -> Tensor:
    """Pixels and other numbers as float32; what counts or indexes stays int64."""
    return tensor if tensor.dtype == torch.int64 and tensor.ndim < 4 else tensor.float()


def _targets(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> Targets | None:
    names = _called(path, "labels", "targets", tensors, metadata)
    if names == ["labels"]:
        return _labels(path, tensors["labels"])
    if not names and (others := [name for name in tensors if name != "images" and not name.startswith("inputs.")]):
        raise DataError(
            f"{path} holds '{others[0]}', which is none of images, labels, inputs.NAME and targets.NAME; rename it, or "
            "remove it to have images without labels"
        )
    return tuple(tensors[name] for name in names) or None


def _labels(path: Path, labels: Tensor) -> Tensor:
    """Labels [N] int64, or [N, K] of zeros and ones."""
    whole = labels.long()
    if labels.ndim not in (1, 2) or not bool((whole == labels).all()):
        raise DataError(
            f"{path} holds labels {list(labels.shape)}; they must be whole numbers [N], or zeros and ones [N, K]"
        )
    if labels.ndim == 1 and labels.numel() and not 0 <= int(whole.min()) <= int(whole.max()) < MOST_CLASSES:
        raise DataError(
            f"{path} holds labels from {int(whole.min())} to {int(whole.max())}; they must count classes from 0, of "
            f"which there are at most {MOST_CLASSES:,}"
        )
    if labels.ndim == 2 and not bool(labels.any()):
        raise DataError(f"{path} holds labels {list(labels.shape)} that are all 0; a class must be marked by a 1")
    return whole


def _called(path: Path, alone: str, prefix: str, tensors: Tensors, metadata: Mapping[str, str]) -> list[str]:
    """The names of the tensors that are inputs, or targets, in their order."""
    several = sorted(name for name in tensors if name.startswith(f"{prefix}."))
    if alone in tensors and several:
        raise DataError(f"{path} holds both '{alone}' and '{several[0]}'; keep one of them")
    if alone in tensors or prefix not in metadata:
        return [alone] if alone in tensors else several
    listed = [f"{prefix}.{name}" for name in _names(path, prefix, metadata[prefix])]
    if sorted(listed) != several:
        raise DataError(
            f'{path} lists {", ".join(listed) or "nothing"} under "{prefix}" in its metadata, and holds '
            f"{', '.join(several) or 'none of them'}; list each tensor once"
        )
    return listed


def _check_rows(path: Path, tensors: Tensors) -> None:
    every = [name for name in tensors if name in ("images", "labels") or name.startswith(("inputs.", "targets."))]
    if len({tensors[name].shape[:1] for name in every}) > 1:
        raise DataError(
            f"{path} holds {_said(tensors, every)}; the first dimension of each must be N, the number of images"
        )
    if not all(tensors[name].shape[0] for name in every):
        raise DataError(f"{path} is empty: it holds no images")


def _said(tensors: Tensors, names: Sequence[str]) -> str:
    return " and ".join(f"{name} {list(tensors[name].shape)}" for name in names)


def _numbered(targets: Targets) -> tuple[str, ...]:
    """Numbers as the names of classes, where targets are labels."""
    if not isinstance(targets, Tensor):
        return ()
    return tuple(map(str, range(targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1)))


def _names(path: Path, what: str, text: str) -> tuple[str, ...]:
    try:
        found = parsed(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise DataError(f"{path} gives its {what} as {text[:40]!r} in the metadata; they must be a JSON list of texts")
    names = tuple(map(str, found))
    unfit = next((name for name in names if not is_text(name)), None)
    if unfit is not None:
        raise DataError(f"{path} gives {unfit[:40]!r} among its {what}, which cannot be written as text; rename it")
    return names
