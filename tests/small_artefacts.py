"""A small ONNX model as an artefact, and what a device may have left behind."""

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimwright.runner.job import Job, input_file, write_job
from slimwright.runner.pack import packed
from slimwright.runtimes.artefact import Artefact, name_in_job

SHAPE = (1, 3, 8, 8)


def small_artefact(folder: Path, *, doublings: int = 0) -> Artefact:
    """Convolution, ReLU, mean, linear layer: 5 classes. Values may be made so many times twice as wide and high."""
    rng = np.random.default_rng(0)
    kernel, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in ((4, 3, 3, 3), (5, 4)))
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["z0"]),
        *(helper.make_node("Resize", [f"z{k}", "", "twice"], [f"z{k + 1}"]) for k in range(doublings)),
        helper.make_node("GlobalAveragePool", [f"z{doublings}"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5])],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    return Artefact("onnxruntime", "fp32", (folder / "model.onnx",), (SHAPE,), ((1, 5),))


def packed_job(artefact: Artefact, least_s: float, *, images: bytes | None = None) -> bytes:
    """A job as it is sent to a device."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in artefact.files:
            shutil.copyfile(path, folder / name_in_job(0, path))
        if images is not None:
            (folder / input_file(0)).write_bytes(images)
        write_job(Job((artefact.side("small", 0, 1),), runs=1, warm_up=0, least_s=least_s), folder)
        return packed(folder)


def emptied(folder: Path, seconds: float = 8.0) -> bool:
    """Whether a folder holds no file, now or soon; the folder in which a command works may still be there."""
    until = time.monotonic() + seconds
    while any(path.is_file() for path in folder.rglob("*")) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(path.is_file() for path in folder.rglob("*"))


def job_processes(folder: Path) -> list[int]:
    """The processes that do a job in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--pipe" not in words and any(word.startswith(str(folder).encode()) for word in words[2:]):
            found.append(int(process.name))
    return found


def wait_for_job(folder: Path, seconds: float = 10.0) -> int:
    """The process that does a job in `folder`, once there is one that has come as far as to run it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := job_processes(folder):
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no job was started")
