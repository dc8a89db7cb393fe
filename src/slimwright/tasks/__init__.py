"""What outputs mean, one file a task."""

from slimwright.tasks.classification import Classification
from slimwright.tasks.imitation import Imitated, Imitation, imitating
from slimwright.tasks.multi_label import MultiLabel
from slimwright.tasks.task import Forward, Metric, Outputs, Task

__all__ = [
    "Classification",
    "Forward",
    "Imitated",
    "Imitation",
    "Metric",
    "MultiLabel",
    "Outputs",
    "Task",
    "imitating",
]
