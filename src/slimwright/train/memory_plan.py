"""How much memory training takes, and a schedule that fits where there is less: smaller batches.

A smaller batch learns at a rate that is smaller by as much (Goyal et al. 2017, arXiv 1706.02677, sec. 2.1), and gives
other weights than a larger one, about as good.
"""

from dataclasses import replace

from slimwright.cost import AIM, check_memory
from slimwright.graph import Net, image_bytes, plan_memory
from slimwright.train.schedule import Schedule

COPIES = 5  # of a student's weights: themselves, gradients, momentum, the last good ones and the next
AROUND = 1.15  # times the values that wait for the backward pass (our measurement of 2026-11-29)
LEAST_BATCH = 4  # images: batch norms have no statistics of fewer


def fit_bytes(student: Net, teacher: Net, batch_size: int) -> float:
    """Return about how many bytes training takes at its peak, with a teacher, without averaged weights."""
    weights = [sum(tensor.nbytes for tensor in net.tensors.values()) for net in (student, teacher)]
    image = AROUND * image_bytes(student) + plan_memory(teacher).peak_bytes
    return COPIES * weights[0] + weights[1] + batch_size * image


def schedule_within(schedule: Schedule, student: Net, teacher: Net, there: float) -> Schedule:
    """Return the schedule with batches that fit into the bytes that are there; the same one where its own do.

    Raises RequestError where not even the smallest batch does.
    """
    size = schedule.batch_size
    while fit_bytes(student, teacher, size) > AIM * there and size // 2 >= LEAST_BATCH:
        size //= 2
    least = fit_bytes(student, teacher, size)
    check_memory("fine-tuning", least, there, "leave it out with --tune-epochs 0, give smaller inputs")
    if size == schedule.batch_size:
        return schedule
    return replace(schedule, batch_size=size, rate=schedule.rate * size / schedule.batch_size)
