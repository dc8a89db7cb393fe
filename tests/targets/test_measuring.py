"""What is measured of a small model on this machine, in fresh processes, and how a failure there is told."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onnx_files import onnx_scores
from slimwright.errors import DeviceError, ProofError
from slimwright.runner.sessions.session import Kernel
from slimwright.runtimes import Artefact
from slimwright.targets import Effort, Local, Measurement, measure
from small_artefacts import SHAPE, small_artefact

ONCE = Effort(runs=4, warm_up=1, profile_runs=3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return small_artefact(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(5, *SHAPE[1:], generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def seen(small: Artefact, images: torch.Tensor) -> Measurement:
    return measure(Local(), {"small": small}, ONCE, inputs=[images])["small"]


def test_scores_are_those_of_the_model_image_by_image(small: Artefact, seen: Measurement, images: torch.Tensor) -> None:
    assert seen.outputs is not None and seen.outputs[0].shape == (5, 5)
    assert torch.equal(seen.outputs[0], onnx_scores(small.files[0], images))


def test_running_a_model_takes_time_and_memory_beyond_the_empty_runtime(seen: Measurement) -> None:
    assert 10_000_000 < seen.empty_rss_bytes < seen.peak_rss_bytes < 1_000_000_000
    assert seen.own_rss_bytes == seen.peak_rss_bytes - seen.empty_rss_bytes
    assert seen.latency is not None and seen.latency.runs == 4
    assert 0 < seen.latency.p10_ms <= seen.latency.median_ms <= seen.latency.p90_ms
    assert seen.load_ms > 0 and seen.cold_start_ms == seen.load_ms + seen.first_run_ms


def test_the_profile_names_the_kernels_that_ran(seen: Measurement) -> None:
    kinds = seen.kernel_ms
    assert any("Conv" in kind for kind in kinds) and "Gemm" in kinds
    assert sum(kinds.values()) == pytest.approx(sum(kernel.ms for kernel in seen.kernels))
    assert all(kernel.ms >= 0 and kernel.name for kernel in seen.kernels)


def test_the_tensor_share_is_that_of_the_kernels_that_multiply_by_weights() -> None:
    kernels = (
        Kernel("a", "FusedConv", 2.0),
        Kernel("b", "Relu", 1.0),
        Kernel("c", "Gemm", 4.0),
        Kernel("d", "Relu", 1),
    )
    found = Measurement(None, 1.0, 2.0, 10, 30, None, kernels)
    assert found.kernel_ms == {"FusedConv": 2.0, "Relu": 2.0, "Gemm": 4.0}
    assert found.tensor_share == 0.75
    assert replace(found, kernels=()).tensor_share == 1.0


def test_what_is_not_asked_for_is_not_measured(small: Artefact) -> None:
    seen = measure(Local(), {"small": small}, Effort())["small"]
    assert (seen.latency, seen.outputs, seen.kernels, seen.energy_mj) == (None, None, (), None)
    assert seen.first_run_ms > 0


def test_several_artefacts_of_one_name_run_in_turn_and_equally_often(small: Artefact, tmp_path: Path) -> None:
    other = small.copied(tmp_path, "model")  # the same file name
    seen = measure(Local(), {"b": small, "a": other}, Effort(runs=10))
    assert list(seen) == ["b", "a"]
    assert [one.latency.runs for one in seen.values() if one.latency] == [10, 10]


def test_a_file_that_is_no_model_is_told_of_in_the_runtimes_words(small: Artefact, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ProofError, match=r"^on this machine: onnxruntime cannot load 0-bad\.onnx: .+"):
        measure(Local(), {"bad": replace(small, files=(tmp_path / "bad.onnx",))}, ONCE)


def test_images_of_another_shape_are_told_of(small: Artefact) -> None:
    with pytest.raises(ProofError, match=r"^on this machine: onnxruntime cannot run 0-model\.onnx: .+"):
        measure(Local(), {"small": small}, Effort(), inputs=[torch.zeros(2, 1, 8, 8)])


def test_a_job_that_takes_too_long_is_stopped(small: Artefact) -> None:
    with pytest.raises(DeviceError, match=r"on this machine: the job was stopped after 0\.2 s"):
        measure(Local(), {"small": small}, Effort(runs=1, least_s=60), timeout_s=0.2)


def test_an_effort_beyond_all_bounds_is_refused_before_anything_runs(small: Artefact) -> None:
    with pytest.raises(DeviceError, match="runs is 10000000"):
        measure(Local(), {"small": small}, Effort(runs=10_000_000))


def test_nothing_is_left_in_the_folder_for_temporary_files(
    small: Artefact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    measure(Local(), {"small": small}, ONCE, inputs=[torch.from_numpy(np.zeros(SHAPE, np.float32))])
    with pytest.raises(ProofError):
        measure(Local(), {"small": replace(small, precision="fp16")}, ONCE, inputs=[torch.zeros(2, 1, 8, 8)])
    assert list(tmp_path.iterdir()) == []
