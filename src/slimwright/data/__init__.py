"""Labelled images in four parts."""

from slimwright.data.cifar import cifar10, cifar100
from slimwright.data.dataset import PARTS, ArrayData, Batch, Dataset, Part, fingerprint, part_fingerprint, split, whole
from slimwright.data.digits import digits
from slimwright.data.folders import image_folder, tiny_imagenet
from slimwright.data.glyphs import Glyphs, glyphs
from slimwright.data.idx import mnist
from slimwright.data.streamed import StreamedData
from slimwright.data.subset import ClassSubset, of_classes
from slimwright.data.tensors import tensor_file

__all__ = [
    "PARTS",
    "ArrayData",
    "Batch",
    "ClassSubset",
    "Dataset",
    "Glyphs",
    "Part",
    "StreamedData",
    "cifar10",
    "cifar100",
    "digits",
    "fingerprint",
    "glyphs",
    "image_folder",
    "mnist",
    "of_classes",
    "part_fingerprint",
    "split",
    "tensor_file",
    "tiny_imagenet",
    "whole",
]
