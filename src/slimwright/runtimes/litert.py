"""LiteRT: converted from the module; INT8 by static quantization, FP16 by weights in half precision.

The quantizer takes the average range of a value over images. Where a net says levels of its own, their ends are given
in its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from slimwright.graph import Net, zero_inputs
from slimwright.graph.levels import has_levels, without_levels
from slimwright.lowering.steps import with_steps_for_biases, with_steps_for_weights
from slimwright.runtimes.artefact import Array, Written
from slimwright.runtimes.fallbacks import Fallback, note
from slimwright.runtimes.own_levels import known_by_numbers

LEAST_STEP = 1e-7  # of weights in INT8: with those of 2e-8 outputs are off by a sixth (quantizer 0.10.0, 2026-12-01)
DELEGATE = "DELEGATE"
IN_FLOAT = ("RSQRT", "SQRT")  # of a response norm: XNNPACK has no INT8 kernels for them, and LiteRT's own are slow


def export(net: Net, folder: Path, precision: str, calibration: Sequence[Array] | None) -> Written:
    """Write `model.tflite`, whose signature numbers inputs and outputs in the net's order."""
    if net.float_layers:
        raise RuntimeError("single layers cannot stay in float in LiteRT here; quantize all of them, or none")
    said, net = net, without_levels(net)
    if precision == "int8":
        net = with_steps_for_biases(with_steps_for_weights(net, LEAST_STEP))
    whole = folder / "fp32.tflite"
    litert_torch.convert(net.to_module().eval(), zero_inputs(net)).export(str(whole))
    inputs = tuple(f"args_{k}" for k in range(len(net.inputs)))
    outputs = tuple(f"output_{k}" for k in range(len(net.outputs)))
    if precision == "fp32":
        whole.rename(folder / "model.tflite")
    else:
        rows = [
            dict(zip(inputs, (row[None] for row in each), strict=True)) for each in zip(*calibration or (), strict=True)
        ]
        ends = {}
        if precision == "int8" and has_levels(said):
            known = known_by_numbers(said, [*rows[0].values()])
            found = {name: known(tensor) for name, tensor in _tensors(whole, rows[0])}
            ends = {name: one.ends for name, one in found.items() if one is not None}
        _quantize(whole, folder / "model.tflite", precision, rows, ends)
    note(folder, _left_over(folder / "model.tflite"))
    return Written(("model.tflite",), inputs, outputs)


def _left_over(path: Path) -> Iterator[Fallback]:
    """The operators that are not in a delegate, which is XNNPACK: what a delegate's results come from is in it."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    steps = interpreter._get_ops_details()
    makes = {int(value): step for step in steps if step["op_name"] != DELEGATE for value in step["outputs"]}
    taken: set[int] = set()
    for delegate in (step for step in steps if step["op_name"] == DELEGATE):
        given, waiting = set(map(int, delegate["inputs"])), list(map(int, delegate["outputs"]))
        while waiting:
            step = makes.get(waiting.pop())
            if step is not None and step["index"] not in taken:
                taken.add(step["index"])
                waiting += [int(value) for value in step["inputs"] if int(value) not in given]
    for step in steps:
        if step["op_name"] != DELEGATE and step["index"] not in taken:
            yield Fallback(step["op_name"])


def _tensors(whole: Path, row: Mapping[str, Array]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The float tensors of a file by name, as they are for a row."""
    interpreter = Interpreter(
        str(whole),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
        num_threads=1,
    )
    interpreter.get_signature_runner()(**row)
    for each in interpreter.get_tensor_details():
        if each["dtype"] is np.float32 and np.prod(each["shape"]):
            yield each["name"], interpreter.get_tensor(each["index"])


def _quantize(
    whole: Path,
    path: Path,
    precision: str,
    rows: Sequence[Mapping[str, Array]],
    ends: Mapping[str, tuple[float, float]],
) -> None:
    from ai_edge_quantizer import qtyping, quantizer, recipe

    job = quantizer.Quantizer(str(whole))
    if precision == "int8":
        job.load_quantization_recipe(recipe.static_wi8_ai8())
        for name in IN_FLOAT:
            job.update_quantization_recipe(
                regex=".*", operation_name=qtyping.TFLOperationName(name), algorithm_key="no_quantize"
            )
        calibrated = job.calibrate({"serving_default": list(rows)})
        for name, (least, greatest) in ends.items():
            if name in calibrated:
                calibrated[name] |= {
                    "min": np.full_like(calibrated[name]["min"], least),
                    "max": np.full_like(calibrated[name]["max"], greatest),
                }
        job.quantize(calibrated).export_model(str(path))
    else:
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
