"""Save and load a `Net` as two files: `net.json` and `net.safetensors`. Nothing in them is run.

The structure is checked as untrusted input: names must be plain identifiers, ops must be rows of `ops.OPS` or
operators of `allowed.ALLOWED`, arguments must be numbers, strings, None or references, the shapes must follow from the
weights, and every node must compute (`from_file.py`). A net that this process captured may carry other operators; who
saves it and loads it again names these.
"""

import json
import re
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimwright.atomic import write_text
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph.allowed import DTYPES, check_named
from slimwright.graph.encoding import ENCODINGS, Encoding, encoding_named
from slimwright.graph.ends import Ends, ends_of
from slimwright.graph.from_file import admitted
from slimwright.graph.net import Net, checked, structure
from slimwright.graph.node import Node, Ref, Value
from slimwright.graph.ops import OPS, op_of
from slimwright.kept import write_safetensors
from slimwright.reading import json_of, reading, stored_tensors

FORMAT, VERSION = "slimwright-net", 1
FILES = ("net.json", "net.safetensors")
TENSOR_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")  # torchvision has a layer "block1-0"
MOST_JSON_BYTES = 2**28  # a graph of a million nodes is smaller
MOST_NESTED = 4  # lists in an argument; indices of several dimensions take two


def save_net(net: Net, folder: Path) -> None:
    """Write `net.json` and `net.safetensors` into `folder`, each replaced at once."""
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "net.safetensors", net.tensors)
    write_text(folder / "net.json", json.dumps({"format": FORMAT, "version": VERSION, **structure(net)}, indent=1))


def load_net(folder: Path, *, carried: Container[str] = ()) -> Net:
    """Return the net saved in `folder`. Raises ModelError, naming the file and the fault.

    `carried` are operators besides those that a file may name: those of a net that the caller captured itself.
    """
    for name in FILES:
        if not (folder / name).exists():
            raise ModelError(f"{folder} holds no saved net: {folder / name} is missing")
    with reading(folder / "net.json", "a saved net", ModelError):
        found = json_of(folder / "net.json", "a saved net", ModelError, MOST_JSON_BYTES)
        tensors, _ = stored_tensors(folder / "net.safetensors", "the tensors of a saved net", ModelError)
        return net_of(found, tensors, carried)


def net_of(found: Mapping[str, Any], tensors: Mapping[str, Any], carried: Container[str] = ()) -> Net:
    """Return the net that `structure` described; `carried` as in `load_net`.

    Raises ModelError, or KeyError and TypeError where it is malformed.
    """
    if found.get("format") != FORMAT or found.get("version") != VERSION:
        raise ModelError(
            f"this is {found.get('format')!r} version {found.get('version')!r}, not {FORMAT!r} version {VERSION}"
        )
    nodes = tuple(_node(entry, tensors, carried) for entry in found["nodes"])
    steps = [step for step, node in enumerate(nodes) if node.op == "input"]
    if not steps or steps != list(range(len(steps))):
        raise ModelError("a saved net must start with its inputs, at least one")
    if len({n.name for n in nodes}) != len(nodes) or not found["outputs"]:
        raise ModelError("a saved net must return something, and no two of its nodes may share a name")
    used = dict.fromkeys(name for node in nodes for name in node.tensors.values())  # in their order, of any process
    for name in used:
        if str(tensors[name].dtype).removeprefix("torch.") not in DTYPES:
            raise ModelError(f"tensor '{name}' is {tensors[name].dtype}; it must be one of {', '.join(DTYPES)}")
    net = admitted(checked(Net(nodes, {name: tensors[name] for name in used}, tuple(found["outputs"]))))
    return replace(net.encoded(_encodings(found.get("encodings", {}))), ends=_ends(found, net))


def _ends(found: Mapping[str, Any], net: Net) -> Ends | None:
    """How the file held the net's inputs and outputs; None where that is not known."""
    if found.get("ends") is None:
        return None
    ends = ends_of(found["ends"])
    if (len(ends.inputs), len(ends.outputs)) != (len(net.inputs), len(net.outputs)):
        raise ModelError(f"its ends name {len(ends.inputs)} inputs and {len(ends.outputs)} outputs; it has others")
    for size in ends.sizes:
        if len({net.inputs[number].shape[axis : axis + 1] for number, axis in size.places} - {()}) != 1:
            raise ModelError(f"its free size '{size.name}' is not one size of its inputs: {size.places}")
    return ends


def _encodings(found: Mapping[str, Any]) -> dict[str, Encoding]:
    made = {}
    for tensor, name in found.items():
        encoding = encoding_named(str(name))
        if encoding is None:
            known = f"{', '.join(ENCODINGS)}, and 'hashed VALUES SEED'"
            raise ModelError(f"a tensor is encoded as {name!r}; the encodings are {known}")
        made[str(tensor)] = encoding
    return made


def _node(entry: Mapping[str, Any], tensors: Mapping[str, Any], carried: Container[str]) -> Node:
    name, op = entry["name"], entry["op"]
    if not isinstance(name, str) or not name.isidentifier():
        raise ModelError(f"{name!r} is no name for a node")
    try:
        row = op_of(op)
        if op not in OPS and op not in carried:
            check_named(op.removeprefix("aten."))
    except UnsupportedOp as error:
        raise UnsupportedOp(f"node '{name}' has the unknown op {op!r}: {error}") from error
    owned = dict(entry["tensors"])
    for role, tensor in owned.items():
        if role not in row.owns or not TENSOR_NAME.fullmatch(tensor):
            raise ModelError(f"node '{name}' ({op}) cannot own {tensor!r} as its {role}")
        if tensor not in tensors:
            raise ModelError(f"the weights of node '{name}' are missing: no tensor {tensor!r}")
    arguments = {str(key): _read(value) for key, value in entry["arguments"].items()}
    fixed = tuple(entry.get("fixed", ()))
    if not owned.keys() >= set(fixed):
        raise ModelError(f"node '{name}' ({op}) owns no {', '.join(map(str, set(fixed) - owned.keys()))} to be fixed")
    return Node(name, op, arguments, owned, tuple(entry["shape"]), entry["dtype"], fixed)


def _read(value: Any, depth: int = 0) -> Value:
    if depth > MOST_NESTED:
        raise ModelError(f"its lists are nested more than {MOST_NESTED} deep; no operator takes such an argument")
    if isinstance(value, dict):
        return Ref(value["value_of"])
    if isinstance(value, list):
        return tuple(_read(item, depth + 1) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ModelError(f"{value!r} is no argument")
