"""Networks of the zoo with random weights: sizes and times do not depend on them."""

from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.zoo import build, network

SEED = 0


def captured(name: str, *, classes: int = 0, size: int = 0) -> Net:
    """Return a network of the zoo; 0 classes or pixels: its own."""
    entry = network(name)
    channels, height, width = entry.image_shape
    model = build(name, classes=classes or entry.classes, seed=SEED).eval()
    return capture(model, (channels, size or height, size or width))
