"""What is learned from finished deployments: which of them is nearest to one that begins."""

from fleet_records import deployed
from slimwright.jobs.fleet.log import nearest
from slimwright.jobs.fleet.plan_file import Deployment, Limits
from slimwright.search import Correction


def seen(predicted: float) -> dict[str, dict[str, float]]:
    return {"latency_ms": {"predicted": predicted, "measured": 1.0}}


FINISHED = [
    deployed("every", "0.5x", corrections=seen(0.5)),
    deployed("every", "0.9x", corrections=seen(0.9)),
    deployed("low", "0.3x", corrections=seen(0.3)),
    deployed("low", "0.8x", corrections=seen(0.8), runtime="ncnn"),
    deployed("low", "0.7x", corrections={}),
]


def one(subset: str, runtime: str = "onnxruntime", **limits: str) -> Deployment:
    return Deployment(subset, (), "b", Limits.model_validate(limits), runtime)


def test_the_same_classes_come_first_and_then_the_nearest_limit() -> None:
    assert nearest(one("every", latency="0.6x"), FINISHED) == {"latency_ms": Correction(0.5, 1.0)}
    assert nearest(one("every", latency="0.8x"), FINISHED) == {"latency_ms": Correction(0.9, 1.0)}
    assert nearest(one("low", latency="0.8x"), FINISHED) == {"latency_ms": Correction(0.3, 1.0)}
    assert nearest(one("high", latency="0.85x"), FINISHED) == {"latency_ms": Correction(0.9, 1.0)}


def test_other_runtimes_and_other_costs_teach_nothing() -> None:
    assert nearest(one("every", "ncnn", latency="0.5x"), FINISHED) == {"latency_ms": Correction(0.8, 1.0)}
    assert nearest(one("every", "mnn", latency="0.5x"), FINISHED) == {}
    assert nearest(one("every", macs="0.5x"), FINISHED) == {}
    assert nearest(one("every", latency="0.5x"), []) == {}
