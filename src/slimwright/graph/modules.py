"""Nodes as a plain `fx.GraphModule`, which runs, trains, and keeps the state-dict keys that the model had."""

import operator
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from slimwright.errors import ModelError
from slimwright.graph.node import Node, Ref, resolved
from slimwright.graph.ops import called, op_of


def paths_of(nodes: Iterable[Node]) -> dict[str, str]:
    """Return where each layer sits in `graph_module`: where its weights were, so that state dicts keep their keys."""
    taken: dict[str, object] = {}
    paths = {}
    for node in sorted(nodes, key=lambda n: not n.tensors):
        if op_of(node.op).channels == "parameter":
            paths[node.name] = node.tensors["value"]
            continue
        prefix, _, role = next(iter(node.tensors.values()), "").rpartition(".")
        same = (node.op, node.tensors, {k: v for k, v in node.arguments.items() if not isinstance(v, Ref)})
        path = prefix if prefix and role in node.tensors else node.name
        if taken.get(path, same) != same:
            path = node.name
        while taken.get(path, same) != same or (not node.tensors and any(_nested(path, other) for other in taken)):
            path += "_"
        taken[path] = same
        paths[node.name] = path
    return paths


def graph_module(
    nodes: Sequence[Node], tensors: Mapping[str, Tensor], outputs: Sequence[str], paths: Mapping[str, str]
) -> fx.GraphModule:
    """Return a module in eval mode with its own copy of the weights: one tensor for one output, a tuple for several."""
    root = nn.Module()
    graph = fx.Graph()
    values: dict[str, fx.Node] = {}
    for node in nodes:
        if op_of(node.op).module is not None:
            _attach(root, paths[node.name], layer_of(node, tensors))
    for node in nodes:
        op = op_of(node.op)
        if node.op == "input":
            values[node.name] = graph.placeholder(node.name)
        elif op.channels == "parameter":
            _attach_tensor(root, node.tensors["value"], tensors[node.tensors["value"]], node.op == "parameter")
            values[node.name] = graph.get_attr(node.tensors["value"])
        elif op.module is not None:
            values[node.name] = graph.call_module(paths[node.name], (values[node.source],))
        elif node.op == "item":
            picked = values[node.source], int(str(node.arguments["index"]))
            values[node.name] = graph.call_function(operator.getitem, picked)
        else:
            args, kwargs = called(op, {k: resolved(v, values.__getitem__) for k, v in node.arguments.items()})
            values[node.name] = graph.call_function(op.function, args, kwargs)
    results = tuple(values[name] for name in outputs)
    graph.output(results[0] if len(results) == 1 else results)
    return fx.GraphModule(root, graph).eval()


def layer_of(node: Node, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the layer of one node as a module in eval mode, with its own copy of the weights."""
    op = op_of(node.op)
    assert op.module is not None
    own = {role: tensors[name] for role, name in node.tensors.items()}
    with torch.device("meta"):
        module = op.module(node.arguments, {role: tuple(t.shape) for role, t in own.items()})
    module.to_empty(device=next(iter(own.values())).device if own else "cpu")
    for role, tensor in own.items():
        copy = tensor.detach().clone()
        if role in module._parameters and role not in node.fixed:
            module._parameters[role] = nn.Parameter(copy)
        else:
            module._parameters.pop(role, None)
            module._buffers[role] = copy
    if "num_batches_tracked" in module._buffers:
        module._buffers["num_batches_tracked"] = torch.tensor(0)
    return module.eval()


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    owner, last = _owner(root, path)
    if last in owner._modules:  # a layer may hold other layers, and they may have come first
        module._modules.update(owner.get_submodule(last)._modules)
    _add(owner, last, module)


def _attach_tensor(root: nn.Module, path: str, tensor: Tensor, trained: bool) -> None:
    owner, last = _owner(root, path)
    if last in owner._parameters or last in owner._buffers:  # a layer owns it too
        return
    if hasattr(owner, last):
        raise ModelError(f"a tensor cannot be called '{path}': modules have an attribute of that name")
    if trained and tensor.is_floating_point():
        owner.register_parameter(last, nn.Parameter(tensor.detach().clone()))
    else:
        owner.register_buffer(last, tensor.detach().clone())


def _owner(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds what `path` names, made if need be, and the last part of the path."""
    *parents, last = path.split(".")
    owner = root
    for name in parents:
        if name not in owner._modules:
            _add(owner, name, nn.Module())
        owner = owner.get_submodule(name)
    return owner, last


def _add(owner: nn.Module, name: str, module: nn.Module) -> None:
    if hasattr(owner, name) and name not in owner._modules:
        raise ModelError(f"a layer cannot be called '{name}': modules have an attribute of that name")
    owner.add_module(name, module)


def _nested(path: str, other: str) -> bool:
    return path == other or other.startswith(path + ".")
