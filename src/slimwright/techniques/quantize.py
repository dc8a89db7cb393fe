"""Store weights in few bits, or half precision, and let layers compute with integers.

By `runtime` rounding, the runtime's own tool-kit finds the scales, of weights and of activations. Else they are found
here, and the net that comes out says them: activations stand on levels (`integers.py`) whose ranges calibration images
show (`ranges.py`). By `least squares` each layer's weights, solved front to back for the original's outputs given those
activations, are rounded by the covariance of what the layer reads (`solver/levels.py`). No gradients.

Layers that lose too much, or gain nothing, may stay in float: their tensors keep the encoding that they have.
"""

from dataclasses import replace
from typing import Literal, TypeAlias

from pydantic import Field

from slimwright.data import Inputs, calibration_inputs
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.graph.encoding import ENCODINGS, Encoding
from slimwright.progress import Tell, silent
from slimwright.techniques.integers import integer_values, on_levels
from slimwright.techniques.memory_plan import images_for
from slimwright.techniques.ranges import Calibration, ranges
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.levels import WeightLevels
from slimwright.techniques.solver.refit import refit
from slimwright.techniques.technique import Step, Technique, Work, plural

Rounding: TypeAlias = Literal["nearest", "least squares"]


class Quantize(Step):
    """Encode the weights of all layers but `keep_float`; activations are calibrated on this many calibration images.

    `weight_bits` and `activation_bits` (None: activations stay in float) hold where not the runtime rounds.
    """

    step: Literal["quantize"] = "quantize"
    precision: Literal["int8", "float16"] = "int8"
    images: int = Field(gt=0)
    keep_float: tuple[str, ...] = ()  # layers
    rounding: Literal["runtime", "nearest", "least squares"] = "runtime"
    weight_bits: int = Field(8, ge=2, le=8)
    activation_bits: int | None = Field(8, ge=2, le=8)
    calibration: Calibration = "mse"


def encoded(net: Net, encoding: str, keep_float: tuple[str, ...] = ()) -> Net:
    """Return the net with the weights of its layers, but those of `keep_float`, in an encoding.

    Raises RequestError, naming it, for a layer that is not there.
    """
    return net.encoded(dict.fromkeys(_weights(net, keep_float), ENCODINGS[encoding]))


def quantized(
    net: Net,
    inputs: Inputs,
    *,
    weight_bits: int = 8,
    activation_bits: int | None = 8,
    calibration: Calibration = "mse",
    rounding: Rounding = "least squares",
    keep_float: tuple[str, ...] = (),
    device: str = "cpu",
    tell: Tell = silent,
) -> Net:
    """Return the net with weights, and activations unless None, on levels of so many bits; batch norms must be folded.

    `inputs`, each [N, ...], show the ranges of activations and solve the weights. Raises RequestError, naming it, for a
    layer of `keep_float` that is not there, and DataError as `refit` does.
    """
    weights = _weights(net, keep_float)
    layers = {node.name for node in net.weighted() if node.tensors["weight"] in weights}
    draft = Draft.of(net)
    if activation_bits is not None:
        values = integer_values(net, layers)
        levels = ranges(net, inputs, list(dict.fromkeys(values.values())), activation_bits, calibration)
        draft = on_levels(net, values, levels)
    rule = WeightLevels(weight_bits)
    if rounding == "nearest":
        given = {name: net.tensors[name] for name in weights}
        near = {name: rule.each_nearest(tensor.flatten(1)).reshape(tensor.shape) for name, tensor in given.items()}
        small = draft.net.edited(tensors=near)
    else:
        small = refit(
            draft, inputs, constraints=dict.fromkeys(layers & net.layers.keys(), rule), device=device, tell=tell
        ).net
    return small.encoded(dict.fromkeys(weights, Encoding.of_bits(weight_bits, weight_only=activation_bits is None)))


def _weights(net: Net, keep_float: tuple[str, ...]) -> list[str]:
    """The names of the weights of all layers but those that stay in float; who shares weights stays with them."""
    layers = {node.name: node.tensors["weight"] for node in net.weighted()}
    if unknown := set(keep_float) - layers.keys():
        raise RequestError(f"there is no layer '{min(unknown)}' to stay in float; there are {', '.join(layers)}")
    float_weights = {layers[name] for name in keep_float}
    return [weight for weight in dict.fromkeys(layers.values()) if weight not in float_weights]


def _apply(step: Quantize, work: Work) -> Work:
    net = work.draft.net
    if step.rounding == "runtime" or step.precision == "float16" or work.cost_only:
        small = encoded(net, step.precision, step.keep_float)
    else:
        small = quantized(
            net,
            calibration_inputs(work.given, images_for(work, step.images, rounded=True)),
            weight_bits=step.weight_bits,
            activation_bits=step.activation_bits,
            calibration=step.calibration,
            rounding=step.rounding,
            keep_float=step.keep_float,
            device=work.device,
            tell=work.tell,
        )
    return replace(work, draft=replace(work.draft, net=small))


def _sentence(step: Quantize) -> str:
    rest = f"; {', '.join(step.keep_float)} stay in float" if step.keep_float else ""
    if step.precision == "float16":
        return f"Export with weights in half precision{rest}."
    images = plural(step.images, "calibration image")
    if step.rounding == "runtime":
        return f"Export with 8-bit weights and activations, calibrated on {images}{rest}."
    floats = "activations in float" if step.activation_bits is None else f"{step.activation_bits}-bit activations"
    how = "by least squares" if step.rounding == "least squares" else "to the nearest"
    return f"Round to {step.weight_bits}-bit weights and {floats} {how}, on {images}{rest}."


QUANTIZE = Technique(Quantize, _apply, _sentence, ends=True)
