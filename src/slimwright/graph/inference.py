"""The shapes and dtypes of a net's values, inferred by running it on tensors without elements."""

import keyword
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from slimwright.errors import ModelError
from slimwright.graph.node import Node, resolved
from slimwright.graph.ops import called, check_quiet, on_meta, op_of

INPUT_DTYPES = {"float32": torch.float32, "int64": torch.int64, "int32": torch.int32}


def inferred(nodes: Iterable[Node], tensors: Mapping[str, Tensor]) -> tuple[Node, ...]:
    """Return nodes in execution order with their shapes and dtypes inferred anew, those of the inputs as they say.

    Raises ModelError, naming the node, where shapes do not fit, a value is missing or a name is none.
    """
    values: dict[str, Tensor] = {}
    found = []
    for node in nodes:
        _check_names(node, values)
        check_quiet(node.op, node.arguments)
        values[node.name] = _input(node) if node.op == "input" else _result(node, tensors, values)
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


def _input(node: Node) -> Tensor:
    if node.dtype not in INPUT_DTYPES or node.shape[:1] != (1,):
        raise ModelError(
            f"input '{node.name}' of the net is {node.dtype} {list(node.shape)}; an input must be one batch, its first "
            f"dimension 1, of {', '.join(INPUT_DTYPES)}"
        )
    try:
        return torch.empty(node.shape, dtype=INPUT_DTYPES[node.dtype], device="meta")
    except (RuntimeError, TypeError, ArithmeticError) as error:
        raise ModelError(f"input '{node.name}' of the net has the shape {list(node.shape)}, which none has") from error


def _result(node: Node, tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
    try:
        if op_of(node.op).channels == "parameter":
            return torch.empty_like(tensors[node.tensors["value"]], device="meta")
        module = _meta_module(node, tensors) if op_of(node.op).module is not None else None
        weight = tensors[node.tensors["weight"]] if "weight" in node.tensors else None
        if module is not None and weight is not None and values[node.source].dtype != weight.dtype:
            raise ValueError(f"its weight is {weight.dtype}, what it reads {values[node.source].dtype}")
        on_nothing = replace(node, arguments=on_meta(node.arguments))
        return result_of(on_nothing, tensors, module, values.__getitem__)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError) as error:
        took = ", ".join(f"{name} {list(getattr(values[name], 'shape', ()))}" for name in node.reads)
        owns = ", ".join(f"{role} {list(tensors[t].shape)}" for role, t in node.tensors.items())
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"node '{node.name}' ({node.op}) cannot take {took}{'; it owns ' + owns if owns else ''}: {detail}"
        ) from error


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
