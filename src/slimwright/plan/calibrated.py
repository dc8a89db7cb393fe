"""Correct what layers add up to by a few networks that were measured as a whole.

A layer that is timed alone finds its weights in a cache where, inside a network, they may come from memory; and
non-tensor layers are in no table. So the latency of a choice is taken as

    a * (its layers, from the table) + b * (weights of 3x3 layers) + c * (other weights) + d * (what others write) + e

with the factors, none negative, that fit the measured networks best in relative error. 3x3 layers of stride 1 stand
apart because runtimes transform their weights to larger ones (Winograd). Approximate: `benchmarks/predictor.py`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from slimwright.plan.predictor import Counts, Predictor


def calibrated(predictor: Predictor, measured: Sequence[tuple[Counts, float]]) -> Callable[[Counts], float]:
    """Return what predicts the milliseconds of a choice, given choices and the milliseconds that they took."""
    rows = np.stack([_features(predictor, counts) for counts, _ in measured])
    taken = np.array([ms for _, ms in measured])
    scale = rows.max(axis=0)
    scale[scale == 0] = 1.0
    factors, _ = nnls(rows / scale / taken[:, None], np.ones(len(taken)))
    return lambda counts: float(_features(predictor, counts) / scale @ factors)


def _features(predictor: Predictor, counts: Counts) -> NDArray[np.float64]:
    """[5]: milliseconds of the layers, two kinds of weights, bytes of other layers, one."""
    pieces = [piece for name in predictor.shapes for piece in predictor.pieces(name, counts)]
    transformed = sum(p.weights for p in pieces if p.shape.kernel == (3, 3) and p.shape.stride == (1, 1))
    others = sum(p.weights for p in pieces) - transformed
    layers = sum(predictor.layer_ms(counts).values())
    return np.array([layers, transformed, others, predictor.other_bytes(counts), 1.0])
