"""What outputs mean, one file a task."""

from slimwright.tasks.choosing import NAMED, Named, as_task, task_for
from slimwright.tasks.classification import Classification
from slimwright.tasks.ctc import Ctc
from slimwright.tasks.detection import (
    BoxesAndScores,
    CenterNet,
    Detection,
    EndToEnd,
    Yolo,
    detecting,
    form_of,
)
from slimwright.tasks.embedding import Embedding, embedding_of
from slimwright.tasks.imitation import Imitated, Imitation, imitating, known_outputs, untaught
from slimwright.tasks.judging import Judging, Order
from slimwright.tasks.keypoints import Keypoints
from slimwright.tasks.multi_label import MultiLabel
from slimwright.tasks.regression import Regression
from slimwright.tasks.restoration import Restoration
from slimwright.tasks.scored import Scored, scored
from slimwright.tasks.segmentation import Segmentation
from slimwright.tasks.task import Forward, Making, Metric, Outputs, Task, forward_of, returned

__all__ = [
    "NAMED",
    "BoxesAndScores",
    "CenterNet",
    "Classification",
    "Ctc",
    "Detection",
    "Embedding",
    "EndToEnd",
    "Forward",
    "Imitated",
    "Imitation",
    "Judging",
    "Keypoints",
    "Making",
    "Metric",
    "MultiLabel",
    "Named",
    "Order",
    "Outputs",
    "Regression",
    "Restoration",
    "Scored",
    "Segmentation",
    "Task",
    "Yolo",
    "as_task",
    "detecting",
    "embedding_of",
    "form_of",
    "forward_of",
    "imitating",
    "known_outputs",
    "returned",
    "scored",
    "task_for",
    "untaught",
]
