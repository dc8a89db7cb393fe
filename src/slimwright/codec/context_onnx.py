"""The context net as ONNX, for a decoder on a device: the same indices as here, to the bit.

A float64 holds every sum exactly, so that a runtime may add in any order. One graph is of one role and pass; the band
is an input.
"""

from typing import Any

import numpy as np
from torch import Tensor

from slimwright.codec.context_net import FEATURE_BITS, OUTPUT_BITS, WEIGHT_BITS, WholeNet
from slimwright.codec.symbols import LEAST_SCALE, MOST_ODDS, MOST_SCALE, ODDS_UNIT, SCALE_UNIT
from slimwright.errors import check_extra

OPSET = 17


def context_model(net: WholeNet, role: str, phase: int) -> bytes:
    """Return an ONNX file that takes features [N, F] and a band, and gives the indices of the odds and the scale [N].

    Raises MissingExtra where onnx is not installed.
    """
    check_extra("onnxruntime", "a context net is exported with", "onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: dict[str, Tensor | np.ndarray[Any, Any]] = {}

    def node(kind: str, *inputs: str, out: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def constant(name: str, value: Any) -> str:
        constants[name] = value
        return name

    values, bits = "features", FEATURE_BITS
    for place in range(3):
        bias = net.parameters[f"{role}_bias{place}"].numpy() * 2.0**bits
        weight = constant(f"weight{place}", net.parameters[f"{role}_weight{place}"][phase].numpy())
        sums = node("MatMul", values, weight, out=f"products{place}")
        chosen = constant(f"bias{place}", bias if place == 0 else bias[0])
        if place == 0:
            chosen = node("Gather", chosen, "band", out="band_bias", axis=0)
        values = node("Add", sums, chosen, out=f"sums{place}")
        if place < 2:
            unit = constant(f"unit{place}", np.array(2.0 ** (OUTPUT_BITS - bits - WEIGHT_BITS)))
            values = node("Mul", node("Relu", values, out=f"relu{place}"), unit, out=f"scaled{place}")
            values = node("Floor", values, out=f"hidden{place}")
        bits = OUTPUT_BITS
    units = np.array((ODDS_UNIT, SCALE_UNIT)) * 2.0 ** -(OUTPUT_BITS + WEIGHT_BITS)
    values = node("Mul", values, constant("units", units), out="in_units")
    values = node("Floor", node("Add", values, constant("half", np.array(0.5)), out="raised"), out="rounded")
    values = node("Max", values, constant("least", np.array((-MOST_ODDS, LEAST_SCALE), np.float64)), out="above")
    values = node("Min", values, constant("most", np.array((MOST_ODDS, MOST_SCALE), np.float64)), out="within")
    node("Sub", values, constant("first", np.array((-MOST_ODDS, LEAST_SCALE), np.float64)), out="indices")
    features = net.parameters[f"{role}_weight0"].shape[1]
    graph = helper.make_graph(
        nodes,
        f"{role}{phase}",
        [
            helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["n", features]),
            helper.make_tensor_value_info("band", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("indices", TensorProto.DOUBLE, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    return bytes(model.SerializeToString())
