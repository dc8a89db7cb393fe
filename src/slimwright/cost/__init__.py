"""What a network costs, and what it may cost."""

from slimwright.cost.budget import Budget, bytes_of
from slimwright.cost.count import Cost, LayerCost, count, count_layers

__all__ = ["Budget", "Cost", "LayerCost", "bytes_of", "count", "count_layers"]
