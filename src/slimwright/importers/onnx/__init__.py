"""An `.onnx` file becomes a `Net`, node by node."""

from slimwright.importers.onnx.file import in_one_file
from slimwright.importers.onnx.read import Sizes, computes_in_half, read_onnx

__all__ = ["Sizes", "computes_in_half", "in_one_file", "read_onnx"]
