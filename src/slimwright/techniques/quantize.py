"""Store weights in another encoding: INT8 with scales, or half precision. The runtime's exporter finds the scales.

Activations follow the weights of the layer that reads them. Layers that lose too much, or gain nothing, may stay in
float: their tensors keep the encoding that they have.
"""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.graph.encoding import ENCODINGS
from slimwright.techniques.technique import Step, Technique, Work, plural


class Quantize(Step):
    """Encode the weights of all layers but `keep_float`; INT8 is calibrated on this many calibration images."""

    step: Literal["quantize"] = "quantize"
    precision: Literal["int8", "float16"] = "int8"
    images: int = Field(gt=0)
    keep_float: tuple[str, ...] = ()  # layers


def encoded(net: Net, encoding: str, keep_float: tuple[str, ...] = ()) -> Net:
    """Return the net with the weights of its layers, but those of `keep_float`, in an encoding.

    Raises RequestError, naming it, for a layer that is not there.
    """
    layers = {node.name: node.tensors["weight"] for node in net.weighted()}
    if unknown := set(keep_float) - layers.keys():
        raise RequestError(f"there is no layer '{min(unknown)}' to stay in float; there are {', '.join(layers)}")
    float_weights = {layers[name] for name in keep_float}  # layers that share weights stay in float together
    return net.encoded({weight: ENCODINGS[encoding] for weight in layers.values() if weight not in float_weights})


def _apply(step: Quantize, work: Work) -> Work:
    net = encoded(work.draft.net, step.precision, step.keep_float)
    return replace(work, draft=replace(work.draft, net=net))


def _sentence(step: Quantize) -> str:
    rest = f"; {', '.join(step.keep_float)} stay in float" if step.keep_float else ""
    if step.precision == "float16":
        return f"Export with weights in half precision{rest}."
    images = plural(step.images, "calibration image")
    return f"Export with 8-bit weights and activations, calibrated on {images}{rest}."


QUANTIZE = Technique(Quantize, _apply, _sentence, ends=True)
