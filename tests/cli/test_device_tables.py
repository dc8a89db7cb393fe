"""`slimwright devices` as a user runs it: a real subprocess, its output and its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from slimwright.cli import app
from slimwright.cli.device_tables import devices_table, predictions, predictions_table
from slimwright.cost.device import device_names, load_device, load_devices
from slimwright.cost.roofline import estimate
from slimwright.errors import ModelError, ProfileError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.fold import fold_batch_norm
from slimwright.zoo import build

PROFILE = """
name = "mine"
title = "Mine"
kind = "board"
processor = "one core"
scope = "its core"
memory_bytes_per_s = { value = 1e9, source = "measured: by hand" }
ram_bytes = { value = 100_000, source = "measured: by hand" }

[[cores]]
name = "core"
count = { value = 1, source = "measured: by hand" }
macs_per_s = { fp32 = { value = 1e9, source = "measured: by hand" } }
"""


def devices(home: Path, *arguments: str, columns: int = 140) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    environment = os.environ | {"COLUMNS": str(columns), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "slimwright", "devices", *arguments]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False)


def printed(what: Any, width: int) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


@pytest.fixture(scope="module")
def net() -> Net:
    return capture(build("resnet8", classes=10, in_channels=1), (1, 32, 32))


def test_the_list_has_a_line_for_each_device_with_its_rates(tmp_path: Path) -> None:
    done = devices(tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert set(device_names()) <= set(lines)
    assert "24.0" in lines["pi4"] and "12.8" in lines["pi4"] and "88 x 58 x 19.4" in lines["pi4"]
    assert "—" in lines["coral-dev-board"]  # it has no fp32


def test_as_json_every_number_has_its_source() -> None:
    done = CliRunner().invoke(app, ["devices", "--json", "--device", "pi4"])
    (pi4,) = json.loads(done.stdout)
    assert pi4["name"] == "pi4"
    assert pi4["memory_bytes_per_s"]["value"] == 12.8e9
    assert pi4["memory_bytes_per_s"]["source"].startswith("computed: ")
    assert "storage_bytes" not in pi4  # not known


def test_a_model_is_predicted_on_every_device(tmp_path: Path) -> None:
    done = devices(tmp_path, "resnet8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("predicted") >= 8
    assert "predicted, not measured" in done.stdout
    assert "no runtime reaches the peak" in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert set(device_names()) <= set(lines)


def test_a_profile_of_the_user_and_one_thread(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(PROFILE)
    own = str(tmp_path / "mine.toml")
    done = CliRunner().invoke(
        app, ["devices", "resnet8", "--device", own, "--device", "pi4", "--threads", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    found = {each["device"]: each["predicted"] for each in json.loads(done.stdout)["devices"]}
    assert list(found) == ["mine", "pi4"]
    assert list(found["mine"]) == ["fp32"]
    mine = found["mine"]["fp32"]
    assert mine["fits_ram"] is False  # 100 kB
    assert mine["predicted_energy_mj"] is None
    assert mine["predicted_latency_ms"] == pytest.approx(sum(one["predicted_latency_ms"] for one in mine["layers"]))
    assert mine["predicted_latency_ms"] > found["pi4"]["fp32"]["predicted_latency_ms"]
    assert found["pi4"]["fp32"]["threads"] == 1


def test_what_is_wrong_is_said_and_the_exit_status_is_2(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(PROFILE.replace("board", "toaster"))
    done = devices(tmp_path, "--device", "bad.toml")
    assert done.returncode == 2
    assert "bad.toml is not valid: kind" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_devices_and_models_are_refused() -> None:
    with pytest.raises(ProfileError, match="there is no device 'pi6'; did you mean pi"):
        CliRunner().invoke(app, ["devices", "--device", "pi6"], catch_exceptions=False)
    with pytest.raises(ModelError, match="no-such-net"):
        CliRunner().invoke(app, ["devices", "no-such-net"], catch_exceptions=False)
    assert CliRunner().invoke(app, ["devices", "resnet8", "--threads", "0"]).exit_code == 2


def test_predictions_are_of_the_net_with_its_batch_norms_folded(net: Net) -> None:
    pi4 = load_device("pi4")
    ((found),) = predictions(net, [pi4], threads=1)
    assert found["fp32"] == estimate(fold_batch_norm(net), pi4, threads=1)
    assert found["fp32"].predicted_latency_ms < estimate(net, pi4, threads=1).predicted_latency_ms


@pytest.mark.parametrize("width", [80, 120])
def test_no_number_is_cut_off_in_a_narrow_terminal(net: Net, width: int) -> None:
    chosen = load_devices()
    tables = (
        devices_table(chosen, width),
        predictions_table("net", chosen, predictions(net, chosen), threads=None, width=width),
    )
    for table in tables:
        text = printed(table, width)
        assert "…" not in text
        assert all(device.name in text for device in chosen)
    assert ("fp16" in text.splitlines()[3]) is (width == 120)


def test_the_table_says_what_is_too_small(net: Net) -> None:
    pi4 = load_device("pi4")
    small = pi4.model_copy(update={"ram_bytes": pi4.ram_bytes.model_copy(update={"value": 300_000.0})})
    smaller = pi4.model_copy(update={"ram_bytes": pi4.ram_bytes.model_copy(update={"value": 1_000.0})})
    chosen = [pi4, small, smaller]
    text = printed(predictions_table("net", chosen, predictions(net, chosen), threads=1, width=120), 120)
    lines = [line for line in text.splitlines() if line.strip().startswith("pi4")]
    assert [line.split("fp32")[1].strip() for line in lines] == ["in cache", "int8 only", "no: RAM"]
