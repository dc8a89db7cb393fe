"""What tests share: few threads, seeded generators, unhurried hypothesis, and the data and nets that many read."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as in cli.py
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from example_nets import SHAPE, hand_made
from made_once import made_once
from slimwright.data import ArrayData, digits
from slimwright.graph import Net
from shared_workshop import shared_workshop
from small_disk import small_disk
from slimwright.importers import capture
from slimwright.runtimes import Workshop
from slimwright.tasks import Classification
from slimwright.train import Schedule, fit
from slimwright.zoo import build

settings.register_profile(
    "slimwright", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("slimwright")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digit_data() -> ArrayData:
    return digits(seed=0)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a test run, for all of its processes."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def trained(digit_data: ArrayData, run_folder: Path) -> nn.Module:
    """A small ResNet that knows the digits well enough to lose something."""

    def made() -> dict[str, Tensor]:
        torch.manual_seed(0)
        torch.set_num_threads(2)
        task = Classification(digit_data.labels)
        model = fit(build("resnet8", classes=10, in_channels=1), digit_data, Schedule(epochs=6), task=task)
        torch.set_num_threads(1)
        return model.state_dict()

    weights = made_once(run_folder / "trained.safetensors", made)
    model = build("resnet8", classes=10, in_channels=1)
    model.load_state_dict(weights)
    return model.eval()


@pytest.fixture(scope="session")
def cache(run_folder: Path) -> Path:
    """What jobs keep for each other, in all processes of a test run: layer latencies above all."""
    found = run_folder / "cache"
    found.mkdir(exist_ok=True)
    return found


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    with shared_workshop() as opened:
        yield opened


@pytest.fixture(scope="session")
def residual() -> Net:
    return capture(hand_made("Residual"), SHAPE)


@pytest.fixture(scope="session")
def separable() -> Net:
    return capture(hand_made("Separable"), SHAPE)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that is full after a few kilobytes."""
    with small_disk(tmp_path / "disk", 8) as disk:
        yield disk
