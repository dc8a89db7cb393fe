"""The front of two aims, by hand."""

import pytest

from slimwright.search.policies.front import drawing, front, hypervolume

POINTS = [(0.5, 90.0), (0.5, 80.0), (0.2, 60.0), (0.3, 60.0), (0.8, 95.0), (0.9, 90.0)]


def test_what_another_is_as_cheap_and_as_good_as_is_not_on_the_front() -> None:
    assert front(POINTS) == [(0.2, 60.0), (0.5, 90.0), (0.8, 95.0)]
    assert front([]) == []


def test_the_area_is_that_of_the_steps() -> None:
    assert hypervolume(POINTS, 1.0, 50.0) == pytest.approx(0.3 * 10 + 0.3 * 40 + 0.2 * 45)
    assert hypervolume(POINTS, 0.4, 0.0) == pytest.approx(0.2 * 60)  # what costs more counts for nothing
    assert hypervolume(POINTS, 1.0, 95.0) == hypervolume([], 1.0, 0.0) == 0.0


def test_it_is_drawn_in_letters_of_every_terminal() -> None:
    drawn = drawing(POINTS, "latency", "accuracy")
    assert drawn.isascii() and drawn.count("o") - "accuracy, of 6 networks  of the latency".count("o") == 3
    assert "95.00" in drawn and "60.00" in drawn and "0.20x" in drawn and "0.90x" in drawn
    assert "o" in drawing([(1.0, 5.0)], "macs", "PSNR").splitlines()[1]  # one point alone has no width
