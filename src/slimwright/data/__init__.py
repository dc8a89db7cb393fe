"""Labelled images in four parts."""

from slimwright.data.dataset import PARTS, ArrayData, Batch, Dataset, Part, fingerprint, split, whole
from slimwright.data.digits import digits
from slimwright.data.tensors import tensor_file

__all__ = ["PARTS", "ArrayData", "Batch", "Dataset", "Part", "digits", "fingerprint", "split", "tensor_file", "whole"]
