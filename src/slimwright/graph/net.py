"""The network as data: a list of nodes in execution order, and the tensors they own.

A `Net` is a value. Editing one gives a new one whose shapes have been inferred and checked again, so
a `Net` that exists is consistent. Shapes are those for one image: the first dimension is a batch of 1,
although the graph runs at any batch size.
"""

import hashlib
import json
import keyword
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor, fx, nn

from slimwright.errors import ModelError
from slimwright.graph.ops import called, on_meta, op_of

IMAGE_DTYPES = {"float32": torch.float32}


@dataclass(frozen=True)
class Ref:
    """The value that the node of this name produces."""

    name: str


Value: TypeAlias = "None | bool | int | float | str | Ref | tuple[Value, ...]"


@dataclass(frozen=True)
class Node:
    """One operation: an op of `ops.py`, its arguments by name, and the names of the tensors it owns.

    `shape` and `dtype` are those of its result; of several results, the first one's, with dtype "tuple".
    `fixed` are the roles of weights that training leaves alone, such as a blur's: buffers where the model had buffers.
    """

    name: str
    op: str
    arguments: Mapping[str, Value] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)  # role -> name in Net.tensors
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    fixed: tuple[str, ...] = ()

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names of the nodes whose values this one takes, in argument order."""
        return tuple(ref.name for ref in _refs(tuple(self.arguments.values())))

    @property
    def source(self) -> str:
        """Name of the first value read: the input of a layer."""
        return self.reads[0]


@dataclass(frozen=True)
class Net:
    """A network: nodes in execution order, their tensors, and the names of the values it returns."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...]

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def input(self) -> Node:
        """The node through which the images come in."""
        return self.nodes[0]

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """For each value, the nodes that read it, in execution order."""
        readers: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                readers[name].append(node.name)
        return {name: tuple(names) for name, names in readers.items()}

    @cached_property
    def paths(self) -> dict[str, str]:
        """Where each layer sits in `to_module()`: where its weights were, so that state dicts keep their keys."""
        taken: dict[str, object] = {}
        paths = {}
        for node in sorted(self.nodes, key=lambda n: not n.tensors):
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

    def weighted(self) -> Iterator[Node]:
        """The layers with a weight matrix: convolutions and linear layers."""
        return (node for node in self.nodes if op_of(node.op).channels == "mix")

    def tensor(self, node: Node, role: str) -> Tensor | None:
        """The tensor that `node` owns in this role ("weight", "bias", ...), or None."""
        return self.tensors[node.tensors[role]] if role in node.tensors else None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the structure and every weight: two nets of one digest compute the same."""
        hasher = hashlib.sha256(json.dumps(structure(self), sort_keys=True).encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name].detach().contiguous().cpu()
            hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return hasher.hexdigest()

    def edited(
        self,
        changed: Mapping[str, Node] | None = None,
        *,
        removed: Mapping[str, str] | None = None,
        added: Sequence[Node] = (),
        tensors: Mapping[str, Tensor] | None = None,
    ) -> "Net":
        """Return the net with nodes changed, removed and added, and tensors replaced; shapes are checked.

        `changed` maps a node's name to what stands in its place. `removed` maps a node's name to the value
        that its readers shall read instead. `added` nodes may stand in any order: each comes before its readers.
        Raises ModelError, naming the node, where shapes do not fit or a value is missing.
        """
        changed, removed = changed or {}, removed or {}
        new = {node.name for node in added}

        def instead(name: str) -> str:
            while name in removed and name not in new:
                name = removed[name]
            return name

        nodes = tuple(
            replace(node, arguments={k: _renamed(v, instead) for k, v in node.arguments.items()})
            for node in (changed.get(n.name, n) for n in self.nodes if n.name not in removed)
        )
        every = {**self.tensors, **(tensors or {})}
        outputs = tuple(map(instead, self.outputs))
        if added:
            nodes = _in_order((*nodes, *added))
        owned = {name for node in nodes for name in node.tensors.values()}
        return checked(Net(nodes, {k: v for k, v in every.items() if k in owned}, outputs))

    def replaced(
        self, region: Iterable[str], by: Sequence[Node], *, tensors: Mapping[str, Tensor] | None = None
    ) -> "Net":
        """Return the net with the nodes of `region` gone and `by` in their place; the last of `by` gives the result.

        One value of the region is read outside of it, and the new result must have its shape. Where nothing takes the
        region's place (`by` is empty), its readers read what its first node read. Raises ModelError, naming the
        node and both shapes.
        """
        gone = [node for node in self.nodes if node.name in set(region)]
        inside = {node.name for node in gone}
        results = [n.name for n in gone if n.name in self.outputs or not inside.issuperset(self.readers[n.name])]
        if len(results) != 1:
            raise ModelError(
                f"the region {', '.join(sorted(inside)) or '(empty)'} gives {len(results)} values to the rest of the "
                f"net ({', '.join(results)}); a region that can be replaced gives exactly one"
            )
        result = by[-1].name if by else gone[0].source
        old = self[results[0]]
        try:
            net = self.edited(removed=dict.fromkeys(inside, result), added=by, tensors=tensors)
        except ModelError as error:  # perhaps because a reader far behind cannot take the new shape
            new = self._result_of(by, {**self.tensors, **(tensors or {})}) if by else None
            if new is not None and new.shape != old.shape:
                raise ModelError(_misfit(old, new)) from error
            raise
        if old.shape != net[result].shape:
            raise ModelError(_misfit(old, net[result]))
        return net

    def _result_of(self, by: Sequence[Node], tensors: Mapping[str, Tensor]) -> Node | None:
        """The last of `by`, with its shape, if the nodes of this net that it depends on and `by` itself fit."""
        names = {node.name for node in by}
        try:
            nodes = _in_order((*(node for node in self.nodes if node.name not in names), *by))
            return checked(without_dead_ends(Net(nodes, tensors, (by[-1].name,))))[by[-1].name]
        except ModelError:
            return None

    def to_module(self) -> fx.GraphModule:
        """Return a plain `nn.Module` in eval mode, with its own copy of the weights under their own names."""
        root = nn.Module()
        graph = fx.Graph()
        values: dict[str, fx.Node] = {}
        for node in self.nodes:
            if op_of(node.op).module is not None:
                _attach(root, self.paths[node.name], self.module_of(node))
        for node in self.nodes:
            op = op_of(node.op)
            if node.op == "input":
                values[node.name] = graph.placeholder(node.name)
            elif op.channels == "parameter":
                _attach_tensor(root, node.tensors["value"], self.tensors[node.tensors["value"]], node.op == "parameter")
                values[node.name] = graph.get_attr(node.tensors["value"])
            elif op.module is not None:
                values[node.name] = graph.call_module(self.paths[node.name], (values[node.source],))
            elif node.op == "item":
                values[node.name] = graph.call_function(
                    operator.getitem, (values[node.source], int(str(node.arguments["index"])))
                )
            else:
                args, kwargs = called(op, {k: _resolved(v, values.__getitem__) for k, v in node.arguments.items()})
                values[node.name] = graph.call_function(op.function, args, kwargs)
        results = tuple(values[name] for name in self.outputs)
        graph.output(results[0] if len(results) == 1 else results)
        return fx.GraphModule(root, graph).eval()

    def module_of(self, node: Node) -> nn.Module:
        """Return the layer of one node as a module in eval mode, with its own copy of the weights."""
        op = op_of(node.op)
        assert op.module is not None
        own = {role: self.tensors[name] for role, name in node.tensors.items()}
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

    @property
    def device(self) -> str:
        """Where the tensors lie: on the processor, but while something else computes."""
        return str(next((tensor.device for tensor in self.tensors.values()), "cpu"))

    def on(self, device: str) -> "Net":
        """Return this net with its tensors on a device, without gradients."""
        moved = {name: (t.detach() if t.requires_grad else t).to(device) for name, t in self.tensors.items()}
        return Net(self.nodes, moved, self.outputs)

    def key(self, node: Node, role: str) -> str:
        """Name of a node's tensor in the state dict of `to_module()`."""
        return node.tensors[role] if op_of(node.op).channels == "parameter" else f"{self.paths[node.name]}.{role}"

    def trained(self, module: nn.Module) -> "Net":
        """Return this net with the weights of `module`, which came from `to_module()` and was trained somewhere."""
        state = module.state_dict()
        tensors = {n.tensors[role]: state[self.key(n, role)] for n in self.nodes for role in n.tensors}
        return self.edited(tensors={name: t.detach().to("cpu", copy=True) for name, t in tensors.items()})


def _misfit(old: Node, new: Node) -> str:
    return f"node '{old.name}' gave {list(old.shape)}; what replaces it, '{new.name}', gives {list(new.shape)}"


def compute(net: Net, node: Node, module: nn.Module | None, value: Callable[[str], Tensor]) -> Tensor:
    """Return what `node` produces; `module` is its layer if it has one, `value` gives what it reads."""
    result: Tensor
    if module is not None:
        result = module(value(node.source))
    elif node.op == "item":
        result = value(node.source)[node.arguments["index"]]  # type: ignore[index]
    elif op_of(node.op).channels == "parameter":
        result = net.tensors[node.tensors["value"]]
    else:
        args, kwargs = called(op_of(node.op), {k: _resolved(v, value) for k, v in node.arguments.items()})
        result = op_of(node.op).function(*args, **kwargs)
    return result


def checked(net: Net) -> Net:
    """Return the net with every node's shape and dtype inferred anew; raise ModelError where they do not fit."""
    values: dict[str, Tensor] = {}
    nodes = []
    for node in net.nodes:
        if not node.name.isidentifier() or keyword.iskeyword(node.name) or node.name == "self":
            raise ModelError(f"{node.name!r} is no name for a node")
        if node.name in values:
            raise ModelError(f"two nodes are called '{node.name}'")
        for name in node.reads:
            if name not in values:
                raise ModelError(f"node '{node.name}' reads '{name}', which no earlier node produces")
        if node.op == "input":
            if node.dtype not in IMAGE_DTYPES or node.shape[:1] != (1,):
                raise ModelError(
                    f"the net takes {node.dtype} {list(node.shape)}; it must take one batch of float32 images"
                )
            try:
                values[node.name] = torch.empty(node.shape, dtype=IMAGE_DTYPES[node.dtype], device="meta")
            except (RuntimeError, TypeError, ArithmeticError) as error:
                raise ModelError(f"the net takes images of shape {list(node.shape)}, which no image has") from error
        else:
            values[node.name] = _inferred(net, node, values)
        shape, dtype = shape_and_dtype(values[node.name])
        nodes.append(replace(node, shape=shape, dtype=dtype))
    for name in net.outputs:
        if name not in values:
            raise ModelError(f"the net returns '{name}', which no node produces")
    return Net(tuple(nodes), net.tensors, net.outputs)


def without_dead_ends(net: Net) -> Net:
    """Return the net without what no output depends on; shapes are not inferred again."""
    wanted = set(net.outputs)
    for node in reversed(net.nodes):
        if node.name in wanted:
            wanted.update(node.reads)
    nodes = tuple(n for n in net.nodes if n.name in wanted or n.op == "input")
    owned = {name for n in nodes for name in n.tensors.values()}
    return Net(nodes, {k: v for k, v in net.tensors.items() if k in owned}, net.outputs)


def shape_and_dtype(value: object) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of a value, as nodes keep them."""
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype).removeprefix("torch.")
    if isinstance(value, tuple | list):
        return (shape_and_dtype(value[0])[0] if value else ()), "tuple"
    return (), "int64"


def structure(net: Net) -> dict[str, object]:
    """Return the net without its tensors as JSON-ready data: the inverse of `store.net_of`."""
    return {
        "nodes": [
            {
                "name": n.name,
                "op": n.op,
                "arguments": {k: _plain(v) for k, v in n.arguments.items()},
                "tensors": dict(n.tensors),
                "shape": list(n.shape),
                "dtype": n.dtype,
                "fixed": list(n.fixed),
            }
            for n in net.nodes
        ],
        "outputs": list(net.outputs),
    }


def _inferred(net: Net, node: Node, values: Mapping[str, Tensor]) -> Tensor:
    try:
        if op_of(node.op).channels == "parameter":
            return torch.empty_like(net.tensors[node.tensors["value"]], device="meta")
        module = _meta_module(net, node) if op_of(node.op).module is not None else None
        weight = net.tensor(node, "weight")
        if module is not None and weight is not None and values[node.source].dtype != weight.dtype:
            raise ValueError(f"its weight is {weight.dtype}, what it reads {values[node.source].dtype}")
        return compute(net, replace(node, arguments=on_meta(node.arguments)), module, values.__getitem__)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError) as error:
        took = ", ".join(f"{name} {list(getattr(values[name], 'shape', ()))}" for name in node.reads)
        owns = ", ".join(f"{role} {list(net.tensors[t].shape)}" for role, t in node.tensors.items())
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"node '{node.name}' ({node.op}) cannot take {took}{'; it owns ' + owns if owns else ''}: {detail}"
        ) from error


def _meta_module(net: Net, node: Node) -> nn.Module:
    own = {role: tuple(net.tensors[name].shape) for role, name in node.tensors.items()}
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


def _in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """As they stand, but every node after what it reads. Raises ModelError for a circle, naming a node of it."""
    by_name = {node.name: node for node in nodes}
    if len(by_name) != len(nodes):
        raise ModelError("two nodes have the same name; give the added ones names of their own")
    ordered: dict[str, Node] = {}
    for first in nodes:
        waiting, entered = [first], set()
        while waiting:
            node = waiting[-1]
            missing = [by_name[name] for name in node.reads if name in by_name and name not in ordered]
            if node.name in ordered or not missing:
                ordered.setdefault(node.name, node)
                waiting.pop()
            elif node.name in entered:
                raise ModelError(f"node '{node.name}' reads its own result, in a circle with '{missing[0].name}'")
            else:
                entered.add(node.name)
                waiting.extend(reversed(missing))
    return tuple(ordered.values())


def _nested(path: str, other: str) -> bool:
    return path == other or other.startswith(path + ".")


def _refs(value: Value) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _refs(item)


def _renamed(value: Value, rename: Callable[[str], str]) -> Value:
    if isinstance(value, Ref):
        return Ref(rename(value.name))
    return tuple(_renamed(item, rename) for item in value) if isinstance(value, tuple) else value


def _resolved(value: Value, find: Callable[[str], object]) -> object:
    if isinstance(value, Ref):
        return find(value.name)
    return [_resolved(item, find) for item in value] if isinstance(value, tuple) else value


def _plain(value: Value) -> object:
    if isinstance(value, Ref):
        return {"value_of": value.name}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
