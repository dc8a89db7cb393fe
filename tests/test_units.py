"""Numbers of a metric as people read them, whatever its unit and scale."""

import pytest

from slimwright.tasks import Metric
from slimwright.units import GAP, MINUS, lost, stepped

ACCURACY = Metric("accuracy")
PSNR = Metric("PSNR", "dB", "dB")
MILLIMETRES = Metric("mean absolute error", "mm", "mm", higher_is_better=False, finest=50.0)
SHARES = Metric("mean absolute error", "", "units", higher_is_better=False, finest=5e-5)


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        (ACCURACY, 99.724, "99.72 %"),
        (PSNR, 31.5, "31.50 dB"),
        (MILLIMETRES, 1234.5, "1234 mm"),
        (SHARES, 0.01234, "0.0123"),
    ],
)
def test_a_value_has_the_decimals_that_tell_it_apart(metric: Metric, value: float, said: str) -> None:
    assert metric.shown(value) == said


@pytest.mark.parametrize(
    ("metric", "drop", "said"),
    [
        (ACCURACY, 0.5, "0.5 points of accuracy lost"),
        (ACCURACY, 0.054, "0.05 points of accuracy lost"),
        (ACCURACY, -0.5, "0.5 points of accuracy gained"),
        (ACCURACY, 0.004, "no accuracy lost"),
        (PSNR, 0.31, "0.3 dB of PSNR lost"),
        (MILLIMETRES, 420.0, "420 mm of mean absolute error added"),
        (MILLIMETRES, 42.0, "no mean absolute error added"),
        (SHARES, 0.0006, "0.0006 units of mean absolute error added"),
    ],
)
def test_a_drop_is_said_in_the_steps_of_the_metric(metric: Metric, drop: float, said: str) -> None:
    assert lost(metric, drop).replace(GAP, " ") == said


def test_a_change_has_a_sign() -> None:
    assert stepped(ACCURACY, 98.0, 97.5) == f"{MINUS}0.50{GAP}points"
    assert stepped(MILLIMETRES, 400.0, 525.0) == f"+125{GAP}mm"
    assert stepped(PSNR, 30.0, 30.0) == "unchanged"


def test_a_title_begins_as_a_sentence_does_and_leaves_abbreviations_alone() -> None:
    names = "accuracy", "mean average precision", "PSNR", "mIoU", "PCK@0.1"
    titles = [Metric(name).title for name in names]
    assert titles == ["Accuracy", "Mean average precision", "PSNR", "mIoU", "PCK@0.1"]
