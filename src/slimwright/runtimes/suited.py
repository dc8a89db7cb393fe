"""What a runtime cannot take, or takes slowly, in the form that it likes: a column of rewrites for each.

Every rewrite computes the same up to float32 rounding, and gives back the same net where nothing applies.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from slimwright.graph import Net
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
        *EVERYWHERE,
        with_averages_of_what_is_there,
        with_picks_as_convolutions,
        with_only_entries_squeezed,
    ),
    "mnn": (*EVERYWHERE, with_logsumexp_spelled_out),
    "executorch": (
        *EVERYWHERE,
        with_averages_as_convolutions,
        with_hardsigmoid_spelled_out,
        with_means_spelled_out,
    ),
    "litert": (*EVERYWHERE, with_maximum_padding_apart, with_strided_averages_as_convolutions),
    "openvino": EVERYWHERE,
}


def suited(net: Net, runtime: str) -> Net:
    """Return the net as `runtime` takes it best; the same net if it does so already."""
    suited = net
    for rewrite in FOR[runtime]:
        suited = rewrite(suited)
    if suited is not net and net.encodings and not net.float_layers:  # layers that are new are encoded as all are
        return suited.in_precision(net.precision)
    return suited
