"""Captured networks of the zoo, one of each family, kept for all tests of a run: capturing takes seconds."""

import functools

from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.zoo import ZOO, build

FAMILIES = (
    "lenet5",
    "vgg6",
    "resnet20",
    "mobilenet-v2-0.5",
    "squeezenet1.1",
    "googlenet",
    "customnet2",
    "shufflenet-g3-0.25x",
    "densenet121",
)


@functools.cache
def zoo_net(name: str) -> Net:
    """Return the net of a network of the zoo, for images and classes as in its paper."""
    return capture(build(name), ZOO[name].image_shape)
