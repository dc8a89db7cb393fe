"""ONNX tensors as torch tensors: every size checked against the bytes that are there.

Source: the messages TensorProto and StringStringEntryProto of the ONNX specification (onnx.proto), and its rules for
external data (location, offset, length).
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp

FLOAT = 1
DTYPES = {
    FLOAT: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
FIELDS = {torch.float32: "float_data", torch.float64: "double_data", torch.int64: "int64_data"}  # else int32_data
PACKED = (*range(17, 27),)  # numbers of 4 and 2 bits, and floats of 8: what quantizers store weights in
HALVES = (torch.float16, torch.bfloat16)  # int32_data holds their bits
EXTERNAL = 1  # TensorProto.DataLocation


def tensor_of(found: Any, where: str, folder: Path) -> Tensor:
    """Return a `TensorProto` as a tensor; `folder` is where external data may lie.

    Raises ModelError where its size does not fit its bytes, and UnsupportedOp for a kind of number torch lacks.
    """
    dtype = DTYPES.get(found.data_type)
    if found.data_type in PACKED:
        raise UnsupportedOp(
            f"{where} holds weights of 2, 4 or 8 bits as data type {found.data_type}, which are not read; give the "
            "float model that it was made from"
        )
    if dtype is None:
        raise UnsupportedOp(f"{where} is of data type {found.data_type}, which is not supported; convert it to float32")
    shape = tuple(int(d) for d in found.dims)
    if min(shape, default=0) < 0:
        raise ModelError(f"{where} has dims {list(shape)}; a size cannot be negative")
    count = math.prod(shape)
    if found.data_location == EXTERNAL:
        raw = _external(found, where, folder, count * dtype.itemsize)
    elif found.HasField("raw_data"):
        raw = bytearray(found.raw_data)
    else:
        return _typed(found, dtype, where, count).reshape(shape)
    if len(raw) != count * dtype.itemsize:
        raise ModelError(
            f"{where} has dims {list(shape)}, which is {count * dtype.itemsize} bytes, but holds {len(raw)}; the file "
            "is damaged"
        )
    flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.zeros(0, dtype=dtype)
    return flat.reshape(shape)


def external_bytes(found: Any, where: str, folder: Path) -> bytes:
    """Return the bytes of a `TensorProto` that lie in a file of their own, as `tensor_of` reads them."""
    return bytes(tensor_of(found, where, folder).contiguous().reshape(-1).view(torch.uint8).numpy())


def _typed(found: Any, dtype: torch.dtype, where: str, count: int) -> Tensor:
    field = FIELDS.get(dtype, "int32_data")
    values = getattr(found, field)
    if len(values) != count:
        raise ModelError(f"{where} has dims {list(found.dims)}, but {len(values)} numbers in {field}; it is damaged")
    if field != "int32_data":
        return torch.tensor(list(values), dtype=dtype)
    numbers = torch.tensor(list(values), dtype=torch.int32)
    if dtype in HALVES:
        return numbers.to(torch.int16).view(dtype)
    if not torch.equal(numbers.to(dtype).to(torch.int32), numbers):
        raise ModelError(f"{where} holds numbers that no {str(dtype).removeprefix('torch.')} has; it is damaged")
    return numbers.to(dtype)


def _external(found: Any, where: str, folder: Path, size: int) -> bytearray:
    """The bytes of a tensor that lie in a file of their own, which must be inside the model's folder."""
    said = {str(entry.key): str(entry.value) for entry in found.external_data}
    home = folder.resolve()
    try:
        path = (home / said["location"]).resolve()
        offset, length = int(said.get("offset", 0)), int(said.get("length", size))
        inside = path.is_relative_to(home) and path.is_file()
        held = path.stat().st_size if inside else 0
    except (KeyError, ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"{where} says {said} of where its bytes lie, which is no place: {error!r}") from error
    if not inside:
        raise ModelError(
            f"{where} lies in '{said['location']}', which is no file inside the model's folder; put it beside the model"
        )
    if offset < 0 or length != size or offset + length > held:
        raise ModelError(
            f"{where} needs {size} bytes, but says {length} bytes from {offset} of '{said['location']}', which holds "
            f"{held}; the files do not belong together, or one is cut short"
        )
    data = bytearray(size)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            if file.readinto(data) != size:
                raise ModelError(f"'{said['location']}' became shorter while {where} was read")
    except OSError as error:
        raise ModelError(f"'{said['location']}' cannot be read: {error.strerror or error}") from error
    return data
