"""LiteRT: converted from the module; INT8 by static quantization, FP16 by weights in half precision."""

from pathlib import Path

import litert_torch
import torch

from slimwright.graph import Net
from slimwright.runtimes.artefact import Array


def export(net: Net, folder: Path, precision: str, images: Array | None) -> list[str]:
    """Write `model.tflite`."""
    whole = folder / "fp32.tflite"
    litert_torch.convert(net.to_module().eval(), (torch.zeros(net.input.shape),)).export(str(whole))
    if precision == "fp32":
        whole.rename(folder / "model.tflite")
    else:
        _quantize(whole, folder / "model.tflite", precision, images)
    return ["model.tflite"]


def _quantize(whole: Path, path: Path, precision: str, images: Array | None) -> None:
    from ai_edge_quantizer import quantizer, recipe

    job = quantizer.Quantizer(str(whole))
    if precision == "int8":
        assert images is not None
        job.load_quantization_recipe(recipe.static_wi8_ai8())
        calibrated = job.calibrate({"serving_default": [{"args_0": image[None]} for image in images]})
        job.quantize(calibrated).export_model(str(path))
    else:
        from ai_edge_quantizer import qtyping

        job.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
                compute_precision=qtyping.ComputePrecision.FLOAT,
            ),
            algorithm_key="float_casting",
        )
        job.quantize().export_model(str(path))
