"""Store weights in few bits, or half precision, and let layers compute with integers.

By `runtime` rounding, the runtime's own tool-kit finds the scales, of weights and of activations. Else they are found
here, and the net that comes out says them: activations stand on levels (`integers.py`) whose ranges calibration images
show (`ranges.py`). By `least squares` each layer's weights, solved front to back for the original's outputs given those
activations, are rounded by the covariance of what the layer reads (`solver/levels.py`). No gradients.

Layers that lose too much, or gain nothing, may stay in float: their tensors keep the encoding that they have. Each
layer may have bits of its own. A plan chooses them by the error that a layer's outputs are left with, each weight's
counted by what the other weights cannot make up for, and by what such an error costs in nats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from slimwright.data import Inputs, calibration_inputs
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.graph.encoding import ENCODINGS, Encoding
from slimwright.progress import Tell, silent
from slimwright.techniques.bits import FLOAT_BITS, bits_knobs
from slimwright.techniques.integers import integer_values, on_levels
from slimwright.techniques.knobs import BITS, Choice, Knob, Observed
from slimwright.techniques.low_rank import outline
from slimwright.techniques.memory_plan import images_for
from slimwright.techniques.ranges import Calibration, ranges
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.levels import WeightLevels
from slimwright.techniques.solver.refit import refit
from slimwright.techniques.technique import Step, Technique, Work, plural

Rounding: TypeAlias = Literal["nearest", "least squares"]
Bits: TypeAlias = Annotated[int, Field(ge=2, le=8)]
TIMED = 8  # calibration images of a net that is only counted and timed


class Quantize(Step):
    """Encode the weights of all layers but `keep_float`; activations are calibrated on this many calibration images.

    `weight_bits`, of all of them or by layer, and `activation_bits` (None: activations stay in float) hold where not
    the runtime rounds. Layers that `weight_bits` does not name stay in float.
    """

    step: Literal["quantize"] = "quantize"
    precision: Literal["int8", "float16"] = "int8"
    images: int = Field(gt=0)
    keep_float: tuple[str, ...] = ()  # layers
    rounding: Literal["runtime", "nearest", "least squares"] = "runtime"
    weight_bits: Bits | dict[str, Bits] = 8
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
    weight_bits: int | Mapping[str, int] = 8,
    activation_bits: int | None = 8,
    calibration: Calibration = "mse",
    rounding: Rounding = "least squares",
    keep_float: tuple[str, ...] = (),
    device: str = "cpu",
    tell: Tell = silent,
) -> Net:
    """Return the net with weights, and activations unless None, on levels of so many bits; batch norms must be folded.

    Where `weight_bits` names layers, all others stay in float. `inputs`, each [N, ...], show the ranges of activations
    and solve the weights. Raises RequestError, naming it, for a layer that is not there, and DataError as `refit` does.
    """
    bits = _bits(net, weight_bits, keep_float)
    weights = {net[name].tensors["weight"]: of for name, of in bits.items()}
    layers = bits.keys()
    draft = Draft.of(net)
    if activation_bits is not None:
        values = integer_values(net, layers)
        levels = ranges(net, inputs, list(dict.fromkeys(values.values())), activation_bits, calibration)
        draft = on_levels(net, values, levels)
    if rounding == "nearest":
        given = {name: net.tensors[name] for name in weights}
        near = {
            name: WeightLevels(weights[name]).each_nearest(tensor.flatten(1)).reshape(tensor.shape)
            for name, tensor in given.items()
        }
        small = draft.net.edited(tensors=near)
    else:
        rules = {name: WeightLevels(bits[name]) for name in net.layers if name in bits}
        small = refit(draft, inputs, constraints=rules, device=device, tell=tell).net
    alone = activation_bits is None
    return small.encoded({name: Encoding.of_bits(of, weight_only=alone) for name, of in weights.items()})


def _bits(net: Net, bits: int | Mapping[str, int], keep_float: Sequence[str]) -> dict[str, int]:
    """The bits of each layer that does not stay in float; who shares weights has the bits of the first."""
    given = bits if isinstance(bits, Mapping) else dict.fromkeys((node.name for node in net.weighted()), bits)
    if unknown := given.keys() - {node.name for node in net.weighted()}:
        raise RequestError(f"there is no layer '{min(unknown)}' to have {given[min(unknown)]} bits")
    of_weights: dict[str, int] = {}
    for name, of in given.items():
        of_weights.setdefault(net[name].tensors["weight"], of)
    kept = set(_weights(net, tuple(keep_float)))
    weights = {node.name: node.tensors["weight"] for node in net.weighted()}
    return {name: of_weights[weight] for name, weight in weights.items() if weight in kept and weight in of_weights}


def _weights(net: Net, keep_float: tuple[str, ...]) -> list[str]:
    """The names of the weights of all layers but those that stay in float; who shares weights stays with them."""
    layers = {node.name: node.tensors["weight"] for node in net.weighted()}
    if unknown := set(keep_float) - layers.keys():
        raise RequestError(f"there is no layer '{min(unknown)}' to stay in float; there are {', '.join(layers)}")
    float_weights = {layers[name] for name in keep_float}
    return [weight for weight in dict.fromkeys(layers.values()) if weight not in float_weights]


def _apply(step: Quantize, work: Work) -> Work:
    net = work.draft.net
    rounding = step.rounding
    if rounding == "runtime" or step.precision == "float16" or (work.cost_only and step.activation_bits is not None):
        small = encoded(net, step.precision, step.keep_float)
    else:
        images = TIMED if work.cost_only else images_for(work, step.images, rounded=True)
        small = quantized(
            net,
            calibration_inputs(work.given, images),
            weight_bits=step.weight_bits,
            activation_bits=step.activation_bits,
            calibration=step.calibration,
            rounding="nearest" if work.cost_only else rounding,
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
    if isinstance(step.weight_bits, int):
        return f"Round to {step.weight_bits}-bit weights and {floats} {how}, on {images}{rest}."
    bits = ", ".join(f"{name} {of}" for name, of in step.weight_bits.items())
    return f"Round weights {how}, on {images}, with {floats}. Bits, by layer: {bits}{rest}."


def _steps(observed: Observed, knobs: Sequence[Knob], choice: Choice) -> list[Quantize]:
    """The bits that a choice leaves each layer, and the thinner ones that it was factorised into."""
    chosen = {str(knob.key).removeprefix(BITS): choice[knob.key] for knob in knobs}
    few = {name: bits for name, bits in chosen.items() if bits < FLOAT_BITS}
    if not few:
        return []
    thin = outline(observed.net, observed.factors(choice))
    bits: dict[str, int] = {}
    for name, of in few.items():
        bits[name], layer = of, thin[name].source
        while layer not in observed.net.readers:
            bits[layer], layer = of, thin[layer].source
    return [Quantize(images=observed.images, weight_bits=bits, rounding="least squares", activation_bits=None)]


QUANTIZE = Technique(Quantize, _apply, _sentence, knobs=bits_knobs, steps=_steps, done="in few bits", ends=True)
