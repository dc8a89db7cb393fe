"""How coarsely components may be rounded: as far as the metric allows, and what that takes in bytes.

Steps are quarters of octaves. The metric on validation images decides; where it is too dear to ask, one step is taken
to be as good as another that does as much damage: half the squared error of the components, in nats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slimwright.codec.split.bottleneck import Transform, parts
from slimwright.codec.split.cuts import Cut
from slimwright.codec.split.features import Floats, Tables, Values, restored, rounded, tables_of
from slimwright.data import Inputs, tensors_of
from slimwright.errors import ModelError
from slimwright.graph.net import Net
from slimwright.tasks import Outputs

PER_OCTAVE = 4
FINEST, COARSEST = -64, 32  # exponents, in quarters of octaves
STRIDE = 4


@dataclass(frozen=True)
class Bottleneck:
    """A cut with its transforms; both nets have a step of one, and all components."""

    cut: Cut
    transforms: tuple[Transform, ...]
    phone: Net
    server: Net

    @classmethod
    def of(cls, net: Net, cut: Cut, transforms: Sequence[Transform]) -> "Bottleneck":
        """Return the bottleneck of a cut."""
        return cls(cut, tuple(transforms), *parts(net, cut, transforms, 1.0))

    def components(self, inputs: Inputs) -> Values:
        """Return the components of images, of each value [N, R, places]."""
        given = self.phone.run(tensors_of(inputs))
        return tuple(one.flatten(2).numpy() if one.ndim == 4 else one[..., None].numpy() for one in given)

    def outputs(self, components: Values) -> Outputs:
        """Return what the server makes of components."""
        shapes = [node.shape[1:] for node in self.server.inputs]
        given = [torch.from_numpy(one).reshape(-1, *shape) for one, shape in zip(components, shapes, strict=True)]
        return self.server.run(given)

    def kept(self, net: Net, components: Values, exponent: int) -> "Fitted":
        """Return the bottleneck for a step, with the components that are ever sent of calibration images."""
        step = step_of(exponent)
        counts = [_ever_sent(value / step) for value in components]
        transforms = [transform.kept(count) for transform, count in zip(self.transforms, counts, strict=True)]
        tables = tuple(tables_of(value[:, :count] / step) for value, count in zip(components, counts, strict=True))
        return Fitted(self.cut, exponent, tables, *parts(net, self.cut, transforms, step))


@dataclass(frozen=True)
class Fitted:
    """A cut, its step and its tables; the phone's net gives components in steps, and the server's takes them."""

    cut: Cut
    exponent: int
    tables: tuple[Tables, ...]
    phone: Net
    server: Net

    def of_each(self, given: Sequence[Floats]) -> list[Values]:
        """Return the components of each image, of what the phone's part gives [N, ...]."""
        count = len(given[0])
        return [
            tuple(one[k].reshape(of.components, of.places) for one, of in zip(given, self.tables, strict=True))
            for k in range(count)
        ]


def step_of(exponent: int) -> float:
    """Return the step of an exponent."""
    return float(2 ** (exponent / PER_OCTAVE))


def quantized(components: Values, exponent: int) -> Values:
    """Return components as the server has them."""
    step = np.float32(step_of(exponent))
    return tuple(restored(rounded(value / step, 0), 0) * step for value in components)


def damage(components: Values, exponent: int) -> float:
    """Return the nats that rounding is predicted to cost an image."""
    pairs = zip(components, quantized(components, exponent), strict=True)
    return sum(float(np.square(value - found).sum()) for value, found in pairs) / (2 * len(components[0]))


def coarsest_by_damage(components: Values, most: float) -> int:
    """Return the coarsest step that does at most so much damage."""
    low, high = FINEST, COARSEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if damage(components, middle) <= most else (low, middle)
    return low


def coarsest(within: Callable[[int], bool], first: int) -> int:
    """Return a step near a `first` guess that is within what is allowed, where one that is a little coarser is not.

    A metric of few images is no smooth function of the step, so that nothing is concluded from steps that are far off.
    Raises ModelError where no step is within.
    """
    low = first
    if within(low):
        while low + STRIDE <= COARSEST and within(low + STRIDE):
            low += STRIDE
    else:
        while not within(low := low - STRIDE):
            if low < FINEST:
                raise ModelError(
                    "the metric drops too far, however finely values are coded; allow more with --max-drop"
                )
    high = low + STRIDE
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low


def _ever_sent(components: Floats) -> int:
    """How many of the first components [N, R, places], in steps, are not zero for every image; at least one."""
    some = np.flatnonzero(rounded(components, 0).any((0, 2)))
    return int(some[-1]) + 1 if len(some) else 1
