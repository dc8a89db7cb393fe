"""A bundle read back is untrusted input."""

import pytest

from slimwright.measure.bundle import Manifest, misses
from slimwright.tasks import Metric

ACCURACY = Metric("accuracy")


def test_each_missed_limit_is_told_with_its_excess() -> None:
    said = misses({"latency_ms": 2.0, "size_bytes": 1e6}, {"latency_ms": 2.5, "size_bytes": 9e5}, 1.5, 1.0, ACCURACY)
    assert said == ["latency_ms is 2.5, 25.0 % over its limit of 2", "accuracy drops by 1.50 points, limit 1"]


def test_limits_that_are_met_exactly_are_met() -> None:
    assert misses({"macs": 100.0}, {"macs": 100.0}, 1.0, 1.0, ACCURACY) == []


def test_a_manifest_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="surprise"):
        Manifest.model_validate({"surprise": 1})
