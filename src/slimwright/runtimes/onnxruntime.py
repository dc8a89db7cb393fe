"""ONNX Runtime: an .onnx file.

FP32 models come from `torch.onnx`. INT8 ones come from ONNX Runtime's own static quantizer (per-channel weights,
activations calibrated on given inputs, QDQ format), or from a net whose values stand on levels: its own integers. A net
that was read from an `.onnx` file keeps what its `ends` say: names, layouts, an open batch, free sizes, and an opset
that is no newer, where torch and onnx can write it. Of another net a file calls a single picture "image" and a single
row of numbers "scores"; all else has its name in the net.
"""

import importlib
import inspect
import logging
import operator
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.version_converter
import onnxruntime as ort
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn
from torch.onnx._internal.exporter import _capture_strategies as capture_strategies
from torch.onnx._internal.exporter import _core as exporter
from torch.onnx._internal.exporter import _decomp as decompositions
from torch.onnx._internal.exporter._registration import ONNXRegistry

from slimwright.errors import ModelError, ProofError
from slimwright.graph.ends import BATCH, FreeSize
from slimwright.graph.levels import has_levels
from slimwright.graph.net import Net, zero_inputs
from slimwright.lowering.decompositions import with_attention_spelled_out, with_whole_averages_as_means
from slimwright.runtimes.artefact import Array, Written
from slimwright.runtimes.file_layout import in_file_layout
from slimwright.runtimes.free_sizes import computes_at_other_sizes, left_free, with_sizes_left_free
from slimwright.runtimes.onnx_integers import with_integer_weights

OPSET = 18  # the oldest that torch.onnx writes
OLDEST, OLDEST_INT8 = 11, 13  # that are converted to; INT8 has scales for each channel from 13 on
INPUT, OUTPUT = "image", "scores"
GIVEN, FOUND = "slimwright_input_", "slimwright_output_"  # until the graph is written: no model has such names


def export(net: Net, folder: Path, precision: str, calibration: Sequence[Array] | None) -> Written:
    """Write `model.onnx`; FP16 computes in half precision where the processor has kernels for it."""
    path = folder / "model.onnx"
    inputs, outputs = write_onnx(net, path, oldest=OLDEST_INT8 if precision == "int8" else OLDEST)
    alone = [encoding.bits for encoding in net.encodings.values() if encoding.weight_only]
    if has_levels(net) or alone:
        onnx.save(with_integer_weights(onnx.load(path), bits=min(alone, default=8)), path)
    elif precision == "int8":
        assert calibration is not None
        given = dict(zip(inputs, calibration, strict=True))
        quantize(path, folder / "model-int8.onnx", given, keep_float=weights_of(net, net.float_layers))
        (folder / "model-int8.onnx").replace(path)
    elif precision == "fp16":
        onnx.save(_in_half(onnx.load(path)), path)
    free = left_free(path, net)
    if free and precision != "fp32" and not computes_at_other_sizes(path, net):
        assert net.ends is not None
        return export(replace(net, ends=net.ends.fixed), folder, precision, calibration)
    return Written((path.name,), inputs, outputs, free)


def write_onnx(net: Net, path: Path, *, oldest: int = OLDEST) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write a net as an FP32 ONNX model, for one image or for any number; return what it calls its inputs and outputs.

    Sizes that are free in the net are free in the model where it then computes what the net does at others, too. Raises
    ProofError where the exporter fails.
    """
    _write(net, path, oldest)
    if net.ends and net.ends.free and not _is_left_free(path, net):
        fixed = path.read_bytes()
        _write(net, path, oldest, free=net.ends.free)
        if not _is_left_free(path, net):
            path.write_bytes(fixed)
    return end_names(net)


def _write(net: Net, path: Path, oldest: int, *, free: Sequence[FreeSize] = ()) -> None:
    """Write a net for the sizes that it has; the file computes the numbers that follow from those that are `free`."""
    inputs, outputs = end_names(net)
    laid_out = in_file_layout(with_whole_averages_as_means(with_attention_spelled_out(net)))
    program = _program(laid_out, outputs, any_batch=_has_open_batch(net), free=free)
    _name_ends(program.model.graph, inputs, outputs)
    _drop_traces(program.model.graph)
    program.save(str(path), external_data=False)
    wanted = max(net.ends.opset, oldest) if net.ends and net.ends.opset else OPSET
    if _has_open_batch(net) or wanted < OPSET:
        onnx.save(_in_opset(_with_batch_named(onnx.load(path)), wanted), path)


def _is_left_free(path: Path, net: Net) -> bool:
    """Leave the net's free sizes open in its file, if that then computes the same; say whether it is so."""
    fixed = onnx.load(path)
    try:
        onnx.save(with_sizes_left_free(fixed, net), path)
    except ModelError:
        return False
    if computes_at_other_sizes(path, net):
        return True
    onnx.save(fixed, path)
    return False


def with_names_alone(net: Net) -> Net:
    """Return the net as a converter that reads the file shall have it: for one image, its batch first.

    Names that are not plain words may mean something else to it; they are not kept.
    """
    if net.ends is None:
        return net
    plain = all(name.isidentifier() for name in (*net.ends.inputs, *net.ends.outputs))
    return replace(net, ends=net.ends.names_alone if plain else None)


def _has_open_batch(net: Net) -> bool:
    return net.ends is not None and net.ends.open_batch


def _program(net: Net, outputs: Sequence[str], *, any_batch: bool, free: Sequence[FreeSize] = ()) -> Any:
    """The exporter's program; for one image where it cannot have an open batch."""
    module, examples = net.to_module(), zero_inputs(net)
    dims = [dict[int, Any]() for _ in examples]
    for number, axis in (place for size in free for place in size.places):
        dims[number][axis] = torch.export.Dim.AUTO
    if any_batch:  # two images, as a batch of one is taken for a number
        examples = tuple(tensor.expand(2, *tensor.shape[1:]).contiguous() for tensor in examples)
        dims = [{**each, 0: torch.export.Dim.DYNAMIC} for each in dims]
    shapes = tuple(dims) if any(dims) else None
    try:
        with _quiet():
            program = _exporter()(
                _captured(module, examples, shapes), examples, opset_version=OPSET, verbose=False,
                dynamic_shapes=shapes,
                input_names=[f"{GIVEN}{k}" for k in range(len(examples))],
                output_names=[f"{FOUND}{k}" for k in range(len(outputs))],
            )  # fmt: skip
    except Exception as error:  # torch.onnx raises errors of many unrelated kinds
        if any_batch:
            return _program(net, outputs, any_batch=False, free=free)
        raise ProofError(f"torch.onnx cannot export the net: {_first_cause(error)}") from error
    assert program is not None
    return program


def _with_batch_named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose open dimensions are called "batch", as far as they are the batch alone."""
    batch = next(
        (dim.dim_param for i in model.graph.input for dim in i.type.tensor_type.shape.dim if dim.dim_param), ""
    )
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if batch and dim.dim_param == batch:
                dim.dim_param = BATCH
    return model


def _in_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return a model in the oldest opset, from `opset` on, into which onnx can convert it and that loads."""
    for node in model.graph.node:  # the default of an attribute that older opsets do not have
        for attribute in [a for a in node.attribute if node.op_type == "Reshape" and a.name == "allowzero" and not a.i]:
            node.attribute.remove(attribute)
    for version in range(opset, OPSET):
        try:
            converted = onnx.version_converter.convert_version(model, version)
            ort.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
        except Exception:  # noqa: S112 - the converter's and the runtime's errors share no base class
            continue
        return converted
    return model


def _exporter() -> Callable[..., Any]:
    """What writes a module: what `torch.onnx.export` calls, or before torch 2.13 that itself."""
    if _is_ours():
        return partial(exporter.export, registry=_operators())
    return partial(torch.onnx.export, dynamo=True, optimize=False)


def _captured(module: nn.Module, examples: tuple[torch.Tensor, ...], shapes: tuple[dict[int, Any], ...] | None) -> Any:
    """A module as the exporter would capture it; itself where it then tries other ways.

    Where every operator is one that the exporter writes, it need not look for those that are to be decomposed: that
    takes two thirds of the time of a small network, and changes nothing (2.13.0, 2026-12-01).
    """
    if not _is_ours():
        return module
    found = capture_strategies.TorchExportNonStrictStrategy()(module, examples, {}, dynamic_shapes=shapes)
    program = found.exported_program
    if program is None:
        return module
    if {node.target for node in program.graph.nodes if node.op == "call_function"} <= _written():
        program.run_decompositions = lambda _: program
    return program


def _is_ours() -> bool:
    """True where the exporter can be given the operators that it writes."""
    return "opset_version" in inspect.signature(exporter.export).parameters


@cache
def _operators() -> ONNXRegistry:
    """How `torch.onnx` writes each operator.

    `torch.onnx.export` gathers this anew for every network, two thirds of the time that a small one takes (2.13.0,
    2026-11-29); so what it calls is called here, and given what was gathered once. The exporter only reads it.
    """
    importlib.import_module("torch.ao.quantization.fx._decomposed")  # operators that are known only then: levels
    return ONNXRegistry.from_torchlib(opset_version=OPSET)


@cache
def _written() -> frozenset[Any]:
    """The operators that the exporter writes, and picking one of several results."""
    every: list[Any] = decompositions.get_onnx_implemented_overloads(_operators())
    return frozenset([*every, operator.getitem])


def end_names(net: Net) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a file calls a net's inputs and outputs, each name once."""
    if net.ends is not None:
        return net.ends.inputs, net.ends.outputs
    inputs = [node.name for node in net.inputs]
    outputs = list(net.outputs)
    if len(inputs) == 1 and len(net.inputs[0].shape) == 4:
        inputs = [INPUT]
    if len(outputs) == 1 and len(net[outputs[0]].shape) == 2:
        outputs = [OUTPUT]
    named: list[str] = []
    for name in outputs:
        while name in (*inputs, *named):
            name += "_"
        named.append(name)
    return tuple(inputs), tuple(named)


def _in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that computes in half precision and takes and gives float32.

    The converter casts a constant once for each operator that wants it in float32, under one name (1.31.1, 2026-11-28).
    """
    halved: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    once: dict[tuple[str, ...], onnx.NodeProto] = {}
    for node in halved.graph.node:
        once.setdefault(tuple(node.output), node)
    kept = list(once.values())
    del halved.graph.node[:]
    halved.graph.node.extend(kept)
    return halved


def _name_ends(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give a graph's inputs and outputs their names; what is inside under one of these gets another."""
    wanted = {*inputs, *outputs}
    made = (value for node in graph for value in node.outputs)
    for value in [*made, *graph.initializers.values()]:
        if value.name in wanted:
            value.name = f"inner_{value.name}"
    for value, name in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        value.name = name


def _drop_traces(graph: Any) -> None:
    """Take out what the exporter says of each node: which line of which file on this machine it comes from."""
    for node in graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def weights_of(net: Net, layers: Sequence[str]) -> dict[str, Array]:
    """Return the weights of these layers, by what a file calls them if it does not store them transposed."""
    nodes = [net[name] for name in layers]
    return {net.key(node, "weight"): net.tensors[node.tensors["weight"]].numpy() for node in nodes}


def quantize(
    fp32: Path, path: Path, calibration: Mapping[str, Array], *, keep_float: Mapping[str, Array] | None = None
) -> None:
    """Write the INT8 model of an FP32 one, activations calibrated on what each input, by name, is given [N, ...].

    Layers that read one of the weights `keep_float` stay in float. Raises ProofError where one is not in the file.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(path), _Reader(calibration), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            nodes_to_exclude=_readers(onnx.load(prepared).graph, keep_float or {}),
        )  # fmt: skip


def _readers(graph: onnx.GraphProto, weights: Mapping[str, Array]) -> list[str]:
    """The names of the nodes that read these weights, each through a transposition perhaps.

    Exporters store a transposed weight under another name; it is known by its values.
    """
    through = {node.output[0]: node.input[0] for node in graph.node if node.op_type in ("Transpose", "Identity")}
    found = {through.get(read, read): node.name for node in graph.node for read in node.input}
    lost = {name: values.T for name, values in weights.items() if name not in found}
    for tensor in graph.initializer if lost else ():
        values = onnx.numpy_helper.to_array(tensor)
        for name, transposed in lost.items():
            if tensor.name in found and np.array_equal(values, transposed):
                found.setdefault(name, found[tensor.name])
    missing = [name for name in weights if name not in found]
    if missing:
        raise ProofError(f"the file has no weights '{missing[0]}', so their layer cannot stay in float")
    return [found[name] for name in weights]


def _first_cause(error: BaseException) -> str:
    """What went wrong first, in one line: the exporter wraps it in advice on how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds the quantizer one row of every input at a time."""

    def __init__(self, calibration: Mapping[str, Array]) -> None:
        self._names = tuple(calibration)
        self._rows = zip(*calibration.values(), strict=True)

    def get_next(self) -> dict[str, Array] | None:
        rows = next(self._rows, None)
        return None if rows is None else {name: row[None] for name, row in zip(self._names, rows, strict=True)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' remarks about packages that are not installed."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter._registration", "root")
    ]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
