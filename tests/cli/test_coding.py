import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from forked import forked
from small_pictures import drawn


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Image.fromarray(drawn(80, 70).permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    Image.new("L", (70, 80), 128).save(tmp_path / "map.png")
    Image.new("L", (10, 10), 128).save(tmp_path / "small.png")
    return tmp_path


def codec(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked(home, "codec", *arguments, environment={"OMP_NUM_THREADS": "1"})


def test_a_picture_goes_there_and_back(home: Path) -> None:
    done = codec(home, "encode", "photo.png", "--ratio", "20", "--weights", "map.png", "--out", "photo.swi", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["bytes"] == (home / "photo.swi").stat().st_size <= 3 * 70 * 80 / 20
    assert 20 <= said["ratio"] < 22 and said["psnr"] > 25
    back = codec(home, "decode", "photo.swi", "--out", "back.png", "--json")
    assert back.returncode == 0 and json.loads(back.stdout)["concealed"] == []
    with Image.open(home / "back.png") as image:
        assert image.size == (70, 80)


def test_a_lost_tile_is_told_by_the_exit_status(home: Path) -> None:
    made = codec(home, "encode", "photo.png", "--quality", "30", "--tile", "64", "--out", "photo.swi")
    assert made.returncode == 0, made.stderr
    data = bytearray((home / "photo.swi").read_bytes())
    data[-20] ^= 1
    (home / "photo.swi").write_bytes(data)
    done = codec(home, "decode", "photo.swi", "--out", "back.png", "--json")
    assert done.returncode == 1 and len(json.loads(done.stdout)["concealed"]) == 1
    assert "1 of 4 tiles" in done.stderr and (home / "back.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("encode", "photo.png", "--out", "photo.swi"), "give one of --quality"),
        (("encode", "photo.png", "--psnr", "30", "--bpp", "1", "--out", "photo.swi"), "give one of --quality"),
        (("encode", "photo.png", "--quality", "9", "--out", "photo.jpg"), ".swi"),
        (("encode", "photo.png", "--quality", "9", "--tile", "100", "--out", "a.swi"), "multiple of 64"),
        (("encode", "photo.png", "--quality", "9", "--weights", "small.png", "--out", "a.swi"), "as large"),
        (("encode", "photo.png", "--max-bytes", "9", "--out", "a.swi"), "allow more"),
        (("decode", "photo.png", "--out", "back.png"), "no whole head"),
        (("decode", "photo.png", "--out", "back.jpg"), "without loss"),
        (("train", "nowhere/", "--out", "a.safetensors"), "holds no picture"),
        (("evaluate", "photo.png"), "give --quality"),
    ],
)
def test_a_wrong_request_names_the_option(home: Path, arguments: tuple[str, ...], said: str) -> None:
    done = codec(home, *arguments)
    assert done.returncode == 2 and said in " ".join(done.stderr.split())
    assert not (home / "photo.swi").exists() and not (home / "a.swi").exists()


def test_peers_stand_beside_at_the_same_size(home: Path) -> None:
    done = codec(home, "evaluate", "photo.png", "--quality", "30", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["codec"] for row in rows] == ["slimwright", "JPEG", "WebP"]
    assert all(0 < row["ms_ssim"] <= 1 and row["psnr"] > 10 for row in rows)


@pytest.mark.slow
def test_parameters_are_trained_and_used(home: Path) -> None:
    (home / "photos").mkdir()
    (home / "photo.png").rename(home / "photos" / "photo.png")
    made = codec(
        home, "train", "photos/", "--iterations", "4", "--cache", "cache", "--out", "own.safetensors", "--json"
    )
    assert made.returncode == 0, made.stderr
    asked = ("photos/photo.png", "--quality", "20", "--parameters", "own.safetensors", "--out", "a.swi")
    assert codec(home, "encode", *asked).returncode == 0
    assert codec(home, "decode", "a.swi", "--parameters", "own.safetensors", "--out", "a.png").returncode == 0
    other = codec(home, "decode", "a.swi", "--out", "b.png")
    assert other.returncode == 2 and "--parameters" in other.stderr


def test_the_command_starts_as_a_user_starts_it(home: Path) -> None:
    command = [sys.executable, "-m", "slimwright", "codec", "encode", "--help"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "--max-bytes" in done.stdout and "Examples" in done.stdout
