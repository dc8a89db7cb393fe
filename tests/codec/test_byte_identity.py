import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from slimwright.codec.context_net import FEATURES, HIDDEN
from slimwright.codec.context_onnx import context_model
from slimwright.codec.contexts import PHASES
from slimwright.codec.encoding import Aim, Options, encoded
from slimwright.codec.parameters import parameters
from slimwright.codec.picturing import source_of
from slimwright.codec.tiles import Numbers, empty, places, read, written
from slimwright.progress import silent
from small_pictures import drawn

SHARED = parameters()
ARM64 = Path(__file__).resolve().parents[2] / "out" / "arm64"
EMULATOR = shutil.which("qemu-aarch64-static")
SCRIPT = """
import sys, numpy, onnxruntime
given = dict(numpy.load(sys.argv[2]))
found = onnxruntime.InferenceSession(sys.argv[1]).run(None, given)[0]
numpy.save(sys.argv[3], found)
"""


class OnnxContexts:
    def __init__(self) -> None:
        self.sessions = {
            (role, phase): onnxruntime.InferenceSession(context_model(SHARED.net, role, phase))
            for role in HIDDEN
            for phase in range(len(PHASES))
        }

    def indices(self, features: Tensor, role: str, phase: int, band: int) -> tuple[Tensor, Tensor]:
        given = {"features": features.double().numpy(), "band": np.array(band)}
        found = torch.from_numpy(self.sessions[role, phase].run(None, given)[0]).long()
        return found[:, 0], found[:, 1]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def bytes_of(aim: Aim) -> bytes:
    return encoded(source_of(drawn(150, 200)), SHARED, aim, Options(128), silent).data


def test_two_threads_write_what_one_writes(two_threads: None) -> None:
    two = bytes_of(Aim(quality=32))
    torch.set_num_threads(1)
    assert bytes_of(Aim(quality=32)) == two


def test_onnxruntime_writes_and_reads_the_same_bytes() -> None:
    made = encoded(source_of(drawn(100, 140)), SHARED, Aim(quality=32), Options(128), silent)
    (tile, *_), net = places(*made.head.low_size, made.head.tile), OnnxContexts()
    data = written(made.numbers.of(tile), net, made.head.step)
    assert data == written(made.numbers.of(tile), SHARED.net, made.head.step)
    found = Numbers(empty(*made.head.low_size), empty(*made.head.low_size))
    read(data, found.of(tile), net, made.head.step)
    expected = made.numbers.of(tile).bands
    for one, other in zip(found.of(tile).bands.high, expected.high, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(found.of(tile).bands.low, expected.low)


@pytest.mark.arm64
@pytest.mark.skipif(not (EMULATOR and (ARM64 / "installed").exists()), reason="make setup-arm64 first")
@pytest.mark.parametrize("role", HIDDEN)
def test_an_emulated_arm64_processor_finds_the_same_indices(role: str, tmp_path: Path) -> None:
    features = torch.randint(0, 200, (2000, FEATURES[role]), generator=torch.Generator().manual_seed(7)).double()
    (tmp_path / "model.onnx").write_bytes(context_model(SHARED.net, role, 3))
    np.savez(tmp_path / "given.npz", features=features.numpy(), band=np.array(4))
    python, files = ARM64 / "usr/bin/python3.11", ("model.onnx", "given.npz", "found.npy")
    command = [str(EMULATOR), "-cpu", "cortex-a76", "-L", str(ARM64), str(python), "-c", SCRIPT]
    found = {"PYTHONHOME": str(ARM64 / "usr"), "PYTHONPATH": str(ARM64 / "opt/site")}
    arguments = [str(tmp_path / name) for name in files]
    subprocess.run([*command, *arguments], env={**os.environ, **found}, check=True, timeout=120)
    expected = torch.stack(SHARED.net.indices(features, role, 3, 4), 1)
    assert np.array_equal(np.load(tmp_path / "found.npy"), expected.numpy())
