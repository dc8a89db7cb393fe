"""A bundle's bill of materials: the packages that slimwright asks for, as installed, and the digests of the models."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from manifest_example import example_manifest
from slimwright.measure import Manifest, write_sbom
from slimwright.measure.sbom import packages, sbom

INSTALLED = {  # a folder of packages: what its metadata say
    "slimwright-1.0": [
        "Name: slimwright",
        "License-Expression: Apache-2.0",
        'Requires-Dist: One_Package[fast]>=1; python_version >= "3"',
        "Requires-Dist: not-installed",
        'Requires-Dist: windows-only; sys_platform == "win32"',
        'Requires-Dist: drawing; extra == "report"',
        'Requires-Dist: slimwright[report]; extra == "all"',
    ],
    "one_package-2.0+cpu": [
        "Name: One_Package",
        "License: MIT",
        "Classifier: License :: OSI Approved :: MIT License",
        'Requires-Dist: quick; extra == "fast"',
        "Requires-Dist: slimwright",
    ],
    "quick-3.0": ["Name: quick", "License: Copyright (c) somebody", " All rights reserved"],
    "drawing-4.0": ["Name: drawing"],
    "windows_only-5.0": ["Name: windows-only"],
    "unasked-6.0": ["Name: unasked"],
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, lines in INSTALLED.items():
        folder = tmp_path / f"{name}.dist-info"
        folder.mkdir()
        number = name.split("-")[1]
        (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", *lines, f"Version: {number}", ""]))
    (tmp_path / "broken-7.0.dist-info").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    known = example_manifest()
    return known.model_copy(update={"versions": {**known.versions, "python": "3.11.2"}})


def test_packages_are_those_that_are_asked_for_and_installed(place: Path) -> None:
    found = {each.purl: each for each in packages((), place)}
    one, quick, ours = "pkg:pypi/one-package@2.0%2Bcpu", "pkg:pypi/quick@3.0", "pkg:pypi/slimwright@1.0"
    assert {purl: each.requires for purl, each in found.items()} == {one: (quick, ours), quick: (), ours: (one,)}
    assert found[ours].licences == ({"expression": "Apache-2.0"},)
    assert found[one].licences == ({"license": {"name": "MIT License"}},)
    assert found[quick].licences == ({"license": {"name": "Copyright (c) somebody"}},)


def test_an_extra_may_ask_for_another_one(place: Path) -> None:
    names = [each.name for each in packages(("all",), place)]
    assert names == ["drawing", "one-package", "quick", "slimwright"]


def refs(bill: dict[str, Any]) -> Iterator[str]:
    yield bill["metadata"]["component"]["bom-ref"]
    yield from (each["bom-ref"] for each in bill["components"])


def test_a_bill_has_what_cyclonedx_asks_for(manifest: Manifest) -> None:
    """The required fields of the schema of version 1.6, and references that lead somewhere."""
    bill = sbom(manifest, "MIT")
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["serialNumber"].startswith("urn:uuid:")
    for component in (*bill["components"], bill["metadata"]["component"], *bill["metadata"]["tools"]["components"]):
        assert component["type"] in ("file", "library", "platform", "machine-learning-model") and component["name"]
        for licence in component.get("licenses", ()):
            assert set(licence) == {"expression"} or licence["license"]["name"]
    there = list(refs(bill))
    assert len(set(there)) == len(there)
    assert {each["ref"] for each in bill["dependencies"]} <= set(there)
    assert all(set(each["dependsOn"]) <= set(there) for each in bill["dependencies"])


def test_a_bill_lists_models_with_their_digests_and_the_packages_of_the_runtime(manifest: Manifest) -> None:
    bill = sbom(manifest, "MIT")
    files = {each["name"]: each["hashes"] for each in bill["components"] if each["type"] == "file"}
    assert files == {name: [{"alg": "SHA-256", "content": digest}] for name, digest in manifest.sha256.items()}
    versions = {each["name"]: each["version"] for each in bill["components"] if each["type"] == "library"}
    for name in ("slimwright", "torch", "numpy", "onnxruntime", "onnx"):
        assert versions[name] == version(name)
    assert not {"pytest", "ruff", "ncnn"} & set(versions)
    assert bill["metadata"]["component"]["licenses"] == [{"license": {"name": "MIT"}}]
    assert "licenses" not in sbom(manifest, "")["metadata"]["component"]


def test_a_converter_in_an_environment_of_its_own_is_listed_too(
    manifest: Manifest, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    site = tmp_path / "converters" / "litert" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    for folder in list(place.glob("*.dist-info")):
        folder.rename(site / folder.name)
    bill = sbom(manifest.model_copy(update={"runtime": "litert"}), "")
    purls = [each["purl"] for each in bill["components"] if each["type"] == "library"]
    assert purls == sorted(purls) and {"pkg:pypi/slimwright@1.0", "pkg:pypi/quick@3.0"} < set(purls)


def test_the_same_manifest_gives_the_same_bytes(manifest: Manifest, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_sbom(tmp_path / name, manifest, "MIT")
    one, two = ((tmp_path / name / "sbom.json").read_bytes() for name in ("one", "two"))
    assert one == two
    other = sbom(manifest.model_copy(update={"model": "another"}), "MIT")
    assert other["serialNumber"] != json.loads(one)["serialNumber"]
