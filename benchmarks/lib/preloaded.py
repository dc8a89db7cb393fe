"""What every network's process needs, loaded once: processes are forked from one that has it."""

import slimwright.cost
import slimwright.graph
import slimwright.runtimes.onnxruntime  # noqa: F401
from lib.architectures import timm_library

timm_library()
