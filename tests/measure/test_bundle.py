"""A bundle read back is untrusted input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest_example import example_bundle
from slimwright.errors import BundleError
from slimwright.measure.bundle import Manifest, load_bundle, misses
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


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "a score that is not a number": (lambda m: m["result"].update(score=float("nan")), r"result\.score"),
    "a time without an end": (lambda m: m["result"]["latency"].update(p90_ms=float("-inf")), r"latency\.p90_ms"),
    "a count of 65 bits": (lambda m: m["layers"][5].update(weight_bytes_after=2**64), r"weight_bytes_after"),
    "a count of 400 digits": (lambda m: m["result"].update(peak_rss_bytes=10**400), "peak_rss_bytes"),
    "a seed below zero": (lambda m: m.update(seed=-1), "seed: .*greater than or equal to 0"),
    "lists of uneven length": (
        lambda m: m["memory"]["result"]["live_bytes"].pop(), r"memory\.result: .*there must be as many"
    ),
    "memory of one side": (lambda m: m["memory"].pop("original"), r"memory\.original: Field required"),
    "no model that was chosen": (lambda m: m.update(candidates=[]), "0 of the candidates are chosen"),
    "two models that were chosen": (
        lambda m: [one.update(chosen=True) for one in m["candidates"]], "[2-9] of the candidates are chosen"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_manifest_that_cannot_be_is_refused_with_its_field(what: str, tmp_path: Path) -> None:
    path = example_bundle(tmp_path / "b") / "manifest.json"
    manifest = json.loads(path.read_text())
    change, said = WRONG[what]
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=rf"manifest\.json is not a bundle's manifest: .*{said}"):
        load_bundle(path.parent)
