"""Every way in: a module by `torch.export`, a `.pt2` file or an `.onnx` file becomes a program, and that a net."""

from slimwright.importers.capture import capture
from slimwright.importers.checkpoint import weights_for
from slimwright.importers.onnx import Sizes, computes_in_half, in_one_file, read_onnx
from slimwright.importers.pt2 import read_pt2

__all__ = ["Sizes", "capture", "computes_in_half", "in_one_file", "read_onnx", "read_pt2", "weights_for"]
