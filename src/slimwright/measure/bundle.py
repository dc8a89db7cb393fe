"""A bundle: the folder that slimwright hands back.

    model.*          the result                    net/           its graph: JSON + safetensors
    original.*       what it came from             recipe.json    what was done, in order
    manifest.json    every measurement             report.html    the manifest for people, with plots/*.png
    about.json       what an app needs: names of inputs and outputs, labels, preprocessing, task, licence
    sbom.json        the packages that made it, and the digests of its models (sbom.py)
    bundle.sig       once it is signed: the digest of every other file (signature.py)

The manifest is read back as untrusted input: its fields are validated, its file names must be those above, and the
hashes must agree before anything is loaded.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from slimwright.errors import BundleError
from slimwright.measure.notebook import html_of
from slimwright.measure.record import Amount, Count, Number, Record, Time
from slimwright.measure.records import DataCard, Decision, DropInterval, Parity, TaskCard, Timing
from slimwright.reading import data_of, reading, sha256_of
from slimwright.runtimes import Artefact, Precision
from slimwright.tasks import Metric
from slimwright.techniques import TECHNIQUES, Recipe, Technique, recipe_type
from slimwright.techniques.recipe import FILE

RECIPE, MANIFEST, REPORT, NET, ABOUT = FILE, "manifest.json", "report.html", "net", "about.json"
SBOM, SIGNATURE = "sbom.json", "bundle.sig"
PACKED = "model.swz"  # where a packed file was asked for
STEMS = {"original": "original", "result": "model"}  # of the artefacts' files
HASHED = (RECIPE, "net/net.json", "net/net.safetensors")  # and the artefacts' files
PLOTS = "plots/*.png"
BUNDLED = (
    *HASHED,
    MANIFEST,
    ABOUT,
    REPORT,
    PLOTS,
    SBOM,
    SIGNATURE,
    *(f"{stem}.*" for stem in STEMS.values()),
)  # all that it holds
VERSION = 2


class ModelRecord(Record):
    """One of the two models, counted and measured."""

    precision: Precision
    score: Number  # on the test part, in the runtime, in the metric's unit
    latency: Timing  # measured, the two models interleaved
    size_bytes: Count  # of the artefact's files
    macs: Count  # exact, for one image
    params: Count  # exact
    weight_bytes: Count  # exact, in the encodings of the net
    peak_activation_bytes: Count  # exact, of the FP32 net, for one image
    arena_bytes: Count  # what a planned arena takes
    peak_rss_bytes: Count  # measured in a fresh process
    cold_start_ms: Amount  # load and first run, measured in a fresh process
    planned_bytes: Count | None  # what the runtime says it set aside; None where it does not say
    energy_mj: Amount | None = None  # for an image; None where the device has no counter
    packed_bytes: Count | None = None  # of the network as a packed file; None: it was not asked for
    kernel_ms: dict[str, Amount]  # of a run, by the runtime's profiler; empty where it has none
    files: list[str]  # the artefact's, its main file first
    input_shapes: list[list[Count]]
    output_shapes: list[list[Count]]


def hashed(original: ModelRecord, result: ModelRecord) -> tuple[str, ...]:
    """Return the names of the files of a bundle whose digests its manifest says."""
    packed = () if result.packed_bytes is None else (PACKED,)
    return (*HASHED, *original.files, *result.files, *packed)


class CandidateRecord(Record):
    """A model that was tried. What is called predicted is the plan's, the rest was measured."""

    name: str
    precision: Precision
    predicted_latency_ms: Amount | None
    predicted_damage: Number | None  # nats of loss
    predicted_gap: Amount | None = None  # share above the least damage that is possible; None: that is not known
    latency_ms: Time
    size_bytes: Count
    macs: Count
    validation_score: Number  # in the metric's unit
    images: Count | None = None  # calibration images that it was solved on; None: all
    proven: bool  # the runtime's outputs are those of its net
    chosen: bool


class Layer(Record):
    """One weighted layer, before and after; all counts exact."""

    name: str
    op: str
    channels_before: Count
    channels_after: Count
    macs_before: Count
    macs_after: Count
    weight_bytes_before: Count
    weight_bytes_after: Count
    output_bytes_before: Count
    output_bytes_after: Count


class Memory(Record):
    """Live activation bytes while each node of a net runs, for one image."""

    nodes: list[str]
    live_bytes: list[Count]

    @model_validator(mode="after")
    def _has_as_many(self) -> "Memory":
        if len(self.nodes) != len(self.live_bytes):
            raise ValueError(f"{len(self.nodes)} nodes have {len(self.live_bytes)} live_bytes; there must be as many")
        return self


class Memories(Record):
    """The live activation bytes of both nets."""

    original: Memory
    result: Memory


class Summary(Record):
    """What most people want to know. Scores are in the metric's unit, the drop in its steps."""

    score_original: Number
    score: Number
    drop: Number
    latency_ms_original: Time
    latency_ms: Time
    latency_ratio: Time
    size_bytes_original: Count
    size_bytes: Count
    within_budget: bool
    misses: list[str]  # each limit that was missed, and by how much
    interval: DropInterval | None = None  # of the drop, on the test part
    doubts: list[str] = Field(default_factory=list)  # what the data cannot judge
    reachable: list[str] = Field(default_factory=list)  # in place of a budget that is missed; on the validation part


class Manifest(Record):
    """Everything that is known about a bundle."""

    format: Literal["slimwright-bundle"] = "slimwright-bundle"
    version: Literal[2] = 2
    created: str
    seconds: dict[str, Amount]  # wall time per stage
    model: str
    runtime: str
    threads: Literal[1] = 1
    seed: Count
    versions: dict[str, str]
    target: str
    machine: dict[str, object]  # the target's: processor, system, runtimes
    budget: dict[str, str]  # as the user wrote it
    limits: dict[str, Amount]  # resolved, in the unit of each name
    max_drop: Amount  # in the metric's steps
    channel_step: Count
    empty_runtime_rss_bytes: Count
    task: TaskCard
    data: DataCard
    summary: Summary
    original: ModelRecord
    result: ModelRecord
    reading: Parity  # the original's artefact against the model as the user gave it, in its own framework
    proof: Parity  # the result's artefact against its net
    candidates: list[CandidateRecord]
    decisions: list[Decision]
    layers: list[Layer]
    memory: Memories
    sha256: dict[str, str]

    @model_validator(mode="after")
    def _has_one_result(self) -> "Manifest":
        chosen = sum(candidate.chosen for candidate in self.candidates)
        if chosen != 1:
            raise ValueError(f"{chosen} of the candidates are chosen; the result is one of them")
        return self


@dataclass(frozen=True)
class Bundle:
    """A folder with a proven model in it."""

    path: Path
    manifest: Manifest
    recipe: Recipe

    def artefact(self, which: Literal["original", "result"]) -> Artefact:
        """The files of one of the two models, as the runtime loads them."""
        side = self.manifest.original if which == "original" else self.manifest.result
        files = tuple(self.path / name for name in side.files)
        shapes, outputs = (tuple(map(tuple, shapes)) for shapes in (side.input_shapes, side.output_shapes))
        return Artefact(self.manifest.runtime, side.precision, files, shapes, outputs)

    @property
    def summary(self) -> Summary:
        """Score, latency and size of original and result, and whether the budget was met."""
        return self.manifest.summary

    def _repr_html_(self) -> str:
        """Both sides as a table, in a notebook."""
        return html_of(self.manifest)


def load_bundle(path: Path, techniques: Sequence[Technique] = TECHNIQUES) -> Bundle:
    """Return the bundle in `path`, its hashes checked. Raises BundleError, naming the file and the fault."""
    for name in (MANIFEST, RECIPE):
        if not (path / name).exists():
            raise BundleError(f"{path} is not a bundle: {path / name} is missing")
    with reading(path / MANIFEST, "a bundle's manifest", BundleError):
        text = data_of(path / MANIFEST, "a bundle's manifest", BundleError)
        _check_version(path, text)
        manifest = Manifest.model_validate_json(text)
    with reading(path / RECIPE, "a recipe", BundleError):
        recipe = recipe_type(techniques).model_validate_json(data_of(path / RECIPE, "a recipe", BundleError))
    sides = {"original": manifest.original, "result": manifest.result}
    for which, side in sides.items():
        for name in side.files:
            if Path(name).name != name or Path(name).stem != STEMS[which]:
                raise BundleError(f"{path / MANIFEST} names '{name}' as a file of the {which}")
    for name in hashed(manifest.original, manifest.result):
        if manifest.sha256.get(name) != sha256_of(path / name):
            raise BundleError(f"{path / name} is missing or is not the file that was proven; run shrink again")
    return Bundle(path, manifest, recipe)


def _check_version(path: Path, text: bytes) -> None:
    """Raise BundleError for the manifest of another version."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return  # what is wrong with it is told when it is validated
    version = found.get("version") if isinstance(found, dict) else None
    if isinstance(version, int) and version != VERSION:
        raise BundleError(f"{path} was made by another version of slimwright (format {version}); run shrink again")


def as_json(record: BaseModel) -> str:
    """Return a record as JSON for people and scripts."""
    return json.dumps(record.model_dump(mode="json"), indent=1)


def misses(
    limits: Mapping[str, float], costs: Mapping[str, float], drop: float, max_drop: float, metric: Metric
) -> list[str]:
    """Say which limits were missed and by how much; an empty list if none. Drops are in the metric's steps."""
    said = []
    for name, limit in limits.items():
        if costs[name] > limit:
            said.append(
                f"{name} is {_short(costs[name])}, "
                f"{100 * (costs[name] / limit - 1):.1f} % over its limit of {_short(limit)}"
            )
    if drop > max_drop + 1e-9:
        verb = "drops" if metric.higher_is_better else "rises"
        said.append(f"{metric.name} {verb} by {metric.number(drop)} {metric.step}, limit {max_drop:g}")
    return said


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or math.isclose(value, round(value)) else f"{value:.3g}"
