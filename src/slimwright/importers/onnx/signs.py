"""Which values from the images are never less than zero, as far as the operators that made them tell."""

from slimwright.importers.onnx.trace import Trace
from slimwright.importers.onnx.values import Flow, Known, operands_in

NEVER_LESS = ("abs", "exp", "hardsigmoid", "linalg_vector_norm", "relu", "relu6", "sigmoid", "softmax", "softplus")
BETWEEN = {"clamp": "min", "hardtanh": "min_val"}  # and the argument that says what is least
KEEP = (
    "adaptive_avg_pool2d", "add", "amax", "amin", "avg_pool2d", "avg_pool3d", "cat", "constant_pad_nd", "div",
    "expand", "flatten", "index_select", "max_pool1d", "max_pool2d", "max_pool3d", "maximum", "mean", "minimum", "mul",
    "permute", "pixel_shuffle", "repeat", "reshape", "select", "slice", "sqrt", "squeeze", "sum", "unsqueeze",
    "upsample_bilinear2d", "upsample_nearest2d",
)  # fmt: skip
"""Operators that give nothing below zero where they read nothing below zero."""


def at_least_zero(trace: Trace, value: Flow) -> bool:
    """True where a value is known never to be less than zero; False where that is not known."""
    seen: set[str] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        made = trace.made(one)
        if one.name in seen:
            continue
        seen.add(one.name)
        if made is None:
            return False
        base = made.overload.partition(".")[0]
        least = made.arguments.get(BETWEEN.get(base, ""))
        if base in NEVER_LESS or (isinstance(least, int | float) and least >= 0):
            continue
        operands = list(operands_in(tuple(made.arguments.values())))
        constants = [o.at[0] for o in operands if isinstance(o, Known) and o.at[0].is_floating_point()]
        numbers = [v for key in ("other", "value") if isinstance(v := made.arguments.get(key), int | float)]
        if base not in KEEP or any(bool((c < 0).any()) for c in constants) or min(numbers, default=0) < 0:
            return False
        waiting += made.reads
    return True
