"""AlexNet at the ranks that reproductions give as those of Astrid and Lee 2017 (arXiv 1701.07148)."""

from collections.abc import Mapping

from slimwright.graph import Net
from slimwright.techniques.low_rank import Factors, Kind

FACTORISED: Mapping[str, tuple[str, Kind]] = {  # -> what is factorised, and how its convolutions are
    "alexnet-bvlc factorised": ("alexnet-bvlc", "cp"),
    "alexnet factorised": ("alexnet", "cp4"),
}
ALEXNET_RANKS = (69, 154, 153, 178, 196, 365, 275, 260)  # what reproductions give as the paper's: 750 and 900 in all


def alexnet_factors(net: Net, kind: Kind) -> dict[str, Factors]:
    """Return AlexNet's convolutions by `kind` and its linear layers by SVD, at the ranks of the paper."""
    layers = zip(net.weighted(), ALEXNET_RANKS, strict=True)
    return {node.name: Factors("svd" if node.op == "linear" else kind, (rank,)) for node, rank in layers}
