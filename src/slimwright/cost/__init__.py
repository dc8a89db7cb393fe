"""What a network costs, and what it may cost."""

from slimwright.cost.budget import Budget, bytes_of, size_asked
from slimwright.cost.count import Cost, LayerCost, count, count_layers
from slimwright.cost.memory import AIM, check_memory, memory_there

__all__ = [
    "AIM",
    "Budget",
    "Cost",
    "LayerCost",
    "bytes_of",
    "check_memory",
    "count",
    "count_layers",
    "memory_there",
    "size_asked",
]
