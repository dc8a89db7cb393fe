"""ONNX files whose sizes are free where those of the net are: declared, and then run at other sizes.

A file is written for the sizes that the net has. With these left open in what it says of its inputs and outputs, it is
run at others, in ONNX Runtime, and compared with the net in torch: a number inside that follows from the size shows.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime as ort
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, RuntimeException
from torch import Tensor

from slimwright.errors import ModelError
from slimwright.graph import Net, grown, larger_sizes, random_inputs
from slimwright.graph.ends import FreeSize
from slimwright.runtimes.file_layout import in_file_layout

TOLERANCE = 1e-5  # of an output, root mean square: float32 in another order of sums. A row out of 4096 alone is 1e-2
TIMES_AS_FAR = 2.0  # as at the given sizes: what rounding in FP16 or INT8 may be at others
LEAST_OUTPUT = 1e-3  # what the root mean square of an output counts as at least
REFUSALS = (ModelError, Fail, InvalidArgument, InvalidGraph, RuntimeException)


def with_sizes_left_free(model: onnx.ModelProto, net: Net) -> onnx.ModelProto:
    """Return a model of a net that leaves the net's free sizes open; no shapes are said of values inside.

    Raises ModelError where the net cannot take other sizes.
    """
    free = net.ends.free if net.ends else ()
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.value_info[:]
    for size in free:
        for number, axis in size.places:
            opened.graph.input[number].type.tensor_type.shape.dim[axis].dim_param = size.name
    for output, shapes in zip(opened.graph.output, _output_shapes(net), strict=True):
        for axis, sizes in enumerate(zip(*shapes, strict=True)):
            if len(set(sizes)) > 1:
                dim = output.type.tensor_type.shape.dim[axis]
                dim.Clear()
                if name := next((size.name for size in free if sizes == _sizes(net, size)), ""):
                    dim.dim_param = name
    return opened


def left_free(path: Path, net: Net) -> tuple[tuple[str, int], ...]:
    """Return the free sizes of a net that a file of it leaves open, and what they are in the net."""
    free = net.ends.free if net.ends else ()
    inputs = onnx.load(path, load_external_data=False).graph.input if free else ()
    return tuple(
        (size.name, _sizes(net, size)[0])
        for size in free
        if all(inputs[n].type.tensor_type.shape.dim[axis].dim_param == size.name for n, axis in size.places)
    )


def computes_at_other_sizes(path: Path, net: Net) -> bool:
    """Return whether a file gives what the net does at other sizes, as nearly as it does at the given ones."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it refuses is the answer
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        given = _error(session, net, {})
        return all(_error(session, net, by) <= max(TOLERANCE, TIMES_AS_FAR * given) for by in larger_sizes(net))
    except REFUSALS:
        return False


def _error(session: ort.InferenceSession, net: Net, by: Mapping[str, int]) -> float:
    """How far the worst output is off at larger sizes, relative, root mean square; infinite for another shape."""
    larger = grown(net, by)
    inputs = random_inputs(larger, 2 if isinstance(session.get_inputs()[0].shape[0], str) else 1, seed=0)
    names = (entry.name for entry in session.get_inputs())
    found = session.run(None, {name: given.numpy() for name, given in zip(names, inputs, strict=True)})
    with torch.no_grad():
        made = in_file_layout(larger).to_module()(*inputs)
    expected: tuple[Tensor, ...] = (made,) if isinstance(made, Tensor) else tuple(made)
    return max(_apart(torch.from_numpy(mine), its) for mine, its in zip(found, expected, strict=True))


def _apart(mine: Tensor, its: Tensor) -> float:
    if mine.shape != its.shape:
        return torch.inf
    if not its.numel():
        return 0.0
    error = float((mine.double() - its.double()).square().mean().sqrt().nan_to_num(nan=torch.inf))
    return error / max(float(its.double().square().mean().sqrt()), LEAST_OUTPUT)


def _output_shapes(net: Net) -> list[tuple[tuple[int, ...], ...]]:
    """The shapes of each output as the file has it: at the given sizes, and at larger ones."""
    nets = [in_file_layout(grown(net, by)) for by in ({}, *larger_sizes(net))]
    return list(zip(*([each[name].shape for name in each.outputs] for each in nets), strict=True))


def _sizes(net: Net, size: FreeSize) -> tuple[int, ...]:
    number, axis = size.places[0]
    return tuple(net.inputs[number].shape[axis] + by.get(size.name, 0) for by in ({}, *larger_sizes(net)))
