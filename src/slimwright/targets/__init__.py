"""Where artefacts run: this machine, or a device that is reached over a wire.

Every target takes a packed job and gives packed results; what the job does is the runner's business.
"""

from slimwright.targets.layers import layer_table, layer_timer
from slimwright.targets.local import Local
from slimwright.targets.measuring import Effort, Measurement, Target, measure
from slimwright.targets.named import target

__all__ = ["Effort", "Local", "Measurement", "Target", "layer_table", "layer_timer", "measure", "target"]
