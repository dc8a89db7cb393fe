"""What slimwright keeps for itself, so that nothing is computed twice: files with a key and a checksum.

A file that is missing, cut short, changed by a disk or a hand, of other work or of another version counts as none: what
it held is computed again and written anew. A number in a cache is never believed on its own word.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from slimwright.atomic import replacing, swept, write_text
from slimwright.errors import RequestError, SlimwrightError
from slimwright.reading import stored_tensors, text_of

VERSION = 1  # of what the checksums are of
SUM = "checksum"
KEPT_BYTES = 2**28  # of a JSON file
Notes = Mapping[str, str]


@contextmanager
def keeping(cache: Path | None) -> Iterator[Path]:
    """Yield the folder for what is not to be computed again; one that goes with the job where nothing shall be kept.

    What killed processes were writing into it is removed.
    """
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        swept(cache)
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="slimwright-") as folder:
        yield Path(folder)


def kept_at(folder: Path, kind: str, said: str) -> Path:
    """Return where a folder keeps tensors of some kind: under a name that all that made them, `said`, gives."""
    return folder / f"{kind}-{hashlib.sha256(said.encode()).hexdigest()[:24]}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Notes | None = None) -> None:
    """Write tensors and texts as one safetensors file with a checksum, replaced at once."""
    told = dict(notes or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, tensors, {**told, SUM: _sum_of(tensors, told)})


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], notes: Notes | None = None) -> None:
    """Write tensors, which may share memory, as a safetensors file, replaced at once."""
    with replacing(path) as temporary:
        try:
            safetensors.torch.save_file(_apart(tensors), temporary, dict(notes) if notes else None)
        except safetensors.SafetensorError as error:  # which says in its text what the system said
            raise OSError(str(error)) from error


def read_tensors(path: Path, what: str, wrong: type[SlimwrightError]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what `write_tensors` wrote. Raises `wrong` where the file is not that, to the bit."""
    tensors, found = stored_tensors(path, what, wrong)
    notes = dict(found)
    if notes.pop(SUM, None) != _sum_of(tensors, notes):
        raise wrong(f"{path} is not {what}, or was changed since it was written: its checksum is another")
    return tensors, notes


def kept_tensors(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return the tensors and notes in a file that bears this `key`; None where it is not whole, or of other work."""
    try:
        tensors, notes = read_tensors(path, "kept", RequestError)
    except RequestError:
        return None
    return (tensors, notes) if notes.get("key") == key else None


def as_line(value: Any) -> str:
    """Return a value as a line of JSON with its checksum. Raises ValueError for NaN and infinite numbers."""
    return json.dumps({"value": value, SUM: _sum_of_json(value)}, allow_nan=False)


def from_line(line: str | bytes) -> Any:
    """Return the value of such a line. Raises ValueError where it is not that, to the bit."""
    try:
        found = json.loads(line)
        value, said = found["value"], found[SUM]
    except (KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError("this is no line with a checksum") from error
    if said != _sum_of_json(value):
        raise ValueError("the line was changed since it was written")
    return value


def keep_json(path: Path, value: Any) -> None:
    """Write a value as a file with a checksum, replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_line(value) + "\n")


def kept_json(path: Path) -> Any:
    """Return the value in a file of `keep_json`; None where it is missing or not whole."""
    try:
        return from_line(text_of(path, "kept", most=KEPT_BYTES))
    except (RequestError, ValueError):
        return None


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, copied only where they share their memory with others or are a part of it."""
    seen, held = set(), {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        storage = flat.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != flat.nbytes:
            flat = flat.clone()
        seen.add(storage.data_ptr())
        held[name] = flat
    return held


def _sum_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps([VERSION, value], sort_keys=True).encode()).hexdigest()[:32]


def _sum_of(tensors: Mapping[str, Tensor], notes: Notes) -> str:
    """A hash over names, kinds, shapes, bytes and notes."""
    hashed = hashlib.sha256(json.dumps([VERSION, sorted(notes.items())]).encode())
    for name, tensor in sorted(tensors.items()):
        hashed.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()
