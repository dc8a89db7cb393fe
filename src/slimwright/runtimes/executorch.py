"""ExecuTorch: lowered to XNNPACK; INT8 by static quantization of the exported program (PT2E), weights per channel.

PT2E finds the levels of values and weights by observers. Where a net says its own, these are what the observers give;
a value whose kernel wants the levels of others (what a concatenation reads) keeps those that were found.
"""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from torch.fx import Graph, Node

from slimwright.graph import Net, zero_inputs
from slimwright.graph.levels import Levels, has_levels, without_levels
from slimwright.lowering.decompositions import with_weights_apart
from slimwright.runtimes.artefact import Array, Written
from slimwright.runtimes.fallbacks import Fallback, note
from slimwright.runtimes.own_levels import Known, known_by_numbers, on_whole_numbers

LEAST_SCALE = 1e-12  # of weights; XNNPACK takes none that is not a normal float, and PT2E none below 1.2e-7 by itself


def export(net: Net, folder: Path, precision: str, calibration: Sequence[Array] | None) -> Written:
    """Write `model.pte`, which takes and gives everything in the net's order."""
    said, net = net, without_levels(net)
    if precision == "int8":
        net = with_weights_apart(net)
    program = torch.export.export(net.to_module().eval(), zero_inputs(net))
    if precision == "int8":
        assert calibration is not None
        keep_float = {net.key(net[name], "weight") for name in net.float_layers}
        program = torch.export.export(
            _quantized(program.module(), calibration, keep_float, said),
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


def _quantized(module: Any, calibration: Sequence[Array], keep_float: Set[str], said: Net) -> Any:
    """The module in INT8, but for the layers that read the weights `keep_float`, with the levels that the net says."""
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
    for observer in prepared.modules():
        if hasattr(observer, "ch_axis"):  # weights: those of a net whose values are large may be small
            observer.eps.fill_(LEAST_SCALE)
    with torch.no_grad():
        for rows in zip(*calibration, strict=True):
            prepared(*(torch.from_numpy(row[None]) for row in rows))
        if has_levels(said):
            _set_levels(prepared, known_by_numbers(said, [each[:1] for each in calibration]), calibration)
    return convert_pt2e(prepared)


def _set_levels(prepared: Any, known: Known, calibration: Sequence[Array]) -> None:
    """Let observers give the levels that values have, and those that weights stand on, where they have 8 bits.

    An observer that several values share gives theirs where all have the same.
    """
    seen: dict[Any, list[torch.Tensor]] = {}

    def see(observer: Any, given: tuple[torch.Tensor]) -> None:
        seen.setdefault(observer, []).append(given[0])

    observers = [module for module in prepared.modules() if hasattr(module, "calculate_qparams")]
    hooks = [observer.register_forward_pre_hook(see) for observer in observers]
    prepared(*(torch.from_numpy(each[:1]) for each in calibration))
    for hook in hooks:
        hook.remove()
    for observer, values in seen.items():
        if hasattr(observer, "ch_axis"):
            how = _scales(values[0].detach(), observer)
        else:
            (own, *others) = {known(value.detach().numpy()) for value in values}
            how = None if own is None or others else _in_int8(own)
        if how is not None:
            observer.calculate_qparams = lambda how=how: how


def _scales(weight: torch.Tensor, observer: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The scales [O] that a weight's outputs stand on, and their zeros; None where one stands on none.

    That of an output without weights is as the observer found it.
    """
    found = on_whole_numbers(weight.numpy(), observer.ch_axis)
    if found is None:
        return None
    scales, zeros = observer.calculate_qparams()
    there = weight.movedim(observer.ch_axis, 0).flatten(1).any(1)
    return torch.where(there, torch.from_numpy(found[1]).clamp_min(LEAST_SCALE), scales), zeros


def _in_int8(levels: Levels) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero of 256 levels, from -128 to 127."""
    return torch.tensor([levels.scale]), torch.tensor([levels.zero - levels.least - 128])
