"""The runtimes' own benchmark programs: how they are called, and how what they print is read.

Each prints and measures in its own way; what is read here is named as what it is. The forms are those of the
programs' sources, named with each.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from slimwright.errors import RequestError
from slimwright.runtimes.artefact import Artefact

NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"
MNN_PRECISION = {"fp32": 1, "fp16": 2, "int8": 1}  # BackendConfig::PrecisionMode: 1 high, 2 low


@dataclass(frozen=True)
class Run:
    """One call: where the program, the model's folder and the model lie on the device."""

    program: str
    folder: str  # nothing but the model is in it
    model: str
    shapes: tuple[tuple[int, ...], ...]  # of each input: [1, C, H, W], or [1, C]
    precision: str
    threads: int
    runs: int
    free_sizes: tuple[tuple[str, int], ...] = ()  # that the model leaves free, and what they are in the shapes


@dataclass(frozen=True)
class Reading:
    """What a program printed; None for what it does not tell."""

    ms: float
    statistic: Literal["mean", "median"]
    least_ms: float | None
    most_ms: float | None
    memory_bytes: int | None = None
    memory_is: str = ""  # what that memory is


@dataclass(frozen=True)
class Binary:
    """A benchmark program: the commands to run in turn, and how to read what they print; None where it is not there."""

    title: str
    commands: Callable[[Run], Sequence[Sequence[str]]]
    read: Callable[[str, Run], Reading | None]


def binary_for(artefact: Artefact, file_name: str) -> Binary:
    """Return how to use the program `file_name` for an artefact. Raises RequestError where that cannot measure it."""
    runtime = artefact.runtime
    if runtime not in BINARIES:
        raise RequestError(f"no benchmark program of {runtime} is known here; there are those of {', '.join(BINARIES)}")
    if runtime == "ncnn" and artefact.precision == "fp32":
        raise RequestError(
            "benchncnn computes in half precision wherever the phone can: measure the fp16 artefact with it"
        )
    if runtime == "mnn" and "V2Basic" in file_name:
        if len(artefact.shapes) > 1:
            raise RequestError(
                "MNNV2Basic.out is told the size of one input, and this model has several: use benchmark.out"
            )
        return MNN_BASIC
    return BINARIES[runtime]


def _litert_commands(run: Run) -> Sequence[Sequence[str]]:
    """Time, then memory: watching memory slows the runs down."""
    common = [run.program, f"--graph={run.model}", f"--num_threads={run.threads}"]
    return (
        [*common, f"--num_runs={run.runs}", "--warmup_runs=5"],
        [*common, "--num_runs=1", "--min_secs=0", "--warmup_runs=1", "--report_peak_memory_footprint=true"],
    )


def _litert_read(text: str, run: Run) -> Reading | None:
    """Times in microseconds. Source: tensorflow/lite/tools/benchmark/benchmark_model.cc, OnBenchmarkEnd and Run."""
    mean = re.search(rf"Inference \(avg\): {NUMBER}", text)
    if not mean:
        return None
    spread = re.findall(rf"count=\d+ .*?min={NUMBER} max={NUMBER} avg={NUMBER}", text)
    least, most = _spread_of(spread, float(mean[1]))
    peak = re.search(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {NUMBER}", text)
    memory = round(float(peak[1]) * (1 << 20)) if peak else None
    return Reading(
        float(mean[1]) / 1e3, "mean", least, most, memory, "the process, sampled every 50 ms" if peak else ""
    )


def _spread_of(spread: Sequence[tuple[str, str, str]], mean_us: float) -> tuple[float | None, float | None]:
    """Least and most, in milliseconds, of the runs that have this mean: the warm-up's are printed alike."""
    for least, most, mean in spread:
        if float(mean) == mean_us:
            return float(least) / 1e3, float(most) / 1e3
    return None, None


def _ncnn_commands(run: Run) -> Sequence[Sequence[str]]:
    """Loops, threads, big cores only, no GPU, no cooling down; a shape is width, height, channels, one an input."""
    shapes = ",".join(f"[{','.join(str(size) for size in reversed(shape[1:]))}]" for shape in run.shapes)
    return ([run.program, str(run.runs), str(run.threads), "2", "-1", "0", f"param={run.model}", f"shape={shapes}"],)


def _ncnn_read(text: str, run: Run) -> Reading | None:
    """Times in milliseconds, to two digits; weights are zeros. Source: ncnn benchmark/benchncnn.cpp, and its README."""
    name = re.escape(run.model)
    found = re.search(rf"{name}\s+min =\s*{NUMBER}\s+max =\s*{NUMBER}\s+avg =\s*{NUMBER}", text)
    return Reading(float(found[3]), "mean", float(found[1]), float(found[2])) if found else None


def _mnn_commands(run: Run) -> Sequence[Sequence[str]]:
    """Folder of models, loops, warm-up, forward type (0: CPU), threads, precision."""
    return ([run.program, run.folder, str(run.runs), "10", "0", str(run.threads), str(MNN_PRECISION[run.precision])],)


def _mnn_read(text: str, run: Run) -> Reading | None:
    """Times in milliseconds. Source: MNN benchmark/benchmark.cpp, displayStats."""
    found = re.search(rf"\[ - \] \S+\s+max =\s*{NUMBER} ms\s+min =\s*{NUMBER} ms\s+avg =\s*{NUMBER} ms", text)
    if not found or float(found[3]) == 0:  # nothing ran
        return None
    return Reading(float(found[3]), "mean", float(found[2]), float(found[1]))


def _mnn_basic_commands(run: Run) -> Sequence[Sequence[str]]:
    """Model, loops, save no tensors, forward type (0: CPU), threads, input size, precision."""
    (sizes,) = run.shapes
    shape = "x".join(str(size) for size in sizes)
    return (
        [run.program, run.model, str(run.runs), "0", "0", str(run.threads), shape, str(MNN_PRECISION[run.precision])],
    )


def _mnn_basic_read(text: str, run: Run) -> Reading | None:
    """Times in milliseconds, each operator timed on the way. Source: MNN tools/cpp/MNNV2Basic.cpp, test_main."""
    found = re.search(rf"Avg= {NUMBER} ms, min= {NUMBER} ms, max= {NUMBER} ms", text)
    if not found:
        return None
    memory = re.search(rf"Session Info: memory use {NUMBER} MB", text)
    held = round(float(memory[1]) * 1e6) if memory else None
    return Reading(
        float(found[1]), "mean", float(found[2]), float(found[3]), held, "the session's buffers" if memory else ""
    )


def _onnxruntime_commands(run: Run) -> Sequence[Sequence[str]]:
    """Times mode, threads, statistics, inputs made up; a size that is free would be one."""
    program = [run.program, "-e", "cpu", "-m", "times", "-r", str(run.runs), "-x", str(run.threads), "-s", "-I"]
    sizes = [word for name, size in run.free_sizes for word in ("-f", f"{name}:{size}")]
    return ([*program, *sizes, run.model],)


def _onnxruntime_read(text: str, run: Run) -> Reading | None:
    """Latencies in seconds, the average in milliseconds.

    Source: onnxruntime/test/perftest/performance_runner.h, DumpToFile and Run; older versions write "is ...sec".
    """
    told = {
        name: float(value) * 1e3
        for name, value in re.findall(rf"(P50|Min|Max) Latency(?: is|:) {NUMBER} ?s", text)
    }  # fmt: skip
    peak = re.search(r"Peak working set size: ?(\d+)", text)
    memory, memory_is = (int(peak[1]), "the process, at its peak") if peak else (None, "")
    mean = re.search(rf"Average (?:inference )?time cost: ?{NUMBER} ms", text)
    if "P50" in told:
        return Reading(told["P50"], "median", told.get("Min"), told.get("Max"), memory, memory_is)
    if mean:
        return Reading(float(mean[1]), "mean", told.get("Min"), told.get("Max"), memory, memory_is)
    return None


MNN_BASIC = Binary("MNNV2Basic.out", _mnn_basic_commands, _mnn_basic_read)
_ONNXRUNTIME = Binary("onnxruntime_perf_test", _onnxruntime_commands, _onnxruntime_read)
BINARIES = {
    "litert": Binary("benchmark_model", _litert_commands, _litert_read),
    "ncnn": Binary("benchncnn", _ncnn_commands, _ncnn_read),
    "mnn": Binary("benchmark.out", _mnn_commands, _mnn_read),
    "onnxruntime": _ONNXRUNTIME,
    "ort": _ONNXRUNTIME,
}
