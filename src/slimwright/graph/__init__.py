"""The network as data."""

from slimwright.graph.balance import choose
from slimwright.graph.capture import capture
from slimwright.graph.channels import ChannelGroup, Coupling, couple
from slimwright.graph.cut import cut
from slimwright.graph.liveness import MemoryPlan, plan_memory
from slimwright.graph.net import Net, Node, Ref
from slimwright.graph.pt2 import read_pt2
from slimwright.graph.store import load_net, save_net

__all__ = [
    "ChannelGroup",
    "Coupling",
    "MemoryPlan",
    "Net",
    "Node",
    "Ref",
    "capture",
    "choose",
    "couple",
    "cut",
    "load_net",
    "plan_memory",
    "read_pt2",
    "save_net",
]
