"""How far outputs are from those expected."""

from torch import Tensor


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest error, of the largest value expected."""
    return float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-12)
