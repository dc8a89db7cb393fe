"""A trained `nn.Module` becomes a `Net`, by way of `torch.export`.

The model is exported in eval mode with a dynamic batch. What eval mode hides and training needs, stochastic depth,
is marked while the export runs, so that the net has it again. Exact: in eval mode the net computes what the model
computed, with the same kernels.
"""

import copy
import operator
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, ShapesCollection, export
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import TreeSpec, tree_leaves

from slimwright.compute import device_of
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph.inference import INPUT_DTYPES
from slimwright.graph.net import Net
from slimwright.graph.node import Ref, Value
from slimwright.importers.build import net_of_program
from slimwright.importers.program import UNKNOWN, Call, Input, Program, bound, leaf_names, plain

Shapes: TypeAlias = Sequence[int] | Sequence[Sequence[int]]  # of one input, or of each

MARKER = "native_dropout.default"  # which no layer of torch exports in eval mode
DROP_PATHS = {"DropPath": "drop_prob", "StochasticDepth": "p"}  # class -> attribute that holds the probability
INTEGER_NAMES = {
    operator.add: "int_add",
    operator.sub: "int_sub",
    operator.mul: "int_mul",
    operator.floordiv: "int_floordiv",
    operator.mod: "int_mod",
}


def capture(model: nn.Module, shapes: Shapes, *, dtypes: Sequence[str] | None = None) -> Net:
    """Return the net of `model`; the model is left in the mode it was in, and the net lies on the processor.

    `shapes` is that of an image, such as (C, H, W), or a sequence of such shapes, one for each input, each without the
    batch. `dtypes` are those of the inputs, "float32" where it does not say; "int64" and "int32" are taken too.

    Outputs in lists and dicts are flattened, those that are None left out, and named as the model's dict names them.

    Raises ModelError where the model fails on such inputs, has weights that are not finite, or cannot be
    traced, and UnsupportedOp for what no net can hold.
    """
    examples = _examples(_shapes_of(shapes), dtypes)
    if device_of(model) != "cpu":
        model = copy.deepcopy(model).cpu()
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        try:
            with torch.no_grad():
                model(*examples)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            detail = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"the model cannot take {_described(examples)}: {detail}") from error
        exported = exported_model(model, examples)
        try:
            return net_of_program(program_of_export(exported))
        except UnsupportedOp as refused:
            return _without_writes(model, exported, examples, refused)
    finally:
        for module, mode in training.items():
            module.training = mode


def _shapes_of(shapes: Shapes) -> list[tuple[int, ...]]:
    """One shape for each input."""
    several = [tuple(shape) for shape in shapes if isinstance(shape, Sequence)]
    if not several:
        return [tuple(size for size in shapes if isinstance(size, int))]
    if len(several) != len(shapes):
        raise ModelError(f"{shapes} is neither the shape of one input nor a sequence of shapes")
    return several


def _examples(shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str] | None) -> tuple[Tensor, ...]:
    """A batch of two for each input, of zeros, which are an index of any table."""
    dtypes = dtypes or ["float32"] * len(shapes)
    if len(dtypes) != len(shapes) or not all(name in INPUT_DTYPES for name in dtypes):
        raise ModelError(
            f"{', '.join(dtypes)} are no dtypes of {len(shapes)} inputs; each is one of {', '.join(INPUT_DTYPES)}"
        )
    return tuple(torch.zeros(2, *shape, dtype=INPUT_DTYPES[name]) for shape, name in zip(shapes, dtypes, strict=True))


def _described(examples: Sequence[Tensor]) -> str:
    shapes = " and ".join(str(list(example.shape[1:])) for example in examples)
    return f"images of shape {shapes}" if len(examples) == 1 else f"inputs of shapes {shapes}"


def _without_writes(
    model: nn.Module, exported: ExportedProgram, examples: Sequence[Tensor], refused: UnsupportedOp
) -> Net:
    """The net of a model that writes in place through views, which torch can say without; proven on random images.

    Raises `refused` where that fails, or computes something else: torch does not follow every alias.
    """
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.rand(zeros.shape, generator=generator) if zeros.is_floating_point() else zeros for zeros in examples
    ]
    try:
        net = net_of_program(program_of_export(exported.run_decompositions({})))
    except ModelError:
        raise refused from None
    with torch.no_grad():
        wanted = [value for value in tree_leaves(model(*(i.clone() for i in images))) if isinstance(value, Tensor)]
    found = net.run(images)
    same = all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in zip(found, wanted, strict=True))
    if not same:
        raise refused
    return net


def program_of_export(exported: ExportedProgram) -> Program:
    """Return the calls of a live exported program."""
    specs = exported.graph_signature.input_specs
    owner = {s.arg.name: str(s.target) for s in specs if s.kind is not InputKind.USER_INPUT}
    parameters = frozenset(str(s.target) for s in specs if s.kind is InputKind.PARAMETER)
    given = {s.arg.name for s in specs if s.kind is InputKind.USER_INPUT}
    values = {n.name: n.meta["val"] for n in exported.graph.nodes if n.op == "placeholder" and n.name in given}
    reader = _Reader()
    outputs, names = _returned(exported, reader.read(exported.graph_module))
    tensors = {**exported.state_dict, **{k: v for k, v in exported.constants.items() if isinstance(v, Tensor)}}
    return Program(
        inputs=tuple(_input(name, value) for name, value in values.items()),
        calls=reader.calls,
        tensors=tensors,
        owner=owner,
        outputs=outputs,
        parameters=parameters,
        output_names=names,
    )


def _input(name: str, value: Any) -> Input:
    if not isinstance(value, Tensor):
        raise ModelError(f"the model takes '{name}', which is not a tensor; it must take tensors only")
    return Input(name, (1, *(int(d) for d in value.shape[1:])), str(value.dtype).removeprefix("torch."))


def _returned(exported: ExportedProgram, values: Sequence[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The values that the model returns, without those that are None, and what it calls them."""
    kinds = [spec.kind for spec in exported.graph_signature.output_specs]
    if OutputKind.BUFFER_MUTATION in kinds:
        raise UnsupportedOp("the model changes a buffer of its own each time it runs")
    results = [value for kind, value in zip(kinds, values, strict=True) if kind is OutputKind.USER_OUTPUT]
    numbers = [value for value in results if value is not None and not isinstance(value, Ref)]
    if numbers:
        raise ModelError(f"the model returns {numbers[0]!r}, which is not a tensor; it must return tensors only")
    names = _output_names(exported.call_spec.out_spec, len(results))
    kept = [(value.name, name) for value, name in zip(results, names, strict=True) if isinstance(value, Ref)]
    return tuple(value for value, _ in kept), tuple(name for _, name in kept)


def _output_names(spec: TreeSpec | None, count: int) -> Sequence[str]:
    """What a dict or a named tuple calls each of the outputs in it; "" elsewhere."""
    if spec is not None and spec.type in (dict, OrderedDict):
        return leaf_names(spec.context, [child.num_leaves for child in spec.children()])
    if spec is not None and spec.type is namedtuple:
        return leaf_names(spec.context._fields, [child.num_leaves for child in spec.children()])
    return [""] * count


class _Reader:
    """Reads the calls of an exported graph, and those of the graphs inside it, which higher-order operators run."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.inner: dict[str, tuple[Value, ...]] = {}  # a higher-order call -> what its graph returned

    def read(
        self, module: fx.GraphModule, inputs: tuple[Value, ...] | None = None, prefix: str = ""
    ) -> tuple[Any, ...]:
        """Read one graph; `inputs` stand for its placeholders. Returns what it returns."""
        values: dict[str, Value] = {}
        given = iter(inputs or ())
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node.name] = next(given) if inputs is not None else Ref(node.name)
            elif node.op == "output":
                returned = _value(node.args[0], values)
                return returned if isinstance(returned, tuple) else (returned,)
            elif node.op == "call_function":
                values[node.name] = self._called(module, node, values, prefix)
        return ()

    def _called(self, module: fx.GraphModule, node: fx.Node, values: dict[str, Value], prefix: str) -> Value:
        name = prefix + node.name
        target: Any = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            self.inner[name] = self._inlined(module, node, values, name)
            return Ref(name)
        args = tuple(_value(a, values) for a in node.args)
        if target is operator.getitem:
            value, index = args
            assert isinstance(value, Ref)
            if value.name in self.inner:
                return self.inner[value.name][index]  # type: ignore[index]
            call = Call(name, "getitem", {"value": value, "index": index})
        elif target in INTEGER_NAMES:
            call = Call(name, INTEGER_NAMES[target], {"a": args[0], "b": args[1]})
        elif isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
            overload = target.name().removeprefix("aten::")
            overload = overload if "." in overload else overload + ".default"
            kwargs = {key: _value(value, values) for key, value in node.kwargs.items()}
            call = Call(name, overload, bound(overload, args, kwargs))
            if overload == MARKER and call.arguments["train"] is False:
                call = Call(name, "drop_path", {"input": call.arguments["input"], "p": call.arguments["p"]})
                self.inner[name] = (Ref(name), None)  # nothing reads its second result, the mask
        else:
            said = target if isinstance(target, str) else getattr(target, "__name__", str(target))
            call = Call(name, UNKNOWN + str(said), dict(enumerate(args)))  # type: ignore[arg-type]
        self.calls.append(call)
        return Ref(name)

    def _inlined(self, module: fx.GraphModule, node: fx.Node, values: dict[str, Value], name: str) -> tuple[Value, ...]:
        """Run a graph inside the graph in line: one that switches autocast off, or gradients on or off."""
        kind = str(node.target)
        before = [a for a in node.args if not isinstance(a, fx.Node)]
        if "autocast" in kind and before[2] is not False:
            raise UnsupportedOp(f"the model switches autocast on (node '{name}'); trace it in float32")
        if not any(known in kind for known in ("autocast", "set_grad")):
            raise UnsupportedOp(f"operator {kind} (node '{name}') runs a graph of its own that may branch or repeat")
        at = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr")
        graph: Any = module.get_submodule(str(node.args[at].target))  # type: ignore[union-attr]
        return self.read(graph, tuple(_value(a, values) for a in node.args[at + 1 :]), f"{name}_")


def _value(value: Any, values: dict[str, Value]) -> Value:
    if isinstance(value, fx.Node):
        return values[value.name]
    if isinstance(value, list | tuple):
        return tuple(_value(item, values) for item in value)
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        raise UnsupportedOp(f"an operator's argument is computed from a size ({value}) without saying how")
    return plain(value)


def exported_model(model: nn.Module, examples: tuple[Tensor, ...]) -> ExportedProgram:
    """Return the program of a model in eval mode, with a dynamic batch. Raises ModelError where it cannot be traced."""
    batches = ShapesCollection()
    for example in examples:
        batches[example] = {0: Dim.AUTO}
    try:
        with _marked_drop_paths(model):
            return export(model, examples, dynamic_shapes=batches.dynamic_shapes(model, examples), strict=False)
    except Exception as error:  # torch.export raises errors of many unrelated kinds
        detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"torch.export cannot trace the model: {detail}") from error


@contextmanager
def _marked_drop_paths(model: nn.Module) -> Iterator[None]:
    """Let stochastic depth show in an eval export, where it does nothing and would leave no trace."""
    marked = []
    for module in model.modules():
        p = getattr(module, DROP_PATHS.get(type(module).__name__, ""), None)
        per_image = getattr(module, "mode", "row") == "row"
        if isinstance(p, float) and 0 < p < 1 and per_image:
            module.forward = _marker(p)
            marked.append(module)
    try:
        yield
    finally:
        for module in marked:
            del module.forward


def _marker(p: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.ops.aten.native_dropout(x, p, False)[0]
