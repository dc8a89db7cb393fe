"""An `.onnx` file becomes a `Net`, node by node."""

from slimwright.importers.onnx.file import read_file, write_in_one_file
from slimwright.importers.onnx.metadata import metadata
from slimwright.importers.onnx.read import Sizes, net_of_file, read_onnx

__all__ = ["Sizes", "metadata", "net_of_file", "read_file", "read_onnx", "write_in_one_file"]
