"""What a bundle was made of and by, as a software bill of materials: CycloneDX 1.6, `sbom.json`.

    metadata.component   the model, under the licence that its user named
    components           the model's files with their SHA-256, Python, and every package that took part
    dependencies         which package asks for which

A package took part if slimwright asks for it, or one that slimwright asks for, with the extras of the runtime, of data
and of the page, and it is installed. Packages of a converter that has an environment of its own are listed beside
those. A licence is the SPDX expression of the package's metadata, or else what its metadata call it.

Two bundles with the same manifest that were made in the same environment have the same bill, to the byte.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slimwright.measure.bundle import SBOM, Manifest
from slimwright.runtimes import RUNTIMES
from slimwright.runtimes.known import converters_home

EXTRAS = ("data", "report")  # that take part beside the runtime's
OURS = "slimwright"
CLASSIFIED = "License :: "
LICENCE_LETTERS = 100  # of a licence's name; what is longer is its text


@dataclass(frozen=True)
class Package:
    """An installed package, and the packages that it asks for."""

    name: str
    version: str
    licences: tuple[Mapping[str, Any], ...]  # as CycloneDX has them
    requires: tuple[str, ...]  # purls

    @property
    def purl(self) -> str:
        """The package's name in any list of packages."""
        return purl_of(self.name, self.version)


def write_sbom(folder: Path, manifest: Manifest, licence: str) -> None:
    """Write the bill of materials of a bundle; `licence` is that of the model, "" where nobody named it."""
    (folder / SBOM).write_text(json.dumps(sbom(manifest, licence), indent=1))


def sbom(manifest: Manifest, licence: str) -> dict[str, Any]:
    """Return the bill of materials of a bundle."""
    runtime = RUNTIMES[manifest.runtime]
    listed = packages((runtime.extra, *EXTRAS))
    if runtime.apart:
        for place in sorted((converters_home() / manifest.runtime).glob("lib/python*/site-packages")):
            listed = _together([*listed, *packages((f"{manifest.runtime}-converter",), place)])
    model: dict[str, Any] = {"type": "machine-learning-model", "bom-ref": "model", "name": manifest.model}
    model |= {"licenses": [{"license": {"name": licence}}]} if licence else {}
    bill = {
        "metadata": {
            "timestamp": manifest.created,
            "tools": {"components": [_component(each) for each in listed if each.name == OURS][:1]},
            "component": model,
        },
        "components": [
            *(_file(name, digest) for name, digest in sorted(manifest.sha256.items())),
            {"type": "platform", "bom-ref": "python", "name": "Python", "version": manifest.versions["python"]},
            *map(_component, listed),
        ],
        "dependencies": [{"ref": each.purl, "dependsOn": list(each.requires)} for each in listed],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{number}", "version": 1}
    return {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", **head, **bill}


def packages(extras: Iterable[str], place: Path | None = None) -> list[Package]:
    """Return slimwright and the installed packages that it asks for with some extras, here or in another `place`."""
    there: dict[str, Distribution] = {}
    for one in distributions() if place is None else distributions(path=[str(place)]):
        if one.metadata["Name"]:  # else an installation was broken off
            there.setdefault(canonicalize_name(one.name), one)  # the first is the one that is imported
    wanted, asked = [(OURS, extra) for extra in ("", *extras)], dict[tuple[str, str], list[str]]()
    while wanted:
        name, extra = wanted.pop()
        if name in there and (name, extra) not in asked:
            needs = list(_needs(there[name], extra))
            asked[name, extra] = [other for other, _ in needs]
            wanted += needs
    requires: dict[str, set[str]] = {}
    for (name, _), others in asked.items():
        requires.setdefault(name, set()).update(other for other in others if other in there and other != name)
    purls = {name: purl_of(name, there[name].version) for name in requires}
    return [
        Package(name, there[name].version, licences_of(there[name]), tuple(sorted(purls[other] for other in others)))
        for name, others in sorted(requires.items())
    ]


def _together(found: Iterable[Package]) -> list[Package]:
    """Packages of two places, each version once."""
    merged: dict[str, Package] = {}
    for each in found:
        before = merged.get(each.purl, each)
        merged[each.purl] = replace(each, requires=tuple(sorted({*before.requires, *each.requires})))
    return [merged[purl] for purl in sorted(merged)]


def _needs(package: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    """What a package asks for here with one of its extras, or with none: names, each with an extra or none."""
    for text in package.requires or ():
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": extra}):
            yield from ((canonicalize_name(needed.name), each) for each in ("", *sorted(needed.extras)))


def licences_of(package: Distribution) -> tuple[Mapping[str, Any], ...]:
    """Return the licences that a package's metadata name, as CycloneDX has them."""
    expressions, texts, classifiers = (
        package.metadata.get_all(field) or [] for field in ("License-Expression", "License", "Classifier")
    )
    if expressions:
        return ({"expression": expressions[0]},)
    named = [each.split(" :: ")[-1] for each in classifiers if each.startswith(CLASSIFIED)]
    if not named:
        named = [text.strip().splitlines()[0][:LICENCE_LETTERS] for text in texts if text.strip()]
    return tuple({"license": {"name": name}} for name in named)


def purl_of(name: str, version: str) -> str:
    """Return the package URL of a Python package (purl-spec, type pypi)."""
    return f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version, safe='')}"


def _component(package: Package) -> dict[str, Any]:
    found = {"type": "library", "bom-ref": package.purl, "name": package.name, "version": package.version}
    return found | ({"licenses": list(package.licences)} if package.licences else {}) | {"purl": package.purl}


def _file(name: str, digest: str) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": digest}]
    return {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": hashes}
