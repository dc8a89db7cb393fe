"""Which channels of a network go together, and taking them out."""

from slimwright.coupling.balance import choose
from slimwright.coupling.channels import ChannelGroup, Coupling, couple
from slimwright.coupling.cut import cut

__all__ = ["ChannelGroup", "Coupling", "choose", "couple", "cut"]
