"""Every way in: a module by `torch.export`, a `.pt2` file or an `.onnx` file becomes a program, and that a net."""

from slimwright.importers.capture import capture
from slimwright.importers.onnx import read_onnx
from slimwright.importers.pt2 import read_pt2

__all__ = ["capture", "read_onnx", "read_pt2"]
