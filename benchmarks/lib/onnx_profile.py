"""Where ONNX Runtime spends its time: by kind of layer and by block, with its graph optimisations and without.

A tensor layer multiplies by weights of two dimensions or more; all else is a non-tensor layer (Li et al. 2018,
DeepRebirth, arXiv 1708.04728). With optimisations on, a ReLU is computed inside the convolution in front and counts as
part of it; without, every operator of the file is a kernel of its own.
"""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto, NodeProto, helper

from slimwright.graph import Net
from slimwright.runner.sessions import Kernel
from slimwright.runner.sessions.onnxruntime import profiled_kernels
from slimwright.runtimes.layers import is_tensor_kernel

GOOGLENET = ("3a", "3b", "", "4a", "4b", "4c", "4d", "4e", "", "5a", "5b")  # the names of its blocks; "": a pooling


def profiled(paths: Mapping[str, Path], runs: int, *, optimised: bool = True) -> dict[str, list[Kernel]]:
    """Return the kernels of each model, on one thread, the models taking turns run by run."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = {
            name: _session(path, Path(folder) / str(i), optimised) for i, (name, path) in enumerate(paths.items())
        }
        for _ in range(runs):
            for session in sessions.values():
                entry = session.get_inputs()[0]
                session.run(None, {entry.name: np.zeros(entry.shape, np.float32)})
        return {name: profiled_kernels(Path(session.end_profiling()), runs) for name, session in sessions.items()}


def _session(path: Path, prefix: Path, optimised: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.enable_profiling, options.profile_file_prefix = True, str(prefix)
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def non_tensor_share(kernels: list[Kernel]) -> float:
    """Return the share of the time in kernels of non-tensor layers, 0 to 1."""
    return sum(k.ms for k in kernels if not is_tensor_kernel(k.kind)) / sum(k.ms for k in kernels)


def block_ms(kernels: list[Kernel], path: Path) -> dict[str, float]:
    """Return the milliseconds of each block of a GoogLeNet; "layout" is what the runtime adds between kernels."""
    blocks = googlenet_blocks(onnx.load(str(path)))
    found: dict[str, float] = {}
    for kernel in kernels:
        block = blocks.get(kernel.name.removesuffix("_nchwc"), "layout")
        found[block] = found.get(block, 0.0) + kernel.ms
    return found


def googlenet_blocks(model: ModelProto) -> dict[str, str]:
    """Return the block of each operator, by its name and by the names of its results.

    A layer's weights tell; what has none belongs to the block in front, a pooling that keeps the size to the one
    behind.
    """
    made = {result: node for node in model.graph.node for result in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, str] = {}
    waiting: list[NodeProto] = []
    for node in model.graph.node:
        owned = [block for name in node.input if name in weights and (block := _block_of_weight(name))]
        in_front = [found[made[name].name] for name in node.input if name in made and made[name].name in found]
        found[node.name] = (owned or in_front or ["layout"])[-1]
        if node.op_type == "MaxPool" and _keeps_size(node):
            waiting.append(node)
    for node in waiting:
        found[node.name] = next(found[n.name] for n in model.graph.node if node.output[0] in n.input)
    return found | {result: found[node.name] for node in model.graph.node for result in node.output}


def _block_of_weight(name: str) -> str:
    if name.startswith("stem."):
        return "conv1" if name.startswith("stem.0.") else "conv2"
    if name.startswith("blocks."):
        return GOOGLENET[int(name.split(".")[1])]
    return "loss3" if name.startswith("fc.") else ""


def _keeps_size(node: NodeProto) -> bool:
    return all(list(a.ints) in ([], [1, 1]) for a in node.attribute if a.name == "strides")


def with_lrn_operators(source: Path, path: Path) -> None:
    """Write an exported GoogLeNet or AlexNet with the standard's own operator for response norms.

    torch.onnx writes a norm as eight simpler operators. The constants are the zoo's, which this checks against nothing:
    compare the scores.
    """
    model = onnx.load(str(source))
    made = {result: node for node in model.graph.node for result in node.output}
    gone: list[NodeProto] = []
    for quotient in [node for node in model.graph.node if node.op_type == "Div"]:
        value = quotient.input[0]
        waiting = [quotient.input[1]]
        while waiting:
            name = waiting.pop()
            if name != value and name in made and made[name] not in gone:
                gone.append(made[name])
                waiting.extend(made[name].input)
        norm = helper.make_node(
            "LRN", [value], [quotient.output[0]], name=quotient.name, size=5, alpha=1e-4, beta=0.75, bias=1.0
        )
        place = list(model.graph.node).index(quotient)
        model.graph.node.remove(quotient)
        model.graph.node.insert(place, norm)
    for node in gone:
        model.graph.node.remove(node)
    onnx.save(model, str(path))


def export_as_written(net: Net, path: Path) -> None:
    """Write a net as ONNX without the exporter's own optimisations: batch norms stay."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.to_module(), (torch.zeros(net.input.shape),), dynamo=True, optimize=False, verbose=False
        )
    assert program is not None
    program.save(str(path), external_data=False)
