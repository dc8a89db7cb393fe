"""A data set in one safetensors file: `images` [N, C, H, W] and `labels` [N]. Nothing in it can run code."""

import json
from pathlib import Path

import safetensors

from slimwright.data.dataset import ArrayData, split
from slimwright.errors import DataError


def tensor_file(path: Path, seed: int = 0) -> ArrayData:
    """Return the data set in `path`; class names may stand in its metadata, as JSON under "labels".

    Raises DataError, naming what is missing or does not fit.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            missing = {"images", "labels"} - set(file.keys())
            if missing:
                raise DataError(
                    f"{path} has no tensor named {' or '.join(sorted(missing))}; "
                    "it needs images [N, C, H, W] and labels [N]"
                )
            images, labels = file.get_tensor("images").float(), file.get_tensor("labels").long()
    except FileNotFoundError as error:
        raise DataError(f"there is no data set at {path}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} is not a safetensors file: {error}") from error
    if not labels.numel():
        raise DataError(f"{path} is empty: it holds no images")
    if labels.ndim != 1 or images.ndim != 4 or len(images) != len(labels):
        raise DataError(
            f"{path} holds images {list(images.shape)} and labels {list(labels.shape)}; "
            "they must be [N, C, H, W] and [N]"
        )
    names = _names(path, metadata["labels"]) if "labels" in metadata else tuple(map(str, range(int(labels.max()) + 1)))
    return ArrayData(path.stem, names, split(images, labels, seed=seed), {"input": "as stored", "layout": "NCHW"})


def _names(path: Path, text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise DataError(f"{path} gives its class names as {text[:40]!r}; they must be a JSON list of texts")
    return tuple(map(str, found))
