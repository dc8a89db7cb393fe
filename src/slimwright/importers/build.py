"""From a traced program to a `Net`: constants folded, views in one form, layers with their weights.

Splits become slices. A layer whose weights are computed from the image, and any operator without a row, is carried as
the ATen function it was.
"""

import keyword
from collections.abc import Container, Mapping, Sequence
from itertools import accumulate, count
from typing import Any

import torch
from torch import Tensor, nn

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph.editing import renamed_nodes
from slimwright.graph.inference import INPUT_DTYPES, empty_input
from slimwright.graph.net import Net, Node, Ref, Value, checked, without_dead_ends
from slimwright.graph.ops import BY_OVERLOAD, FAILURES, INTEGER, OPS, STATE, op_of
from slimwright.importers.constants import Constants, cannot, computed, filled, is_one_row, meta_of
from slimwright.importers.normal import Seen, normal, renamed
from slimwright.importers.patterns import with_lrn
from slimwright.importers.program import UNKNOWN, Call, Input, Program, functional

SPLITS = ("split", "split_with_sizes", "chunk", "unsafe_chunk", "unsafe_split", "tensor_split", "unbind")
IMAGES_ONLY = ("conv2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "lrn")  # layers that take [N, C, H, W]


def net_of_program(program: Program) -> Net:
    """Return the net of a traced model, shapes checked. Raises UnsupportedOp and ModelError, naming the node."""
    program = functional(program)
    if not program.inputs or not program.outputs:
        raise ModelError(
            f"the model takes {len(program.inputs)} tensors and returns {len(program.outputs)} values; it must take at "
            "least one, and return at least one"
        )
    builder = _Builder(program, Constants(program))
    for call in program.calls:
        builder.add(call)
    outputs = tuple(builder.output(name) for name in program.outputs)
    net = without_dead_ends(Net(tuple(builder.nodes), builder.tensors, outputs))
    return with_outputs_named(with_lrn(checked(net)), program.output_names)


def with_outputs_named(net: Net, names: Sequence[str]) -> Net:
    """Return the net with the nodes of its outputs called as the model calls them, where such a name is free."""
    taken = {node.name for node in net.nodes}
    called: dict[str, str] = {}
    for output, name in zip(net.outputs, names, strict=False):
        is_name = name.isidentifier() and not keyword.iskeyword(name) and not hasattr(nn.Module(), name)
        is_own = output not in called and op_of(net[output].op).channels not in ("input", "parameter")
        if is_name and is_own and name not in taken:
            called[output] = name
            taken.add(name)
    nodes, outputs = renamed_nodes(net.nodes, net.outputs, called)
    return Net(nodes, net.tensors, outputs) if called else net


class _Builder:
    """Makes nodes out of calls, knowing each value's shape at a batch of one and of two."""

    def __init__(self, program: Program, constants: Constants) -> None:
        self.program, self.constants = program, constants
        self.nodes = [Node(given.name, "input", shape=given.shape, dtype=given.dtype) for given in program.inputs]
        self.tensors: dict[str, Tensor] = {}
        self.names = {call.name for call in program.calls}
        self.instead: dict[str, str] = {}  # a value that needs no node of its own -> the value that it is
        self.parts: dict[str, tuple[str, int, list[int], bool]] = {}  # split -> source, dim, borders, drops the dim
        self.values: dict[str, tuple[Any, Any]] = {given.name: _at_one_and_two(given) for given in program.inputs}

    def name_of(self, value: str) -> str:
        """The node that gives a value; a constant gets one when it is first asked for."""
        while value in self.instead:
            value = self.instead[value]
        if value in self.constants.values and value not in self.values:
            op = "parameter" if self.constants.is_trained(value) else "constant"
            name = f"{value}_" if value == "self" else value
            self.nodes.append(Node(name, op, {}, {"value": self._owned(value)}))
            self.values[name] = (meta_of(self.constants.values[value]),) * 2
            if name != value:
                self.instead[value] = name
            return name
        return value

    def output(self, value: str) -> str:
        """The node that gives an output. Raises ModelError where that is no tensor, or one of several without a batch.

        A single output without one is the caller's affair: there are functions of a whole batch.
        """
        name = self.name_of(value)
        one, two = self.values[name]
        if not isinstance(one, Tensor):
            raise ModelError(f"the model returns '{name}', which is not a tensor; it must return tensors only")
        if len(self.program.outputs) > 1 and (one.shape[:1], two.shape[:1]) != ((1,), (2,)):
            raise ModelError(
                f"the model returns '{name}' of shape {list(one.shape)} for one image and {list(two.shape)} for two; "
                "the first dimension of an output must be the batch"
            )
        return name

    def add(self, call: Call) -> None:
        """Add what a call stands for: no node, one, or several."""
        if call.name in self.constants.values:
            return
        if call.overload.startswith(UNKNOWN):
            name = call.overload.removeprefix(UNKNOWN)
            raise UnsupportedOp(f"operator {name} (node '{call.name}') is none that computes tensors from tensors")
        if call.overload == "getitem" and call.reads[0] in self.parts:
            self.add(self._part(call))
            return
        first = self.name_of(call.reads[0]) if call.reads else ""
        sources = self.values.get(first, (None, None))
        call = renamed(call, {call.reads[0]: getattr(sources[0], "dtype", None)} if call.reads else {})
        op = self._op(call)
        results = (self._computed(call, op, 0), self._computed(call, op, 1))
        base = call.overload.partition(".")[0]
        if base in SPLITS and self._is_split(call, first, results[0]):
            return
        if base == "stack":
            self._stacked(call, results[0].ndim)
            return
        size = self._batch_size(call) if base == "expand_as" else None
        op, arguments = normal(op, self._arguments(call, op), Seen(call, first, sources, results, size))
        if not op:
            self.instead[call.name] = first
            return
        name = f"{call.name}_" if call.name == "self" else call.name
        weights = self._weights(call, op)
        self.nodes.append(Node(name, op, arguments, weights, fixed=self._fixed(call, weights)))
        self.values[name] = results
        if name != call.name:
            self.instead[call.name] = name

    def _op(self, call: Call) -> str:
        """The row for a call, or the name under which it is carried. Raises UnsupportedOp where it cannot be."""
        if call.overload == "getitem":
            return "item"
        op = BY_OVERLOAD.get(call.overload, "")
        rank = self.values[self.name_of(call.reads[0])][0].ndim if op in (*IMAGES_ONLY, "batch_norm") else 4
        if op == "batch_norm" and rank in (2, 3):
            op = "batch_norm1d"
        if op and self._is_layer(call, op) and (rank == 4 or op == "batch_norm1d"):
            return op
        op_of(f"aten.{call.overload}")
        return f"aten.{call.overload}"

    def _is_layer(self, call: Call, op: str) -> bool:
        """True where the weights that the row's layer needs are stored, and its knobs are those it knows."""
        given = {role: call.arguments[role] for role in OPS[op].owns if call.arguments.get(role) is not None}
        if not all(isinstance(w, Ref) and w.name in self.constants.values for w in given.values()):
            return False
        if op in ("conv2d", "linear", "group_norm", "prelu"):
            return "weight" in given
        if op in ("batch_norm", "batch_norm1d"):
            return "running_mean" in given and not call.arguments["training"]
        if op in ("dropout", "dropout2d"):
            return not call.arguments["train"]
        return op != "elu" or (call.arguments["scale"], call.arguments["input_scale"]) == (1, 1)

    def _arguments(self, call: Call, op: str) -> dict[str, Value]:
        """What flows in, by the names of nodes, and the knobs; no weights."""

        def named(value: Value) -> Value:
            if isinstance(value, Ref):
                return Ref(self.name_of(value.name))
            return tuple(named(item) for item in value) if isinstance(value, tuple) else value

        row = op_of(op)
        return {key: named(v) for key, v in call.arguments.items() if key not in row.drops and key not in row.owns}

    def _weights(self, call: Call, op: str) -> dict[str, str]:
        """The tensors that a layer owns, by role."""
        given = {role: call.arguments.get(role) for role in op_of(op).owns}
        found = {role: self._owned(ref.name, layer=True) for role, ref in given.items() if isinstance(ref, Ref)}
        untrained = op == "conv2d" and len(self._fixed(call, found)) == len(found)
        return {role: self._apart(tensor) if untrained else tensor for role, tensor in found.items()}

    def _apart(self, tensor: str) -> str:
        """The name under which a layer owns a tensor that no training makes: one buffer of a blur ties no layers."""
        if not is_one_row(self.tensors[tensor]) or not any(tensor in node.tensors.values() for node in self.nodes):
            return tensor
        self.tensors[name := _free_name(tensor, {*self.tensors, *self.program.tensors})] = self.tensors[tensor]
        return name

    def _fixed(self, call: Call, weights: Mapping[str, str]) -> tuple[str, ...]:
        """The roles of weights, other than statistics, that no parameter is behind."""
        read = {role: call.arguments[role] for role in weights if role not in STATE}
        return tuple(r for r, ref in read.items() if isinstance(ref, Ref) and not self.constants.is_trained(ref.name))

    def _owned(self, value: str, *, layer: bool = False) -> str:
        """Keep a constant's tensor, and say under which name."""
        name, tensor = self.constants.name(value), self.constants.values[value]
        if layer or name in self.program.parameters:
            _check_finite(name, tensor)
        self.tensors[name] = tensor.detach()
        return name

    def _computed(self, call: Call, op: str, batch: int) -> Any:
        """The shape of a call's result, at a batch of one or two."""

        def value(name: str) -> Any:
            while name in self.instead:
                name = self.instead[name]
            return self.values[name][batch] if name in self.values else meta_of(self.constants.values[name])

        if op != "item" and call.overload not in INTEGER and call.overload not in OPS:
            return computed(call, value, meta=True)
        arguments = filled(call.arguments, value)
        try:
            if op == "item":
                return arguments["value"][arguments["index"]]
            if call.overload in INTEGER:
                return INTEGER[call.overload](*arguments.values())
            layer = OPS[op].module  # a row with a layer but no overload
            assert layer is not None
            return layer(arguments, {})(arguments["input"])
        except FAILURES as error:
            raise cannot(call, error) from error

    def _fresh(self, name: str) -> str:
        """A name that no call of the program has."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name

    def _batch_size(self, call: Call) -> Ref:
        """The batch size of the value that an `expand_as` follows."""
        name = self._fresh(f"{call.name}_size")
        self.add(Call(name, "sym_size.int", {"self": call.arguments["other"], "dim": 0}))
        return Ref(name)

    def _is_split(self, call: Call, source: str, parts: Any) -> bool:
        """Note a split whose parts are slices; False where the parts depend on the batch."""
        one, two = self.values[source]
        dim = int(str(call.arguments.get("dim") or 0)) % one.ndim
        if one.shape[dim] != two.shape[dim]:
            return False
        drops = call.overload.startswith("unbind")
        borders = [0, *accumulate(1 if drops else part.shape[dim] for part in parts)]
        self.parts[call.name] = (source, dim, borders, drops)
        return True

    def _part(self, call: Call) -> Call:
        source, dim, borders, drops = self.parts[call.reads[0]]
        at = int(str(call.arguments["index"])) % (len(borders) - 1)
        arguments: dict[str, Value] = {"self": Ref(source), "dim": dim}
        if drops:
            return Call(call.name, "select.int", {**arguments, "index": at})
        return Call(call.name, "slice.Tensor", {**arguments, "start": borders[at], "end": borders[at + 1], "step": 1})

    def _stacked(self, call: Call, rank: int) -> None:
        """A stack: every value raised by a dimension, then put side by side along it."""
        dim = int(str(call.arguments["dim"])) % rank
        raised = [self._fresh(f"{call.name}_{number}") for number in range(len(call.reads))]
        for name, source in zip(raised, call.reads, strict=True):
            self.add(Call(name, "unsqueeze.default", {"self": Ref(source), "dim": dim}))
        self.add(Call(call.name, "cat.default", {"tensors": tuple(map(Ref, raised)), "dim": dim}))


def _at_one_and_two(given: Input) -> tuple[Tensor, Tensor]:
    """An input at a batch of one and of two, without elements. Raises ModelError where no net can take it."""
    if given.dtype not in INPUT_DTYPES or not given.shape:
        raise ModelError(
            f"input '{given.name}' of the model is {given.dtype} {list(given.shape)}; an input must be a batch of "
            f"{' or '.join(INPUT_DTYPES)}"
        )
    one, two = (empty_input(given.name, (n, *given.shape[1:]), INPUT_DTYPES[given.dtype]) for n in (1, 2))
    return one, two


def _free_name(name: str, taken: Container[str]) -> str:
    """The name, with the first number behind it with which nothing is called so."""
    return next(numbered for number in count(1) if (numbered := f"{name}_{number}") not in taken)


def _check_finite(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ModelError(f"tensor '{name}' holds {bad} values that are NaN or infinite; train or load the model again")
