"""What outputs mean, one file a task."""

from slimwright.tasks.choosing import NAMED, Named, task_for
from slimwright.tasks.classification import Classification
from slimwright.tasks.imitation import Imitated, Imitation, imitating
from slimwright.tasks.keypoints import Keypoints
from slimwright.tasks.multi_label import MultiLabel
from slimwright.tasks.regression import Regression
from slimwright.tasks.restoration import Restoration
from slimwright.tasks.segmentation import Segmentation
from slimwright.tasks.task import Forward, Metric, Outputs, Task, forward_of, returned

__all__ = [
    "NAMED",
    "Classification",
    "Forward",
    "Imitated",
    "Imitation",
    "Keypoints",
    "Metric",
    "MultiLabel",
    "Named",
    "Outputs",
    "Regression",
    "Restoration",
    "Segmentation",
    "Task",
    "forward_of",
    "imitating",
    "returned",
    "task_for",
]
