"""What a job is sure to need of memory, forecast before anything is done: a job that cannot end does not begin.

The images of three parts are held as tensors. A proof holds, of the test part, what it sends to the target and all
outputs: what each model should give, what each gave, and copies on the way. A process that runs a net on one image
holds its weights and the activations that are live at once.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from slimwright.cost import check_memory, memory_there
from slimwright.coupling import couple
from slimwright.data import Dataset, Part
from slimwright.evidence import Portions, portions_within
from slimwright.graph import Net, Node, element_bytes, plan_memory, weight_bytes
from slimwright.tasks import Task
from slimwright.techniques.memory_plan import LEAST_IMAGES, images_within, sums_within
from slimwright.techniques.solver.draft import Draft

BATCH = 64  # images that are observed in one batch
SENT, TAKEN = 5, 4  # copies of inputs, and of outputs beside those that each model gave (our measurement of 2026-11-29)
FEWER = "give fewer images, or smaller ones (folder:PATH@SIZE)"
SMALLER = "give smaller inputs"
HELD: tuple[Part, ...] = ("calibration", "validation")  # by a job, while it proves


def proof_bytes(net: Net, images: int, *, sides: int) -> int:
    """Return about how many bytes it takes to prove so many models of a net's inputs and outputs on so many images."""
    return images * (SENT * _input_bytes(net) + (TAKEN + sides) * _output_bytes(net))


def run_bytes(net: Net) -> int:
    """Return about how many bytes a process needs at least to run a net on one image."""
    return weight_bytes(net) + plan_memory(net).peak_bytes


def check_proof(net: Net, data: Dataset, *, sides: int, there: float, held: Sequence[Part] = HELD) -> None:
    """Raise RequestError where the parts that are held and a proof on the test part are more than the bytes there."""
    inputs = _input_bytes(net) * sum(map(data.size, held))
    images = data.size("test")
    needed = inputs + proof_bytes(net, images, sides=sides)
    check_memory(f"proving the result on {images:,} test images, whose outputs are held,", needed, there, FEWER)


def check_job(net: Net, task: Task, data: Dataset, *, device: str, memory_bytes: int | None) -> None:
    """Raise RequestError where a stage of shrinking the net is sure to need more memory than is there.

    Candidates are smaller than the net; the least of solving is that of the whole net on a few images.
    """
    there = memory_there(memory_bytes)
    portions_of(net, task, device=device, there=there)
    if device == "cpu":
        images_within(Draft.of(net), LEAST_IMAGES, there=there)
    check_proof(net, data, sides=2, there=there)


def portions_of(net: Net, task: Task, *, device: str, there: float) -> Portions:
    """Return what observing a net may spend, so that planning fits, too. Raises RequestError where the least does not.

    Plans are made on the processor, whatever device observes.
    """
    classes = len(task.classes)
    spent = portions_within(net, classes=classes, batch=BATCH, there=there) if device == "cpu" else Portions()
    return replace(spent, sums=sums_within(net, couple(net), classes=classes, sums=spent.sums, there=there))


def check_inspection(nets: Sequence[Net], data: Dataset | None, *, timed: bool, memory_bytes: int | None) -> None:
    """Raise RequestError where looking at nets is sure to need more memory than is there.

    With `data` the images of its test part are held for each net, and the outputs of one at a time; if `timed`, every
    net is converted and run.
    """
    there = memory_there(memory_bytes)
    if timed:
        check_memory("running the network", max(map(run_bytes, nets)), there, SMALLER)
    if data is not None:
        images = data.size("test")
        held = images * sum(map(_input_bytes, nets[1:]))
        first = [proof_bytes(net, images, sides=1) if timed else images * _shown_bytes(net) for net in nets]
        check_memory(f"scoring the network on {images:,} test images", held + max(first), there, FEWER)


def check_examination(net: Net, data: Dataset | None, *, memory_bytes: int | None) -> None:
    """Raise RequestError where running a net, calibration images being held, is sure to need more than is there."""
    held = data.size("calibration") * _input_bytes(net) if data is not None else 0
    check_memory("running the network", held + run_bytes(net), memory_there(memory_bytes), SMALLER)


def _shown_bytes(net: Net) -> int:
    return _input_bytes(net) + _output_bytes(net)


def _input_bytes(net: Net) -> int:
    return sum(map(_bytes, net.inputs))


def _output_bytes(net: Net) -> int:
    return sum(_bytes(net[name]) for name in net.outputs)


def _bytes(node: Node) -> int:
    return prod(node.shape) * element_bytes(node.dtype)
