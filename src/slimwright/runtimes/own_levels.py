"""The levels that a net says of its values, and that its weights stand on, for the tensors of what it is converted to.

Names of values do not outlive a converter. A tensor is known by the numbers that it holds for an image, however they
are laid out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from slimwright.graph import Net
from slimwright.graph.levels import LEVELS, Levels, without_levels
from slimwright.runtimes.artefact import Array
from slimwright.storage import multiples

Known: TypeAlias = Callable[[Array], Levels | None]
MOST = 127  # of a weight: INT8, symmetric
COUNT = 256  # of levels: those of 8 bits are what tool-kits take
NEAR = 1e-3  # of a sum: converters add numbers up in another order


def known_by_numbers(net: Net, row: Sequence[Array]) -> Known:
    """Return what finds the levels of a tensor, given what it holds for a `row` of inputs, each [1, ...].

    None for a tensor that is no value with 256 levels, or may be several with different ones.
    """
    found = {node.source: Levels.of(node) for node in net.nodes if node.op == LEVELS}
    levels = {name: one for name, one in found.items() if one.most - one.least == COUNT - 1}
    if not levels:
        return lambda _: None
    module = replace(without_levels(net), outputs=tuple(levels), ends=None).to_module().eval()
    with torch.no_grad():
        made = module(*map(torch.from_numpy, row))
    values = (made,) if isinstance(made, torch.Tensor) else made
    told = [(_told_by(value.numpy()), one) for value, one in zip(values, levels.values(), strict=True)]

    def known(tensor: Array) -> Levels | None:
        numbers = _told_by(tensor)
        like = {one for its, one in told if np.allclose(its, numbers, rtol=NEAR, atol=1e-6)}
        return like.pop() if len(like) == 1 else None

    return known


def on_whole_numbers(weight: Array, axis: int) -> tuple[NDArray[np.int32], Array] | None:
    """Return a weight as INT8's whole numbers, and their scales [O] along an axis; None where it stands on none."""
    rows = np.moveaxis(weight, axis, 0)
    found = [multiples(np.ascontiguousarray(row).reshape(-1), MOST) for row in rows]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    whole = np.stack([numbers for numbers, _ in known]).reshape(rows.shape)
    return np.moveaxis(whole, 0, axis), np.array([step for _, step in known], np.float32)


def _told_by(value: Array) -> NDArray[np.float64]:
    """What tells a value from others: how many numbers, their sums, and their ends."""
    numbers = value.astype(np.float64)
    return np.array(
        [value.size, numbers.sum(), np.abs(numbers).sum(), np.square(numbers).sum(), numbers.min(), numbers.max()]
    )
