"""An `.onnx` file as untrusted input: protobuf bytes in, plain and checked values out.

The `onnx` package only parses. Which values exist, in which order, how large a tensor is and where its bytes lie is
checked here, and a file of weights beside the model is read only from inside the model's folder.
Source: the ONNX intermediate representation specification, versions 3 to 13 (onnx.ai, IR.md).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx.tensors import DTYPES, EXTERNAL, FLOAT, HALVES, external_bytes, tensor_of
from slimwright.reading import data_of, reading

Attribute: TypeAlias = "int | float | str | Tensor | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Branch"
OPSETS = range(7, 26)  # below 7 elementwise operators broadcast differently; above 25 nothing was checked
OPEN = -1  # how older versions of Paddle2ONNX write a dimension of any size
OWN_DOMAINS = ("", "ai.onnx")
INTEGERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger",
            "DynamicQuantizeMatMul", "MatMulIntegerToFloat")  # fmt: skip
WHAT, MOST_BYTES = "an .onnx file", 2**31  # protobuf holds no more
CONTRIBUTED = "com.microsoft"  # ONNX Runtime's own operators, of which those on integers are read


@dataclass(frozen=True)
class OnnxNode:
    """One node: its operator, the names of what it reads ("" where left out) and makes, and its attributes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def label(self) -> str:
        """How errors speak of the node."""
        return f"node '{self.name or '/'.join(o for o in self.outputs if o)}' ({self.op})"


@dataclass(frozen=True)
class Branch:
    """One of the two graphs of an If: what it makes of the values around it, which the If reads, too."""

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, Tensor]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxInput:
    """A value that is fed from outside; a dimension is a number, or a name where the file leaves it open."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class OnnxFile:
    """A parsed file whose names are checked: every value exists once, and before it is read."""

    path: Path
    opset: int
    inputs: tuple[OnnxInput, ...]  # without those that have an initializer
    outputs: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]  # only those that an output depends on
    constants: Mapping[str, Tensor]  # initializers, and what Constant nodes hold; float16 as float32
    held_bytes: int
    in_half: bool = False  # whether some of it is computed in float16 or bfloat16
    apart: bool = False  # whether some of its weights lie in files beside it
    quantized: bool = False  # whether some of it is computed with integers
    idle_inputs: tuple[str, ...] = ()  # of the file, on which no output depends


def read_file(path: Path) -> OnnxFile:
    """Return what an `.onnx` file says. Raises ModelError and UnsupportedOp, naming the node, the field and the fix."""
    with reading(path, WHAT, ModelError):
        return _file_of(path, parsed(path))


def _file_of(path: Path, model: Any) -> OnnxFile:
    graph = model.graph
    opset = _opset(path, model)
    _check_domains(path, graph.node)
    if len(graph.sparse_initializer):
        raise UnsupportedOp(f"{path} holds sparse initializers; store them as ordinary ones")
    if not len(graph.output):
        raise ModelError(f"{path} has 0 outputs; a model must return something: export it again")
    stored = _once(path, (tensor.name for tensor in graph.initializer), "initializers")
    _once(path, (entry.name for entry in graph.input), "inputs")
    inputs = tuple(_input(path, entry) for entry in graph.input if entry.name not in stored)
    nodes = [_node(path, node) for node in graph.node]
    outputs = tuple(str(entry.name) for entry in graph.output)
    _once(path, outputs, "outputs")
    nodes = _in_order(nodes)
    _check_order(path, nodes, {*stored, *(i.name for i in inputs)}, outputs)
    live = _live(nodes, outputs)
    wanted = {name for node in live for name in node.inputs}
    constants = {
        tensor.name: tensor_of(tensor, f"initializer '{tensor.name}' of {path}", path.parent)
        for tensor in graph.initializer
        if tensor.name in wanted
    }
    constants |= {node.outputs[0]: held for node in live if (held := _held_by(node)) is not None}
    used = tuple(i for i in inputs if i.name in wanted)
    rest = tuple(_widened(node) for node in live if _held_by(node) is None)
    in_half = any(t.dtype in HALVES for t in constants.values()) or any(map(_makes_half, live))
    constants = _all_wide(constants)
    branches = [branch for node in every_node(rest) for branch in branches_of(node)]
    everything = [constants, *(branch.constants for branch in branches)]
    held_bytes = sum(t.numel() * t.element_size() for tensors in everything for t in tensors.values())
    apart = any(tensor.data_location == EXTERNAL for tensor in graph.initializer)
    quantized = any(_is_on_integers(node.op.rpartition(".")[2]) for node in live)
    idle = tuple(entry.name for entry in inputs if entry not in used)
    return OnnxFile(path, opset, used, outputs, rest, constants, held_bytes, in_half, apart, quantized, idle)


def write_in_one_file(path: Path, to: Path) -> None:
    """Write a model as one file, with weights that lie in files beside it, and without what no output depends on.

    Raises ModelError where weights that lie in files of their own are not there, or not inside the model's folder.
    """
    model = parsed(path)
    with reading(path, WHAT, ModelError):
        file = _file_of(path, model)
        for tensor in (each for each in model.graph.initializer if each.data_location == EXTERNAL):
            tensor.raw_data = external_bytes(tensor, f"initializer '{tensor.name}' of {path}", path.parent)
            del tensor.external_data[:]
            tensor.ClearField("data_location")
    made = {*file.constants, *(name for node in file.nodes for name in node.outputs)}
    for field, kept in (
        (model.graph.input, [entry for entry in model.graph.input if entry.name not in file.idle_inputs]),
        (model.graph.node, [node for node in model.graph.node if made.intersection(node.output)]),
    ):
        del field[:]
        field.extend(kept)
    try:
        to.write_bytes(model.SerializeToString())
    except ValueError as error:  # protobuf holds no more than 2 GiB
        raise ModelError(f"{path} and its weights do not fit into one file of 2 GiB: {error}") from error


def branches_of(node: OnnxNode) -> list[Branch]:
    """Return the graphs inside a node."""
    return [value for value in node.attributes.values() if isinstance(value, Branch)]


def every_node(nodes: Iterable[OnnxNode]) -> Iterator[OnnxNode]:
    """Yield the nodes, and those of the graphs inside of them."""
    for node in nodes:
        yield node
        for branch in branches_of(node):
            yield from every_node(branch.nodes)


def _all_wide(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.dtype in HALVES else tensor for name, tensor in tensors.items()}


def _held_by(node: OnnxNode) -> Tensor | None:
    """The weights in a Constant node: numbers that are many. How a file stores a weight says nothing of it."""
    value = node.attributes.get("value") if node.op == "Constant" else None
    is_weights = isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 1
    return value if is_weights and isinstance(value, Tensor) else None


def _makes_half(node: OnnxNode) -> bool:
    tensors = [value for value in node.attributes.values() if isinstance(value, Tensor)]
    casts = node.op == "Cast" and DTYPES.get(int(str(node.attributes.get("to", 0)))) in HALVES
    inside = branches_of(node)
    tensors += [tensor for branch in inside for tensor in branch.constants.values()]
    return (
        casts
        or any(tensor.dtype in HALVES for tensor in tensors)
        or any(_makes_half(inner) for branch in inside for inner in branch.nodes)
    )


def _widened(node: OnnxNode) -> OnnxNode:
    """The node with float32 instead of float16 and bfloat16: it computes the same, more exactly."""
    if not _makes_half(node):
        return node
    wide = {key: _wide(value) for key, value in node.attributes.items()}
    return replace(node, attributes=wide | ({"to": FLOAT} if node.op == "Cast" else {}))


def _wide(value: Attribute) -> Attribute:
    if isinstance(value, Branch):
        return replace(value, nodes=tuple(map(_widened, value.nodes)), constants=_all_wide(value.constants))
    return value.float() if isinstance(value, Tensor) and value.dtype in HALVES else value


def parsed(path: Path) -> Any:
    """Return the file as onnx parses it. Raises ModelError."""
    try:
        import onnx
    except ImportError as error:
        raise ModelError(f'reading {path} needs the onnx package: pip install "slimwright[onnxruntime]"') from error
    model = onnx.ModelProto()
    with reading(path, WHAT, ModelError):
        model.ParseFromString(data_of(path, WHAT, ModelError, MOST_BYTES))
    if not model.HasField("graph") or not len(model.graph.node):
        raise ModelError(f"{path} holds no graph: it is not an .onnx model, or is cut short")
    return model


def _opset(path: Path, model: Any) -> int:
    versions = [int(entry.version) for entry in model.opset_import if entry.domain in OWN_DOMAINS]
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise ModelError(
            f"{path} asks for opset {', '.join(map(str, versions)) or '(none)'} in opset_import; slimwright reads "
            f"{OPSETS.start} to {OPSETS.stop - 1}: export it again, or use onnx.version_converter"
        )
    return versions[0]


def _check_domains(path: Path, nodes: Iterable[Any]) -> None:
    for node in nodes:
        if node.domain == CONTRIBUTED and _is_on_integers(str(node.op_type)):
            continue
        if node.domain not in OWN_DOMAINS:
            name = node.name or "/".join(node.output)
            raise UnsupportedOp(
                f"node '{name}' of {path} is {node.op_type} of domain '{node.domain}'; slimwright reads the "
                "standard operators only: export without runtime-specific optimisation, and inline the model's own "
                "functions with onnx.inliner.inline_local_functions"
            )


def _is_on_integers(op: str) -> bool:
    return op in INTEGERS or op.startswith(("QLinear", "QGemm", "QAttention", "MatMulNBits", "DynamicQuantize"))


def _once(path: Path, names: Iterable[Any], what: str) -> set[str]:
    seen: set[str] = set()
    for name in (_text(name, f"a name of the {what} of {path}") for name in names):
        if name in seen or not name:
            raise ModelError(f"{path} has two {what} named '{name}'; every value needs a name of its own")
        seen.add(name)
    return seen


def _input(path: Path, entry: Any) -> OnnxInput:
    kind = entry.type.tensor_type
    if not entry.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise ModelError(f"input '{entry.name}' of {path} has no shape; give it one with onnx.tools.update_model_dims")
    dims: list[int | str] = [
        int(d.dim_value)
        if d.HasField("dim_value") and d.dim_value != OPEN
        else _text(d.dim_param, f"a dimension of input '{entry.name}'") or "?"
        for d in kind.shape.dim
    ]
    dtype = DTYPES.get(int(kind.elem_type))
    return OnnxInput(entry.name, str(dtype).removeprefix("torch."), tuple(dims))


def _node(path: Path, node: Any) -> OnnxNode:
    name, op = (_text(value, f"the name of a node of {path}") for value in (node.name, node.op_type))
    reads, makes = (
        [_text(v, f"a name in node '{name}' of {path}") for v in ends] for ends in (node.input, node.output)
    )
    if node.domain not in OWN_DOMAINS:
        op = f"{_text(node.domain, f'the domain of a node of {path}')}.{op}"
    where = f"node '{name or '/'.join(makes)}' ({op}) of {path}"
    attributes = {
        _text(a.name, where): _branch(path, a.g) if op == "If" and a.HasField("g") else _attribute(path, a, where)
        for a in node.attribute
    }
    made = OnnxNode(name, op, tuple(reads), tuple(makes), attributes)
    around = [name for branch in branches_of(made) for name in _read_from_around(branch)]
    return replace(made, inputs=(*made.inputs, *dict.fromkeys(around))) if around else made


def _branch(path: Path, graph: Any) -> Branch:
    """A graph inside an If, which takes no values but those around it."""
    _check_domains(path, graph.node)
    where = f"graph '{graph.name}' of {path}"
    if len(graph.input) or len(graph.sparse_initializer):
        raise UnsupportedOp(f"{where} has inputs or sparse initializers of its own, which are not supported")
    nodes = _in_order([_node(path, node) for node in graph.node])
    constants = {t.name: tensor_of(t, f"initializer '{t.name}' of {where}", path.parent) for t in graph.initializer}
    constants |= {node.outputs[0]: held for node in nodes if (held := _held_by(node)) is not None}
    rest = tuple(node for node in nodes if _held_by(node) is None)
    return Branch(rest, constants, tuple(str(entry.name) for entry in graph.output))


def _read_from_around(branch: Branch) -> Iterator[str]:
    made = set(branch.constants)
    for node in branch.nodes:
        yield from (name for name in node.inputs if name and name not in made)
        made.update(node.outputs)
    yield from (name for name in branch.outputs if name not in made)


def _attribute(path: Path, attribute: Any, where: str) -> Attribute:
    kinds = type(attribute)
    match attribute.type:
        case kinds.INT:
            return int(attribute.i)
        case kinds.FLOAT:
            return float(attribute.f)
        case kinds.STRING:
            return _text(attribute.s, where)
        case kinds.INTS:
            return tuple(int(i) for i in attribute.ints)
        case kinds.FLOATS:
            return tuple(float(f) for f in attribute.floats)
        case kinds.STRINGS:
            return tuple(_text(s, where) for s in attribute.strings)
        case kinds.TENSOR:
            return tensor_of(attribute.t, f"attribute '{attribute.name}' of {where}", path.parent)
        case kinds.GRAPH | kinds.GRAPHS:
            raise UnsupportedOp(
                f"{where} runs a graph of its own ('{attribute.name}'); a model whose steps depend on the image cannot "
                "be compressed: export it without branches and loops"
            )
    raise UnsupportedOp(f"attribute '{attribute.name}' of {where} is of kind {attribute.type}, which is not supported")


def _text(value: str | bytes, where: str) -> str:
    """Text, which protobuf gives as bytes where it is broken, and always in attributes."""
    try:
        return value if isinstance(value, str) else value.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{where} holds {value[:20]!r}, which is not text; the file is damaged") from error


def _in_order(nodes: list[OnnxNode]) -> list[OnnxNode]:
    """The nodes as they stand, but each behind those whose values it reads; as they stand where they go in a circle."""
    maker = {name: place for place, node in enumerate(nodes) for name in node.outputs if name}
    behind = [{maker[name] for name in node.inputs if name in maker} for node in nodes]
    if all(max(before, default=-1) < place for place, before in enumerate(behind)):
        return nodes
    try:
        return [nodes[place] for place in TopologicalSorter(dict(enumerate(behind))).static_order()]
    except CycleError:
        return nodes


def _check_order(path: Path, nodes: list[OnnxNode], given: set[str], outputs: Sequence[str]) -> None:
    """Every value is made once, and before it is read."""
    made = set(given)
    later = {name for node in nodes for name in node.outputs}
    for node in nodes:
        for name in node.inputs:
            if name and name not in made:
                _refuse_input(path, node, name, later)
        for name in node.outputs:
            if name and name in made:
                raise ModelError(f"{node.label} of {path} makes '{name}', which exists already; names must be unique")
            made.add(name)
    for output in outputs:
        if output in given:
            raise ModelError(
                f"the output '{output}' of {path} is an input or a stored tensor as it is; leave it out of the outputs"
            )
        if output not in made:
            raise ModelError(
                f"the output '{output}' of {path} is made by no node; the file is damaged, export it again"
            )


def _refuse_input(path: Path, node: OnnxNode, name: str, later: set[str]) -> NoReturn:
    if name in later:
        raise ModelError(
            f"{node.label} of {path} reads '{name}' before it is made: the nodes are in a circle; "
            "export the model again"
        )
    raise ModelError(
        f"{node.label} of {path} reads '{name}', which is no input, no initializer and made by no node; the file "
        "is damaged, export it again"
    )


def _live(nodes: list[OnnxNode], outputs: Sequence[str]) -> tuple[OnnxNode, ...]:
    wanted = set(outputs)
    live = []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            live.append(node)
    return tuple(reversed(live))
