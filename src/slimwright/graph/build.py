"""From a traced program to a `Net`: constants folded, views in one form, layers with their weights.

What depends on weights alone is computed once, here (weight standardisation, a blur kernel repeated per channel), unless
that would make the model larger. Every size that follows from the batch becomes -1, so that views hold at any batch.
Splits become slices. A layer whose weights are computed from the image, and any operator without a row, is carried as
the ATen function it was.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph.net import Net, Node, Ref, Value, checked, without_dead_ends
from slimwright.graph.ops import BY_OVERLOAD, FACTORIES, INTEGER, OPS, aten, call_aten, on_meta, op_of
from slimwright.graph.patterns import with_lrn
from slimwright.graph.program import UNKNOWN, Call, Program, functional

MOST_FOLDED = 2**26  # elements of a constant that is computed here
LIKE = ("new_zeros", "new_ones", "new_full")
SPLITS = ("split", "split_with_sizes", "chunk", "unsafe_chunk", "unsafe_split", "tensor_split", "unbind")


def net_of_program(program: Program) -> Net:
    """Return the net of a traced model, shapes checked. Raises UnsupportedOp and ModelError, naming the node."""
    program = functional(program)
    if len(program.outputs) != 1:
        raise ModelError(
            f"the model returns {len(program.outputs)} values; slimwright needs exactly one, the class scores"
        )
    builder = _Builder(program, _Constants(program))
    for call in program.calls:
        builder.add(call)
    outputs = tuple(builder.name_of(name) for name in program.outputs)
    net = without_dead_ends(Net(tuple(builder.nodes), builder.tensors, outputs))
    return with_lrn(checked(net))


class _Constants:
    """The values that follow from weights and numbers alone."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.values: dict[str, Any] = {v: program.tensors[name] for v, name in program.owner.items()}
        self.made_of: dict[str, frozenset[str]] = {  # value -> the parameters it was computed from
            value: frozenset({name} & program.parameters) for value, name in program.owner.items()
        }
        self.values[""], self.made_of[""] = torch.empty(0), frozenset()
        for call in program.calls:
            self._fold(call)
        read = {name for call in program.calls if call.name not in self.values for name in call.reads}
        self.direct = {program.owner[name] for name in read if name in program.owner}

    def name(self, value: str) -> str:
        """What the tensor of a constant is called: its parameter's name where it stands for it alone."""
        if value in self.program.owner:
            return self.program.owner[value]
        if len(self.made_of[value]) == 1:
            (parameter,) = self.made_of[value]
            same_size = self.program.tensors[parameter].numel() == self.values[value].numel()
            users = [v for v, parts in self.made_of.items() if parts == {parameter} and v not in self.program.owner]
            if same_size and parameter not in self.direct and users[-1] == value:
                return parameter
        return value

    @torch.no_grad()
    def _fold(self, call: Call) -> None:
        if call.overload.startswith(UNKNOWN) or call.overload in INTEGER or call.overload in OPS:
            return
        if call.overload.partition(".")[0] in LIKE:  # of the value they are called on, only the dtype counts
            like = Ref("")
            call = replace(call, arguments={k: like if k == "self" else v for k, v in call.arguments.items()})
        if not all(name in self.values for name in call.reads):
            return
        made_of = frozenset().union(*(self.made_of[name] for name in call.reads))
        if call.overload == "getitem":
            self.values[call.name] = self.values[call.reads[0]][call.arguments["index"]]
        else:
            function = aten(call.overload)
            if torch.Tag.nondeterministic_seeded in function.tags:
                return
            if not call.reads and not call.overload.startswith(FACTORIES):
                return
            size = _numel(self._computed(call, meta=True))
            most = sum(self.program.tensors[name].numel() for name in made_of) if made_of else MOST_FOLDED
            if size > most:
                return
            self.values[call.name] = self._computed(call, meta=False)
        self.made_of[call.name] = made_of

    def _computed(self, call: Call, *, meta: bool) -> Any:
        def found(name: str) -> Any:
            value = self.values[name]
            return _on_meta(value) if meta else value

        arguments = {key: _filled(value, found) for key, value in call.arguments.items()}
        try:
            return call_aten(call.overload, on_meta(arguments) if meta else arguments)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            if meta:  # some operators on constants have no shape rule
                return torch.empty(0, device="meta")
            raise _cannot(call, error) from error


class _Builder:
    """Makes nodes out of calls, knowing each value's shape at a batch of one and of two."""

    def __init__(self, program: Program, constants: _Constants) -> None:
        self.program, self.constants = program, constants
        self.nodes = [Node(program.input, "input", shape=program.input_shape, dtype=program.input_dtype)]
        self.tensors: dict[str, Tensor] = {}
        self.instead: dict[str, str] = {}  # a value that needs no node of its own -> the value that it is
        self.parts: dict[str, tuple[str, int, list[int], bool]] = {}  # split -> source, dim, borders, drops the dim
        self.values: dict[str, tuple[Any, Any]] = {}
        _, *image = program.input_shape
        self.values[program.input] = (torch.empty(1, *image, device="meta"), torch.empty(2, *image, device="meta"))

    def name_of(self, value: str) -> str:
        """The node that gives a value; a constant gets one when it is first asked for."""
        while value in self.instead:
            value = self.instead[value]
        if value in self.constants.values and value not in self.values:
            tensor = self.constants.values[value]
            trained = bool(self.constants.made_of[value]) and tensor.is_floating_point()
            node = Node(_fresh(value, self.values), "parameter" if trained else "constant", {}, {"value": self._owned(value)})
            self._append(node, (_on_meta(tensor), _on_meta(tensor)))
            self.instead[value] = node.name
            self.instead.pop(node.name, None)
            return node.name
        return value

    def add(self, call: Call) -> None:
        """Add what a call stands for: no node, one, or several."""
        if call.name in self.constants.values:
            return
        if call.overload.startswith(UNKNOWN):
            raise UnsupportedOp(f"'{call.name}' calls {call.overload.removeprefix(UNKNOWN)}, which is no tensor operator")
        if call.overload == "getitem" and call.reads[0] in self.parts:
            self._part(call)
            return
        if call.overload in ("view.default", "_unsafe_view.default"):  # of the same elements, in any memory layout
            call = Call(call.name, "reshape.default", {"self": call.arguments["self"], "shape": call.arguments["size"]})
        if call.overload in ("to.device", "to.dtype_layout", "_to_copy.default"):  # where it lies is not the net's business
            dtype = call.arguments["dtype"] or str(self._value(call.reads[0]).dtype)
            call = Call(call.name, "to.dtype", {**TO_DTYPE, "self": call.arguments["self"], "dtype": dtype})
        op = self._op(call)
        row = OPS.get(op)
        owned = {k: v.name for k, v in call.arguments.items() if row and k in row.owns and isinstance(v, Ref)}
        arguments = {
            key: self._named(value)
            for key, value in call.arguments.items()
            if row is None or (key not in row.drops and key not in row.owns)
        }
        if call.overload == "getitem":
            arguments = {"value": arguments["value"], "index": arguments["index"]}
        results = tuple(self._computed(call, op, batch) for batch in (0, 1))
        base = call.overload.partition(".")[0]
        if base in SPLITS and self._is_split(call, results):
            return
        if base == "stack":
            self._stacked(call, arguments, results)
            return
        op, arguments = self._normal(call, op, arguments, results)
        if op == "":
            self.instead[call.name] = self.name_of(call.reads[0])
            return
        roles = {role: self._owned(value, layer=True) for role, value in owned.items()}
        self._append(Node(_python(call.name), op, arguments, roles), results)
        if _python(call.name) != call.name:
            self.instead[call.name] = _python(call.name)

    def _append(self, node: Node, results: Any) -> None:
        self.values[node.name] = results
        self.nodes.append(node)

    def _op(self, call: Call) -> str:
        """The row for a call, or the name under which it is carried."""
        if call.overload == "getitem":
            return "item"
        op = BY_OVERLOAD.get(call.overload)
        if op is None:
            op_of(f"aten.{call.overload}")  # raises where it cannot be carried
            return f"aten.{call.overload}"
        row = OPS[op]
        weights = [call.arguments[k] for k in row.owns if call.arguments.get(k) is not None]
        stored = all(isinstance(w, Ref) and w.name in self.constants.values for w in weights)
        if op == "batch_norm":
            rank = self._value(call.reads[0]).ndim
            op = {4: "batch_norm", 3: "batch_norm1d", 2: "batch_norm1d"}.get(rank, "")
            stored = stored and call.arguments.get("running_mean") is not None and bool(op)
        if op in ("group_norm", "conv2d", "linear", "prelu") and not weights:
            stored = False
        if op in ("conv2d", "linear") and call.arguments["weight"] is None:
            stored = False
        if op == "elu" and (call.arguments["scale"], call.arguments["input_scale"]) != (1, 1):
            stored = False
        if op in FOUR_D and self._value(call.reads[0]).ndim != 4:
            stored = False
        if row.owns and not stored or op in FOUR_D and not stored or (op == "elu" and not stored):
            return f"aten.{call.overload}"
        return op

    def _value(self, name: str) -> Tensor:
        value: Tensor = self.values[self.name_of(name)][0]
        return value

    def _named(self, value: Value) -> Value:
        if isinstance(value, Ref):
            return Ref(self.name_of(value.name))
        return tuple(self._named(item) for item in value) if isinstance(value, tuple) else value

    def _owned(self, value: str, *, layer: bool = False) -> str:
        """Keep a constant's tensor, and say under which name."""
        name, tensor = self.constants.name(value), self.constants.values[value]
        if layer or name in self.program.parameters:
            _check_finite(name, tensor)
        self.tensors[name] = tensor.detach()
        return name

    def _computed(self, call: Call, op: str, batch: int) -> Any:
        def found(name: str) -> Any:
            name = self.instead.get(name, name)
            if name in self.values:
                return self.values[name][batch]
            return _on_meta(self.constants.values[name])

        arguments = {key: _filled(value, found) for key, value in call.arguments.items()}
        try:
            if op == "item":
                return arguments["value"][arguments["index"]]
            if call.overload in INTEGER:
                return INTEGER[call.overload](*arguments.values())
            if call.overload in OPS:  # a row with a layer of its own
                row = OPS[op]
                assert row.module is not None
                return row.module(arguments, {})(arguments["input"])
            return call_aten(call.overload, on_meta(arguments))
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError, NotImplementedError) as error:
            raise _cannot(call, error) from error

    # splits

    def _is_split(self, call: Call, results: tuple[Any, ...]) -> bool:
        """Note a split whose parts are slices; False where the parts depend on the batch."""
        source = self.name_of(call.reads[0])
        dim = int(str(call.arguments.get("dim") or 0)) % len(self.values[source][0].shape)
        one, two = (v.shape[dim] for v in self.values[source])
        if one != two:
            return False
        drops = call.overload.startswith("unbind")
        sizes = [1 if drops else part.shape[dim] for part in results[0]]
        borders = [0]
        for size in sizes:
            borders.append(borders[-1] + size)
        self.parts[call.name] = (source, dim, borders, drops)
        return True

    def _part(self, call: Call) -> None:
        source, dim, borders, drops = self.parts[call.reads[0]]
        at = int(str(call.arguments["index"])) % (len(borders) - 1)
        if drops:
            self.add(Call(call.name, "select.int", {"self": Ref(source), "dim": dim, "index": at}))
            return
        self.add(
            Call(
                call.name,
                "slice.Tensor",
                {"self": Ref(source), "dim": dim, "start": borders[at], "end": borders[at + 1], "step": 1},
            )
        )

    def _stacked(self, call: Call, arguments: Mapping[str, Value], results: tuple[Any, ...]) -> None:
        dim = int(str(arguments["dim"])) % results[0].ndim
        raised = []
        for number, ref in enumerate(arguments["tensors"]):  # type: ignore[arg-type]
            name = f"{call.name}_{number}_raised"
            self.add(Call(name, "unsqueeze.default", {"self": ref, "dim": dim}))
            raised.append(Ref(name))
        self.add(Call(call.name, "cat.default", {"tensors": tuple(raised), "dim": dim}))

    # one form for what has many

    def _normal(
        self, call: Call, op: str, arguments: dict[str, Value], results: tuple[Any, ...]
    ) -> tuple[str, dict[str, Value]]:
        """Return the op and its arguments in the form that the rest of the house knows; "" for an op that does nothing."""
        base = call.overload.partition(".")[0]
        first = self.name_of(call.reads[0]) if call.reads else ""
        one, two = self.values.get(first, (None, None))
        match base:
            case "reshape" | "unflatten" | "view_as" | "reshape_as":
                sizes = [a if a == b else -1 for a, b in zip(*(r.shape for r in results), strict=True)]
                if sizes.count(-1) <= 1:
                    return "reshape", {"self": Ref(first), "shape": tuple(sizes)}
                return "reshape", {"self": Ref(first), "shape": arguments["shape"]}
            case "squeeze":
                dims = arguments.get("dim", tuple(range(two.ndim)))
                wanted = [int(str(d)) % two.ndim for d in (dims if isinstance(dims, tuple) else (dims,))]
                return "squeeze", {"self": Ref(first), "dim": tuple(d for d in wanted if two.shape[d] == 1)}
            case "unsqueeze":
                return "unsqueeze", {"self": Ref(first), "dim": int(str(arguments["dim"])) % (one.ndim + 1)}
            case "permute" | "movedim" | "transpose" | "swapaxes" | "t" | "numpy_T" | "mT":
                return self._permuted(base, call, first, one)
            case "expand" | "expand_as" | "broadcast_to":
                return "expand", self._expanded(call, first, arguments, results)
            case "narrow":
                start = int(str(arguments["start"]))
                return self._sliced(first, arguments["dim"], start, start + int(str(arguments["length"])), 1)
            case "slice":
                return self._sliced(first, *(arguments[k] for k in ("dim", "start", "end", "step")))
            case "select":
                dim = int(str(arguments["dim"])) % one.ndim
                index = arguments["index"]
                if isinstance(index, int) and one.shape[dim] == two.shape[dim]:
                    index %= one.shape[dim]
                return "select", {"self": Ref(first), "dim": dim, "index": index}
            case "pad" | "constant_pad_nd" if not any(arguments["pad"]):  # type: ignore[arg-type]
                return "", {}
            case "to" | "type_as":
                if results[0].dtype == one.dtype:
                    return "", {}
                return "aten.to.dtype", {**TO_DTYPE, "self": Ref(first), "dtype": str(results[0].dtype)}
        return op, arguments

    def _permuted(self, base: str, call: Call, first: str, one: Tensor) -> tuple[str, dict[str, Value]]:
        arguments = call.arguments
        if base == "permute":
            dims = [int(str(d)) % one.ndim for d in arguments["dims"]]  # type: ignore[union-attr]
            return "permute", {"self": Ref(first), "dims": tuple(dims)}
        if base in ("transpose", "swapaxes"):
            keys = ("dim0", "dim1") if base == "transpose" else ("axis0", "axis1")
            dims = [int(str(arguments[k])) % one.ndim for k in keys]
            return "transpose", {"self": Ref(first), "dim0": dims[0], "dim1": dims[1]}
        if base in ("t", "mT"):
            return "transpose", {"self": Ref(first), "dim0": one.ndim - 2, "dim1": one.ndim - 1}
        if base == "numpy_T":
            return "permute", {"self": Ref(first), "dims": tuple(range(one.ndim))[::-1]}
        numbered = torch.empty(tuple(range(2, one.ndim + 2)), device="meta")  # each dimension tells its number
        moved = call_aten(call.overload, {**arguments, "self": numbered})
        return "permute", {"self": Ref(first), "dims": tuple(n - 2 for n in moved.shape)}

    def _expanded(
        self, call: Call, first: str, arguments: Mapping[str, Value], results: tuple[Any, ...]
    ) -> dict[str, Value]:
        source = self.values[first][0].shape
        new = results[0].ndim - len(source)
        sizes: list[Value] = []
        for axis, (one, two) in enumerate(zip(*(r.shape for r in results), strict=True)):
            if axis >= new and source[axis - new] == one and self.values[first][1].shape[axis - new] == two:
                sizes.append(-1)
            elif one == two:
                sizes.append(one)
            else:
                sizes.append(self._size(call, axis, arguments))
        return {"self": Ref(first), "size": tuple(sizes), "implicit": False}

    def _size(self, call: Call, axis: int, arguments: Mapping[str, Value]) -> Value:
        """A size that depends on the batch, at one place of an expand."""
        asked = arguments.get("size")
        if isinstance(asked, tuple):
            return asked[axis]
        other = call.arguments["other"]
        assert isinstance(other, Ref)
        name = f"{call.name}_size"
        self.add(Call(name, "sym_size.int", {"self": other, "dim": axis}))
        return Ref(name)

    def _sliced(self, first: str, dim: Value, start: Value, end: Value, step: Value) -> tuple[str, dict[str, Value]]:
        one, two = self.values[first]
        axis = int(str(dim)) % one.ndim
        size = one.shape[axis]
        if size == two.shape[axis] and not any(isinstance(v, Ref) for v in (start, end)):
            low, high, _ = slice(start, end, None).indices(size)
            start, end = low, high
            if (low, high, step) == (0, size, 1):
                return "", {}
        elif start in (None, 0) and step == 1 and (end is None or (isinstance(end, int) and end >= 2**31)):
            return "", {}
        return "slice", {"self": Ref(first), "dim": axis, "start": start, "end": end, "step": step}


TO_DTYPE: dict[str, Value] = {"self": None, "dtype": None, "non_blocking": False, "copy": False, "memory_format": None}
FOUR_D = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "conv2d", "lrn")


def _cannot(call: Call, error: Exception) -> ModelError:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError(f"node '{call.name}' ({call.overload}) cannot be computed: {detail}")


def _filled(value: Value, found: Any) -> Any:
    if isinstance(value, Ref):
        return found(value.name)
    return [_filled(item, found) for item in value] if isinstance(value, tuple) else value


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta")
    return tuple(_on_meta(item) for item in value) if isinstance(value, tuple | list) else value


def _numel(value: Any) -> int:
    if isinstance(value, Tensor):
        return math.prod(value.shape)
    return sum(_numel(item) for item in value) if isinstance(value, tuple | list) else 0


def _python(name: str) -> str:
    """A name that a node may have."""
    return name if name != "self" else "self_"


def _fresh(name: str, taken: Mapping[str, object]) -> str:
    while name in taken or name == "self":
        name += "_"
    return name


def _check_finite(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ModelError(f"tensor '{name}' holds {bad} values that are NaN or infinite; train or load the model again")
