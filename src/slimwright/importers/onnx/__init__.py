"""An `.onnx` file becomes a `Net`, node by node."""

from slimwright.importers.onnx.read import read_onnx

__all__ = ["read_onnx"]
