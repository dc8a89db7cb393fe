"""A trained model becomes a `Net`: from an `nn.Module` through `torch.export`, or from a saved `.pt2`.

Both ways give the same list of `Call`s (ATen overload, arguments by name), and `net_of_program` turns that
list into nodes: in-place operators become their out-of-place twins, the weights leave the argument list,
what a layer needs is checked, and everything else is refused by name. Exact: in eval mode the net computes
what the model computed, with the same kernels.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph.net import Net, Node, Ref, Value, checked
from slimwright.graph.ops import BY_OVERLOAD, OPS, aten


@dataclass(frozen=True)
class Call:
    """One ATen call: the name of its result, the overload such as "conv2d.default", and its arguments."""

    name: str
    overload: str
    arguments: Mapping[str, Value]


@dataclass(frozen=True)
class Program:
    """A traced model: its calls in order, and where images and weights come in."""

    input: str
    input_shape: tuple[int, ...]
    input_dtype: str
    calls: Sequence[Call]
    tensors: Mapping[str, Tensor]  # by the model's own names
    owner: Mapping[str, str]  # value name -> name in `tensors`
    outputs: tuple[str, ...]


def capture(model: nn.Module, image_shape: tuple[int, ...]) -> Net:
    """Return the net of `model` for images of `image_shape` [C, H, W]; the model is left in the mode it was in.

    Raises ModelError where the model fails on such an image, has weights that are not finite, or cannot be
    traced, and UnsupportedOp for an operator that is not known.
    """
    training = {module: module.training for module in model.modules()}
    example = torch.zeros(2, *image_shape)
    model.eval()
    try:
        try:
            with torch.no_grad():
                model(example)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            detail = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"the model cannot take images of shape {list(image_shape)}: {detail}") from error
        try:
            exported = export(model, (example,), dynamic_shapes=({0: Dim.AUTO},), strict=False)
        except Exception as error:  # torch.export raises errors of many unrelated kinds
            detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"torch.export cannot trace the model: {detail}") from error
    finally:
        for module, mode in training.items():
            module.training = mode
    return net_of_program(program_of_export(exported))


def program_of_export(exported: ExportedProgram) -> Program:
    """Return the calls of a live exported program."""
    specs = exported.graph_signature.input_specs
    owner = {s.arg.name: str(s.target) for s in specs if s.kind is not InputKind.USER_INPUT}
    inputs = [s.arg.name for s in specs if s.kind is InputKind.USER_INPUT]
    if len(inputs) != 1:
        raise ModelError(f"the model takes {len(inputs)} inputs; slimwright needs exactly one, a batch of images")
    calls: list[Call] = []
    outputs: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    dtype = "float32"
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            if node.name == inputs[0]:
                value = node.meta["val"]
                shape = (1, *(int(d) for d in value.shape[1:]))
                dtype = str(value.dtype).removeprefix("torch.")
        elif node.op == "output":
            outputs = tuple(a.name for a in node.args[0] if isinstance(a, torch.fx.Node))
        else:
            calls.append(_call_of_fx(node))
    tensors = {**exported.state_dict, **{k: v for k, v in exported.constants.items() if isinstance(v, Tensor)}}
    return Program(inputs[0], shape, dtype, calls, tensors, owner, outputs)


def net_of_program(program: Program) -> Net:
    """Return the net of a traced model, shapes checked. Raises UnsupportedOp and ModelError, naming the node."""
    nodes = [Node(program.input, "input", shape=program.input_shape, dtype=program.input_dtype)]
    memory = _Memory()
    tensors: dict[str, Tensor] = {}
    for call in program.calls:
        overload = _out_of_place(call.overload)
        op_name = BY_OVERLOAD.get(overload)
        if op_name is None:
            raise UnsupportedOp(
                f"operator aten.{call.overload} (node '{call.name}') is not supported yet; "
                f"supported are {', '.join(sorted(set(OPS) - {'input'}))}"
            )
        arguments, owned = _split(call, op_name, program.owner, memory.latest)
        for name in owned.values():
            tensors[name] = _finite(name, program.tensors[name])
        nodes.append(Node(call.name, op_name, arguments, owned))
        memory.made(nodes[-1], in_place=overload != call.overload)
    outputs = tuple(memory.latest.get(name, name) for name in program.outputs)
    memory.read(outputs, "the output")
    if len(outputs) != 1:
        raise ModelError(f"the model returns {len(outputs)} values; slimwright needs exactly one, the class scores")
    return checked(_without_dead_ends(Net(tuple(nodes), tensors, outputs)))


class _Memory:
    """Which values share memory, and what in-place operators did to them."""

    def __init__(self) -> None:
        self.latest: dict[str, str] = {}  # a value that was written over -> the value that holds it now
        self._whole: dict[str, str] = {}  # a view, or what was written in place -> whose memory it shares
        self._stale: dict[str, str] = {}  # a value that changed through another view -> the node that changed it

    def read(self, names: Iterable[str], reader: str) -> None:
        """Raise UnsupportedOp where one of the values is no longer what the node of its name computed."""
        for name in names:
            if name in self._stale:
                raise UnsupportedOp(
                    f"{reader} reads '{name}', which node '{self._stale[name]}' changes in place through a view of it; "
                    "that is not supported yet: use the operator that does not write in place"
                )

    def made(self, node: Node, *, in_place: bool) -> None:
        self.read(node.reads, f"node '{node.name}'")
        if not (in_place or OPS[node.op].view):
            return
        target = node.source
        whole = self._whole.setdefault(target, target)
        if in_place:
            self._stale |= {name: node.name for name, other in self._whole.items() if other == whole and name != target}
            self.latest |= {name: node.name for name, held in self.latest.items() if held == target}
            self.latest[target] = node.name
        self._whole[node.name] = whole


def bound(overload: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arguments of an ATen overload by their schema names, defaults filled in."""
    result: dict[str, Value] = {}
    for position, argument in enumerate(aten(overload)._schema.arguments):
        if position < len(args):
            result[argument.name] = args[position]
        elif argument.name in kwargs:
            result[argument.name] = kwargs[argument.name]
        else:
            result[argument.name] = _value(argument.default_value)
    return result


def _call_of_fx(node: torch.fx.Node) -> Call:
    if node.target is operator.getitem:  # one of several results: the operator that gives them is refused by name
        return Call(node.name, "getitem", {})
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        raise UnsupportedOp(f"operator {name} (node '{node.name}') is not supported yet")
    overload = node.target.name().removeprefix("aten::")
    overload = overload if "." in overload else overload + ".default"
    kwargs = {k: _value(v) for k, v in node.kwargs.items()}
    return Call(node.name, overload, bound(overload, [_value(a) for a in node.args], kwargs))


def _split(
    call: Call, op_name: str, owner: Mapping[str, str], latest: Mapping[str, str]
) -> tuple[dict[str, Value], dict[str, str]]:
    """Separate what flows in from the weights that the layer owns."""
    op = OPS[op_name]
    arguments: dict[str, Value] = {}
    owned: dict[str, str] = {}
    for key, value in call.arguments.items():
        if key in op.drops:
            continue
        if key in op.owns:
            if value is None:
                continue
            if not isinstance(value, Ref) or value.name not in owner:
                raise UnsupportedOp(
                    f"the {key} of node '{call.name}' ({op_name}) is computed, not stored; that is not supported yet"
                )
            owned[key] = owner[value.name]
        else:
            arguments[key] = _flowing(value, call, op_name, owner, latest)
    if op_name == "batch_norm" and "running_mean" not in owned:
        raise UnsupportedOp(f"batch norm without running statistics (node '{call.name}') is not supported yet")
    return arguments, owned


def _flowing(value: Value, call: Call, op_name: str, owner: Mapping[str, str], latest: Mapping[str, str]) -> Value:
    if isinstance(value, tuple):
        return tuple(_flowing(item, call, op_name, owner, latest) for item in value)
    if not isinstance(value, Ref):
        return value
    if value.name in owner:
        raise UnsupportedOp(
            f"node '{call.name}' ({op_name}) uses the bare parameter '{owner[value.name]}'; that is not supported yet"
        )
    return Ref(latest.get(value.name, value.name))


def _without_dead_ends(net: Net) -> Net:
    """Drop what no output depends on."""
    wanted = set(net.outputs)
    for node in reversed(net.nodes):
        if node.name in wanted:
            wanted.update(node.reads)
    nodes = tuple(n for n in net.nodes if n.name in wanted or n.op == "input")
    owned = {name for n in nodes for name in n.tensors.values()}
    return Net(nodes, {k: v for k, v in net.tensors.items() if k in owned}, net.outputs)


def _finite(name: str, tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ModelError(f"tensor '{name}' holds {bad} values that are NaN or infinite; train or load the model again")
    return tensor.detach()


def _out_of_place(overload: str) -> str:
    name, _, variant = overload.partition(".")
    return f"{name.removesuffix('_')}.{variant}" if name.endswith("_") and not name.endswith("__") else overload


def _value(value: Any) -> Value:
    if isinstance(value, torch.fx.Node):
        return Ref(value.name)
    if isinstance(value, (list, tuple)):
        return tuple(_value(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        raise UnsupportedOp(f"an operator's argument is computed from a size ({value}); that is not supported yet")
    return str(value)  # a dtype, layout or device: told apart by the ops that accept one
