"""ExecuTorch: lowered to XNNPACK; INT8 by static quantization of the exported program (PT2E), weights per channel."""

from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

from slimwright.graph import Net
from slimwright.runtimes.artefact import Array


def export(net: Net, folder: Path, precision: str, images: Array | None) -> list[str]:
    """Write `model.pte`."""
    example = (torch.zeros(net.input.shape),)
    program = torch.export.export(net.to_module().eval(), example)
    if precision == "int8":
        assert images is not None
        program = torch.export.export(_quantized(program.module(), example, images), example)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    with (folder / "model.pte").open("wb") as file:
        lowered.write_to_file(file)
    return ["model.pte"]


def _quantized(module: Any, example: tuple[torch.Tensor], images: Array) -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(module, quantizer)
    with torch.no_grad():
        for image in images:
            prepared(torch.from_numpy(image[None]))
    return convert_pt2e(prepared)
