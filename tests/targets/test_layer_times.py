"""Layers timed on this machine, in every runtime that has a profiler."""

import pytest

from slimwright.cost.latency import LayerShape
from slimwright.errors import RequestError
from slimwright.runner.machine import runtime_version
from slimwright.runtimes.known import RUNTIMES, installed
from slimwright.runtimes.layers import TIMED
from slimwright.targets import Local
from slimwright.targets.layers import identity, layer_timer

SHAPES = [
    LayerShape("linear", 512, 256),
    LayerShape("conv2d", 16, 32, (3, 3), padding=(1, 1), input_size=(24, 24)),
    LayerShape("conv2d", 32, 32, (3, 3), (2, 2), (1, 1), groups=32, input_size=(24, 24), activation="relu6"),
    LayerShape("conv2d", 15, 17, (1, 3), padding=(0, 1), dilation=(1, 2), input_size=(19, 21), activation="none"),
]


@pytest.mark.parametrize("runtime", TIMED)
def test_every_kind_of_layer_takes_time(runtime: str) -> None:
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} is not installed")
    timer = layer_timer(Local(), runtime)
    for times in (timer(SHAPES, 0), timer(SHAPES[:1], 1 << 20)):
        assert all(0 < ms < 100 for ms in times), times
    assert len(timer(SHAPES, 0)) == len(SHAPES)


@pytest.mark.parametrize("runtime", ["executorch", "litert"])
def test_what_tells_of_no_kernels_is_refused(runtime: str) -> None:
    with pytest.raises(RequestError, match=f"cannot be timed in {runtime}"):
        layer_timer(Local(), runtime)(SHAPES[:1], 0)


def test_nothing_to_time_takes_no_job() -> None:
    class Nowhere(Local):
        def answer(self, data: bytes, seconds: float) -> bytes:
            raise AssertionError("a job was sent")

    assert layer_timer(Nowhere(), "ncnn")([], 0) == []


def test_a_time_belongs_to_a_machine_a_runtime_its_version_and_its_threads() -> None:
    about = Local().about()
    found = identity(about, "ncnn", threads=2)
    assert found["version"] == runtime_version("ncnn")
    assert (found["cpu"], found["machine"]) == (about["cpu"], about["machine"]) and found["cpu"]
    assert (found["runtime"], found["threads"], found["precision"]) == ("ncnn", 2, "fp32")
    other = identity(about, "onnxruntime")
    assert {key for key in found if found[key] != other[key]} >= {"runtime", "version", "threads"}


def test_a_phones_format_is_timed_by_the_runtime_that_loads_it() -> None:
    about = Local().about()
    assert identity(about, "ort") == identity(about, "onnxruntime")
