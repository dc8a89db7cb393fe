"""What tests of kits share: bundles of artefacts, the files of a kit, and a Python kit's module."""

import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manifest_example import example_manifest, example_recipe
from slimwright.data import Dataset
from slimwright.graph import Net, save_net
from slimwright.jobs.kit import Language, facts_of, texts
from slimwright.measure import HASHED, MANIFEST, NET, RECIPE, Bundle, DataCard, TaskCard, as_json
from slimwright.reading import sha256_of
from slimwright.runtimes import Artefact
from slimwright.tasks import Task


def bundled(artefact: Artefact, data: Dataset, task: Task) -> Bundle:
    """A bundle of which a kit reads the same as of one that shrink made."""
    manifest = example_manifest()
    side = manifest.result.model_copy(
        update={
            "precision": artefact.precision,
            "files": [path.name for path in artefact.files],
            "input_shapes": [list(shape) for shape in artefact.shapes],
            "output_shapes": [list(shape) for shape in artefact.output_shapes],
        }
    )
    update = {"runtime": artefact.runtime, "task": TaskCard.of(task), "data": DataCard.of(data), "result": side}
    return Bundle(artefact.files[0].parent, manifest.model_copy(update=update), example_recipe())


def written(bundle: Bundle, net: Net) -> Path:
    """The folder of a bundle, as `load_bundle` reads it; the result is its original, too."""
    home, side = bundle.path, bundle.manifest.result
    names = [f"original{Path(name).suffix}" for name in side.files]
    for name, other in zip(side.files, names, strict=True):
        shutil.copyfile(home / name, home / other)
    (home / RECIPE).write_text(as_json(bundle.recipe))
    save_net(net, home / NET)
    update = {
        "original": side.model_copy(update={"files": names}),
        "sha256": {name: sha256_of(home / name) for name in (*HASHED, *side.files, *names)},
    }
    (home / MANIFEST).write_text(as_json(bundle.manifest.model_copy(update=update)))
    return home


def replace_card(bundle: Bundle, of: Dataset, **update: object) -> Bundle:
    manifest = bundle.manifest.model_copy(update={"data": DataCard.of(of), **update})
    return replace(bundle, manifest=manifest)


def rendered(bundle: Bundle, language: Language) -> dict[str, str]:
    """The files of a kit in a language, without artefact and samples."""
    return texts(facts_of(bundle, language), samples=3, pictured=True)


def loaded(folder: Path) -> dict[str, Any]:
    """The module of a Python kit; what it imports is installed here."""
    return runpy.run_path(str(folder / "predictor.py"))


def cpp_program(folder: Path, files: dict[str, str], main: str) -> Path:
    """A program of a C++ kit's files that need no runtime and of `main`; skips where there is no compiler."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    for name in ("predictor.hpp", "predictor.cpp"):
        (folder / name).write_text(files[name])
    (folder / "main.cpp").write_text(main)
    strict = "-std=c++17 -O0 -Wall -Wextra -Wno-unused-function -Werror"
    command = [compiler, *strict.split(), "main.cpp", "predictor.cpp", "-o", "main"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / "main"


def selftest(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "selftest.py"], cwd=folder, capture_output=True, text=True, check=False, env={"PATH": ""}
    )
