"""Whether a net computes the same function at every size that its file leaves free.

Shapes in a net are those at one size. What a net computes follows from its nodes alone; so a number among their
arguments that follows from the size, such as a reshape's target, would be wrong at another. Whoever reads a file or
rewrites a net does so at several sizes: the numbers are free of the size where the nodes are the same.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from slimwright.errors import ModelError
from slimwright.graph.net import Net, checked

LOOKED_AT = (1, 3)  # how many steps larger a rewritten net is looked at


def grown(net: Net, by: Mapping[str, int]) -> Net:
    """Return the net for inputs whose free sizes, by name, are larger by so much.

    Raises ModelError where it cannot take them.
    """
    shapes = [list(node.shape) for node in net.inputs]
    for size in net.ends.sizes if net.ends else ():
        for number, axis in size.places:
            shapes[number][axis] += by.get(size.name, 0)
    larger = {node.name: tuple(shape) for node, shape in zip(net.inputs, shapes, strict=True)}
    return checked(replace(net, nodes=tuple(replace(n, shape=larger.get(n.name, n.shape)) for n in net.nodes)))


def larger_sizes(net: Net) -> list[dict[str, int]]:
    """Return by how much each free size is larger where a net is looked at: two sets, or none where no size is free."""
    if not net.ends or not net.ends.free:
        return []
    free = net.ends.free
    return [{size.name: size.step * (count + number) for number, size in enumerate(free)} for count in LOOKED_AT]


def alike(one: Net, other: Net) -> bool:
    """Return whether two nets are the same but for the shapes of their values."""
    if (one.outputs, len(one.nodes)) != (other.outputs, len(other.nodes)) or one.tensors.keys() != other.tensors.keys():
        return False
    pairs = zip(one.nodes, other.nodes, strict=True)
    return all(replace(mine, shape=its.shape) == its for mine, its in pairs) and all(
        tensor is other.tensors[name] or _equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


def as_free_as(net: Net, original: Net) -> Net:
    """Return a net that was made of an original, its sizes fixed unless its outputs at others have the same shapes."""
    if net.ends is None or not net.ends.free:
        return net
    try:
        same = all(_output_shapes(net, by) == _output_shapes(original, by) for by in larger_sizes(net))
    except ModelError:
        same = False
    return net if same else replace(net, ends=net.ends.fixed)


def _output_shapes(net: Net, by: Mapping[str, int]) -> list[tuple[int, ...]]:
    larger = grown(net, by)
    return [larger[name].shape for name in larger.outputs]


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
