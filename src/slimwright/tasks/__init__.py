"""What outputs mean, one file a task."""

from slimwright.tasks.choosing import NAMED, Named, task_for
from slimwright.tasks.classification import Classification
from slimwright.tasks.detection import Detection, Yolo, detecting, form_of
from slimwright.tasks.imitation import Imitated, Imitation, imitating
from slimwright.tasks.multi_label import MultiLabel
from slimwright.tasks.task import Forward, Metric, Outputs, Task, forward_of, returned

__all__ = [
    "NAMED",
    "Classification",
    "Detection",
    "Forward",
    "Imitated",
    "Imitation",
    "Metric",
    "MultiLabel",
    "Named",
    "Outputs",
    "Task",
    "Yolo",
    "detecting",
    "form_of",
    "forward_of",
    "imitating",
    "returned",
    "task_for",
]
