"""Forecasts of memory beside what is taken, in a process of its own; and jobs that cannot end, which do not begin."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from scripted_jobs import done
from scripted_target import Scripted
from slimwright.cost import AIM, Budget
from slimwright.coupling import couple
from slimwright.data import ArrayData, Part
from slimwright.errors import RequestError
from slimwright.graph import Net, load_net
from slimwright.importers import capture
from slimwright.jobs import Settings, shrink
from slimwright.jobs.export import Request, export
from slimwright.jobs.forecast import check_examination, check_inspection, check_proof, proof_bytes
from slimwright.progress import Event
from slimwright.tasks import task_for
from slimwright.techniques import Recipe, applied
from slimwright.techniques.memory_plan import planning_bytes
from slimwright.techniques.tune import Tune
from small_digits import small_digit_net

PEAK = """
import ctypes
import json
import tempfile
from pathlib import Path

import torch

def peak(work):
    def told(key):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = told("VmRSS")
    kept = work()
    return told("VmHWM") - before, kept
"""
MEASURED = """
from slimwright.data import ArrayData
from slimwright.evidence import observe, observing_bytes
from slimwright.graph import image_bytes
from slimwright.importers import capture
from slimwright.tasks import Classification
from slimwright.train import Schedule, fit, fit_bytes
from slimwright.zoo import build

torch.manual_seed(0)
net = capture(build("resnet20", classes=10, in_channels=3).eval(), (3, 32, 32))
batch = torch.randn(32, 3, 32, 32), torch.arange(32) % 10
data = ArrayData("made up", tuple("0123456789"), dict.fromkeys(("train", "calibration", "validation", "test"), batch))
task = Classification(data.labels)
net.run(batch[0])
training, _ = peak(lambda: fit(net.to_module(), data, Schedule(epochs=1, batch_size=32), task=task,
                               teacher=net.to_module()))
alone, _ = peak(lambda: fit(net.to_module(), data, Schedule(epochs=1, batch_size=32), task=task))
def observed():
    seen = observe(net, [batch], task=task, taylor=False)
    with tempfile.TemporaryDirectory() as folder:
        seen.save(Path(folder) / "evidence")
    return seen

observing, seen = peak(observed)
sums = sum(tensor.nbytes for tensor in seen.tensors().values())
print(json.dumps({"fit": [fit_bytes(net, 32, teacher=net), training],
                  "fit without a teacher": [fit_bytes(net, 32), alone],
                  "observe": [observing_bytes(net, sums, 32 * image_bytes(net)), observing]}))
"""
PLANNED = """
import numpy as np

from slimwright.coupling import couple
from slimwright.evidence import observe
from slimwright.importers import capture
from slimwright.search import factorisable
from slimwright.search.choices import Choices
from slimwright.tasks import Classification
from slimwright.techniques.memory_plan import planning_bytes, solving_bytes
from slimwright.techniques.prune import removals
from slimwright.techniques.ranks import rank_damages
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.zoo import build

torch.manual_seed(0)
net = capture(build("resnet8-wide", classes=2, in_channels=3).eval(), (3, 32, 32))
images, labels = torch.randn(256, 3, 32, 32), torch.arange(256) % 2
coupling = couple(net)
draft = Draft.of(net).cut({group.name: np.arange(group.size // 2) for group in coupling.groups})
solving, _ = peak(lambda: refit(draft, images))
seen = observe(net, [(images[:64], labels[:64])], task=Classification(("0", "1")), taylor=False).all()
settings = Choices(net, coupling, 8, factorisable(net, seen, 8)).sizes
planning, _ = peak(lambda: (removals(net, seen, coupling), rank_damages(net, seen, settings)))
sums = sum(tensor.nbytes for tensor in seen.tensors().values())  # that were there before
print(json.dumps({"plan": [planning_bytes(net, coupling, seen.layers) - sums, planning],
                  "solve": [solving_bytes(draft, 256), solving]}))
"""
PARTS: tuple[Part, ...] = ("train", "calibration", "validation", "test")


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval(), (1, 8, 8))


@pytest.fixture
def data() -> ArrayData:
    images, labels = torch.randn(40, 1, 8, 8), torch.arange(40) % 2
    return ArrayData("made up", ("dark", "light"), dict.fromkeys(PARTS, (images, labels)))


def measured(script: str) -> dict[str, tuple[float, float]]:
    """Return the bytes that a script forecast of each stage, and those that it took."""
    told = subprocess.run([sys.executable, "-c", PEAK + script], capture_output=True, text=True, check=True).stdout
    return {stage: (forecast, taken) for stage, (forecast, taken) in json.loads(told).items()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a peak that can be set back")
def test_forecasts_lie_beside_what_is_taken() -> None:
    """On seven pairs of network and stage a forecast was 0.87 to 1.3 times what was taken; here more is let pass."""
    for stage, (forecast, taken) in measured(MEASURED).items():
        assert 0.75 <= forecast / taken <= 1.5, f"{stage}: forecast {forecast / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a peak that can be set back")
def test_forecasts_of_planning_and_solving_lie_above_what_is_taken() -> None:
    for stage, (forecast, taken) in measured(PLANNED).items():
        assert 0.9 <= forecast / taken <= 2.5, f"{stage}: forecast {forecast / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB"


def test_a_proof_by_hand(net: Net, data: ArrayData) -> None:
    """Images of 64 numbers, outputs of 2; 40 images in each of three parts."""
    needed = 40 * 4 * (5 * 64 + (4 + 2) * 2)
    assert proof_bytes(net, 40, sides=2) == needed
    check_proof(net, data, sides=2, there=needed + 80 * 4 * 64)
    with pytest.raises(RequestError, match=r"^proving the result on 40 test images, .* give fewer images"):
        check_proof(net, data, sides=2, there=needed + 80 * 4 * 64 - 1)


def test_an_inspection_by_hand(net: Net, data: ArrayData) -> None:
    """Images of 64 numbers and values of 4x6x6 beside them; 330 weights; two networks, each with 40 test images."""
    run = 4 * (4 * 9 + 4 + 144 * 2 + 2 + 64 + 144)
    check_inspection([net, net], None, timed=True, memory_bytes=run)
    check_inspection([net, net], data, timed=False, memory_bytes=40 * 4 * (2 * 64 + 2))
    check_inspection([net, net], data, timed=True, memory_bytes=40 * 4 * 64 + proof_bytes(net, 40, sides=1))
    check_examination(net, data, memory_bytes=run + 40 * 4 * 64)
    short: list[tuple[str, Callable[[], None]]] = [
        ("running the network", lambda: check_inspection([net, net], None, timed=True, memory_bytes=run - 1)),
        ("scoring .* 40 test images", lambda: check_inspection([net], data, timed=False, memory_bytes=40 * 4 * 65)),
        ("running the network", lambda: check_examination(net, data, memory_bytes=run + 40 * 4 * 64 - 1)),
    ]
    for said, look in short:
        with pytest.raises(RequestError, match=f"^{said} needs about"):
            look()


def test_a_job_that_cannot_end_does_not_begin(net: Net, data: ArrayData, tmp_path: Path) -> None:
    told: list[Event] = []
    settings = Settings(memory_bytes=100_000, cache=tmp_path / "cache")
    with pytest.raises(RequestError, match=r"^observing the network needs about .* and 100.kB are there"):
        shrink(net, data=data, budget=Budget(macs="0.5x"), out=tmp_path / "out", settings=settings, tell=told.append)
    settings = Settings(memory_bytes=50_000_000, cache=tmp_path / "cache")
    with pytest.raises(RequestError, match=r"^planning needs about .* and 50.0.MB are there: give a smaller network"):
        shrink(net, data=data, budget=Budget(macs="0.5x"), out=tmp_path / "out", settings=settings, tell=told.append)
    request = Request((("onnxruntime", "fp32"),), memory_bytes=10_000)
    with pytest.raises(RequestError, match=r"^proving the result on 40 test images, .* and 10.0.kB are there"):
        export(net, request, data=data, out=tmp_path / "out", tell=told.append)
    assert not told and not any(tmp_path.iterdir())


def test_a_job_with_little_memory_leaves_the_widest_layers_as_they_are_and_says_so(tmp_path: Path) -> None:
    """The linear layer reads 256 values. What it reads cannot be priced; the channels between the convolutions can."""
    net = small_digit_net()
    *narrow, linear = net.layers
    there = int(planning_bytes(net, couple(net), narrow) / AIM) + 1
    told = done(Scripted(), Budget(macs="0.6x", max_drop=100), tmp_path / "out", memory_bytes=there)
    assert any("memory is short" in event.note and "the widest layers are not" in event.note for event in told.told)
    result = load_net(tmp_path / "out" / "net")
    was, now = (each.tensors[each[linear].tensors["weight"]].shape for each in (net, result))
    assert now == was and told.bundle.summary.within_budget


def test_tuning_takes_smaller_batches_where_memory_is_short_and_says_so(net: Net, data: ArrayData) -> None:
    recipe = Recipe(original=None, steps=(Tune(epochs=1, rate=0.01),))
    task, told = task_for(data, [net[name].shape for name in net.outputs], net.run), list[Event]()
    applied(recipe, net, data, task=task, memory_bytes=10**9, tell=told.append)
    assert all(event.stage != "memory" for event in told)
    applied(recipe, net, data, task=task, memory_bytes=80_000, tell=told.append)
    assert next(event for event in told if event.stage == "memory").note.startswith("memory is short: ")
    with pytest.raises(RequestError, match=r"step 1 of the recipe \(tune\): fine-tuning needs about"):
        applied(recipe, net, data, task=task, memory_bytes=10_000)
