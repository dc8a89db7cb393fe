"""From an `.onnx` file to a `Net`: each ONNX node becomes one or several ATen calls, by a function of `operators.py`.

Nothing in the file is run. Exact up to float32 rounding: the net computes what ONNX Runtime does, with other kernels.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph.ends import Ends, Layout
from slimwright.graph.from_file import admitted
from slimwright.graph.inference import INPUT_DTYPES
from slimwright.graph.net import Net
from slimwright.graph.ops import FAILURES, detail_of
from slimwright.importers.build import net_of_program
from slimwright.importers.onnx.file import WHAT, Branch, OnnxFile, OnnxInput, OnnxNode, every_node, read_file
from slimwright.importers.onnx.fill import fillings
from slimwright.importers.onnx.free import free_sizes, open_sizes
from slimwright.importers.onnx.layouts import batch_first, layout_of
from slimwright.importers.onnx.operators import OPERATORS
from slimwright.importers.onnx.qlinear import taken_apart
from slimwright.importers.onnx.quantized import FLOAT_MODEL, unmarked
from slimwright.importers.onnx.step import Step
from slimwright.importers.onnx.trace import FACTOR, MOST_MADE_BYTES, Trace
from slimwright.importers.onnx.values import Flow, Known, Operand, constant
from slimwright.importers.program import Program
from slimwright.reading import reading

BRANCHING = "If"
Sizes = Mapping[str, Sequence[int]] | Sequence[Sequence[int]]


def read_onnx(path: Path, *, seed: int | None = None, sizes: Sizes = ()) -> Net:
    """Return the net in an `.onnx` file of opset 7 to 25; the first dimension of every input and output is the batch.

    With a `seed`, weights that are missing or all one number are drawn at random (see `fill.fillings`): for files that
    show an architecture only. The batch may be open or fixed in the file; the net runs at any. `sizes` fix the other
    dimensions that the file leaves open: [1, ...] by the input's name, or [...] without the batch for each in order.
    The net's `ends` say which of these are free in the net, too.

    Raises ModelError and UnsupportedOp, naming the node, the field and what to do.
    """
    file = read_file(path)
    return net_of_file(file if seed is None else filled(file, fillings(file, seed)), sizes=sizes)


def net_of_file(file: OnnxFile, *, sizes: Sizes = (), keeps_grids: bool = False) -> Net:
    """Return the net in a file that is parsed, as `read_onnx` does.

    A quantized file is read as the float model that it stands for (see `quantized.py`); with `keeps_grids` the net
    rounds every value as the file does.
    """
    with reading(file.path, WHAT, ModelError):
        given = sized(file, sizes)
        _check_inputs(given)
        leaves_open = bool(open_sizes(file))
        net = admitted(_read(given, open_sizes=leaves_open, keeps_grids=keeps_grids))
        if not leaves_open or keeps_grids:
            return net
        again = partial(_read, open_sizes=True, must_be_exact=True)
        assert net.ends is not None
        return replace(net, ends=replace(net.ends, sizes=free_sizes(file, net, again)))


def _read(file: OnnxFile, *, open_sizes: bool, keeps_grids: bool = False, must_be_exact: bool = False) -> Net:
    """The net in a file whose inputs have fixed sizes, though it may leave them open itself."""
    file = replace(file, nodes=taken_apart(file.nodes))
    quantized = next((node for node in file.nodes if node.op not in OPERATORS and "." in node.op), None)
    if quantized is not None:
        raise UnsupportedOp(f"{quantized.label} of {file.path} computes with integers and is not read; {FLOAT_MODEL}")
    _check_known(file.path, file.nodes)
    graph = _Graph(file, keeps_grids=keeps_grids, open_sizes=open_sizes)
    graph.trace.must_be_exact = must_be_exact
    for node in file.nodes:
        graph.take(node)
    program, layouts = graph.program()
    inputs = tuple(entry.name for entry in file.inputs)
    ends = Ends(inputs, file.outputs, layouts, graph.trace.open_batch, file.opset)
    return replace(net_of_program(program), ends=ends)


def _check_known(path: Path, nodes: Sequence[OnnxNode]) -> None:
    """Raise UnsupportedOp, naming them, for operators that are not read."""
    unknown = {node.op: node for node in reversed(nodes) if node.op not in OPERATORS and node.op != BRANCHING}
    if unknown:
        first = next(iter(unknown.values()))
        raise UnsupportedOp(
            f"ONNX operator{'s' * (len(unknown) > 1)} {', '.join(sorted(unknown))} ({first.label} of {path}) "
            f"cannot be read; those that can are {', '.join(sorted(OPERATORS))}"
        )


def filled(file: OnnxFile, tensors: Mapping[str, Tensor]) -> OnnxFile:
    """Return the file with these tensors in place of what gave the values of their names."""
    return replace(
        file,
        inputs=tuple(entry for entry in file.inputs if entry.name not in tensors),
        nodes=tuple(node for node in file.nodes if not any(name in tensors for name in node.outputs)),
        constants={**file.constants, **tensors},
        held_bytes=file.held_bytes + sum(t.numel() * t.element_size() for t in tensors.values()),
    )


def sized(file: OnnxFile, sizes: Sizes) -> OnnxFile:
    """Return the file with the open dimensions of its inputs fixed; those in order fix what they can.

    Raises ModelError, naming the input, for a name that is none, and for a size that the file does not have.
    """
    if isinstance(sizes, Mapping):
        by_name = sizes
        _check_sizes(file, sizes)
    else:
        ordered = zip(file.inputs, sizes, strict=False)
        by_name = {entry.name: (1, *shape) for entry, shape in ordered if len(entry.shape) == len(shape) + 1}
    return replace(file, inputs=tuple(_filled_in(entry, by_name.get(entry.name, ())) for entry in file.inputs))


def _check_sizes(file: OnnxFile, sizes: Mapping[str, Sequence[int]]) -> None:
    inputs = {entry.name: entry.shape for entry in file.inputs}
    for name, shape in sizes.items():
        if name not in inputs:
            raise ModelError(f"{file.path} has no input '{name}'; its inputs are {', '.join(inputs)}")
        has = inputs[name]
        open_or_same = (isinstance(n, str) or n == m for n, m in zip(has[1:], shape[1:], strict=False))
        if len(has) != len(shape) or not all(open_or_same):
            raise ModelError(f"input '{name}' of {file.path} is {_times(has)}; it cannot be {_times(shape)}")


def _filled_in(entry: OnnxInput, shape: Sequence[int]) -> OnnxInput:
    """The input with these numbers where it has none; the batch stays open."""
    if not shape:
        return entry
    rest = zip(entry.shape[1:], shape[1:], strict=True)
    return replace(entry, shape=(*entry.shape[:1], *(given if isinstance(size, str) else size for size, given in rest)))


def _times(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape))


def _check_inputs(file: OnnxFile) -> None:
    """Raise ModelError, naming the input, where one has no fixed size or dtype, or where their batches differ."""
    if not file.inputs:
        raise ModelError(f"{file.path} has no input without a value of its own; a model must take something")
    for entry in file.inputs:
        opened = [f"dimension {n} is '{size}'" for n, size in enumerate(entry.shape[1:], 1) if isinstance(size, str)]
        if opened:
            shape = _times([1, *("?" if isinstance(size, str) else size for size in entry.shape[1:])])
            raise ModelError(
                f"input '{entry.name}' of {file.path} has no fixed size: {', '.join(opened)}; say it, as in --input "
                f"{entry.name}={shape} with numbers for ?, or give --data or --image"
            )
        empty = not entry.shape or any(size < 1 for size in entry.shape if isinstance(size, int))
        if entry.dtype not in INPUT_DTYPES or empty:
            raise ModelError(
                f"input '{entry.name}' of {file.path} is {entry.dtype} {list(entry.shape)}; it must be a batch of "
                "float32 images, or of other values of float32, int64 or int32: export the float32 model"
            )
    if len({entry.shape[0] if isinstance(entry.shape[0], int) else 1 for entry in file.inputs}) > 1:
        raise _other_batches(file)


def _other_batches(file: OnnxFile) -> ModelError:
    names = ", ".join(f"'{entry.name}' {list(entry.shape)}" for entry in file.inputs)
    return ModelError(
        f"{file.path} has {len(file.inputs)} inputs without a value of their own ({names}), whose first dimensions "
        "differ; it must be the batch of each. Where some are weights that the file came without, store them as "
        "initializers, or read_onnx(path, seed=0) draws them at random"
    )


class _Graph:
    """The values of a file's graph, by their ONNX names."""

    def __init__(self, file: OnnxFile, *, keeps_grids: bool, open_sizes: bool) -> None:
        self.file = file
        fixed = [entry.shape[0] for entry in file.inputs if isinstance(entry.shape[0], int)]
        most_bytes = MOST_MADE_BYTES + 8 * file.held_bytes
        self.trace = Trace(fixed[0] if fixed else 1, not fixed, most_bytes, keeps_grids, open_sizes)
        self.values = _weights(file.constants)
        for entry in file.inputs:
            sizes = tuple(int(size) for size in entry.shape[1:])
            self.values[entry.name] = self.trace.input(entry.name, sizes, INPUT_DTYPES[entry.dtype])
        self.readers = Counter(name for node in every_node(file.nodes) for name in node.inputs)
        self.readers.update(file.outputs)

    def take(self, node: OnnxNode) -> None:
        """Translate one node."""
        if node.op == BRANCHING:
            self._take_branch(node)
            return
        self.trace.about = _wish(node, 0)
        since = len(self.trace.calls)
        operands = tuple(self.values[name] if name else None for name in node.inputs)
        try:
            floats, grid = unmarked(node, operands)
            made = OPERATORS[node.op](Step(node, floats, self.trace, self.file.opset, self.readers))
        except ModelError as error:
            raise type(error)(f"{node.label} of {self.file.path}: {error}") from error
        except FAILURES as error:
            shapes = ", ".join(str(list(operand.shape)) for operand in operands if operand is not None)
            raise ModelError(
                f"{node.label} of {self.file.path} cannot take {shapes or 'nothing'}: {detail_of(error)}"
            ) from error
        results = made if isinstance(made, tuple) else (made,)
        if grid is not None:
            results = tuple(replace(result, grid=grid) if isinstance(result, Flow) else result for result in results)
        for place, name in enumerate(node.outputs):
            if place < len(results):
                result = results[place]
                self.values[name] = (
                    self.trace.renamed(result, _wish(node, place), since) if isinstance(result, Flow) else result
                )
            elif name and self.readers[name]:
                raise UnsupportedOp(f"output {place} of {node.label} of {self.file.path} ('{name}') is read; only the "
                                    f"first {len(results)} can be")  # fmt: skip

    def _take_branch(self, node: OnnxNode) -> None:
        """Translate the branch of an If that its condition chooses, where no image has a say in that."""
        condition = self.values.get(node.inputs[0]) if node.inputs else None
        if not isinstance(condition, Known) or not condition.fixed or condition.at[0].numel() != 1:
            raise UnsupportedOp(
                f"which way {node.label} of {self.file.path} goes depends on the images; a model whose steps depend on "
                "the image cannot be compressed: export it without branches"
            )
        branch = node.attributes.get("then_branch" if bool(condition.at[0]) else "else_branch")
        if not isinstance(branch, Branch) or len(branch.outputs) < len(node.outputs) or "" in branch.outputs:
            raise ModelError(f"{node.label} of {self.file.path} lacks a branch, or an output of it")
        _check_known(self.file.path, branch.nodes)
        around = self.values
        self.values = around | _weights(branch.constants)
        for inner in branch.nodes:
            self.take(inner)
        made = [self.values[name] for name in branch.outputs]
        self.values = around | dict(zip(node.outputs, made, strict=False))

    def program(self) -> tuple[Program, tuple[Layout, ...]]:
        """Return the whole, and how the file has the batch of each output.

        Raises ModelError where an output is not as much for every image.
        """
        outputs = [self._output(name) for name in self.file.outputs]
        try:
            program = self.trace.program([output for output, _ in outputs], self.file.outputs)
        except ModelError as error:
            raise type(error)(f"{self.file.path}: {error}") from error
        return program, tuple(layout for _, layout in outputs)

    def _output(self, name: str) -> tuple[Flow, Layout]:
        """An output with the batch as its first dimension."""
        output = self.values[name]
        where = f"the output '{name}' of {self.file.path}"
        if not isinstance(output, Flow):
            raise ModelError(
                f"{where} does not depend on the images; leave it out of the outputs, and keep its values elsewhere"
            )
        if output.grid is not None:
            raise UnsupportedOp(f"{where} holds quantized integers; {FLOAT_MODEL}")
        layout = layout_of(output, self.trace.batch)
        if layout is None:
            counts = self.trace.batch, FACTOR * self.trace.batch
            sizes = " and ".join(str(list(value.shape)) for value in output.at)
            raise ModelError(
                f"{where} has the shape {sizes} for {counts[0]} and {counts[1]} images; one dimension must grow with "
                "the batch: export the model with a dynamic batch"
            )
        self.trace.about = name
        return batch_first(self.trace, output, layout), layout


def _weights(tensors: Mapping[str, Tensor]) -> dict[str, Operand]:
    return {name: constant(tensor, name, learned=tensor.is_floating_point()) for name, tensor in tensors.items()}


def _wish(node: OnnxNode, place: int) -> str:
    """A name that tells of the node: its own where the value's repeats it, otherwise the value's."""
    value = node.outputs[place] if place < len(node.outputs) else ""
    return node.name if node.name and (not value or value.startswith(node.name)) and place == 0 else value or node.op
