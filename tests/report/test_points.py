"""Candidates as points: where their names stand."""

from typing import Any

from manifest_example import example_manifest
from slimwright.report.points import tradeoff
from slimwright.report.theme import PAPER
from slimwright.tasks import Metric

ACCURACY = Metric("accuracy")


def heights(latencies: list[float], accuracies: list[float]) -> list[int]:
    """How far from its point each candidate's name stands, in pixels; the points in order of latency."""
    (first, *_) = example_manifest().candidates
    candidates = [
        first.model_copy(update={"name": f"c{place}", "latency_ms": ms, "validation_score": 100 * right})
        for place, (ms, right) in enumerate(zip(latencies, accuracies, strict=True))
    ]
    layers: list[dict[str, Any]] = tradeoff(candidates, ACCURACY, None, PAPER).to_dict()["layer"]
    return [layer["mark"]["dy"] for layer in layers if layer["mark"]["type"] == "text"]


def test_names_of_points_that_nearly_coincide_stand_line_by_line() -> None:
    found = heights([0.130, 0.131, 0.132, 0.133, 0.5], [0.99, 0.99, 0.991, 0.99, 0.95])
    assert all(abs(a - b) >= 14 for place, a in enumerate(found[:4]) for b in found[:place])


def test_names_of_points_that_lie_apart_stand_below_them() -> None:
    assert heights([0.1, 0.5, 0.9], [0.9, 0.95, 0.99]) == [16, 16, 16]
