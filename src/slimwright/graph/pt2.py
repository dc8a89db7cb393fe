"""Read a `.pt2` exported program without unpickling anything.

`torch.export.load` unpickles the example inputs and evaluates symbolic expressions, so a foreign file could run
code. The archive's graph is JSON and its weights are raw bytes; this module reads just those, with every offset
checked against the bytes that are there.
Source: the archive that `torch.export.save` of torch 2.13 writes (schema version 8).
"""

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph.capture import Call, Program, bound, net_of_program
from slimwright.graph.net import Net, Ref, Value

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
}
MOST_JSON_BYTES = 256 * 2**20  # a graph of a million nodes is smaller


def read_pt2(path: Path) -> Net:
    """Return the net in a `.pt2` file. Raises ModelError where the file is not one, or holds pickled weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ModelError(f"{path} is compressed; torch.export.save writes its files uncompressed")
            graph_name = _only(path, [n for n in names if "/models/" in n and n.endswith(".json")], "graph")
            root, _, model = graph_name.partition("/models/")
            model = model.removesuffix(".json")
            program = _json(archive, graph_name)
            tensors = _payloads(archive, f"{root}/data/weights/", f"{model}_weights_config.json")
            tensors |= _payloads(archive, f"{root}/data/constants/", f"{model}_constants_config.json")
            return net_of_program(_program(program, tensors))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise ModelError(f"{path} is not a .pt2 file, or is cut short: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise ModelError(f"{path} is not a .pt2 file that torch.export.save of torch 2.13 writes: {error!r}") from error


def _only(path: Path, names: list[str], what: str) -> str:
    if len(names) != 1:
        raise ModelError(
            f"{path} holds {len(names)} exported {what}s; slimwright needs a file from torch.export.save with one"
        )
    return names[0]


def _json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > MOST_JSON_BYTES:
        raise ModelError(f"{name} is larger than {MOST_JSON_BYTES} bytes; this is no graph")
    found = json.loads(archive.read(name))
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a JSON object")
    return found


def _payloads(archive: zipfile.ZipFile, folder: str, config_name: str) -> dict[str, Tensor]:
    tensors = {}
    for name, payload in _json(archive, folder + config_name)["config"].items():
        if payload["use_pickle"] or payload["tensor_meta"] is None:
            raise ModelError(
                f"'{name}' is stored as a pickle, which could run code; make it contiguous and save the program again"
            )
        meta = payload["tensor_meta"]
        dtype = DTYPES.get(meta["dtype"])
        if dtype is None:
            raise ModelError(f"'{name}' has the unknown dtype code {meta['dtype']}")
        raw = bytearray(archive.read(folder + payload["path_name"]))
        tensors[name] = _strided(name, raw, dtype, meta)
    return tensors


def _strided(name: str, raw: bytearray, dtype: torch.dtype, meta: Mapping[str, Any]) -> Tensor:
    size, stride = [_int(s) for s in meta["sizes"]], [_int(s) for s in meta["strides"]]
    offset = _int(meta["storage_offset"])
    if len(size) != len(stride) or min([offset, *size, *stride]) < 0:
        raise ModelError(f"'{name}' has sizes {size}, strides {stride} and offset {offset}, which is no tensor")
    if math.prod(size) == 0:
        return torch.zeros(size, dtype=dtype)
    flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.zeros(0, dtype=dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= flat.numel() or math.prod(size) > flat.numel():
        raise ModelError(f"'{name}' of shape {size} reaches beyond its {len(raw)} bytes; the file is damaged")
    return flat.as_strided(size, stride, offset).clone()


def _program(found: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Program:
    graph, signature = found["graph_module"]["graph"], found["graph_module"]["signature"]
    owner: dict[str, str] = {}
    inputs = []
    for spec in signature["input_specs"]:
        ((kind, entry),) = spec.items()
        if kind == "user_input":
            inputs.append(entry["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            owner[entry["arg"]["name"]] = entry[f"{kind}_name"]
        else:
            raise UnsupportedOp(f"an exported program with a {kind} input is not supported yet")
    if len(inputs) != 1:
        raise ModelError(f"the model takes {len(inputs)} inputs; slimwright needs exactly one, a batch of images")
    meta = graph["tensor_values"][inputs[0]]
    shape = (1, *(_int(size) for size in meta["sizes"][1:]))
    outputs = tuple(entry["as_tensor"]["name"] for entry in graph["outputs"])
    calls = [_call(node) for node in graph["nodes"]]
    dtype = str(DTYPES[meta["dtype"]]).removeprefix("torch.")
    return Program(inputs[0], shape, dtype, calls, tensors, owner, outputs)


def _call(node: Mapping[str, Any]) -> Call:
    target = str(node["target"])
    if len(node["outputs"]) != 1:
        raise UnsupportedOp(f"operator {target} with {len(node['outputs'])} results is not supported yet")
    ((_, result),) = node["outputs"][0].items()
    name = result["name"] if "name" in result else result["as_name"]
    if not str(name).isidentifier():
        raise ValueError(f"'{name}' is no name for a value")
    if not target.startswith("torch.ops.aten."):
        raise UnsupportedOp(f"operator {target} (node '{name}') is not supported yet")
    overload = target.removeprefix("torch.ops.aten.")
    by_name = {entry["name"]: _argument(entry["arg"]) for entry in node["inputs"]}
    try:
        return Call(name, overload, bound(overload, (), by_name))
    except AttributeError as error:
        raise UnsupportedOp(f"operator {target} (node '{name}') does not exist in torch {torch.__version__}") from error


def _argument(arg: Mapping[str, Any]) -> Value:
    ((kind, value),) = arg.items()
    match kind:
        case "as_none":
            return None
        case "as_tensor":
            return Ref(value["name"])
        case "as_sym_int":
            return Ref(value["as_name"]) if "as_name" in value else int(value["as_int"])
        case "as_tensors":
            return tuple(Ref(item["name"]) for item in value)
        case "as_sym_ints":
            return tuple(Ref(v["as_name"]) if "as_name" in v else int(v["as_int"]) for v in value)
        case "as_int" | "as_float" | "as_bool" | "as_string":
            return value  # type: ignore[no-any-return]
        case "as_ints" | "as_floats" | "as_bools" | "as_strings":
            return tuple(value)
    raise UnsupportedOp(f"an argument of kind {kind} is not supported yet")


def _int(size: Mapping[str, Any]) -> int:
    if "as_int" in size:
        return int(size["as_int"])
    raise ModelError(
        "the model was exported with a dynamic size other than the batch; export it with fixed height and width"
    )
