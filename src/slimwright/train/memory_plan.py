"""How much memory training takes, and a schedule that fits where there is less: smaller batches.

A smaller batch learns at a rate that is smaller by as much (Goyal et al. 2017, arXiv 1706.02677, sec. 2.1), and gives
other weights than a larger one, about as good.
"""

from dataclasses import replace

from slimwright.cost import AIM, check_memory
from slimwright.graph import Net, image_bytes, plan_memory, weight_bytes
from slimwright.progress import Event, Tell, silent
from slimwright.train.schedule import Schedule

COPIES = 5  # of a student's weights: themselves, gradients, momentum, the last good ones and the next
THINNING = 1.25  # more of them where weights become zero: mean squares of gradients, and a byte for each that is gone
AROUND = 1.15  # times the values that wait for the backward pass (our measurement of 2026-11-29)
LEAST_BATCH = 4  # images: batch norms have no statistics of fewer


def fit_bytes(student: Net, batch_size: int, *, teacher: Net | None = None, thinning: bool = False) -> float:
    """Return about how many bytes training takes at its peak, without averaged weights."""
    copies = COPIES + THINNING if thinning else COPIES
    weights, image = copies * weight_bytes(student), AROUND * image_bytes(student)
    if teacher is not None:
        weights, image = weights + weight_bytes(teacher), image + plan_memory(teacher).peak_bytes
    return weights + batch_size * image


def schedule_within(
    schedule: Schedule, student: Net, *, teacher: Net | None = None, there: float, tell: Tell = silent
) -> Schedule:
    """Return the schedule with batches that fit into the bytes that are there; the same one where its own do.

    It tells where they are smaller. Raises RequestError where not even the smallest batch fits.
    """
    size, thinning = schedule.batch_size, schedule.zeros > 0
    while fit_bytes(student, size, teacher=teacher, thinning=thinning) > AIM * there and size // 2 >= LEAST_BATCH:
        size //= 2
    what, fix = ("training", "") if teacher is None else ("fine-tuning", "leave it out with --tune-epochs 0, ")
    taken = fit_bytes(student, size, teacher=teacher, thinning=thinning)
    check_memory(what, taken, there, f"{fix}give smaller inputs")
    if size == schedule.batch_size:
        return schedule
    note = f"memory is short: {size} images in a step instead of {schedule.batch_size}"
    tell(Event("memory", 1, 1, note))
    return replace(schedule, batch_size=size, rate=schedule.rate * size / schedule.batch_size)
