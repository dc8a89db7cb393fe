"""Find the model and the data that a command line names.

A model is a zoo name, a `.pt2`, `.onnx` or `.swz` file, a folder with a saved net or a bundle, or `module:callable`
that returns an `nn.Module`. Data is `digits`, `glyphs`, `scenes`, one of `STORED` with its folder, a `.safetensors`
file, or `module:callable` that returns a `Dataset`. Only `module:callable` runs code, and that code is the user's own;
files are read as data, and pickles are refused.
"""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from slimwright.cli.trained import Training, trained, untrained
from slimwright.data import (
    Dataset,
    Described,
    Preprocessing,
    StreamedData,
    cifar10,
    cifar100,
    coco,
    described,
    digits,
    glyphs,
    identities,
    image_folder,
    in_a_line,
    letterbox,
    mask_folder,
    mnist,
    pair_folder,
    point_file,
    prepared,
    readable,
    scenes,
    table_file,
    tensor_file,
    text_lines,
    tiny_imagenet,
    voc,
    yolo,
)
from slimwright.data.glyphs import parsed, parsed_scenes
from slimwright.errors import DataError, ModelError, RequestError
from slimwright.graph import load_net
from slimwright.importers import Sizes, fitting, read_pt2, weights_for
from slimwright.importers.archives import is_archive, opened
from slimwright.jobs.given import check_inputs, shapes_of
from slimwright.measure import Original, original_file, original_of
from slimwright.progress import Event, Tell, silent
from slimwright.reading import plain, stored_tensors
from slimwright.storage import SUFFIX, read_packed
from slimwright.tasks import Making, Task, as_task
from slimwright.zoo import ZOO, unknown

PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")
FILES = (".onnx", ".pt2", SUFFIX, *PICKLES)

PICTURED: dict[str, Callable[[Path, Preprocessing, int], StreamedData]] = {  # named as `folder:PATH@SIZE`
    "folder": image_folder,
    "identities": identities,
    "lines": text_lines,
    "masks": mask_folder,
    "pairs": pair_folder,
    "table": table_file,  # of a CSV file
    "points": point_file,  # of a JSON or CSV file
    "coco": coco,  # of a JSON file
    "yolo": yolo,
    "voc": voc,
}
PLAIN: Mapping[str, Callable[..., Preprocessing]] = {  # what is done where it is not what classifiers want
    "pairs": partial(Preprocessing, fit="cut", mean=(0.0,), std=(1.0,)),  # resizing would take noise and blur away
    "lines": in_a_line,
    **dict.fromkeys(("coco", "yolo", "voc"), letterbox),
}
STORED: dict[str, Callable[[Path, int], Dataset]] = {  # data sets that lie in a folder, named as `mnist:FOLDER`
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "tiny-imagenet": tiny_imagenet,
}


def load_data(
    spec: str, seed: int = 0, preprocessing: str | Described | None = None, *, tell: Tell = silent
) -> Dataset:
    """Return the data set that `spec` names; `seed` fixes its split.

    `preprocessing` is a text, or names a file, as `described` reads it. Raises DataError, saying what there is.
    """
    how = described(preprocessing) if isinstance(preprocessing, str) else preprocessing
    kind, colon, rest = spec.partition(":")
    if kind in PICTURED and colon:
        return _pictured(kind, rest, seed, how or Described(), tell)
    data = _named(spec, seed)
    return data if how is None else prepared(data, how)


def _named(spec: str, seed: int) -> Dataset:
    """The data set of a name, as it prepares itself."""
    kind, colon, rest = spec.partition(":")
    if kind == "glyphs":
        return glyphs(parsed(rest), seed)
    if kind == "scenes" and colon:
        return scenes(parsed_scenes(rest), seed)
    if kind in STORED:
        if not rest:
            raise DataError(f"{kind} is read from a folder; name it as {kind}:FOLDER")
        return STORED[kind](Path(rest), seed)
    if spec == "digits":
        return digits(seed)
    if spec.endswith(".safetensors"):
        return tensor_file(Path(spec), seed)
    if ":" in spec:
        return _callable_data(spec)
    raise DataError(
        f"there is no data set '{spec}'; use digits, glyphs, scenes:boxes, "
        f"{', '.join(f'{name}:FOLDER' for name in STORED)}, {', '.join(f'{name}:PATH@SIZE' for name in PICTURED)}, a "
        ".safetensors file, or module:callable that returns one"
    )


def _callable_data(spec: str) -> Dataset:
    data: Dataset = _called(spec, DataError)
    missing = [
        name
        for name in ("name", "labels", "image_shape", "preprocessing", "size", "batches")
        if not hasattr(data, name)
    ]
    if missing:
        raise DataError(f"what {spec} returned is not a data set: it has no {', '.join(missing)}")
    return data


def load_task(spec: str) -> Task | Making:
    """Return what `module:callable` returns: a task, or how one is made. Raises RequestError for anything else."""
    task: Task | Making = _called(spec, RequestError)
    return task if callable(task) else as_task(task, f"what {spec} returned")


def _pictured(kind: str, rest: str, seed: int, how: Described, tell: Tell) -> Dataset:
    usual = PLAIN.get(kind, Preprocessing)

    def made(path: Path, prepared: Preprocessing) -> Dataset:
        if kind == "folder":
            return image_folder(path, prepared, seed, tell)
        return readable(PICTURED[kind](path, prepared, seed), tell)

    path, at, size = rest.rpartition("@")
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", size, re.ASCII)
    if path and found:
        height = int(found[1])
        return made(Path(path), how.preprocessing((height, int(found[2] or height)), usual=usual))
    if how.size is None or not rest or (at and not Path(rest).exists()):
        raise DataError(
            f"'{kind}:{rest}' does not say how large its pictures shall be; write {kind}:PATH@64, say, or, height x "
            f"width, {kind}:PATH@48x192, or give a preprocessing with a size"
        )
    return made(Path(rest), how.preprocessing(usual=usual))


def load_original(
    spec: str,
    data: Dataset,
    *,
    weights: Path | None = None,
    training: Training | None = None,
    tell: Tell = silent,
) -> Original:
    """Return the model that `spec` names. A zoo network without `weights` is trained on `data`, as `training` says.

    Raises ModelError, naming the file and the way out, and RequestError where it cannot be trained there.
    """
    path = Path(spec)
    if spec in ZOO:
        if weights is None:
            return original_of(trained(spec, data, training or Training(), tell), shapes_of(data))
        return original_of(_weighted(untrained(spec, data), weights, tell), shapes_of(data))
    if ":" in spec and not path.exists():
        model = _called(spec, ModelError)
        if not isinstance(model, nn.Module):
            raise ModelError(f"{spec} returned {type(model).__name__}, not an nn.Module")
        return original_of(_weighted(model, weights, tell) if weights else model, shapes_of(data))
    if weights is not None:
        raise ModelError(f"--weights goes with a zoo name or module:callable; {spec} brings its own")
    original = read_original(path, shapes_of(data))
    check_inputs(original.net, data)
    return original


def read_original(path: Path, sizes: Sizes = ()) -> Original:
    """Return the model in a `.pt2`, `.onnx` or `.swz` file, a folder with a saved net, or a bundle.

    `sizes` are for inputs whose sizes a file leaves open (`read_onnx`). Raises ModelError for anything else.
    """
    if path.is_dir():
        inner = path / "net"
        return original_of(load_net(inner if (inner / "net.json").exists() else path), [])
    if not path.exists():
        named = len(path.parts) == 1 and path.suffix not in FILES  # perhaps one of the zoo
        also = f", and {unknown(str(path), ZOO)}" if named else "; check the path"
        raise ModelError(f"there is no model '{path}': no file and no folder of that name{also}")
    if _is_pickle(path):
        raise ModelError(
            f"{path} is a pickle, which can run code when it is opened. Save the model with torch.export.save as .pt2, "
            f"or give the callable that builds it, and its weights: module:callable --weights {path}"
        )
    if path.suffix == SUFFIX:
        return original_of(read_packed(path), [])
    if path.suffix == ".pt2":
        return original_of(read_pt2(path), [])
    if path.suffix == ".onnx":
        return original_file(path, sizes)
    raise ModelError(
        f"{path} is not a model that can be read; give a .pt2, .onnx or .swz file, a saved net, a bundle, a zoo name "
        "or module:callable"
    )


def _weighted(model: nn.Module, path: Path, tell: Tell = silent) -> nn.Module:
    """Load weights from a safetensors file, or from one of `torch.save`, of which nothing is run."""
    plain(path, "a file of weights", ModelError)
    try:
        if _is_pickle(path):
            found = weights_for(model, path)
        else:
            found = fitting(model, stored_tensors(path, "a safetensors file", ModelError)[0], path)
        model.load_state_dict(found.tensors, strict=False)
        tell(Event("load", 1, 1, found.said))
    except RuntimeError as error:
        detail = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise ModelError(f"the weights in {path} do not fit the model: {detail}") from error
    return model.eval()


def _called(spec: str, kind: type[RequestError]) -> Any:
    """Import `module` and call `callable` of `module:callable`; modules beside the working directory count.

    A network itself is returned as it is. `module` may be named as its file.
    """
    module_name, _, name = spec.partition(":")
    module_name = module_name.removesuffix(".py")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise kind(f"cannot find '{spec}': {error}") from error
    finally:
        sys.path.pop(0)
    if isinstance(found, nn.Module):
        return found
    try:
        return found()
    except Exception as error:  # the user's own code may raise anything
        raise kind(f"{spec}() failed: {type(error).__name__}: {error}") from error


def _is_pickle(path: Path) -> bool:
    with plain(path, "a model", ModelError).open("rb") as file:
        if file.read(1) == b"\x80":
            return True
    if path.suffix in PICKLES:
        return True
    if not is_archive(path):
        return False
    with opened(path, "a model in a zip archive") as archive:
        return any(name.endswith("data.pkl") and "/data/" not in name for name in archive.namelist())
