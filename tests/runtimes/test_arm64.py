"""The same artefacts on arm64, emulated: the runner, an arm64 Python and the runtimes' arm64 wheels.

Made by `make setup-arm64`. Emulation is for what is computed, never for how long it takes.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from example_nets import SHAPE
from proofs import net_scores, skip_if_saturating
from slimwright.graph import Net
from slimwright.measure.prove import TOLERANCE
from slimwright.runner.machine import Described
from slimwright.runner.pack import packed, runner, unpack
from slimwright.runtimes import Artefact, Precision, Workshop
from slimwright.targets import Effort, Local, measure
from slimwright.techniques.fold import fold_batch_norm

ROOT = Path(__file__).resolve().parents[2] / "out" / "arm64"
EMULATOR = shutil.which("qemu-aarch64-static")
ARTEFACTS: tuple[tuple[str, Precision], ...] = (
    ("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("ncnn", "fp32"), ("ncnn", "fp16"), ("ncnn", "int8"),
    ("mnn", "fp32"), ("mnn", "int8"),
)  # fmt: skip
NEAR = {"fp32": 1e-5, "fp16": 0.02, "int8": 0.1}  # of the largest score, between the two processors

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.skipif(not (EMULATOR and (ROOT / "installed").exists()), reason="make setup-arm64 first"),
]


class Emulated:
    """An arm64 machine, emulated."""

    name = "emulated arm64"

    def __init__(self, folder: Path) -> None:
        self._runner = folder / "runner.pyz"
        self._runner.write_bytes(runner())

    def about(self) -> Described:
        raise NotImplementedError

    def answer(self, data: bytes, seconds: float) -> bytes:
        assert EMULATOR is not None
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            unpack(data, folder)
            command = [
                EMULATOR,
                "-cpu",
                "cortex-a76",
                "-L",
                *map(str, (ROOT, ROOT / "usr/bin/python3.11", self._runner, folder)),
            ]
            found = {"PYTHONHOME": str(ROOT / "usr"), "PYTHONPATH": str(ROOT / "opt/site")}
            subprocess.run(command, env={**os.environ, **found}, timeout=seconds, check=True, capture_output=True)
            return packed(folder)


@pytest.fixture(scope="module")
def net(residual: Net) -> Net:
    return fold_batch_norm(residual)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def artefacts(
    net: Net, images: torch.Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Artefact]]:
    folder = tmp_path_factory.mktemp("arm64")
    with Workshop() as workshop:
        yield {
            (runtime, precision): workshop.convert(
                net, runtime, precision, folder / f"{runtime}-{precision}", calibration=[images]
            )
            for runtime, precision in ARTEFACTS
        }


@pytest.mark.parametrize(("runtime", "precision"), ARTEFACTS, ids=["-".join(each) for each in ARTEFACTS])
def test_an_artefact_computes_on_arm64_what_it_computes_here(
    runtime: str,
    precision: Precision,
    net: Net,
    images: torch.Tensor,
    artefacts: dict[tuple[str, str], Artefact],
    tmp_path: Path,
) -> None:
    artefact = {"it": artefacts[runtime, precision]}
    here = measure(Local(), artefact, Effort(), inputs=[images])["it"].outputs
    there = measure(Emulated(tmp_path), artefact, Effort(), inputs=[images])["it"].outputs
    expected = net_scores(net, images)
    assert here is not None and there is not None
    assert (there[0] - expected).abs().max() <= TOLERANCE[precision] * expected.abs().max()
    skip_if_saturating(runtime, precision)
    assert (there[0] - here[0]).abs().max() <= NEAR[precision] * expected.abs().max()
