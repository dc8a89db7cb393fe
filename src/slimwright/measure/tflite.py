"""What is said of a model, in its `.tflite` file: entries of the format's own table of metadata, each a name and bytes.

The file is read and written by LiteRT's own schema (`schema.fbs`, tables Model, Metadata and Buffer). Nothing else in
it changes, and weights stay at multiples of 16 bytes, as the schema asks (`force_align`), which the Python code that is
generated from it does not see to.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimwright.atomic import replacing

IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # of a buffer's bytes


def held_in(path: Path) -> dict[str, bytes]:
    """Return the metadata of a `.tflite` file by name."""
    model = _read(path)
    return {_name(entry): _bytes(model.buffers[entry.buffer]) for entry in model.metadata or ()}


def put_into(path: Path, said: Mapping[str, str]) -> None:
    """Write texts into a file's metadata by name, in place of those that it has; one that has them all stays as it is.

    A file that holds its weights behind the model, which only those beyond 2 GB do, stays as it is, too.
    """
    model = _read(path)
    texts = {name: text.encode() for name, text in said.items()}
    held = {_name(entry): model.buffers[entry.buffer] for entry in model.metadata or ()}
    as_before = all(name in held and _bytes(held[name]) == text for name, text in texts.items())
    if as_before or any(buffer.offset > 1 for buffer in model.buffers):
        return
    for name, text in texts.items():
        if name in held:
            held[name].data = np.frombuffer(text, np.uint8)
        else:
            model.metadata = [*(model.metadata or ()), schema.MetadataT(name, len(model.buffers))]
            model.buffers.append(schema.BufferT(np.frombuffer(text, np.uint8)))
    builder = _Aligned(0)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    with replacing(path) as new:
        new.write_bytes(builder.Output())


class _Aligned(flatbuffers.Builder):  # type: ignore[misc]
    """Puts bytes where the schema wants them."""

    def CreateNumpyVector(self, x: Any) -> Any:  # noqa: N802 - the library's name
        """Write an array."""
        if x.dtype == np.uint8:
            self.Prep(ALIGNMENT, x.size)
        return super().CreateNumpyVector(x)


def _read(path: Path) -> Any:
    return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)


def _name(entry: Any) -> str:
    name: bytes = entry.name or b""
    return name.decode()


def _bytes(buffer: Any) -> bytes:
    return b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()
