"""The original: the model as the user gave it, which runs in its own framework, and our reading of it.

A reading error must show. So the two are compared when a model is read, and the final proof compares with the model as
it was given, too: an ONNX file in ONNX Runtime, a module in torch. A saved net is read as it is, and a `.pt2` file can
only be run by unpickling it, which is never done: there the reading is the original.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from slimwright.data import Inputs, as_inputs, tensors_of
from slimwright.errors import ModelError, ProofError, RequestError
from slimwright.graph import Net, images_at_once, random_inputs
from slimwright.importers import Sizes, capture, net_of_file, read_file, write_in_one_file
from slimwright.measure.prove import given_by
from slimwright.runtimes import Artefact
from slimwright.targets import Local
from slimwright.tasks import Forward, Outputs
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.subset import subset

READING_TOLERANCE = 1e-4  # of the largest value of an output: float32 in another order of sums
HALF_TOLERANCE = 0.02  # where the file computes in float16 or bfloat16, and our reading in float32
GRID_TOLERANCE = 0.05  # where the file computes with integers, and our reading rounds as it does: a few steps of 1/255
QUANTIZED_TOLERANCE = 0.5  # the same without rounding, on images: as far as INT8 may be from float in a proof
LEAST_CHANCE = 0.01  # of a sigmoid: ONNX Runtime's is off by up to 2e-8 near 0 (1.31.1, 2026-11-29)
IMAGES = 2  # random ones, on which a reading is compared


@dataclass(frozen=True)
class Original:
    """A model as the user gave it: `forward` runs it in its own `framework`; `net` is our reading of it.

    A quantized model is read as the float model that it stands for. What that computes differs from the original by
    rounding; `on_grid` is the same reading with the file's own rounding.
    """

    net: Net
    forward: Forward
    framework: str
    tolerance: float = READING_TOLERANCE  # of the largest value of an output, between both
    on_grid: Net | None = None  # None where the model is not quantized

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """The shape of each output, for a batch of one."""
        return [self.net[name].shape for name in self.net.outputs]


def original_of(model: nn.Module | Net, shapes: Sequence[Sequence[int]]) -> Original:
    """Return a module, captured for inputs of these shapes (without the batch), or a net, as an original.

    Raises ModelError where the module cannot be captured, or the net differs from it.
    """
    if isinstance(model, Net):
        return Original(model, model.run, "slimwright")
    captured = capture(model, shapes[0] if len(shapes) == 1 else shapes)
    return compared(Original(captured, _in_batches(model, images_at_once(captured)), "torch"))


def original_file(path: Path, sizes: Sizes = ()) -> Original:
    """Return an `.onnx` file as an original; `sizes` are for inputs whose sizes it leaves open (`read_onnx`).

    Raises ModelError where our reading differs from ONNX Runtime's.
    """
    file = read_file(path)
    net = net_of_file(file, sizes=sizes)
    forward = _in_onnx_runtime(path, net, as_it_is=not (file.apart or file.idle_inputs))
    if file.quantized:
        rounded = net_of_file(file, sizes=sizes, keeps_grids=True)
        return compared(Original(net, forward, "ONNX Runtime", QUANTIZED_TOLERANCE, rounded))
    return compared(Original(net, forward, "ONNX Runtime", HALF_TOLERANCE if file.in_half else READING_TOLERANCE))


def compared(original: Original, inputs: Inputs | None = None) -> Original:
    """Return the original; raise ModelError, naming the output, where the net differs from it on some inputs.

    Without `inputs`, on random ones; there a quantized model is compared with the reading that rounds as it does,
    because random values leave the ranges that it was made for.
    """
    net, tolerance = original.net, original.tolerance
    if inputs is None and original.on_grid is not None:
        net, tolerance = original.on_grid, GRID_TOLERANCE
    inputs = as_inputs(random_inputs(original.net, IMAGES, seed=0)) if inputs is None else inputs
    expected, found = original.forward(inputs), net.run(tensors_of(inputs))
    if len(expected) != len(found):
        raise ModelError(f"the model returns {len(expected)} outputs, as it was read {len(found)}: please report this")
    for name, mine, its in zip(original.net.outputs, found, expected, strict=True):
        if mine.shape != its.shape:
            raise ModelError(f"output '{name}' has shape {list(its.shape)}, as it was read {list(mine.shape)}")
        error = float((mine.double() - its.double()).abs().max()) if mine.numel() else 0.0
        largest = max(float(its.double().abs().max()) if its.numel() else 0.0, _least_scale(net, name))
        if not error <= tolerance * largest:
            raise ModelError(
                f"output '{name}' differs from {original.framework}'s by {error / largest:.2g} of its largest value, "
                f"more than {tolerance:g}: {_why(original, net)}"
            )
    return original


def _least_scale(net: Net, name: str) -> float:
    """What an output's largest value counts as at least: where all chances are next to nothing, runtimes round them."""
    return LEAST_CHANCE if "sigmoid" in net[name].op else 1e-12


def kept_to(original: Original, classes: Sequence[int]) -> Original:
    """Return the original that gives the scores of some classes alone, in that order.

    Its head is cut to them, and its own outputs are taken at those places. Raises RequestError for a model that does
    not give one table of scores [N, classes], and for a class that is not there or named twice.
    """
    shapes = original.output_shapes
    if len(shapes) != 1 or len(shapes[0]) != 2:
        said = " and ".join(str([*shape]) for shape in shapes)
        raise RequestError(f"the model returns {said}; classes are chosen of models that return one table of scores")
    net = subset(Draft.of(original.net), classes).net
    grid = None if original.on_grid is None else subset(Draft.of(original.on_grid), classes).net
    rows = torch.tensor(list(classes))

    def forward(inputs: Inputs) -> Outputs:
        (scores,) = original.forward(inputs)
        return (scores.index_select(1, rows),)

    return original if net is original.net else compared(replace(original, net=net, forward=forward, on_grid=grid))


def expected_of(original: Original, inputs: Inputs, known: Outputs | None = None, *, random: bool = False) -> Outputs:
    """Return what a float32 artefact must give: the original's own outputs, `known` where it gave them before.

    Where those are computed in half precision or with integers it is our reading's outputs, once they are compared
    with the original's; those of integers not on `random` inputs.
    """
    if original.tolerance <= READING_TOLERANCE:
        return original.forward(inputs) if known is None else known
    if random and original.on_grid is not None:
        return original.net.run(tensors_of(inputs))
    return compared(original, inputs).net.run(tensors_of(inputs))


def _why(original: Original, net: Net) -> str:
    if original.on_grid is None or net is original.on_grid:
        return "the model was not read rightly, and nothing is done with it"
    return "the file is quantized too coarsely for these images; give the float model that it was made from"


def _in_batches(module: nn.Module, at_once: int) -> Forward:
    """Run a module in eval mode, some images at a time; the tensors of its result, in order, are its outputs."""

    @torch.no_grad()
    def forward(inputs: Inputs) -> Outputs:
        module.eval()
        batches = zip(*(tensor.split(at_once) for tensor in tensors_of(inputs)), strict=True)
        leaves = (torch.utils._pytree.tree_leaves(module(*batch)) for batch in batches)
        parts = [[leaf for leaf in found if isinstance(leaf, Tensor)] for found in leaves]
        return tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))

    return forward


def _in_onnx_runtime(path: Path, net: Net, *, as_it_is: bool) -> Callable[[Inputs], Outputs]:
    """Run a file in ONNX Runtime, in a process of its own; if not as it is, as one that takes what the net takes."""
    outputs = [net[name] for name in net.outputs]

    def forward(inputs: Inputs) -> Outputs:
        with tempfile.TemporaryDirectory(prefix="slimwright-") as folder:
            whole = path if as_it_is else Path(folder) / "model.onnx"
            if not as_it_is:
                write_in_one_file(path, whole)
            artefact = Artefact(
                "onnxruntime",
                "fp32",
                (whole,),
                shapes=tuple(node.shape for node in net.inputs),
                output_shapes=tuple(node.shape for node in outputs),
                dtypes=tuple(node.dtype for node in net.inputs),
                output_dtypes=tuple(node.dtype for node in outputs),
                input_names=net.ends.inputs if net.ends else (),
                output_names=net.ends.outputs if net.ends else (),
            )
            try:
                return given_by(Local(), artefact, inputs)
            except ProofError as error:
                raise ModelError(f"ONNX Runtime cannot run {path}: {error}") from error

    return forward
