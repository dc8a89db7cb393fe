"""ExecuTorch: lowered to XNNPACK; INT8 by static quantization of the exported program (PT2E), weights per channel."""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from torch.fx import Graph, Node

from slimwright.graph import Net, zero_inputs
from slimwright.lowering.decompositions import with_weights_apart
from slimwright.runtimes.artefact import Array, Written
from slimwright.runtimes.fallbacks import Fallback, note


def export(net: Net, folder: Path, precision: str, calibration: Sequence[Array] | None) -> Written:
    """Write `model.pte`, which takes and gives everything in the net's order."""
    if precision == "int8":
        net = with_weights_apart(net)
    program = torch.export.export(net.to_module().eval(), zero_inputs(net))
    if precision == "int8":
        assert calibration is not None
        keep_float = {net.key(net[name], "weight") for name in net.float_layers}
        program = torch.export.export(
            _quantized(program.module(), calibration, keep_float),
            zero_inputs(net),
        )
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    _check_convolutions(lowered.exported_program().graph)
    note(folder, _left_over(lowered.exported_program().graph))
    with (folder / "model.pte").open("wb") as file:
        lowered.to_executorch().write_to_file(file)
    return Written(("model.pte",))


def _check_convolutions(graph: Graph) -> None:
    """Raise RuntimeError for a convolution over three dimensions: there is no kernel for one (1.4.1, 2026-11-28)."""
    for node in graph.nodes:
        if node.op == "call_function" and "convolution" in str(node.target) and node.args[0].meta["val"].ndim > 4:
            raise RuntimeError(
                f"ExecuTorch has no kernel for convolutions over three dimensions ('{_origin(node.meta['from_node'])}')"
            )


def _left_over(graph: Graph) -> Iterator[Fallback]:
    """The operators that XNNPACK did not take."""
    for node in graph.nodes:
        if node.op == "call_function" and isinstance(node.target, EdgeOpOverload):
            yield Fallback(node.target.name().removeprefix("aten::"), _origin(node.meta.get("from_node", [])))


def _origin(sources: Sequence[Any]) -> str:
    """The node of the net that an exported one comes from; "" where a pass made it."""
    while sources and sources[-1].from_node:
        sources = sources[-1].from_node
    return str(sources[-1].name) if sources else ""


def _quantized(module: Any, calibration: Sequence[Array], keep_float: Set[str]) -> Any:
    """The module in INT8, but for the layers that read the weights `keep_float`."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    def is_quantized(node: Node) -> bool:
        return not any(isinstance(read, Node) and str(read.target) in keep_float for read in node.args)

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    if keep_float:
        quantizer.set_filter_function(is_quantized)
    prepared = prepare_pt2e(module, quantizer)
    with torch.no_grad():
        for rows in zip(*calibration, strict=True):
            prepared(*(torch.from_numpy(row[None]) for row in rows))
    return convert_pt2e(prepared)
