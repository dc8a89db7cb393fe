"""What the runtimes' benchmark programs print, in the forms of their sources."""

from dataclasses import replace
from pathlib import Path

import pytest

from slimwright.errors import RequestError
from slimwright.runtimes.artefact import Artefact, Precision
from slimwright.targets.binaries import Run, binary_for

HOME = "/data/local/tmp/x"
SHAPES = ((1, 3, 224, 192),)


def artefact(runtime: str, precision: Precision = "fp32") -> Artefact:
    return Artefact(runtime, precision, (Path("model"),), SHAPES)


def run(model: str, precision: str = "fp32") -> Run:
    return Run(f"{HOME}/program", f"{HOME}/model", f"{HOME}/model/{model}", SHAPES, precision, 2, 30)


LITERT = """
INFO: STARTING!
INFO: Initialized session in 3.337ms.
INFO: Running benchmark for at least 5 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=9 first=81913 curr=55502 min=55502 max=81913 avg=58984.7 std=8115
INFO: count=1061 first=56576 curr=56299 min=54669 max=60236 avg=56265.8 std=982
INFO: Inference timings in us: Init: 3337, First inference: 81913, Warmup (avg): 58984.7, Inference (avg): 56265.8
INFO: count=1 curr=77 min=77 max=77 avg=77 std=0
INFO: Inference timings in us: Init: 3337, First inference: 81913, Warmup (avg): 58984.7, Inference (avg): 77
INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.5
"""
NCNN = f"""loop_count = 30
num_threads = 2
powersave = 2
gpu_device = -1
cooling_down = 0
{HOME}/model/model.param  min =    4.11  max =    5.27  avg =    4.39
"""
MNN = """MNN benchmark
Forward type: **CPU** thread=2** precision=2
--------> Benchmarking... loop = 30, warmup = 10
[ - ] model.mnn                   max =   13.602 ms  min =   10.011 ms  avg =   11.250 ms
"""
MNN_BASIC = """Open Model /data/local/tmp/x/model/model.mnn
Session Info: memory use 12.500000 MB, flops is 300.000000 M, backendType is 0
conv1 \t[Convolution] run 30 average cost 1.5 ms, 10.0 %, FlopsRate: 12.0 %
Avg= 11.250000 ms, min= 10.011000 ms, max= 13.602000 ms
"""
ONNXRUNTIME = """Session creation time cost: 0.0102016 s
Average inference time cost: 1.85739 ms
Total inference run time: 0.18581 s
Peak working set size: 36696064 bytes
Avg CPU usage:96
Peak working set size:36696064
Runs:100
Min Latency: 0.00183404 s
Max Latency: 0.00190312 s
P50 Latency: 1.85674e-03 s
P90 Latency: 0.00187215 s
"""
ONNXRUNTIME_OLD = """Total time cost:0.18581
Total iterations:100
Average time cost:1.85739 ms

Min Latency is 0.00183404sec
Max Latency is 0.00190312sec
P50 Latency is 0.00185674sec
"""


def test_litert_tells_a_mean_its_spread_and_memory() -> None:
    program = binary_for(artefact("litert"), "android_aarch64_benchmark_model")
    found = program.read(LITERT, run("model.tflite"))
    assert found is not None
    assert (found.ms, found.least_ms, found.most_ms) == pytest.approx((56.2658, 54.669, 60.236), abs=1e-9)
    assert found.statistic == "mean"
    assert (found.memory_bytes, found.memory_is) == (98_041_856, "the process, sampled every 50 ms")
    timed, watched = program.commands(run("model.tflite"))
    assert timed[1:4] == [f"--graph={HOME}/model/model.tflite", "--num_threads=2", "--num_runs=30"]
    assert "--report_peak_memory_footprint=true" in watched and "--report_peak_memory_footprint=true" not in timed


def test_ncnn_tells_a_mean_of_the_model_asked_for() -> None:
    program = binary_for(artefact("ncnn", "fp16"), "benchncnn")
    found = program.read(NCNN, run("model.param"))
    assert found is not None
    assert (found.ms, found.statistic, found.least_ms, found.most_ms) == (4.39, "mean", 4.11, 5.27)
    assert found.memory_bytes is None
    (command,) = program.commands(run("model.param"))
    assert command[1:] == ["30", "2", "2", "-1", "0", f"param={HOME}/model/model.param", "shape=[192,224,3]"]
    old = "          squeezenet  min =    4.11  max =    5.27  avg =    4.39\n"  # knows no param=
    assert program.read(old, run("model.param")) is None


def test_benchncnn_cannot_measure_fp32() -> None:
    with pytest.raises(RequestError, match="measure the fp16 artefact"):
        binary_for(artefact("ncnn"), "benchncnn")


def test_mnn_has_two_programs() -> None:
    plain, basic = (binary_for(artefact("mnn"), name) for name in ("benchmark.out", "MNNV2Basic.out"))
    found, other = plain.read(MNN, run("model.mnn")), basic.read(MNN_BASIC, run("model.mnn"))
    assert found is not None and other is not None
    assert (found.ms, found.least_ms, found.most_ms, found.memory_bytes) == (11.25, 10.011, 13.602, None)
    assert (other.ms, other.least_ms, other.most_ms) == (11.25, 10.011, 13.602)
    assert (other.memory_bytes, other.memory_is) == (12_500_000, "the session's buffers")
    assert plain.commands(run("m", "fp16"))[0][1:] == [f"{HOME}/model", "30", "10", "0", "2", "2"]
    assert basic.commands(run("m"))[0][2:] == ["30", "0", "0", "2", "1x3x224x192", "1"]
    assert plain.read(MNN.replace("11.250", "0.000"), run("m")) is None  # nothing ran


@pytest.mark.parametrize(("text", "memory"), [(ONNXRUNTIME, 36_696_064), (ONNXRUNTIME_OLD, None)])
def test_onnxruntime_tells_a_median(text: str, memory: int | None) -> None:
    program = binary_for(artefact("onnxruntime"), "onnxruntime_perf_test")
    found = program.read(text, run("model.onnx"))
    assert found is not None
    assert (found.ms, found.least_ms, found.most_ms) == pytest.approx((1.85674, 1.83404, 1.90312), abs=1e-9)
    assert (found.statistic, found.memory_bytes) == ("median", memory)
    assert program is binary_for(artefact("ort"), "onnxruntime_perf_test")


def test_onnxruntime_is_told_the_sizes_that_a_model_leaves_free() -> None:
    """Otherwise it takes them for one."""
    program = binary_for(artefact("onnxruntime"), "onnxruntime_perf_test")
    (fixed,), (free,) = (
        program.commands(replace(run("m"), free_sizes=sizes)) for sizes in ((), (("height", 224), ("width", 192)))
    )
    assert free[-5:] == ["-f", "height:224", "-f", "width:192", f"{HOME}/model/m"]
    assert list(fixed) == [*free[:-5], free[-1]]


def test_onnxruntime_without_statistics_tells_a_mean() -> None:
    found = binary_for(artefact("onnxruntime"), "x").read("Average inference time cost: 1.5 ms", run("model.onnx"))
    assert found is not None and (found.ms, found.statistic) == (1.5, "mean")


@pytest.mark.parametrize("runtime", ["litert", "mnn", "onnxruntime"])
def test_what_holds_no_time_is_read_as_none(runtime: str) -> None:
    for name in ("program", "MNNV2Basic.out"):
        assert binary_for(artefact(runtime), name).read("Segmentation fault\n", run("model")) is None


def test_a_runtime_without_a_program_is_refused() -> None:
    with pytest.raises(RequestError, match="no benchmark program of openvino is known"):
        binary_for(artefact("openvino"), "benchmark_app")


def test_ncnn_is_told_the_sizes_of_every_input_and_mnns_program_for_one_is_refused_for_several() -> None:
    two = replace(artefact("ncnn", "fp16"), shapes=(*SHAPES, (1, 5)))
    (command,) = binary_for(two, "benchncnn").commands(replace(run("model.param"), shapes=two.shapes))
    assert command[-1] == "shape=[192,224,3],[5]"
    with pytest.raises(RequestError, match=r"the size of one input, .* several: use benchmark\.out"):
        binary_for(replace(two, runtime="mnn"), "MNNV2Basic.out")
    assert binary_for(replace(two, runtime="mnn"), "benchmark.out").title == "benchmark.out"
