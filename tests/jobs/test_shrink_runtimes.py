"""The main job for other runtimes than the first, and what is refused of the bundle that comes of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from policies import in_float
from shared_workshop import shared_workshop
from slimwright import Budget, Bundle, Settings, load_bundle, shrink
from slimwright.data import ArrayData
from slimwright.errors import BundleError
from slimwright.reading import sha256_of
from slimwright.runtimes.known import RUNTIMES, installed
from slimwright.search import Policy, measured_plan
from slimwright.tasks import Classification
from slimwright.train import Schedule, fit


@pytest.fixture(scope="module")
def small(digit_data: ArrayData) -> nn.Module:
    """A net that is quickly trained, and takes longer than calling it does."""
    layers = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(1024, 10),
    )  # fmt: skip
    return fit(layers, digit_data, Schedule(epochs=2), task=Classification(digit_data.labels))


def halved(
    net: nn.Module, runtime: str, data: ArrayData, cache: Path, out: Path, policy: Policy = measured_plan
) -> Bundle:
    """The net with half its work."""
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} is not installed")
    settings = Settings(runtime=runtime, tune_epochs=0, cache=cache, policy=policy, workshop=shared_workshop())
    return shrink(net, data=data, budget=Budget(macs="0.5x", max_drop=100), out=out, settings=settings)


@pytest.fixture(scope="module")
def bundle(small: nn.Module, digit_data: ArrayData, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return halved(small, "ncnn", digit_data, cache, tmp_path_factory.mktemp("bundles") / "ncnn")


@pytest.mark.slow
def test_a_runtime_without_a_profiler_is_planned_for_by_another_and_measured_itself(
    small: nn.Module, digit_data: ArrayData, cache: Path, tmp_path: Path
) -> None:
    manifest = halved(small, "executorch", digit_data, cache, tmp_path / "b", in_float).manifest
    assert (manifest.runtime, manifest.result.files) == ("executorch", ["model.pte"]) and manifest.proof.passed
    assert manifest.result.macs <= 0.5 * manifest.original.macs and manifest.result.latency.median_ms > 0


def test_a_bundle_for_ncnn_holds_the_files_that_ncnn_loads(bundle: Bundle) -> None:
    names = {f"{stem}.{kind}" for stem in ("model", "original") for kind in ("param", "bin")}
    assert {path.name for path in bundle.path.iterdir()} == {
        *names, "recipe.json", "manifest.json", "about.json", "sbom.json", "net", "report.html", "plots",
    }  # fmt: skip
    assert load_bundle(bundle.path).manifest == bundle.manifest
    assert bundle.manifest.runtime == bundle.artefact("result").runtime == "ncnn"
    assert bundle.manifest.result.files == ["model.param", "model.bin"]
    assert (bundle.path / "model.param").read_text().startswith("7767517\n")


def test_its_result_is_smaller_and_was_measured_in_ncnn(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert bundle.summary.within_budget and manifest.proof.passed
    assert manifest.result.macs <= 0.5 * manifest.original.macs
    sizes = [sum((bundle.path / f"{stem}.{kind}").stat().st_size for kind in ("param", "bin"))
             for stem in ("model", "original")]  # fmt: skip
    assert [manifest.result.size_bytes, manifest.original.size_bytes] == sizes and sizes[0] < sizes[1]
    assert any("Convolution" in kind for kind in manifest.result.kernel_ms)
    assert "ncnn" in manifest.machine["runtimes"]  # type: ignore[operator]


def test_the_command_line_proves_it_again(bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "slimwright", "verify", str(bundle.path), "--json"],
        env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    checks = {check["what"]: check["passed"] for check in json.loads(done.stdout)["checks"]}
    assert checks.pop("latency, share of the original") in (True, False)  # a busy machine may be noisy
    assert all(checks.values()) and len(checks) == 5, done.stdout


@pytest.mark.parametrize(
    "named", ["../model.bin", "/etc/model", "net/model.bin", "original.bin", "..", "", "recipe.json", "model.bin/"]
)
def test_a_manifest_that_names_other_files_than_a_bundles_own_is_refused(
    named: str, bundle: Bundle, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    shutil.copyfile(copy / "model.bin", tmp_path / "model.bin")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["result"]["files"] = ["model.param", named]
    manifest["sha256"][named] = sha256_of(copy / named)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="as a file of the result"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["model.bin", "model.param", "original.bin", "net/net.safetensors"])
def test_a_file_that_was_changed_is_named(name: str, bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "copy")
    with (tmp_path / "copy" / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleError, match=rf"{name} is missing or is not the file that was proven"):
        load_bundle(tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        load_bundle(tmp_path / "copy")
