"""Artefacts for several runtimes: what passes its proof is in the folder, what does not is told of."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exact import small_net
from example_nets import SHAPE
from shared_workshop import shared_workshop
from slimwright.cost import AIM
from slimwright.data import ArrayData, labelled
from slimwright.errors import RequestError
from slimwright.graph import save_net
from slimwright.importers import capture
from slimwright.jobs.export import Export, Request, export, wanted
from slimwright.measure.prove import RANDOM_IMAGES, TOLERANCE
from slimwright.progress import Event
from slimwright.reading import sha256_of
from slimwright.runtimes import RUNTIMES
from slimwright.runtimes.known import installed
from slimwright.targets import Effort
from slimwright.techniques import Rounding
from slimwright.techniques.fold import fold_batch_norm
from slimwright.techniques.memory_plan import solving_bytes
from slimwright.techniques.solver.draft import Draft

pytestmark = pytest.mark.skipif(not installed("ncnn"), reason="ncnn or pnnx is not installed")
NET = small_net("Residual")
SHORT = Effort(runs=3, warm_up=1)
ONE = Request((("ncnn", "fp32"),), effort=SHORT, rounds=1, workshop=shared_workshop())
BOTH = replace(ONE, wanted=(("onnxruntime", "fp32"), ("ncnn", "fp32"), ("ncnn", "fp16")), name="residual", rounds=2)


class Interrupted(Exception):
    """By whoever listens."""


@pytest.fixture(scope="module")
def data() -> ArrayData:
    """Eight images a part, named as the net names them, but for two of the test part."""
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for number, part in enumerate(("train", "calibration", "validation", "test")):
        images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(number))
        parts[part] = images, NET.run(images)[0].argmax(1)
    images, labels = parts["test"]
    parts["test"] = images, torch.cat([labels[:6], (labels[6:] + 1) % 3])
    return ArrayData("made up", ("a", "b", "c"), parts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports") / "out"


@pytest.fixture(scope="module")
def told() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def found(data: ArrayData, out: Path, told: list[Event]) -> Export:
    """Half precision is held to what no half can keep."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(TOLERANCE, "fp16", 1e-9)
        return export(NET, BOTH, data=data, out=out, tell=told.append)


def test_every_file_that_is_handed_over_is_named_with_its_hash(found: Export, out: Path) -> None:
    passed = [one for one in found.artefacts if one.passed]
    named = {name: digest for one in passed for name, digest in one.files.items()}
    assert set(named) == {"onnxruntime-fp32/model.onnx", "ncnn-fp32/model.param", "ncnn-fp32/model.bin"}
    held = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert held == {*named, "export.json", *(f"{Path(name).parent}/about.json" for name in named)}
    assert all(sha256_of(out / name) == digest for name, digest in named.items())
    for one in passed:
        assert one.size_bytes == sum((out / name).stat().st_size for name in one.files)


def test_what_was_measured_is_read_back_as_it_was_given(found: Export, out: Path) -> None:
    again = Export.model_validate_json((out / "export.json").read_bytes())
    assert again == found
    assert (again.model, again.data, again.input_shapes, again.threads) == ("residual", "made up", [[*SHAPE]], 1)
    assert again.target == "this machine" and again.machine["cores"] == os.cpu_count()
    with pytest.raises(ValueError, match="surprise"):
        Export.model_validate_json(json.dumps(json.loads((out / "export.json").read_text()) | {"surprise": 1}))


def test_an_artefact_that_passes_has_all_its_numbers(found: Export) -> None:
    for one in found.artefacts[:2]:
        assert one.passed and one.why == ""
        assert one.proof is not None and one.proof.images == 8 and one.proof.max_relative_error <= 1e-5
        assert one.score == found.original_score == 75.0
        assert one.latency is not None and one.latency.runs == 3
        assert 0 < one.latency.p10_ms <= one.latency.median_ms <= one.latency.p90_ms
        assert one.cold_start_ms is not None and one.cold_start_ms > 0
        assert one.peak_rss_bytes is not None and one.own_rss_bytes is not None
        assert 0 <= one.own_rss_bytes < one.peak_rss_bytes
        assert one.runtime_version == found.machine["runtimes"][one.runtime]  # type: ignore[index]


def test_an_artefact_that_fails_its_proof_is_told_of_and_not_handed_over(found: Export, out: Path) -> None:
    one = found.artefacts[2]
    assert (one.runtime, one.precision, one.passed) == ("ncnn", "fp16", False)
    assert one.why.startswith("its outputs differ from the network's: relative error ") and "(at most 1e-09)" in one.why
    assert one.proof is not None and 1e-9 < one.proof.max_relative_error < 0.05
    assert not (out / "ncnn-fp16").exists()


def test_progress_runs_from_nothing_to_all(found: Export, told: list[Event]) -> None:
    assert found
    stages = {event.stage: event for event in told}  # the last of each
    assert list(stages) == ["convert", "prove"]
    assert all(event.done == event.total for event in stages.values())
    assert [event.note for event in told if event.stage == "convert"][:3] == [
        "onnxruntime-fp32",
        "ncnn-fp32",
        "ncnn-fp16",
    ]
    assert stages["prove"].total == 2 * 3 + 1


def test_without_data_parity_is_on_random_images_and_there_is_no_accuracy(tmp_path: Path) -> None:
    found = export(NET, ONE, data=None, out=tmp_path / "out")
    (one,) = found.artefacts
    assert one.passed and one.proof is not None
    assert (one.proof.images, one.proof.least_agreement) == (RANDOM_IMAGES, 0.0)
    assert (found.data, found.original_score, one.score) == (None, None, None)


def test_least_squares_rounds_on_as_many_images_as_memory_allows(data: ArrayData, tmp_path: Path) -> None:
    """64 calibration images; rounding to the nearest solves nothing."""
    images, labels = labelled(data.parts["calibration"])
    parts = dict(data.parts.items()) | {"calibration": (images.repeat(8, 1, 1, 1), labels.repeat(8))}
    more = ArrayData(data.name, data.labels, parts)
    there = int(solving_bytes(Draft.of(fold_batch_norm(NET)), 32, rounded=True) / AIM) + 1
    fewer = "memory is short: weights are solved on 32 images instead of 64"

    def notes(rounding: Rounding, memory_bytes: int) -> list[str]:
        told = list[Event]()
        request = replace(ONE, wanted=(("onnxruntime", "int8"),), rounding=rounding, memory_bytes=memory_bytes)
        export(NET, replace(request, force=True), data=more, out=tmp_path / "out", tell=told.append)
        return [event.note for event in told if event.stage == "memory"]

    assert notes("least squares", there) == [fewer]
    assert notes("least squares", 2 * 10**9) == notes("nearest", there) == []
    with pytest.raises(RequestError, match=r"^solving the weights needs about .* --memory-limit"):
        notes("least squares", 10**7)


def test_eight_bits_are_calibrated_on_the_calibration_part(data: ArrayData, tmp_path: Path) -> None:
    parts = dict(data.parts.items())
    images, labels = labelled(parts["calibration"])
    request = replace(ONE, wanted=(("ncnn", "int8"),))

    def weights(name: str, **changed: tuple[Tensor, Tensor]) -> bytes:
        other = ArrayData(data.name, data.labels, parts | changed)  # type: ignore[arg-type]
        (one,) = export(NET, request, data=other, out=tmp_path / name).artefacts
        assert one.passed and one.proof is not None and one.proof.max_relative_error > 1e-5
        return (tmp_path / name / "ncnn-int8" / "model.bin").read_bytes()

    once = weights("once")
    assert weights("others", train=(9 * images, labels), validation=(9 * images, labels)) == once


def test_eight_bits_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="INT8 is calibrated on images"):
        export(NET, replace(ONE, wanted=(("ncnn", "int8"),)), data=None, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_elses_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match="was not made by this command"):
        export(NET, ONE, data=None, out=tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["years of work"]


@pytest.mark.parametrize("stage", ["convert", "prove"])
def test_an_export_that_is_stopped_leaves_nothing_behind_and_the_last_one_in_place(stage: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "export.json").write_text("of before")

    def stop(event: Event) -> None:
        if event.stage == stage:
            raise Interrupted

    with pytest.raises(Interrupted):
        export(NET, ONE, data=None, out=out, tell=stop)
    assert list(tmp_path.iterdir()) == [out]
    assert [path.read_text() for path in out.iterdir()] == ["of before"]


class Numbered(nn.Module):
    """Three scores, less the number of the largest; ncnn has no layer that finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(x.flatten(1))
        return scores - scores.argmax(1, keepdim=True)


def test_a_converter_that_fails_is_told_of_and_takes_nobody_along(data: ArrayData, tmp_path: Path) -> None:
    net = capture(Numbered().eval(), SHAPE)
    request = replace(ONE, wanted=(("ncnn", "fp32"), ("onnxruntime", "fp32")))
    failed, other = export(net, request, data=data, out=tmp_path / "out").artefacts
    assert not failed.passed and "ncnn has no layers for torch.argmax" in failed.why
    assert (failed.files, failed.size_bytes, failed.proof, failed.latency) == ({}, None, None, None)
    assert other.passed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"onnxruntime-fp32", "export.json"}


def test_batch_norms_are_folded_before_the_conversion(found: Export, out: Path) -> None:
    assert found and fold_batch_norm(NET) is not NET
    assert "BatchNorm" not in (out / "ncnn-fp32" / "model.param").read_text()


def test_pairs_that_are_wanted() -> None:
    assert wanted(["ncnn", "ort", "ncnn"], ["fp16", "fp32"]) == (("ncnn", "fp32"), ("ncnn", "fp16"), ("ort", "fp32"))
    every = wanted(["all"], ["all"])
    assert {runtime for runtime, _ in every} == {name for name in RUNTIMES if installed(name)}
    assert [p for runtime, p in every if runtime == "ncnn"] == ["fp32", "fp16", "int8"]


@pytest.mark.parametrize(
    ("runtimes", "precisions", "told"),
    [
        (["abacus"], ["fp32"], "there is no runtime 'abacus'; there is onnxruntime"),
        (["ncnn"], ["int4"], "there is no precision 'int4'; there is fp32, fp16, int8, or all"),
        (["ort"], ["fp16"], r"\(\.ort\) has no fp16 here"),
    ],
)
def test_pairs_that_there_are_not(runtimes: list[str], precisions: list[str], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        wanted(runtimes, precisions)


def test_the_command_line_exports_and_prints_what_it_wrote(tmp_path: Path) -> None:
    save_net(NET, tmp_path / "net")
    environment = os.environ | {"SLIMWRIGHT_CACHE": str(tmp_path / "cache"), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "slimwright", "export", "net", "--runtime", "ncnn", "--out", "out", "--json",
         "--license", "CC BY 4.0"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = Export.model_validate_json(done.stdout)
    assert found == Export.model_validate_json((tmp_path / "out" / "export.json").read_bytes())
    assert (found.model, found.input_shapes) == ("net", [[*SHAPE]])
    assert [(one.runtime, one.precision, one.passed) for one in found.artefacts] == [("ncnn", "fp32", True)]
    about = json.loads((tmp_path / "out" / "ncnn-fp32" / "about.json").read_text())
    assert about["license"] == "CC BY 4.0" and about["inputs"][0]["shape"] == [1, *SHAPE]
    assert {path.name for path in tmp_path.iterdir()} <= {"net", "out", "cache"}


@pytest.mark.parametrize("rounding", [None, "nearest"])
def test_channels_are_scaled_and_biases_corrected_before_int8(
    rounding: Rounding | None, data: ArrayData, tmp_path: Path
) -> None:
    """The file holds other biases, and still names the images that the net names."""
    request = replace(ONE, wanted=(("onnxruntime", "int8"),), rounding=rounding)
    prepared = replace(request, equalise=True, correct_biases=True)
    found = {
        name: export(NET, each, data=data, out=tmp_path / name).artefacts[0]
        for name, each in (("plain", request), ("prepared", prepared))
    }
    assert all(one.score is not None and one.score >= 0.5 for one in found.values())
    plain, other = ({*one.files.values()} for one in found.values())
    assert plain.isdisjoint(other)
