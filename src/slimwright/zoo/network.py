"""What the zoo knows of a network before it is built."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from torch import nn

from slimwright.errors import ModelError

PHOTOGRAPH = (3, 224, 224)  # ImageNet, centre crop
CIFAR = (3, 32, 32)
MNIST = (1, 28, 28)
SCENE = (3, 64, 64)  # rendered
CLASSIFICATION = "classification"


class Factory(Protocol):
    """What makes the network: a class, a function, or a `partial` of either."""

    def __call__(self, *, classes: int, in_channels: int) -> nn.Module:
        """Return the network with fresh weights."""


@dataclass(frozen=True)
class Network:
    """How a network is made, and the images and classes that its paper made it for."""

    make: Factory
    image_shape: tuple[int, int, int]  # [channels, height, width]
    classes: int
    source: str  # paper, and the form where there are several
    task: str = CLASSIFICATION  # what its outputs are for


def unknown(name: str, names: Iterable[str]) -> ModelError:
    """Return the error for a name that is not among `names`: the nearest ones, and what families there are."""
    known = sorted(names)
    near = get_close_matches(name, known, n=5, cutoff=0.5)
    families = ", ".join(dict.fromkeys(n.partition("-")[0] for n in known))
    nearest = f"the nearest names are {', '.join(near)}; " if near else ""
    return ModelError(f"there is no network '{name}' in the zoo; {nearest}it holds {families} and their variants")
