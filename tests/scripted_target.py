"""A target whose times, memory and scores follow a script: a board that a test can make slow, small or wrong.

Scores, which are a model's first output, come from the artefacts themselves: they are run on this machine, and the
script may change them then. Times and memory are not measured at all, so that a test of what follows from them is
neither slow nor a matter of luck. What the script is told of an artefact is what its file holds, not its name.
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from slimwright.runner.job import OUTPUTS, RESULT, Job, Side, input_file, output_file, read_job, write_job
from slimwright.runner.machine import Described
from slimwright.runner.pack import packed, packed_files, unpack
from slimwright.targets import Local

Scores = NDArray[np.float32]  # [N, classes]
Labels = NDArray[np.int64]  # [N]
EMPTY_RSS_BYTES, OWN_RSS_BYTES = 20_000_000, 4_000_000
MS_PER_MAC = 1e-5
WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A layer that multiplies by weights."""

    kind: str  # "Conv", "Gemm" or "MatMul"
    inputs: int  # channels
    outputs: int
    taps: int  # of a kernel
    pixels: int  # output positions
    weights: int
    quantized: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.weights * self.pixels


@dataclass(frozen=True)
class Model:
    """An ONNX file, as a target is sent it."""

    digest: str
    size_bytes: int
    quantized: bool
    layers: tuple[Layer, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(layer.macs for layer in self.layers)


@dataclass(frozen=True)
class Turn:
    """A model's part in a job: which job of the target's it is, and how many images are to be scored."""

    model: Model
    job: int
    images: int


def by_macs(layer: Layer) -> float:
    """Milliseconds of a layer that takes as long as it has work."""
    return layer.macs * MS_PER_MAC


def in_blocks(size: int, *, least: int = 0) -> Callable[[Layer], float]:
    """Milliseconds of a layer whose channels are computed `size` at a time, where it has `least` of them."""

    def ms(layer: Layer) -> float:
        if max(layer.inputs, layer.outputs) < least:
            return by_macs(layer)
        inputs, outputs = (-(-channels // size) * size for channels in (layer.inputs, layer.outputs))
        return by_macs(layer) * inputs * outputs / (layer.inputs * layer.outputs)

    return ms


def unchanged(turn: Turn, scores: Scores) -> Scores:
    """What the artefact gave."""
    return scores


def with_wrong(scores: Scores, labels: Labels, count: int) -> Scores:
    """Scores by which `count` images more are named wrongly: those rightly named that were the least sure."""
    changed, order = scores.copy(), np.argsort(scores, axis=1)
    first, second = order[:, -1], order[:, -2]
    rows = np.arange(len(scores))
    lead = np.where(first == labels, scores[rows, first] - scores[rows, second], np.inf)
    for row in np.argsort(lead)[:count]:
        changed[row, [first[row], second[row]]] = scores[row, [second[row], first[row]]]
    return changed


class Runs:
    """Outputs of artefacts, which are run on this machine; none twice over the same images."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, bytes]] = {}

    def outputs(self, job: Job, folder: Path) -> dict[str, bytes]:
        """Those of every side of a job, as the files that hold them."""
        plain = replace(job, runs=0, warm_up=0, least_s=0.0, profile_runs=0, evict_bytes=0, energy_s=0.0)
        write_job(plain, folder)
        held = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        key = json.dumps(held, sort_keys=True)
        if key not in self._known:
            self._known[key] = _files(Local().answer(packed(folder), 300))
        files = self._known[key]
        result = json.loads(files[RESULT])
        assert "error" not in result, result
        return {name: content for name, content in files.items() if name.startswith(OUTPUTS)}


@dataclass
class Scripted:
    """A board with ONNX Runtime. A model takes what `whole_ms` makes of the sum of what its layers take.

    `told` and `layers` hold what the board was sent so far.
    """

    runs: Runs = field(default_factory=Runs)
    layer_ms: Callable[[Layer], float] = by_macs
    whole_ms: Callable[[Turn, float], float] = lambda turn, layers_ms: layers_ms
    scores: Callable[[Turn, Scores], Scores] = unchanged
    rss_bytes: Callable[[Turn], int] = lambda turn: EMPTY_RSS_BYTES + OWN_RSS_BYTES + turn.model.size_bytes
    energy_mj: Callable[[Turn], float | None] = lambda turn: None  # where a job asks for it
    more: Callable[[Turn], Mapping[str, Any]] = lambda turn: {}  # of an answer, beside what follows from the rest
    name: str = "a scripted board"
    jobs: int = 0
    layer_jobs: int = 0
    layers: list[Layer] = field(default_factory=list)  # that were timed alone
    told: list[Turn] = field(default_factory=list)  # of whole models

    def about(self) -> Described:
        """Describe the board."""
        return Local().about() | {"cpu": "scripted", "cores": 1, "cache_bytes": 1 << 23}

    def answer(self, data: bytes, seconds: float) -> bytes:
        """Do a packed job."""
        self.jobs += 1
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            unpack(data, folder)
            job = read_job(folder)
            scored = (folder / input_file(0)).exists()
            images = len(np.load(folder / input_file(0), mmap_mode="r")) if scored else 0
            turns = [Turn(_model(folder, side), self.jobs, images) for side in job.sides]
            if not scored and not job.runs:
                self.layer_jobs += 1
                self.layers += [layer for turn in turns for layer in turn.model.layers]
            else:
                self.told += turns
            result = {"sides": [self._side(job, side, turn) for side, turn in zip(job.sides, turns, strict=True)]}
            files = {RESULT: json.dumps(result).encode()}
            if scored:
                files |= self.runs.outputs(job, folder)
                for number, turn in enumerate(turns):
                    name = output_file(number, 0)
                    files[name] = _saved(self.scores(turn, _loaded(files[name])))
        return packed_files(files)

    def _side(self, job: Job, side: Side, turn: Turn) -> dict[str, Any]:
        """What is measured of one side."""
        layers_ms = {k: self.layer_ms(layer) for k, layer in enumerate(turn.model.layers)}
        found: dict[str, Any] = {
            "name": side.name,
            "load_ms": 3.0,
            "first_run_ms": 2.0,
            "planned_bytes": None,
            "empty_rss_bytes": EMPTY_RSS_BYTES,
            "peak_rss_bytes": self.rss_bytes(turn),
            "temperature_c": None,
        }
        if job.runs:
            ms = self.whole_ms(turn, sum(layers_ms.values()))
            found["latency"] = {"median_ms": ms, "p10_ms": 0.9 * ms, "p90_ms": 1.1 * ms, "runs": job.runs, "cpu_ms": ms}
        if job.profile_runs:
            kinds = [layer.kind for layer in turn.model.layers]
            found["kernels"] = [{"name": f"{kinds[k]}_{k}", "kind": kinds[k], "ms": ms} for k, ms in layers_ms.items()]
        if job.energy_s:
            found["energy_mj"] = self.energy_mj(turn)
        return found | dict(self.more(turn))


def _model(folder: Path, side: Side) -> Model:
    """What the file of a side holds."""
    (file,) = side.files
    content = (folder / file).read_bytes()
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    graph = proto.graph
    sizes = {held.name: tuple(held.dims) for held in graph.initializer}
    scaled = {
        node.output[0]: sizes[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in sizes
    }
    sizes |= scaled
    shapes = {
        value.name: tuple(each.dim_value for each in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    layers = tuple(
        replace(_layer(node, sizes[node.input[1]], shapes[node.output[0]]), quantized=node.input[1] in scaled)
        for node in graph.node
        if node.op_type in WEIGHTED and node.input[1] in sizes
    )
    quantized = any(node.op_type == "QuantizeLinear" for node in graph.node)
    return Model(hashlib.sha256(content).hexdigest(), len(content), quantized, layers)


def _layer(node: onnx.NodeProto, weight: tuple[int, ...], output: tuple[int, ...]) -> Layer:
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type == "Conv":
        outputs, inputs, *kernel = weight
        inputs *= given.get("group", 1)
    else:
        outputs, inputs = weight if given.get("transB", 0) else weight[::-1]
        kernel = []
    return Layer(node.op_type, inputs, outputs, prod(kernel), prod(output[2:]), prod(weight))


def _files(data: bytes) -> dict[str, bytes]:
    """The files of an answer."""
    with tempfile.TemporaryDirectory() as name:
        unpack(data, Path(name))
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def _loaded(data: bytes) -> Scores:
    scores: Scores = np.load(io.BytesIO(data), allow_pickle=False)
    return scores


def _saved(scores: Scores) -> bytes:
    held = io.BytesIO()
    np.save(held, np.ascontiguousarray(scores, np.float32), allow_pickle=False)
    return held.getvalue()
