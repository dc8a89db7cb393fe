"""Images in four parts, with labels, with other targets, or without."""

from slimwright.data.batch import (
    Batch,
    Inputs,
    Labelled,
    Targets,
    as_inputs,
    count_of,
    images_of,
    is_labels,
    joined,
    labelled,
    labels_of,
    like,
    moved,
    taken,
    tensors_of,
)
from slimwright.data.boxes import coco, letterbox, voc, yolo
from slimwright.data.cifar import cifar10, cifar100
from slimwright.data.dataset import (
    PARTS,
    ArrayData,
    Dataset,
    Part,
    calibration_inputs,
    fingerprint,
    no_images,
    part_fingerprint,
    split,
    unlabelled_inputs,
    whole,
)
from slimwright.data.described import Described, described, preprocessing_of, recorded
from slimwright.data.digits import digits
from slimwright.data.folders import identities, image_folder, tiny_imagenet
from slimwright.data.glyphs import Glyphs, SceneData, Scenes, glyphs, scenes
from slimwright.data.idx import mnist
from slimwright.data.lines import in_a_line, text_lines
from slimwright.data.masks import mask_folder
from slimwright.data.naming import class_names, places_of
from slimwright.data.pairs import pair_folder
from slimwright.data.pictures import opened
from slimwright.data.points import point_file
from slimwright.data.prepared import prepared
from slimwright.data.preprocessing import Placement, Preprocessing, square
from slimwright.data.scanned import readable
from slimwright.data.streamed import StreamedData
from slimwright.data.subset import ClassSubset, of_classes
from slimwright.data.table import table_file
from slimwright.data.tensors import tensor_file

__all__ = [
    "PARTS",
    "ArrayData",
    "Batch",
    "ClassSubset",
    "Dataset",
    "Described",
    "Glyphs",
    "Inputs",
    "Labelled",
    "Part",
    "Placement",
    "Preprocessing",
    "SceneData",
    "Scenes",
    "StreamedData",
    "Targets",
    "as_inputs",
    "calibration_inputs",
    "cifar10",
    "cifar100",
    "class_names",
    "coco",
    "count_of",
    "described",
    "digits",
    "fingerprint",
    "glyphs",
    "identities",
    "image_folder",
    "images_of",
    "in_a_line",
    "is_labels",
    "joined",
    "labelled",
    "labels_of",
    "letterbox",
    "like",
    "mask_folder",
    "mnist",
    "moved",
    "no_images",
    "of_classes",
    "opened",
    "pair_folder",
    "part_fingerprint",
    "places_of",
    "point_file",
    "prepared",
    "preprocessing_of",
    "readable",
    "recorded",
    "scenes",
    "split",
    "square",
    "table_file",
    "taken",
    "tensor_file",
    "tensors_of",
    "text_lines",
    "tiny_imagenet",
    "unlabelled_inputs",
    "voc",
    "whole",
    "yolo",
]
