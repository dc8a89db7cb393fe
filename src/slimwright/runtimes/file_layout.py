"""A net with its outputs as the file that it was read from has them: with their batch elsewhere than first, perhaps."""

from dataclasses import replace

from slimwright.graph.ends import BATCH_FIRST
from slimwright.graph.net import Net, Node, checked


def in_file_layout(net: Net) -> Net:
    """Return the net with its outputs as its file has them; it is there to be exported, and for nothing else."""
    taken, added, outputs = {node.name for node in net.nodes}, list[Node](), list[str]()

    def free(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    layouts = net.ends.layouts if net.ends else (BATCH_FIRST,) * len(net.outputs)
    for output, layout in zip(net.outputs, layouts, strict=True):
        made = layout.nodes(net[output], free)
        added += made
        outputs.append(made[-1].name if made else output)
    return checked(replace(net, nodes=(*net.nodes, *added), outputs=tuple(outputs))) if added else net
