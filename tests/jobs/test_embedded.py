"""With the normalization in the model, artefacts take levels, and give what the model gave."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from scripted_target import Scripted
from slimwright import Budget, Settings, shrink
from slimwright.cli.sources import load_data
from slimwright.data import ArrayData, images_of, whole
from slimwright.errors import DataError
from slimwright.graph import Net, save_net
from slimwright.importers import capture
from slimwright.jobs.embedded import embedded
from slimwright.jobs.verify import verify
from slimwright.measure import load_bundle, original_of
from small_digits import few_digits

TEXT = "mean=0.406/0.456/0.485,std=0.225,channels=BGR"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(home / f"{number}.png")
    return home


def padded() -> Net:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    return capture(layers.eval(), (3, 16, 16))


def test_the_original_and_its_data_agree_as_before(photos: Path) -> None:
    data = load_data(f"folder:{photos}@16", preprocessing=TEXT)
    original = original_of(padded(), [])
    made, levels = embedded(original, data)
    images, raw = (images_of(whole(each, "train")[0]) for each in (data, levels))
    assert raw.min() >= 0 and raw.max() > 200 and torch.equal(raw, raw.round())
    expected = original.forward(images)[0]
    for found in (made.forward(raw)[0], made.net.run(raw)[0]):
        assert torch.allclose(found, expected, atol=1e-5)
    said = levels.preprocessing
    assert said["channels"] == "RGB" and said["scale"] == 1 and said["mean"] == [0.0] and said["std"] == [1.0]
    own = {"channels": "BGR", "scale": 255.0, "mean": [0.406, 0.456, 0.485], "std": [0.225]}
    assert said["embedded"] == own


def test_shuffled_passes_move_the_mean_colour_in(photos: Path) -> None:
    data = load_data(f"folder:{photos}@16", preprocessing=TEXT)
    _, levels = embedded(original_of(padded(), []), data)
    plain, raw = (images_of(next(iter(each.batches("train", 8, seed=1)))[0]) for each in (data, levels))
    mean = torch.tensor([0.406, 0.456, 0.485]).reshape(3, 1, 1)
    assert torch.allclose((raw.flip(1) / 255 - mean) / 0.225, plain, atol=2)  # up to levels that were clamped
    assert float(raw.min()) >= 0 and float(raw.max()) <= 255


def test_a_bundle_takes_levels_and_is_verified_with_what_it_records(photos: Path, tmp_path: Path) -> None:
    data = load_data(f"folder:{photos}@16", preprocessing=TEXT)
    settings = Settings(target=Scripted(), tune_epochs=0, embed=True)
    bundle = shrink(
        padded(), data=data, budget=Budget(macs="0.6x", max_drop=100), out=tmp_path / "b", settings=settings
    )
    said = load_bundle(tmp_path / "b").manifest.data.preprocessing
    assert said["scale"] == 1 and said["embedded"]["channels"] == "BGR"  # type: ignore[index]
    image = Image.open(photos / "3.png").convert("RGB").resize((19, 16), Image.Resampling.BILINEAR).crop((2, 0, 18, 16))
    levels = np.asarray(image, np.float32).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(bundle.path / "original.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: levels})
    images = (
        torch.from_numpy(levels[:, ::-1].copy()) / 255 - torch.tensor([0.406, 0.456, 0.485]).reshape(3, 1, 1)
    ) / 0.225
    assert np.abs(found - padded().run(images)[0].numpy()).max() < 1e-3
    from slimwright.data import recorded

    again = load_data(f"folder:{photos}@16", 0, recorded(said, "bundle"))
    assert all(check.passed for check in verify(bundle, again, Scripted()) if "agree" in check.what)


def test_data_whose_levels_are_not_known_are_told() -> None:
    assert isinstance(few_digits(), ArrayData)
    with pytest.raises(DataError, match="the levels of 'few digits' are not known"):
        embedded(original_of(padded(), []), few_digits())


@pytest.mark.slow
def test_the_command_line_exports_a_model_that_takes_levels(photos: Path, tmp_path: Path) -> None:
    save_net(padded(), tmp_path / "net")
    (tmp_path / "how.toml").write_text('mean = [0.406, 0.456, 0.485]\nstd = 0.225\nchannels = "BGR"\nsize = 16\n')
    (photos / "broken.png").write_bytes(b"broken")
    command = [
        sys.executable,
        "-m",
        "slimwright.cli.main",
        "export",
        str(tmp_path / "net"),
        "--data",
        f"folder:{photos}",
    ]
    options = ["--preprocessing", str(tmp_path / "how.toml"), "--embed-preprocessing", "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    (photos / "broken.png").unlink()
    assert done.returncode == 0, done.stderr
    assert "passed over: 1 cannot be read (broken.png)" in done.stderr
    said = json.loads((tmp_path / "out" / "export.json").read_text())["preprocessing"]
    assert said["scale"] == 1 and said["size"] == [16, 16] and said["embedded"]["std"] == [0.225]
