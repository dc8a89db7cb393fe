"""Every way in: a module by `torch.export`, a `.pt2` file or an `.onnx` file becomes a program, and that a net."""

from slimwright.importers.capture import capture
from slimwright.importers.checkpoint import fitting, weights_for
from slimwright.importers.onnx import Sizes, metadata, net_of_file, read_file, read_onnx, write_in_one_file
from slimwright.importers.pt2 import read_pt2

__all__ = [
    "Sizes",
    "capture",
    "fitting",
    "metadata",
    "net_of_file",
    "read_file",
    "read_onnx",
    "read_pt2",
    "weights_for",
    "write_in_one_file",
]
