"""The graph of a packed file: the structure of a net as compact JSON, deflated with a dictionary of usual words.

What follows from other things is left out: shapes and dtypes of all nodes but inputs, and empty parts of a node.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimwright.errors import ModelError
from slimwright.graph.net import Net, structure
from slimwright.graph.store import FORMAT, VERSION
from slimwright.reading import parsed

MOST_BYTES = 2**27  # of the JSON text
USUAL = (  # a part of the format: another dictionary is another version
    '"ends":{"inputs":["input"],"outputs":["output"],"layouts":[{"axis":0,"outer":1,"inner":1}],"open_batch":true,'
    '"opset":17,"sizes":[]}"encodings":{".weight":"float16","int8"}["sigmoid","sigmoid",{"self":{"value_of":"'
    '["add","add",{"self":{"value_of":"other"},"alpha":1}],["cat","cat",{"tensors":[{"value_of":"'
    '"],"dim":1}],["avg_pool2d","avg_pool2d",["max_pool2d","max_pool2d",{"self":{"value_of":"relu"},"kernel_size":[2,2],'
    '"stride":[2,2],"padding":[0,0],"dilation":[1,1],"ceil_mode":false}],["adaptive_avg_pool2d","adaptive_avg_pool2d",'
    '{"self":{"value_of":"relu"},"output_size":[1,1]}],["batch_norm","batch_norm",{"input":{"value_of":"conv2d"},'
    '"eps":1e-05},{"weight":"bn1.weight","bias":"bn1.bias","running_mean":"bn1.running_mean","running_var":'
    '"bn1.running_var"}],["conv2d","conv2d",{"input":{"value_of":"x"},"stride":[1,1],"padding":[0,0],"dilation":[1,1],'
    '"groups":1},{"weight":"conv1.weight","bias":"conv1.bias"}],["relu","relu",{"self":{"value_of":"conv2d"}}],'
    '["flatten","flatten",{"self":{"value_of":"relu"},"start_dim":1,"end_dim":-1}],["linear","linear",'
    '{"input":{"value_of":"flatten"}},{"weight":"fc.weight","bias":"fc.bias"}]]'
    '{"outputs":["linear"],"tensors":["fc.weight","fc.bias"],"base":"","nodes":[["x","input",{},{},[],[1,3,224,224],"float32"]'
)


@dataclass(frozen=True)
class Header:
    """What a packed file says before its tensors: the structure, their names in order, and a base's digest."""

    structure: Mapping[str, Any]
    tensors: tuple[str, ...]
    base: str = ""


def header_of(net: Net, base: Net | None) -> Header:
    """Return the header of a net, its tensors in the order in which nodes read them."""
    names = dict.fromkeys(name for node in net.nodes for name in node.tensors.values())
    return Header(structure(net), tuple(names), base.digest if base else "")


def encoded(header: Header) -> bytes:
    """Return a header as bytes."""
    found = dict(header.structure)
    said = {
        "outputs": found.pop("outputs"),
        "tensors": list(header.tensors),
        "base": header.base,
        "nodes": [_short(node) for node in found.pop("nodes")],
        **found,
    }
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, USUAL.encode())
    return packer.compress(json.dumps(said, separators=(",", ":")).encode()) + packer.flush()


def decoded(data: bytes) -> Header:
    """Return the header in these bytes. Raises ModelError, or KeyError and TypeError where it is malformed."""
    packer = zlib.decompressobj(-15, USUAL.encode())
    text = packer.decompress(data, MOST_BYTES)
    if not packer.eof or packer.unused_data:
        raise ModelError(f"its graph ends early, or has more than {MOST_BYTES:,} bytes")
    found = parsed(text)
    nodes, names, base = map(_long, found.pop("nodes")), found.pop("tensors"), found.pop("base")
    if not all(isinstance(name, str) for name in (*names, base)) or len(set(names)) < len(names):
        raise ModelError("the names of its tensors are not names, or two are the same")
    return Header({**found, "format": FORMAT, "version": VERSION, "nodes": list(nodes)}, tuple(names), base)


def _short(node: Mapping[str, Any]) -> list[Any]:
    """A node as a list: name, op, arguments, tensors, fixed, shape, dtype; the last ones are left out where empty."""
    own = [node["shape"], node["dtype"]] if node["op"] == "input" else []
    made = [node["name"], node["op"], node["arguments"], node["tensors"], node["fixed"], *own]
    while not made[-1]:
        made.pop()
    return made


def _long(short: Any) -> dict[str, Any]:
    if not isinstance(short, list) or not 2 <= len(short) <= 7:
        raise ModelError(f"a node is a list of 2 to 7 parts, not {str(short)[:80]!r}")
    usual: list[Any] = [None, None, {}, {}, [], [], "float32"]
    name, op, arguments, tensors, fixed, shape, dtype = short + usual[len(short) :]
    return {
        "name": name,
        "op": op,
        "arguments": arguments,
        "tensors": tensors,
        "fixed": fixed,
        "shape": shape,
        "dtype": dtype,
    }
