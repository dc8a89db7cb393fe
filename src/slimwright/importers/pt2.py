"""Read a `.pt2` exported program without unpickling anything.

`torch.export.load` unpickles the example inputs and evaluates symbolic expressions, so a foreign file could run
code. The archive's graph is JSON and its weights are raw bytes; this module reads just those, with every offset
checked against the bytes that are there.
Source: the archive that `torch.export.save` of torch 2.13 writes (schema version 8).
"""

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph.allowed import ALLOWED, check_named
from slimwright.graph.from_file import admitted
from slimwright.graph.net import Net
from slimwright.graph.node import Ref, Value
from slimwright.graph.ops import INTEGER, op_of
from slimwright.importers.archives import opened
from slimwright.importers.build import net_of_program
from slimwright.importers.program import UNKNOWN, Call, Input, Program, bound, functional, leaf_names
from slimwright.reading import parsed

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
MEMORY_FORMATS = {1: "torch.contiguous_format", 2: "torch.channels_last", 4: "torch.preserve_format"}
MOST_TIMES = 4  # the bytes of the archive, that its weights may take: views of one storage may be many
MOST_JSON_BYTES = 256 * 2**20  # a graph of a million nodes is smaller


def read_pt2(path: Path) -> Net:
    """Return the net in a `.pt2` file. Raises ModelError where the file is not one, or holds pickled weights."""
    with opened(path, "a .pt2 file that torch.export.save of torch 2.13 writes") as archive:
        names = archive.namelist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ModelError(f"{path} is compressed; torch.export.save writes its files uncompressed")
        graph_name = _only(path, [n for n in names if "/models/" in n and n.endswith(".json")], "graph")
        root, _, model = graph_name.partition("/models/")
        model = model.removesuffix(".json")
        graph = _json(archive, graph_name)
        tensors = _payloads(archive, f"{root}/data/weights/", f"{model}_weights_config.json")
        tensors |= _payloads(archive, f"{root}/data/constants/", f"{model}_constants_config.json")
        program = functional(_program(graph, tensors))
        for call in program.calls:
            _check_named(call)
        return admitted(net_of_program(program))


def _check_named(call: Call) -> None:
    """Raise UnsupportedOp for an operator that a file may not name; what is none is refused as such."""
    if call.overload in (*ALLOWED, *INTEGER, "getitem") or call.overload.startswith(UNKNOWN):
        return
    try:
        op_of(f"aten.{call.overload}")
        check_named(call.overload)
    except UnsupportedOp as error:
        raise UnsupportedOp(f"node '{call.name}': {error}") from error


def _only(path: Path, names: list[str], what: str) -> str:
    if len(names) != 1:
        raise ModelError(
            f"{path} holds {len(names)} exported {what}s; slimwright needs a file from torch.export.save with one"
        )
    return names[0]


def _json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > MOST_JSON_BYTES:
        raise ModelError(f"{name} is larger than {MOST_JSON_BYTES} bytes; this is no graph")
    found = parsed(archive.read(name))
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a JSON object")
    return found


def _payloads(archive: zipfile.ZipFile, folder: str, config_name: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    left = MOST_TIMES * sum(entry.file_size for entry in archive.infolist())
    for name, payload in _json(archive, folder + config_name)["config"].items():
        if payload["use_pickle"] or payload["tensor_meta"] is None:
            raise ModelError(
                f"'{name}' is stored as a pickle, which could run code; make it contiguous and save the program again"
            )
        meta = payload["tensor_meta"]
        dtype = DTYPES.get(meta["dtype"])
        if dtype is None:
            raise ModelError(f"'{name}' has the unknown dtype code {meta['dtype']}")
        left -= archive.getinfo(folder + payload["path_name"]).file_size
        if left < 0:
            raise ModelError(f"its weights take more than {MOST_TIMES} times what it holds; the file is damaged")
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
    parameters = set()
    inputs: list[Input] = []
    for spec in signature["input_specs"]:
        ((kind, entry),) = spec.items()
        if kind == "user_input":
            inputs.append(_input(entry["arg"], graph["tensor_values"]))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            owner[entry["arg"]["name"]] = entry[f"{kind}_name"]
            parameters |= {entry["parameter_name"]} if kind == "parameter" else set()
        else:
            raise UnsupportedOp(f"an exported program with a {kind} input is not supported")
    names = _output_names(found["graph_module"], len(graph["outputs"]))
    outputs = [(_output(entry), name) for entry, name in zip(graph["outputs"], names, strict=True)]
    return Program(
        inputs=tuple(inputs),
        calls=[call for node in graph["nodes"] for call in _calls(node)],
        tensors=tensors,
        owner=owner,
        outputs=tuple(output for output, _ in outputs if output),
        parameters=frozenset(parameters),
        output_names=tuple(name for output, name in outputs if output),
    )


def _input(arg: Mapping[str, Any], values: Mapping[str, Any]) -> Input:
    if "as_tensor" not in arg:
        raise ModelError(f"the model takes an argument of kind {next(iter(arg))}; it must take tensors only")
    name = arg["as_tensor"]["name"]
    sizes = values[name]["sizes"]
    shape = (1, *(_int(size) for size in sizes[1:])) if sizes else ()
    return Input(name, shape, str(DTYPES[values[name]["dtype"]]).removeprefix("torch."))


def _output(entry: Mapping[str, Any]) -> str:
    """The value that is returned; "" for None."""
    if "as_none" in entry:
        return ""
    if "as_tensor" not in entry:
        raise ModelError(f"the model returns a value of kind {next(iter(entry))}; it must return tensors only")
    return str(entry["as_tensor"]["name"])


def _output_names(module: Mapping[str, Any], count: int) -> Sequence[str]:
    """What a dict calls each of the outputs in it, from the description of the tree that the model returns."""
    tree = parsed(module["module_call_graph"][0]["signature"]["out_spec"])[1]
    if str(tree["type"]).endswith((".dict", ".OrderedDict")):
        names = leaf_names(parsed(tree["context"]), [_leaves(child) for child in tree["children_spec"]])
        return names if len(names) == count else [""] * count
    return [""] * count


def _leaves(tree: Mapping[str, Any]) -> int:
    return 1 if tree["type"] is None else sum(_leaves(child) for child in tree["children_spec"])


def _calls(node: Mapping[str, Any]) -> Iterator[Call]:
    """The calls of one node: its own, and one that picks each of several results."""
    target = str(node["target"])
    if not node["outputs"]:  # an assertion
        return
    if target.startswith("torch.ops.higher_order."):
        yield from _inlined(node, target)
        return
    results = [name for output in node["outputs"] for name in _results(output)]
    several = len(node["outputs"]) > 1 or "as_tensors" in node["outputs"][0]
    name = f"{results[0]}_all" if several else results[0]
    by_name = {entry["name"]: _argument(entry["arg"]) for entry in node["inputs"]}
    if target.startswith("_operator."):
        overload = f"int_{target.removeprefix('_operator.')}"
        yield Call(name, overload if overload in INTEGER else UNKNOWN + target, by_name)
    elif not target.startswith("torch.ops.aten."):
        yield Call(name, UNKNOWN + target, by_name)
    else:
        overload = target.removeprefix("torch.ops.aten.")
        try:
            yield Call(name, overload, bound(overload, (), by_name))
        except AttributeError as error:
            raise UnsupportedOp(f"operator {target} (node '{name}') is not in torch {torch.__version__}") from error
    if several:
        for index, result in enumerate(results):
            yield Call(result, "getitem", {"value": Ref(name), "index": index})


def _results(output: Mapping[str, Any]) -> list[str]:
    ((kind, value),) = output.items()
    names = [item["name"] for item in value] if kind == "as_tensors" else [value.get("name") or value.get("as_name")]
    for name in names:
        if not str(name).isidentifier():
            raise ValueError(f"{name!r} is no name for a value")
    return names


def _inlined(node: Mapping[str, Any], target: str) -> Iterator[Call]:
    """The calls of a graph inside the graph: one that switches autocast off, or gradients on or off."""
    args = [entry["arg"] for entry in node["inputs"]]
    if "autocast" in target and args[2].get("as_bool") is not False:
        raise UnsupportedOp("the model switches autocast on; export it in float32")
    if not any(known in target for known in ("autocast", "set_grad")):
        raise UnsupportedOp(f"operator {target} runs a graph of its own that may branch or repeat")
    at = next(i for i, arg in enumerate(args) if "as_graph" in arg)
    inner, prefix = args[at]["as_graph"]["graph"], args[at]["as_graph"]["name"]
    given = [_argument(arg) for arg in args[at + 1 :]]
    names: dict[str, Value] = dict(
        zip((result for entry in inner["inputs"] for result in _results(entry)), given, strict=True)
    )
    for call in (call for entry in inner["nodes"] for call in _calls(entry)):
        names[call.name] = Ref(f"{prefix}_{call.name}")
        yield Call(f"{prefix}_{call.name}", call.overload, {k: _renamed(v, names) for k, v in call.arguments.items()})
    outer = [result for output in node["outputs"] for result in _results(output)]
    for result, entry in zip(outer, inner["outputs"], strict=True):
        ((name,),) = (_results(entry),)
        yield Call(result, "alias.default", {"self": names[name]})


def _renamed(value: Value, names: Mapping[str, Value]) -> Value:
    if isinstance(value, Ref):
        return names.get(value.name, value)
    return tuple(_renamed(item, names) for item in value) if isinstance(value, tuple) else value


def _argument(arg: Mapping[str, Any]) -> Value:
    ((kind, value),) = arg.items()
    match kind:
        case "as_none" | "as_layout" | "as_device":
            return None
        case "as_tensor":
            return Ref(value["name"])
        case "as_sym_int" | "as_sym_float" | "as_sym_bool":
            return Ref(value["as_name"]) if "as_name" in value else next(iter(value.values()))
        case "as_tensors":
            return tuple(Ref(item["name"]) for item in value)
        case "as_optional_tensor":
            return Ref(value["as_tensor"]["name"]) if "as_tensor" in value else None
        case "as_optional_tensors":
            return tuple(Ref(item["as_tensor"]["name"]) if "as_tensor" in item else None for item in value)
        case "as_sym_ints":
            return tuple(Ref(v["as_name"]) if "as_name" in v else int(v["as_int"]) for v in value)
        case "as_int" | "as_float" | "as_bool" | "as_string":
            return value  # type: ignore[no-any-return]
        case "as_ints" | "as_floats" | "as_bools" | "as_strings":
            return tuple(value)
        case "as_scalar_type":
            return str(DTYPES[value])
        case "as_memory_format":
            return MEMORY_FORMATS[value]
    raise UnsupportedOp(f"an argument of kind {kind} is not supported")


def _int(size: Mapping[str, Any]) -> int:
    if "as_int" in size:
        return int(size["as_int"])
    raise ModelError(
        "the model was exported with a dynamic size other than the batch; export it with fixed height and width"
    )
