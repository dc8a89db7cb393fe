"""What a runtime cannot take, or takes slowly, in the form that it likes: a column of rewrites for each.

Every rewrite computes the same up to float32 rounding, and gives back the same net where nothing applies. One that
brings in numbers that follow from a size that is free fixes the net's sizes. Runtimes that take no levels of
activations are given none.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from slimwright.errors import ModelError
from slimwright.graph import Net, alike, grown, larger_sizes
from slimwright.graph.encoding import FLOAT32
from slimwright.graph.levels import without_levels
from slimwright.lowering.decompositions import (
    with_attention_spelled_out,
    with_hardsigmoid_spelled_out,
    with_logsumexp_spelled_out,
    with_lrn_spelled_out,
    with_means_spelled_out,
    with_only_entries_squeezed,
    with_picks_as_convolutions,
)
from slimwright.lowering.windows import (
    with_averages_as_convolutions,
    with_averages_of_what_is_there,
    with_crops_apart,
    with_maximum_padding_apart,
    with_plain_averages,
    with_strided_averages_as_convolutions,
)

Rewrite: TypeAlias = Callable[[Net], Net]


def with_floats_for_few_bits(net: Net) -> Net:
    """Return the net whose weights alone are in few bits with these as the floats that they are.

    MNN's converter reads whole numbers of an ONNX file's weights wrongly (3.6.1), and OpenVINO then rounds what layers
    with such weights read (2026.4; both seen on 2026-11-30).
    """
    alone = [name for name, encoding in net.encodings.items() if encoding.weight_only]
    return net.encoded(dict.fromkeys(alone, FLOAT32)) if alone else net


EVERYWHERE: tuple[Rewrite, ...] = (
    with_attention_spelled_out,
    with_lrn_spelled_out,
    with_plain_averages,
    with_crops_apart,
)
FOR: Mapping[str, tuple[Rewrite, ...]] = {
    "onnxruntime": EVERYWHERE,
    "ort": EVERYWHERE,
    "ncnn": (
        without_levels,
        *EVERYWHERE,
        with_averages_of_what_is_there,
        with_picks_as_convolutions,
        with_only_entries_squeezed,
    ),
    "mnn": (with_floats_for_few_bits, without_levels, *EVERYWHERE, with_logsumexp_spelled_out),
    "executorch": (
        *EVERYWHERE,
        with_averages_as_convolutions,
        with_hardsigmoid_spelled_out,
        with_means_spelled_out,
    ),
    "litert": (*EVERYWHERE, with_maximum_padding_apart, with_strided_averages_as_convolutions),
    "openvino": (with_floats_for_few_bits, *EVERYWHERE),
}


def suited(net: Net, runtime: str) -> Net:
    """Return the net as `runtime` takes it best; the same net if it does so already."""
    suited = _rewritten(net, runtime)
    if suited.ends and suited is not net and not _is_free_of_sizes(net, suited, runtime):
        suited = replace(suited, ends=suited.ends.fixed)
    if suited is not net and net.encodings and not net.float_layers:  # layers that are new are encoded as all are
        return suited.in_precision(net.precision)
    return suited


def _rewritten(net: Net, runtime: str) -> Net:
    for rewrite in FOR[runtime]:
        net = rewrite(net)
    return net


def _is_free_of_sizes(net: Net, suited: Net, runtime: str) -> bool:
    """True where the net at its other free sizes is rewritten alike, or has none."""
    try:
        return all(alike(_rewritten(grown(net, by), runtime), suited) for by in larger_sizes(net))
    except ModelError:
        return False
