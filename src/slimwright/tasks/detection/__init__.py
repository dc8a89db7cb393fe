"""Detection: the forms of a detector's outputs, the task, and its metric."""

from slimwright.tasks.detection.boxes import (
    CANDIDATES,
    LEAST_SCORE,
    MOST,
    MOST_OVERLAP,
    best,
    corners,
    overlaps,
    suppressed,
)
from slimwright.tasks.detection.centernet import CenterNet
from slimwright.tasks.detection.detection import SURE, Detection, detecting
from slimwright.tasks.detection.forms import BoxesAndScores, EndToEnd, Form, Yolo
from slimwright.tasks.detection.guessing import form_of

__all__ = [
    "CANDIDATES",
    "LEAST_SCORE",
    "MOST",
    "MOST_OVERLAP",
    "SURE",
    "BoxesAndScores",
    "CenterNet",
    "Detection",
    "EndToEnd",
    "Form",
    "Yolo",
    "best",
    "corners",
    "detecting",
    "form_of",
    "overlaps",
    "suppressed",
]
