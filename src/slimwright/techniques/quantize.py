"""Store weights in few bits, or half precision, and let layers compute with integers.

First, channels may be scaled alike (`equalise.py`). By `runtime` rounding, the runtime's own tool-kit finds the scales,
of weights and of activations. Else they are found here, and the net that comes out says them: activations stand on
levels (`integers.py`) whose ranges calibration images show (`ranges.py`). By `least squares` each layer's weights,
solved front to back for the original's outputs given those activations, are rounded by the covariance of what the layer
reads (`solver/levels.py`). Where each weight is rounded to the nearest level, biases may make up for what that does to
the mean of each output. No gradients; `tune` behind it trains weights that stay on their levels.

Layers that lose too much, or gain nothing, may stay in float: their tensors keep the encoding that they have. Each
layer may have bits of its own. A plan chooses them by the error that a layer's outputs are left with, each weight's
counted by what the other weights cannot make up for, and by what such an error costs in nats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator
from torch import Tensor

from slimwright.data import Inputs, calibration_inputs
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.graph.encoding import ENCODINGS, FLOAT32, INT8, Encoding
from slimwright.progress import Tell, silent
from slimwright.techniques.bits import bits_knobs
from slimwright.techniques.equalise import equalised
from slimwright.techniques.integers import integer_values, on_levels
from slimwright.techniques.knobs import BITS, Choice, Knob, Observed
from slimwright.techniques.low_rank import outline
from slimwright.techniques.memory_plan import images_for
from slimwright.techniques.ranges import Calibration, ranges
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.held import BiasAlone
from slimwright.techniques.solver.levels import WeightLevels
from slimwright.techniques.solver.refit import refit, with_biases
from slimwright.techniques.technique import Step, Technique, Work, plural

Rounding: TypeAlias = Literal["nearest", "least squares"]
Bits: TypeAlias = Annotated[int, Field(ge=1, le=8)]
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
    activation_bits: int | None = Field(8, ge=1, le=8)
    calibration: Calibration = "mse"
    equalise: bool = False  # scale channels alike first
    correct_biases: bool = False  # by what rounding the weights does to the mean of each output

    @model_validator(mode="after")
    def _check_preparation(self) -> Self:
        if self.precision == "float16" and (self.equalise or self.correct_biases):
            raise ValueError("equalise and correct_biases prepare for int8; leave them out for float16")
        return self


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
    correct_biases: bool = False,
    zeros: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    tell: Tell = silent,
) -> Net:
    """Return the net with weights, and activations unless None, on levels of so many bits; batch norms must be folded.

    Where `weight_bits` names layers, all others stay in float. `inputs`, each [N, ...], show the ranges of activations
    and solve the weights. Rounding by least squares solves the biases, too, and keeps the weights zero that `zeros`
    name, True by tensor; that to the nearest may have the biases corrected. Raises RequestError, naming it, for a layer
    that is not there, and DataError as `refit` does.
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
        small = draft.net.edited(tensors=_nearest(net, weights))
        if correct_biases:
            small = with_corrected_biases(replace(draft, net=small), inputs, device=device, tell=tell).net
    else:
        kept = {name: tensor.flatten(1) for name, tensor in (zeros or {}).items()}
        rules = {
            name: WeightLevels(bits[name], kept.get(net[name].tensors["weight"])) for name in net.layers if name in bits
        }
        small = refit(draft, inputs, constraints=rules, device=device, tell=tell).net
    return small.encoded(_encodings(weights, activation_bits))


def corrected_for_runtime(
    net: Net, inputs: Inputs, *, keep_float: tuple[str, ...] = (), device: str = "cpu", tell: Tell = silent
) -> Net:
    """Return the net with biases that make up, in the mean, for what a runtime's rounding to 8 bits does to weights.

    They are those for weights that are each rounded to the nearest of 255 levels of its output.
    """
    near = net.edited(tensors=_nearest(net, dict.fromkeys(_weights(net, keep_float), INT8.bits)))
    found = with_corrected_biases(Draft.of(net).changed(near, {}), inputs, device=device, tell=tell).net
    return found.edited(tensors={name: net.tensors[name] for name in _weights(net, ())})


def with_corrected_biases(draft: Draft, inputs: Inputs, *, device: str = "cpu", tell: Tell = silent) -> Draft:
    """Return the draft with the biases of its layers solved, and nothing else.

    So each output's mean is the reference's, where activations do not cut both off (Nagel et al. 2019, arXiv
    1906.04721, sec. 4.2, from images).
    """
    alone = dict.fromkeys(draft.net.layers, BiasAlone())
    return refit(draft, inputs, constraints=alone, device=device, tell=tell)


def _encodings(bits: Mapping[str, int], activation_bits: int | None) -> dict[str, Encoding]:
    """The encodings of weights by name, of so many bits each."""
    return {name: Encoding.of_bits(of, weight_only=activation_bits is None) for name, of in bits.items()}


def _nearest(net: Net, bits: Mapping[str, int]) -> dict[str, Tensor]:
    """Weights by name, each rounded to the nearest level of its output, of so many bits."""
    given = {name: net.tensors[name] for name in bits}
    return {
        name: WeightLevels(bits[name]).each_nearest(tensor.flatten(1)).reshape(tensor.shape)
        for name, tensor in given.items()
    }


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
    net, by_runtime = work.draft.net, step.rounding == "runtime" or step.precision == "float16"
    if by_runtime and (work.cost_only or not (step.equalise or step.correct_biases)):
        return replace(work, draft=replace(work.draft, net=encoded(net, step.precision, step.keep_float)))
    if work.cost_only:
        of_layers = _bits(net, step.weight_bits, step.keep_float)
        if step.rounding == "least squares":
            net = with_biases(Draft.of(net), of_layers.keys()).net
        if step.activation_bits is not None:
            bits = {net[name].tensors["weight"]: of for name, of in of_layers.items()}
            return replace(work, draft=replace(work.draft, net=net.encoded(_encodings(bits, step.activation_bits))))
    images = TIMED if work.cost_only else images_for(work, step.images, rounded=True)
    inputs = calibration_inputs(work.given, images)
    if step.equalise and not work.cost_only:
        net = equalised(net, inputs)
    if by_runtime:
        if step.correct_biases:
            net = corrected_for_runtime(net, inputs, keep_float=step.keep_float, device=work.device, tell=work.tell)
        return replace(work, draft=replace(work.draft, net=encoded(net, step.precision, step.keep_float)))
    small = quantized(
        net,
        inputs,
        weight_bits=step.weight_bits,
        activation_bits=step.activation_bits,
        calibration=step.calibration,
        rounding="nearest" if step.rounding == "nearest" or work.cost_only else "least squares",
        keep_float=step.keep_float,
        correct_biases=step.correct_biases and not work.cost_only,
        zeros={name: net.tensors[name] == 0 for name, kept in work.kept.items() if kept == "zeros"},
        device=work.device,
        tell=work.tell,
    )
    binary = {name for name, encoding in small.encodings.items() if encoding.bits == 1}
    kept = {k: v for k, v in work.kept.items() if k not in small.encodings or (v == "zeros" and k not in binary)}
    return replace(work, draft=replace(work.draft, net=small), kept=kept)


def _sentence(step: Quantize) -> str:
    rest = f"; {', '.join(step.keep_float)} stay in float" if step.keep_float else ""
    if step.precision == "float16":
        return f"Export with weights in half precision{rest}."
    images = plural(step.images, "calibration image")
    alike = "Scale channels alike; " if step.equalise else ""
    means = ", with biases that keep the means of outputs" if step.correct_biases else ""
    if step.rounding == "runtime":
        said = f"{alike}export with 8-bit weights and activations{means}, calibrated on {images}{rest}."
        return said[0].upper() + said[1:]
    floats = "activations in float" if step.activation_bits is None else f"{step.activation_bits}-bit activations"
    how = "by least squares" if step.rounding == "least squares" else f"to the nearest{means}"
    if isinstance(step.weight_bits, int):
        weights = {1: "binary", 2: "ternary"}.get(step.weight_bits, f"{step.weight_bits}-bit")
        said = f"{alike}round to {weights} weights and {floats} {how}, on {images}{rest}."
    else:
        bits = ", ".join(f"{name} {of}" for name, of in step.weight_bits.items())
        said = f"{alike}round weights {how}, on {images}, with {floats}. Bits, by layer: {bits}{rest}."
    return said[0].upper() + said[1:]


def _steps(observed: Observed, knobs: Sequence[Knob], choice: Choice) -> list[Quantize]:
    """The bits that a choice leaves each layer, and the thinner ones that it was factorised into."""
    chosen = {str(knob.key).removeprefix(BITS): choice[knob.key] for knob in knobs}
    few = {name: bits for name, bits in chosen.items() if bits < FLOAT32.bits}
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
