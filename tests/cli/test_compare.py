"""`slimwright compare`, in this process: what is the same, what differs, and what cannot be compared."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from slimwright.cli import app
from slimwright.cli.tables import side_by_side
from slimwright.cost import count
from slimwright.data import labelled
from slimwright.errors import DataError
from slimwright.graph import Net, save_net
from slimwright.importers import capture
from slimwright.jobs import Comparison, Subject, compare
from slimwright.jobs.compare import Likeness, likeness
from slimwright.measure import Measured, inspection_of, original_of
from slimwright.runner.timing import Latency
from slimwright.tasks import Classification
from slimwright.units import GAP, counted
from small_digits import few_digits

HALF = 0.5  # of the scores of the second network: the same classes at another size


def plain() -> Net:
    """A net for ten classes that was never trained."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    return capture(layers.eval(), (1, 32, 32))


class Halved(nn.Module):
    """A net whose scores are half as large, and those of one class lowered by `less`."""

    def __init__(self, net: Net, less: float) -> None:
        super().__init__()
        self.net, self.less = net.to_module(), nn.Parameter(torch.tensor([0.0] * 3 + [less] + [0.0] * 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = HALF * self.net(x) - self.less
        return scores


def halved(less: float = 0.0) -> Net:
    return capture(Halved(plain(), less).eval(), (1, 32, 32))


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["compare", *arguments, "-q"], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_net(plain(), tmp_path / "one")
    save_net(halved(), tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def subject(net: Net, name: str) -> Subject:
    return Subject(name, original_of(net, []))


def test_outputs_are_compared_on_the_test_part() -> None:
    data = few_digits()
    one, other = plain(), halved(less=-40.0)
    found = likeness(subject(one, "one"), subject(other, "other"), data, Classification(data.labels))
    images, _ = labelled(data.parts["test"])
    (mine,), (its,) = one.run((images,)), other.run((images,))
    far = float((mine - its).abs().max())
    assert found.images == 90 and found.data == "few digits"
    assert found.agreement == pytest.approx(float((mine.argmax(1) == its.argmax(1)).double().mean()))
    assert found.agreement is not None and found.agreement < 1  # all are threes to the other
    assert found.max_abs_error == pytest.approx(far, rel=1e-5)
    assert found.max_relative_error == pytest.approx(far / float(mine.abs().max()), rel=1e-5)


def test_the_command_shows_both_with_what_was_measured_in_turn(home: Path) -> None:
    """Without data, random images are shown to both, and agreement is not told."""
    found: dict[str, Any] = json.loads(said("one", "other", "--json"))
    assert [model["model"] for model in found["models"]] == ["one", "other"]
    assert all(model["measured"]["latency"]["median_ms"] > 0 for model in found["models"])
    assert found["outputs"]["agreement"] is None and found["outputs"]["images"] == 16
    assert found["outputs"]["max_relative_error"] == pytest.approx(HALF, rel=1e-4)
    assert "layers" not in found["models"][0]


def test_the_table_tells_shares_and_differences() -> None:
    net = plain()
    latencies = Latency(1.0, 0.9, 1.1, 30, 1.0), Latency(0.5, 0.4, 0.6, 30, 0.5)
    one, other = (inspection_of(net, name, Measured(9, each)) for name, each in zip("ab", latencies, strict=True))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(side_by_side(Comparison((one, other), Likeness(90, "digits", 0.9876, 0.25, 0.0123))))
    text = " ".join(console.export_text().replace("│", " ").split())
    assert "latency 1.00 ms 0.500 ms 0.50x" in text
    assert f"params {counted(count(net).params)} {counted(count(net).params)} 1.00x".replace(GAP, " ") in text
    assert "outputs on the test part of digits, 90 images: the largest difference is 0.25, 0.012 of the" in text
    assert "both mean the same on 98.8%" in text


def test_outputs_of_other_shapes_are_not_compared() -> None:
    two = capture(nn.Sequential(nn.Flatten(), nn.Linear(1024, 2)).eval(), (1, 32, 32))
    found = likeness(subject(plain(), "ten"), subject(two, "two"), None, None)
    assert found.max_relative_error is None and "[[10]] and [[2]]" in found.why


def test_networks_for_other_images_cannot_be_compared() -> None:
    smaller = capture(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), (1, 8, 8))
    with pytest.raises(DataError, match=r"one takes images of \[1, 32, 32\], small of \[1, 8, 8\]"):
        compare(subject(plain(), "one"), subject(smaller, "small"))
