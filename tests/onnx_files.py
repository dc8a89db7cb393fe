"""ONNX files for the tests: written by hand or by torch.onnx, and run by ONNX Runtime."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("light_*.onnx"))
"""Nine real networks whose weights were taken out, as the onnx package brings them."""


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    weights: Mapping[str, Tensor] | None = None,
    *,
    opset: int = 18,
    returns: int = TensorProto.FLOAT,
) -> Path:
    """Write a model that takes "x" of `shape` and returns "y"."""
    graph = helper.make_graph(
        list(nodes), "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", returns, None)],
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in (weights or {}).items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def exported(model: nn.Module, path: Path, shape: tuple[int, ...], *, dynamic: bool) -> Path:
    """Write a model by torch.onnx, for any batch or for a batch of one."""
    example = torch.zeros(2 if dynamic else 1, *shape)
    with _quiet():
        program = torch.onnx.export(
            model, (example,), dynamo=True, opset_version=18, verbose=False,
            dynamic_shapes=({0: Dim.DYNAMIC},) if dynamic else None,
        )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)
    return path


def exported_by_torchscript(
    model: nn.Module, path: Path, shape: tuple[int, ...], *, dynamic: bool, opset: int = 17
) -> Path:
    """Write a model by the older exporter of torch.onnx."""
    with _quiet():
        torch.onnx.export(
            model, (torch.zeros(1, *shape),), str(path), dynamo=False, opset_version=opset, input_names=["x"],
            output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}} if dynamic else None,
        )  # fmt: skip
    return path


def exported_ends(
    model: nn.Module, path: Path, inputs: Sequence[Tensor], *, dynamo: bool, names: Sequence[str] = ()
) -> Path:
    """Write a model of several inputs or outputs by torch.onnx, for any batch; `names` are those of its outputs."""
    with _quiet():
        if dynamo:
            shapes = tuple({0: Dim.AUTO} for _ in inputs)
            program = torch.onnx.export(
                model, tuple(inputs), dynamo=True, opset_version=18, verbose=False, dynamic_shapes=shapes,
                output_names=list(names) or None,
            )  # fmt: skip
            assert program is not None
            program.save(str(path), external_data=False)
        else:
            called = [f"x{k}" for k in range(len(inputs))]
            torch.onnx.export(
                model, tuple(inputs), str(path), dynamo=False, opset_version=17, input_names=called,
                output_names=list(names) or None, dynamic_axes={name: {0: "n"} for name in called},
            )  # fmt: skip
    return path


def in_onnxruntime(path: Path, images: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return what ONNX Runtime makes of the images; `weights` replace those of the file, or of nodes that make them."""
    session = _session(with_weights(onnx.load(path), weights or {}).SerializeToString())
    (image,) = {entry.name for entry in session.get_inputs()} - set(weights or {})
    fed = {name: tensor.numpy() for name, tensor in (weights or {}).items()}
    result: np.ndarray[Any, Any] = session.run(None, {image: images.numpy(), **fed})[0]
    return torch.from_numpy(result)


def onnx_scores(path: Path, images: Tensor) -> Tensor:
    """Return the scores [N, classes] of a file that takes one image at a time."""
    session = _session(str(path))
    (entry,) = session.get_inputs()
    return torch.from_numpy(np.concatenate([session.run(None, {entry.name: i[None]})[0] for i in images.numpy()]))


def _session(model: str | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it refuses, tests expect
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def with_weights(model: onnx.ModelProto, weights: Mapping[str, Tensor]) -> onnx.ModelProto:
    """Return the model with these values fed from outside; nothing in it makes them any more."""
    graph = model.graph
    nodes = [node for node in graph.node if not set(node.output) & set(weights)]
    stored = [tensor for tensor in graph.initializer if tensor.name not in weights]
    inputs = [entry for entry in graph.input if entry.name not in {*weights, *(t.name for t in graph.initializer)}]
    for field, kept in ((graph.node, nodes), (graph.initializer, stored), (graph.input, inputs)):
        del field[:]
        field.extend(kept)
    graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, list(t.shape)) for n, t in weights.items())
    model.ir_version = max(model.ir_version, 4)  # before, initializers are inputs too
    return model


def without_softmax(path: Path, target: Path) -> Path:
    """Write the model up to its last node, a softmax, which would hide differences in what it reads."""
    model = onnx.load(path)
    last = model.graph.node[-1]
    assert last.op_type == "Softmax"
    model.graph.output[0].name = last.input[0]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    del model.graph.node[-1]
    onnx.save(model, target)
    return target


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value; of nothing, 0."""
    assert found.shape == expected.shape
    if not found.numel():
        return 0.0
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


@contextmanager
def _quiet() -> Iterator[None]:
    """No remarks from the exporters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
