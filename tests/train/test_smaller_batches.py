import pytest
from torch import nn

from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.progress import Event
from slimwright.train import Schedule, fit_bytes, schedule_within

SCHEDULE = Schedule(rate=0.1, batch_size=32)


@pytest.fixture
def net() -> Net:
    """A convolution of 2x1x3x3 weights and 2 biases, on images of 8x8."""
    return capture(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten()), (1, 8, 8))


def test_bytes_by_hand(net: Net) -> None:
    """Weights six times; for each image what it is, two values of 2x8x8 and a teacher's peak: 64 and 128 numbers."""
    assert fit_bytes(net, 10, teacher=net) == 6 * 20 * 4 + 10 * (1.15 * 4 * (64 + 128 + 128) + 4 * (64 + 128))


def test_without_a_teacher_its_weights_and_values_are_not_counted(net: Net) -> None:
    assert fit_bytes(net, 10) == 5 * 20 * 4 + 10 * 1.15 * 4 * (64 + 128 + 128)
    with pytest.raises(RequestError, match=r"^training needs about .*: give smaller inputs, "):
        schedule_within(SCHEDULE, net, there=0.9 * fit_bytes(net, 4))


def test_a_schedule_that_fits_is_left_alone(net: Net) -> None:
    assert schedule_within(SCHEDULE, net, teacher=net, there=1.3 * fit_bytes(net, 32, teacher=net)) is SCHEDULE


def test_where_memory_is_short_batches_and_the_rate_are_smaller_alike(net: Net) -> None:
    found = schedule_within(SCHEDULE, net, teacher=net, there=1.3 * fit_bytes(net, 8, teacher=net))
    assert (found.batch_size, found.rate) == (8, 0.1 / 4)
    told: list[Event] = []
    assert schedule_within(SCHEDULE, net, there=1.3 * fit_bytes(net, 8), tell=told.append) == found
    assert [event.note for event in told] == ["memory is short: 8 images in a step instead of 32"]


def test_what_cannot_fit_is_refused_in_advance(net: Net) -> None:
    with pytest.raises(RequestError, match=r"^fine-tuning needs about .*: leave it out with --tune-epochs 0, give"):
        schedule_within(SCHEDULE, net, teacher=net, there=0.9 * fit_bytes(net, 4, teacher=net))
