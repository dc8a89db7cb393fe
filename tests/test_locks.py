"""What set-up installs is locked: all that pyproject.toml asks for, by version and hash, with its licence listed."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE)
EXTRAS = {
    "core": ["onnxruntime", "report", "data", "signing", "server", "dev"],
    "runtimes": ["runtimes", "report", "data", "signing", "fleet", "server", "dev"],
    "bench": ["runtimes", "report", "data", "signing", "fleet", "server", "dev", "bench"],
    "litert-converter": ["litert-converter"],
}


def locked(name: str) -> dict[str, str]:
    """Versions by name, of a lock in which every entry has a hash."""
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    entries = ENTRY.findall(text)
    assert len(entries) == text.count("==") and all(hashes for _, _, hashes in entries)
    return {str(canonicalize_name(package)): version for package, version, _ in entries}


def wanted(extra: str | None) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    found = []
    for one in map(Requirement, texts):
        found += [inner for name in one.extras for inner in wanted(name)] if one.name == "slimwright" else [one]
    return found


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_holds_all_that_is_asked_for(name: str) -> None:
    versions = locked(name)
    for requirement in [one for extra in (None, *EXTRAS[name]) for one in wanted(extra)]:
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version.partition("+")[0], prereleases=True), requirement.name


def test_what_is_locked_is_listed_with_its_licence() -> None:
    page = (ROOT / "docs" / "licences.md").read_text()
    listed = {canonicalize_name(line.split("|")[1].strip()) for line in page.splitlines() if line.startswith("| ")}
    for name in EXTRAS:
        assert locked(name).keys() <= listed, name
    assert locked("tools")
