"""What a job is sure to need of memory, forecast before anything is done: a job that cannot end does not begin.

The images of three parts are held as tensors. A proof holds, of the test part, what it sends to the target and all
outputs: what each model should give, what each gave, and copies on the way.
"""

from math import prod

from slimwright.cost import check_memory, memory_there
from slimwright.data import Dataset, Part
from slimwright.evidence import portions_within
from slimwright.graph import Net, Node, element_bytes
from slimwright.tasks import Task

BATCH = 64  # images that are observed in one batch
SENT, TAKEN = 5, 4  # copies of inputs, and of outputs beside those that each model gave (our measurement of 2026-11-29)
FEWER = "give fewer images, or smaller ones (folder:PATH@SIZE)"


def proof_bytes(net: Net, images: int, *, sides: int) -> int:
    """Return about how many bytes it takes to prove so many models of a net's inputs and outputs on so many images."""
    inputs, outputs = (sum(map(_bytes, nodes)) for nodes in (net.inputs, [net[name] for name in net.outputs]))
    return images * (SENT * inputs + (TAKEN + sides) * outputs)


def check_proof(net: Net, data: Dataset, *, sides: int, there: float) -> None:
    """Raise RequestError where the images that are held and a proof on the test part are more than the bytes there."""
    held: tuple[Part, ...] = ("calibration", "validation")
    inputs = sum(map(_bytes, net.inputs)) * sum(map(data.size, held))
    images = data.size("test")
    needed = inputs + proof_bytes(net, images, sides=sides)
    check_memory(f"proving the result on {images:,} test images, whose outputs are held,", needed, there, FEWER)


def check_job(net: Net, task: Task, data: Dataset, *, device: str, memory_bytes: int | None) -> None:
    """Raise RequestError where observing the net, or proving the result, is sure to need more memory than is there."""
    there = memory_there(memory_bytes)
    if device == "cpu":
        portions_within(net, classes=len(task.classes), batch=BATCH, there=there)
    check_proof(net, data, sides=2, there=there)


def _bytes(node: Node) -> int:
    return prod(node.shape) * element_bytes(node.dtype)
