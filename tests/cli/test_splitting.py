import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from forked import forked
from slimwright.graph import save_net
from small_digits import small_digit_net
from small_split import small_split

TOKEN = "a-secret-of-enough-letters"
QUIET = {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    save_net(small_digit_net(), tmp_path / "net")
    Image.new("L", (40, 40), 200).save(tmp_path / "picture.png")
    (tmp_path / "token").write_text(TOKEN + "\n")
    return tmp_path


def split(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked(home, "split", *arguments, environment={**QUIET, "SLIMWRIGHT_CACHE": str(home / "cache")})


def test_a_net_is_split_for_a_link(home: Path) -> None:
    done = split(
        home, "net", "--data", "digits", "--link", "4g", "--max-drop", "5", "--phone-slowdown", "4",
        "--candidates", "1", "--max-bytes", "400", "--out", "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == json.loads((home / "out" / "split.json").read_text())
    assert said["link"]["name"] == "4g" and said["most_bytes"] == 400 and said["drop"] <= 5
    assert said["link"]["phone_slowdown"] == 4
    assert "| JPEG 4:2:0" in (home / "out" / "split.md").read_text()


def test_a_served_split_answers_what_is_sent(home: Path, run_folder: Path, cache: Path) -> None:
    bundle = str(small_split(run_folder, cache))
    command = [
        sys.executable,
        "-m",
        "slimwright",
        "split",
        "serve",
        bundle,
        "--token-file",
        "token",
        "--port",
        "0",
        "--json",
    ]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            asked = split(home, "send", bundle, "picture.png", "--server", url, "--token-file", "token", "--json")
            assert asked.returncode == 0, asked.stderr
            said = json.loads(asked.stdout)
            assert [len(row) for row in said["outputs"][0]] == [10] and said["labels"] == [*map(str, range(10))]
            shown = split(home, "send", bundle, "picture.png", "--server", url, "--token-file", "token")
            assert shown.returncode == 0 and "bytes sent" in shown.stdout
            (home / "token").write_text("another-secret-of-letters")
            refused = split(home, "send", bundle, "picture.png", "--server", url, "--token-file", "token")
            assert refused.returncode == 2 and "token" in refused.stderr
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 128 + signal.SIGTERM
    gone = split(home, "send", bundle, "picture.png", "--server", url, "--token-file", "token")
    assert gone.returncode == 1 and "cannot be reached" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("net", "--data", "digits", "--out", "out"), "--uplink 12Mbps"),
        (("net", "--data", "digits", "--link", "6g", "--out", "out"), "there is no link '6g'"),
        (("net", "--data", "digits", "--link", "4g", "--max-bytes", "5", "--out", "out"), "--max-bytes"),
        (("net", "--data", "digits", "--link", "4g", "--phone-slowdown", "0", "--out", "out"), "--phone-slowdown"),
        (("serve", "net", "--token-file", "token"), "a bundle of a split"),
        (
            ("send", "net", "picture.png", "--server", "http://127.0.0.1:1", "--token-file", "token"),
            "a bundle of a split",
        ),
    ],
)
def test_wrong_requests_end_with_2_and_say_why(home: Path, arguments: tuple[str, ...], said: str) -> None:
    done = split(home, *arguments)
    assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr


def test_the_help_shows_all_commands(home: Path) -> None:
    done = split(home, "--help")
    assert done.returncode == 0 and all(name in done.stdout for name in ("make", "serve", "send"))
    assert "--phone-slowdown" in split(home, "make", "--help").stdout
