"""The shapes and dtypes of a net's values, inferred by running it on tensors without elements."""

import keyword
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from slimwright.errors import ModelError
from slimwright.graph.allowed import MOST_ELEMENTS, check_call, check_size
from slimwright.graph.node import Node, resolved
from slimwright.graph.ops import FAILURES, called, check_quiet, detail_of, on_meta, op_of

MOST_KNOWN = 20_000  # results without elements that are remembered: a net is inferred anew with every edit
INPUT_DTYPES = {"float32": torch.float32, "int64": torch.int64, "int32": torch.int32}


def inferred(nodes: Iterable[Node], tensors: Mapping[str, Tensor], *, images: int = 1) -> tuple[Node, ...]:
    """Return nodes in execution order with their shapes and dtypes inferred anew, those of the inputs as they say.

    Shapes are those for so many images; the inputs say them for one.

    Raises ModelError, naming the node, where shapes do not fit, a value is missing or a name is none.
    """
    values: dict[str, Tensor] = {}
    found = []
    for node in nodes:
        _check_names(node, values)
        check_quiet(node.op, node.arguments)
        values[node.name] = _input(node, images) if node.op == "input" else _result(node, tensors, values)
        shape, dtype = shape_and_dtype(values[node.name])
        found.append(replace(node, shape=shape, dtype=dtype))
    return tuple(found)


def result_of(
    node: Node, tensors: Mapping[str, Tensor], module: nn.Module | None, value: Callable[[str], Tensor]
) -> Tensor:
    """Return what `node` produces; `module` is its layer if it has one, `value` gives what it reads."""
    result: Tensor
    if module is not None:
        result = module(value(node.source))
    elif node.op == "item":
        result = value(node.source)[node.arguments["index"]]  # type: ignore[index]
    elif op_of(node.op).channels == "parameter":
        result = tensors[node.tensors["value"]]
    else:
        args, kwargs = called(op_of(node.op), {k: resolved(v, value) for k, v in node.arguments.items()})
        result = op_of(node.op).function(*args, **kwargs)
    return result


def shape_and_dtype(value: object) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of a value, as nodes keep them."""
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype).removeprefix("torch.")
    if isinstance(value, tuple | list):
        return (shape_and_dtype(value[0])[0] if value else ()), "tuple"
    return (), "int64"


def _check_names(node: Node, values: Mapping[str, Tensor]) -> None:
    if not node.name.isidentifier() or keyword.iskeyword(node.name) or node.name == "self":
        raise ModelError(f"{node.name!r} is no name for a node")
    if node.name in values:
        raise ModelError(f"two nodes are called '{node.name}'")
    for name in node.reads:
        if name not in values:
            raise ModelError(f"node '{node.name}' reads '{name}', which no earlier node produces")


def empty_input(name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return an input without elements. Raises ModelError for a shape that no tensor on a device can have."""
    try:
        given = torch.empty(*shape, dtype=dtype, device="meta")
        if not given.numel() <= MOST_ELEMENTS:
            raise ValueError
    except FAILURES as error:
        raise ModelError(
            f"input '{name}' of the model has the shape {list(shape)}, which no tensor on a device can have"
        ) from error
    return given


def call_of(node: Node, tensors: Mapping[str, Tensor], value: Callable[[str], object]) -> tuple[str, dict[str, object]]:
    """The ATen overload of a node, "" where it has none, and what it is called with, by name."""
    own = {role: tensors[name] for role, name in node.tensors.items()}
    overloads = op_of(node.op).overloads
    return (overloads[0] if overloads else ""), {k: resolved(v, value) for k, v in node.arguments.items()} | own


def _input(node: Node, images: int) -> Tensor:
    if node.dtype not in INPUT_DTYPES or node.shape[:1] != (1,):
        raise ModelError(
            f"input '{node.name}' of the net is {node.dtype} {list(node.shape)}; an input must be one batch, its first "
            f"dimension 1, of {', '.join(INPUT_DTYPES)}"
        )
    return empty_input(node.name, (images, *node.shape[1:]), INPUT_DTYPES[node.dtype])


@cache
def _known() -> dict[Hashable, Tensor]:
    """The results of calls that were met: what would be computed again."""
    return {}


def _result(node: Node, tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
    """What a node produces, without elements: as it was of an equal call, or computed."""
    given = tuple((key, _told(resolved(value, values.__getitem__))) for key, value in node.arguments.items())
    call = node.op, given, tuple((role, _told(tensors[name])) for role, name in node.tensors.items())
    known = _known()
    if call not in known:
        if len(known) >= MOST_KNOWN:
            known.clear()
        known[call] = _computed(node, tensors, values)
    return known[call]


def _told(value: object) -> Hashable:
    """All of a value that a result's shape and dtype, and whether there is one, depend on."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_told, value))
    return type(value), str(value)


def _computed(node: Node, tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
    try:
        if op_of(node.op).channels == "parameter":
            return torch.empty_like(tensors[node.tensors["value"]], device="meta")
        module = _meta_module(node, tensors) if op_of(node.op).module is not None else None
        if module is not None:
            _check_dtypes(node, tensors, values[node.source].dtype)
        check_call(*call_of(node, tensors, values.__getitem__))
        on_nothing = replace(node, arguments=on_meta(node.arguments))
        result = result_of(on_nothing, tensors, module, values.__getitem__)
        check_size(result)
        return result
    except FAILURES as error:
        took = ", ".join(f"{name} {list(getattr(values[name], 'shape', ()))}" for name in node.reads)
        owns = ", ".join(f"{role} {list(tensors[t].shape)}" for role, t in node.tensors.items())
        raise ModelError(
            f"node '{node.name}' ({node.op}) cannot take {took}{'; it owns ' + owns if owns else ''}: "
            f"{detail_of(error)}"
        ) from error


def _check_dtypes(node: Node, tensors: Mapping[str, Tensor], read: torch.dtype) -> None:
    """What a layer owns is of the dtype that it reads, but for an index."""
    for role, name in node.tensors.items():
        wanted = torch.int64 if role == "index" else read
        if tensors[name].dtype != wanted:
            raise ValueError(f"its {role} is {tensors[name].dtype}, not {wanted}")


def _meta_module(node: Node, tensors: Mapping[str, Tensor]) -> nn.Module:
    own = {role: tuple(tensors[name].shape) for role, name in node.tensors.items()}
    build = op_of(node.op).module
    assert build is not None
    with torch.device("meta"):
        module = build(node.arguments, own).eval()
    for role, shape in own.items():
        built = getattr(module, role, None)
        if built is None or tuple(built.shape) != shape:
            raise ValueError(f"{role} of shape {list(shape)} does not fit {module}")
    for role, _ in module.named_parameters(recurse=False):
        if role not in own:
            raise ValueError(f"{module} needs a {role}")
    return module
