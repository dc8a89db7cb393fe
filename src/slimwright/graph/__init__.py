"""The network as data."""

from slimwright.graph.free import alike, as_free_as, grown, larger_sizes
from slimwright.graph.from_file import unlisted
from slimwright.graph.liveness import MemoryPlan, element_bytes, image_bytes, plan_memory, weight_bytes
from slimwright.graph.net import Net, Node, Ref, images_at_once, random_inputs, structure, zero_inputs
from slimwright.graph.store import FILES, load_net, save_net

__all__ = [
    "FILES",
    "MemoryPlan",
    "Net",
    "Node",
    "Ref",
    "alike",
    "as_free_as",
    "element_bytes",
    "grown",
    "image_bytes",
    "images_at_once",
    "larger_sizes",
    "load_net",
    "plan_memory",
    "random_inputs",
    "save_net",
    "structure",
    "unlisted",
    "weight_bytes",
    "zero_inputs",
]
