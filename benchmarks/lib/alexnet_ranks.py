"""AlexNet at the ranks that reproductions give as those of Astrid and Lee 2017 (arXiv 1701.07148)."""

from collections.abc import Mapping

from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.low_rank import Factors, Kind
from slimwright.zoo import build, network

SEED = 0
FACTORISED: Mapping[str, tuple[str, Kind]] = {  # -> what is factorised, and how its convolutions are
    "alexnet-bvlc factorised": ("alexnet-bvlc", "cp"),
    "alexnet factorised": ("alexnet", "cp4"),
}
ALEXNET_RANKS = (69, 154, 153, 178, 196, 365, 275, 260)  # what reproductions give as the paper's: 750 and 900 in all


def captured(name: str, *, classes: int = 0, size: int = 0) -> Net:
    """Return a network of the zoo with random weights; 0 classes or pixels: its own."""
    entry = network(name)
    channels, height, width = entry.image_shape
    model = build(name, classes=classes or entry.classes, seed=SEED)
    return capture(model, (channels, size or height, size or width))


def alexnet_factors(net: Net, kind: Kind) -> dict[str, Factors]:
    """Return AlexNet's convolutions by `kind` and its linear layers by SVD, at the ranks of the paper."""
    layers = zip(net.weighted(), ALEXNET_RANKS, strict=True)
    return {node.name: Factors("svd" if node.op == "linear" else kind, (rank,)) for node, rank in layers}
