"""Pictures with boxes drawn around what they show, in the formats that others use."""

from slimwright.data.boxes.annotated import letterbox
from slimwright.data.boxes.coco import coco
from slimwright.data.boxes.voc import voc
from slimwright.data.boxes.yolo import yolo

__all__ = ["coco", "letterbox", "voc", "yolo"]
