"""A split as a folder: both parts as ONNX files, the coder's tables, and what was measured.

    split.json           the manifest (records.py), with the SHA-256 of every other file
    split.md             its alternatives as a table
    phone.onnx           from an image to components in steps
    server.onnx          from rounded components to the net's outputs
    tables.safetensors   by value: indices of odds and scales

A bundle is untrusted input: its files must have the hashes that the manifest names, and its tables rows of the coder's.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slimwright.codec.split.features import Tables, check_tables
from slimwright.codec.split.records import Manifest
from slimwright.errors import BundleError
from slimwright.graph.net import Net
from slimwright.kept import write_safetensors
from slimwright.measure import artefact_of
from slimwright.reading import json_of, plain, reading, sha256_of, stored_tensors
from slimwright.runtimes import Artefact

MANIFEST, TABLE, TABLES = "split.json", "split.md", "tables.safetensors"
FILES = (MANIFEST, TABLE, "phone.onnx", "server.onnx", TABLES)
PARTS = ("phone", "server")
WHAT = "a bundle of a split"


@dataclass(frozen=True)
class Bundle:
    """A split that was read: its manifest, its parts and its tables."""

    path: Path
    manifest: Manifest
    phone: Artefact
    server: Artefact
    tables: tuple[Tables, ...]

    @property
    def split_id(self) -> bytes:
        """What messages name the split by."""
        return bytes.fromhex(self.manifest.split_id)

    @property
    def most_bytes(self) -> int:
        """The cap."""
        return self.manifest.most_bytes


def id_of(phone: Net, server: Net, tables: Sequence[Tables]) -> str:
    """Return the SHA-256 of a split: of all that both sides must agree on."""
    hasher = hashlib.sha256(f"{phone.digest} {server.digest}".encode())
    for one in tables:
        hasher.update(f"{one.odds.shape} {one.places}".encode() + one.odds.tobytes() + one.scales.tobytes())
    return hasher.hexdigest()


def write_tables(tables: Sequence[Tables], path: Path) -> None:
    """Write the coder's tables as a file."""
    named: dict[str, Tensor] = {}
    for number, one in enumerate(tables):
        named |= {f"odds.{number}": torch.from_numpy(one.odds), f"scales.{number}": torch.from_numpy(one.scales)}
        named[f"places.{number}"] = torch.tensor([one.places])
    write_safetensors(path, named)


def load_split(path: Path) -> Bundle:
    """Return the bundle in a folder. Raises BundleError where it is incomplete, was changed, or is none."""
    file = path / MANIFEST
    with reading(file, WHAT, BundleError):
        manifest = Manifest.model_validate(json_of(file, WHAT, BundleError))
        if missing := set(FILES) - {MANIFEST} - manifest.files.keys():
            raise BundleError(f"{file} names no SHA-256 of {min(missing)}; make the split again")
        for name in FILES[1:]:
            plain(path / name, WHAT, BundleError)
            if sha256_of(path / name) != manifest.files[name]:
                raise BundleError(f"{path / name} is missing or was changed since the split was made; make it again")
        phone, server = (_artefact(manifest.artefacts, part, path) for part in PARTS)
        tables = _tables(path / TABLES, [tuple(shape) for shape in server.shapes])
    return Bundle(path, manifest, phone, server, tables)


def _artefact(said: Mapping[str, Mapping[str, object]], part: str, path: Path) -> Artefact:
    found = artefact_of(said[part], path)
    if found.files != (path / f"{part}.onnx",) or found.runtime != "onnxruntime":
        raise BundleError(f"{path / MANIFEST} names other files for the {part}'s part than {part}.onnx")
    return found


def _tables(path: Path, shapes: Sequence[tuple[int, ...]]) -> tuple[Tables, ...]:
    """The tables of values whose components have these shapes [1, R, ...]."""
    tensors, _ = stored_tensors(path, "tables of a split", BundleError)
    found = []
    for number, shape in enumerate(shapes):
        odds, scales = (tensors[f"{name}.{number}"].to(torch.uint8).numpy() for name in ("odds", "scales"))
        table = Tables(odds, scales, int(np.prod(shape[2:])))
        if (
            table.odds.ndim != 2
            or table.components != shape[1]
            or tensors[f"places.{number}"].tolist() != [table.places]
        ):
            raise BundleError(f"{path} has tables for other values than the server's part takes; make the split again")
        found.append(table)
    check_tables(found)
    return tuple(found)
