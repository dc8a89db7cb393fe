"""A kit: a folder with a bundle's model and the code that runs it, for one language.

model.*, labels.txt     the artefact, and the names in the order of its scores
predictor.*, selftest.* the code
samples/                examples with the outputs that the artefact gave for them
packed/                 where it is asked for, the model in fewer bytes, and their reader
README.md               how to build and run it
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from slimwright.atomic import appearing
from slimwright.data import Dataset
from slimwright.jobs.kit.facts import Facts, Language, facts_of
from slimwright.jobs.kit.packing import FOLDER, Download, write_download
from slimwright.jobs.kit.samples import SAMPLES, write_samples
from slimwright.measure import Bundle

KIT, LABELS = "kit.json", "labels.txt"
HOME = Path(__file__).parent / "templates"
FILES: Mapping[Language, Mapping[str, str]] = {  # what is written, from which template
    "python": {"predictor.py": "python/predictor.py.j2", "selftest.py": "python/selftest.py.j2"},
    "cpp": {
        "predictor.hpp": "cpp/predictor.hpp.j2",
        "predictor.cpp": "cpp/predictor.cpp.j2",
        "network.cpp": "cpp/network.cpp.j2",
        "selftest.cpp": "cpp/selftest.cpp.j2",
        "CMakeLists.txt": "cpp/CMakeLists.txt.j2",
    },
    "android": {"Predictor.kt": "android/Predictor.kt.j2", "SelfTest.kt": "android/SelfTest.kt.j2"},
    "ios": {"Predictor.swift": "ios/Predictor.swift.j2", "SelfTest.swift": "ios/SelfTest.swift.j2"},
}
PICTURES: Mapping[Language, str] = {"python": "png", "cpp": "ppm", "android": "png", "ios": "png"}


@dataclass(frozen=True)
class Kit:
    """What a kit was made of, and what its packed model takes, where one was asked for."""

    facts: Facts
    download: Download | None


def kit(
    bundle: Bundle, language: Language, data: Dataset, out: Path, *, packed: bool = False, force: bool = False
) -> Kit:
    """Write the kit of a bundle's model into `out`, which appears whole or not at all; return what it was made of.

    `packed` adds the model in fewer bytes, with a reader that rebuilds its files bit by bit. With `force` the kit
    replaces what was not made by this function. The samples come from the calibration part of `data`,
    which must be the data that the bundle was proven on. Raises RequestError where there is no kit for the bundle's
    runtime in the language, or where its packed model would not be smaller.
    """
    facts = facts_of(bundle, language)
    with appearing(out, KIT, force=force) as folder:
        for path in bundle.artefact("result").files:
            shutil.copyfile(path, folder / path.name)
        (folder / LABELS).write_bytes("".join(f"{name}\n" for name in facts.names).encode())
        pictured = write_samples(bundle, data, facts.how, folder / "samples", PICTURES[language])
        samples = min(SAMPLES, data.size("calibration"))
        download = write_download(bundle, folder / FOLDER, python=language == "python") if packed else None
        for name, text in texts(facts, samples=samples, pictured=pictured, download=download).items():
            (folder / name).write_text(text, "utf-8")
        made_of = {"format": "slimwright-kit", "language": language, "model": bundle.manifest.sha256}
        (folder / KIT).write_text(json.dumps(made_of, indent=1))
    return Kit(facts, download)


def texts(facts: Facts, *, samples: int, pictured: bool, download: Download | None = None) -> dict[str, str]:
    """Return the code and the README of a kit, by file name."""
    templates = Environment(
        loader=FileSystemLoader(HOME),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - it is code, and `Facts` tells no texts of the bundle's
    )
    told = {**facts.told(samples=samples, pictured=pictured), "packed": download.told if download else None}
    files = {**FILES[facts.language], "README.md": "README.md.j2"}
    if download and facts.language == "python":
        files[f"{FOLDER}/unpack.py"] = "python/unpack.py.j2"
    return {name: templates.get_template(template).render(told) for name, template in files.items()}
