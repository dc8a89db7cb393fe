"""A bundle: the folder that slimwright hands back.

    model.*          the result                    net/           its graph: JSON + safetensors
    original.*       what it came from             recipe.json    what was done, in order
    manifest.json    every measurement             report.html    the manifest for people, with plots/*.png

The manifest is read back as untrusted input: its fields are validated, its file names must be those above, and the
hashes must agree before anything is loaded.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from slimwright.errors import BundleError
from slimwright.runtimes import Artefact, Precision
from slimwright.techniques.recipe import FILE, Recipe, fault

RECIPE, MANIFEST, REPORT, NET = FILE, "manifest.json", "report.html", "net"
STEMS = {"original": "original", "result": "model"}  # of the artefacts' files
HASHED = (RECIPE, "net/net.json", "net/net.safetensors")  # and the artefacts' files

Outcome = Literal["kept", "taken back", "not chosen", "left whole"]


class Record(BaseModel):
    """What a file says of itself: read back, its fields must be these."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Timing(Record):
    """Measured time of one image, in milliseconds: on the clock, and of the processor."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    cpu_ms: float  # median


class Side(Record):
    """One of the two models, counted and measured."""

    accuracy: float  # 0..1 on the test part, in the runtime
    latency: Timing  # measured, the two sides interleaved
    size_bytes: int  # of the artefact's files
    macs: int  # exact, for one image
    params: int  # exact
    weight_bytes: int  # exact, of the FP32 net
    peak_activation_bytes: int  # exact, of the FP32 net, for one image
    arena_bytes: int  # what a planned arena takes
    peak_rss_bytes: int  # measured in a fresh process
    cold_start_ms: float  # load and first run, measured in a fresh process
    planned_bytes: int | None  # what the runtime says it set aside; None where it does not say
    kernel_ms: dict[str, float]  # of a run, by the runtime's profiler; empty where it has none
    files: list[str]  # the artefact's, its main file first


class Candidate(Record):
    """A model that was tried. `predicted_latency_ms` and `predicted_damage` are the plan's, the rest was measured."""

    name: str
    precision: Precision
    predicted_latency_ms: float | None
    predicted_damage: float | None  # nats of loss
    latency_ms: float
    size_bytes: int
    macs: int
    validation_accuracy: float
    proven: bool  # the runtime's scores are those of its net
    chosen: bool


class Decision(Record):
    """Something that was proposed or could have been, and what became of it.

    "taken back": measured, and it does not pay or does not hold. "not chosen": it works, another does better.
    "left whole": not changed at all.
    """

    what: str
    outcome: Outcome
    why: str


class Layer(Record):
    """One weighted layer, before and after; all counts exact."""

    name: str
    op: str
    channels_before: int
    channels_after: int
    macs_before: int
    macs_after: int
    weight_bytes_before: int
    weight_bytes_after: int
    output_bytes_before: int
    output_bytes_after: int


class Memory(Record):
    """Live activation bytes while each node of a net runs, for one image."""

    nodes: list[str]
    live_bytes: list[int]


class Proof(Record):
    """The artefact's scores against its net's, on the same images."""

    images: int
    max_abs_error: float
    max_relative_error: float  # of the largest score
    tolerance: float  # on max_relative_error
    agreement: float  # share of images on which both name the same class
    least_agreement: float
    passed: bool


class Summary(Record):
    """What most people want to know."""

    accuracy_original: float
    accuracy: float
    latency_ms_original: float
    latency_ms: float
    latency_ratio: float
    size_bytes_original: int
    size_bytes: int
    within_budget: bool
    misses: list[str]  # each limit that was missed, and by how much


class DataCard(Record):
    """What the device must do to an image, and what the scores mean."""

    name: str
    labels: list[str]
    image_shape: list[int]
    preprocessing: dict[str, object]
    sizes: dict[str, int]


class Manifest(Record):
    """Everything that is known about a bundle."""

    format: Literal["slimwright-bundle"] = "slimwright-bundle"
    version: Literal[1] = 1
    created: str
    seconds: dict[str, float]  # wall time per stage
    model: str
    runtime: str
    threads: Literal[1] = 1
    seed: int
    versions: dict[str, str]
    target: str
    machine: dict[str, object]  # the target's: processor, system, runtimes
    budget: dict[str, str]  # as the user wrote it
    limits: dict[str, float]  # resolved, in the unit of each name
    max_accuracy_drop: float  # percentage points
    channel_step: int
    empty_runtime_rss_bytes: int
    data: DataCard
    summary: Summary
    original: Side
    result: Side
    proof: Proof
    candidates: list[Candidate]
    decisions: list[Decision]
    layers: list[Layer]
    memory: dict[Literal["original", "result"], Memory]
    sha256: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A folder with a proven model in it."""

    path: Path
    manifest: Manifest
    recipe: Recipe

    def artefact(self, which: Literal["original", "result"]) -> Artefact:
        """The files of one of the two models, as the runtime loads them."""
        side = self.manifest.original if which == "original" else self.manifest.result
        precision: Precision = "fp32" if which == "original" else self.recipe.precision()
        files = tuple(self.path / name for name in side.files)
        return Artefact(self.manifest.runtime, precision, files, (1, *self.manifest.data.image_shape))

    @property
    def summary(self) -> Summary:
        """Accuracy, latency and size of original and result, and whether the budget was met."""
        return self.manifest.summary


def load_bundle(path: Path) -> Bundle:
    """Return the bundle in `path`, its hashes checked. Raises BundleError, naming the file and the fault."""
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
        recipe = Recipe.model_validate_json((path / RECIPE).read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"{path} is no bundle: {error.filename} is missing") from error
    except ValidationError as error:
        raise BundleError(f"{path / MANIFEST} or {RECIPE} is not valid: {fault(error)}") from error
    sides = {"original": manifest.original, "result": manifest.result}
    for which, side in sides.items():
        for name in side.files:
            if Path(name).name != name or Path(name).stem != STEMS[which]:
                raise BundleError(f"{path / MANIFEST} names '{name}' as a file of the {which}")
    for name in (*HASHED, *manifest.original.files, *manifest.result.files):
        if manifest.sha256.get(name) != sha256_of(path / name):
            raise BundleError(f"{path / name} is missing or is not the file that was proven; run shrink again")
    return Bundle(path, manifest, recipe)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or "" where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return ""


def as_json(record: BaseModel) -> str:
    """Return a record as JSON for people and scripts."""
    return json.dumps(record.model_dump(mode="json"), indent=1)


def misses(
    limits: Mapping[str, float], costs: Mapping[str, float], drop_points: float, most_points: float
) -> list[str]:
    """Say which limits were missed and by how much; an empty list if none."""
    said = []
    for name, limit in limits.items():
        if costs[name] > limit:
            said.append(
                f"{name} is {_short(costs[name])}, "
                f"{100 * (costs[name] / limit - 1):.1f} % over its limit of {_short(limit)}"
            )
    if drop_points > most_points + 1e-9:
        said.append(f"accuracy drops by {drop_points:.2f} points, limit {most_points:g}")
    return said


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or math.isclose(value, round(value)) else f"{value:.3g}"
