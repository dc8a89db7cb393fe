"""The command line as a user runs it: a real subprocess, real files, its output and its exit status."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from forked import forked
from slimwright.cli.shrinking import SIGN
from slimwright.cost import count
from slimwright.graph import load_net

USER_CODE = """
import torch
from torch import nn
from slimwright.data import ArrayData, digits
from slimwright.zoo import build

def small():
    return build("resnet8", classes=10, in_channels=1)

def wants_rgb():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

class Noisy(nn.Module):
    def forward(self, x):
        return (x + torch.rand_like(x)).flatten(1)[:, :10]

def poisoned():
    model = small()
    model.fc.weight.data[0, 0] = float("nan")
    return model

def not_a_model():
    return 42

def breaks():
    raise OSError("the disk is on fire")

def no_data():
    return digits().__class__("none", ("a",), {p: (torch.zeros(0, 1, 8, 8), torch.zeros(0)) for p in digits().parts})
"""


@pytest.fixture(scope="module")
def home(trained: nn.Module, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's code, trained weights, and a few files that are no models."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "cache").symlink_to(cache)
    (folder / "mynets.py").write_text(USER_CODE)
    model = trained
    safetensors.torch.save_file(model.state_dict(), folder / "weights.safetensors")
    program = torch.export.export(
        model, (torch.zeros(2, 1, 32, 32),), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False
    )
    torch.export.save(program, folder / "model.pt2")
    (folder / "pickled.pt2").write_bytes(pickle.dumps(model.state_dict()))
    torch.save({"state_dict": model.state_dict()}, folder / "model.pth")
    torch.save(model, folder / "whole.pth")
    mistake = {"step": "factorise", "layers": {"conv2d_1": {"kind": "svd", "ranks": [0]}}}
    (folder / "mistake.json").write_text(json.dumps({"original": None, "steps": [mistake]}))
    unfit = [{"step": "fold_batch_norm"}, {"step": "merge", "branches": ["conv2d"]}]
    (folder / "unfit.json").write_text(json.dumps({"original": None, "steps": unfit}))
    (folder / "cut.pt2").write_bytes((folder / "model.pt2").read_bytes()[:5000])
    nothing = {"images": torch.zeros(0, 1, 32, 32), "labels": torch.zeros(0, dtype=torch.int64)}
    safetensors.torch.save_file(nothing, folder / "empty.safetensors")
    return folder


def environment(home: Path) -> dict[str, str]:
    return {"SLIMWRIGHT_CACHE": str(home / "cache"), "COLUMNS": "120", "NO_COLOR": "1"}


def slimwright(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked(home, *arguments, environment=environment(home))


def slimwright_alone(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As a user starts it, which takes longer."""
    command, env = [sys.executable, "-m", "slimwright", *arguments], os.environ | environment(home)
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def shrunk(home: Path) -> subprocess.CompletedProcess[str]:
    return slimwright_alone(
        home, "shrink", "model.pt2", "--data", "digits", "--macs", "0.4x", "--max-drop", "10", "--out", "b"
    )


def test_shrink_prints_a_short_table_and_leaves_a_bundle(home: Path, shrunk: subprocess.CompletedProcess[str]) -> None:
    assert shrunk.returncode == 0, shrunk.stderr
    assert "within budget" in shrunk.stdout
    assert "accuracy (test)" in shrunk.stdout
    assert len(shrunk.stdout.splitlines()) < 20
    assert "Traceback" not in shrunk.stderr
    summary = json.loads((home / "b" / "manifest.json").read_text())["summary"]
    assert summary["within_budget"]
    assert summary["score"] > 85


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private and a public key, made as the help of `sign` says."""
    folder = tmp_path_factory.mktemp("keys")
    for words in (
        "ecparam -name prime256v1 -genkey -noout -out private.pem",
        "ec -in private.pem -pubout -out public.pem",
    ):
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
        assert f"openssl {words}" in SIGN
    return folder


def test_verify_proves_a_signed_bundle_again_and_refuses_one_that_was_changed(
    home: Path, shrunk: subprocess.CompletedProcess[str], keys: Path, tmp_path: Path
) -> None:
    assert shrunk.returncode == 0
    copy = shutil.copytree(home / "b", tmp_path / "b")
    signed = slimwright(home, "sign", str(copy), "--key", str(keys / "private.pem"))
    assert signed.returncode == 0 and f"{copy / 'bundle.sig'} signs " in signed.stdout, signed.stderr
    verify = ("verify", str(copy), "--key", str(keys / "public.pem"))
    done = slimwright_alone(home, *verify, "--json")
    checks = {check["what"]: check["passed"] for check in json.loads(done.stdout)["checks"]}
    assert checks.pop("latency, share of the original") in (True, False)  # a busy machine may be noisy
    assert all(checks.values()), done.stdout
    (copy / "about.json").write_text((copy / "about.json").read_text() + " ")
    refused = slimwright_alone(home, *verify)
    assert refused.returncode == 2 and f"{copy} is not what was signed: about.json was changed" in refused.stderr


def test_verify_refuses_a_changed_bundle(home: Path, shrunk: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    assert shrunk.returncode == 0
    for name in ("model.onnx", "recipe.json", "net/net.json"):
        copy = tmp_path / name.replace("/", "-")
        subprocess.run(["cp", "-r", home / "b", copy], check=True)
        with (copy / name).open("ab") as file:
            file.write(b" ")
        done = slimwright(home, "verify", str(copy))
        assert done.returncode == 2, done.stdout
        assert name in done.stderr


def test_a_bundle_cannot_name_code_that_verify_then_runs(
    home: Path, shrunk: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert shrunk.returncode == 0
    subprocess.run(["cp", "-r", home / "b", tmp_path / "b"], check=True)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    manifest["data"]["name"] = "mynets:breaks"
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
    done = slimwright(home, "verify", str(tmp_path / "b"))
    assert done.returncode == 2
    assert "--data" in done.stderr
    assert "on fire" not in done.stderr


def test_report_writes_the_page_anew(home: Path, shrunk: subprocess.CompletedProcess[str]) -> None:
    assert shrunk.returncode == 0
    (home / "b" / "report.html").unlink()
    (home / "b" / "bundle.sig").touch()
    done = slimwright(home, "report", "b")
    (home / "b" / "bundle.sig").unlink()
    assert done.returncode == 0 and "b is signed, and so was its page: sign the bundle again" in done.stderr
    assert (home / "b" / "report.html").stat().st_size > 100_000


def test_inspect_measures_the_model_that_a_bundle_ships(home: Path, shrunk: subprocess.CompletedProcess[str]) -> None:
    assert shrunk.returncode == 0
    manifest = json.loads((home / "b" / "manifest.json").read_text())
    done = slimwright(home, "inspect", "b", "--data", "digits", "--measure", "--json")
    found = json.loads(done.stdout)
    assert found["measured"]["size_bytes"] == (home / "b" / "model.onnx").stat().st_size
    assert found["measured"]["score"] == pytest.approx(manifest["summary"]["score"], abs=0.3)
    assert found["total"]["macs"] == manifest["result"]["macs"]


def test_a_missed_budget_ends_with_status_1_and_the_best_model(home: Path) -> None:
    arguments = ("shrink", "mynets:small", "--weights", "weights.safetensors", "--data", "digits", "--macs", "10")
    done = slimwright(home, *arguments, "--max-drop", "100", "--tune-epochs", "0", "--out", "tiny", "--json")
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert not summary["within_budget"] and "over its limit" in summary["misses"][0]
    manifest = json.loads((home / "tiny" / "manifest.json").read_text())
    assert manifest["result"]["macs"] < 0.1 * manifest["original"]["macs"]
    assert (home / "tiny" / "model.onnx").exists()


BY_HAND = {
    "original": None,
    "steps": [
        {"step": "factorise", "layers": {"conv2d_1": {"kind": "tucker2", "ranks": [8, 8]}}, "images": 128},
        {"step": "subset", "classes": [1, 7]},
        {"step": "solve"},
        {"step": "fold_batch_norm"},
    ],
}


def test_a_recipe_by_hand_is_applied(home: Path) -> None:
    (home / "by_hand.json").write_text(json.dumps(BY_HAND))
    model = ("mynets:small", "--weights", "weights.safetensors", "--data", "digits")
    done = slimwright(home, "apply", "by_hand.json", *model, "--out", "byhand", "--json")
    assert done.returncode == 0, done.stderr
    sides = json.loads(done.stdout)
    assert sides["result"]["macs"] < sides["original"]["macs"]
    assert sides["result"]["validation_score"] > 95  # a one or a seven
    small = load_net(home / "byhand")
    assert small[small.outputs[0]].shape == (1, 2)
    assert sides["result"]["macs"] == count(small).macs
    again = slimwright(home, "apply", "by_hand.json", *model, "--out", "byhand2")
    assert "factorise, subset, solve, fold_batch_norm" in " ".join(again.stdout.split())
    assert load_net(home / "byhand2").digest == small.digest


def test_the_recipe_of_a_bundle_gives_its_net_again(home: Path, shrunk: subprocess.CompletedProcess[str]) -> None:
    done = slimwright(home, "apply", "b", "model.pt2", "--data", "digits", "--out", "replayed")
    assert shrunk.returncode == done.returncode == 0, done.stderr
    assert load_net(home / "replayed").digest == load_net(home / "b" / "net").digest


SHRINK = ("--data", "digits", "--latency", "0.5x", "--out", "never")
WRONG = {
    "a missing file": (("shrink", "nowhere.pt2", *SHRINK), "nowhere.pt2"),
    "a pickle named .pt2": (("shrink", "pickled.pt2", *SHRINK), "pickle"),
    "a torch.save file": (("shrink", "model.pth", *SHRINK), "torch.export.save"),
    "a damaged .pt2": (("shrink", "cut.pt2", *SHRINK), "cut.pt2"),
    "an unknown op": (("shrink", "mynets:Noisy", *SHRINK), "rand"),
    "wrong input shape": (("shrink", "mynets:wants_rgb", *SHRINK), "[1, 32, 32]"),
    "NaN weights": (("shrink", "mynets:poisoned", *SHRINK), "fc.weight"),
    "no module": (("shrink", "mynets:not_a_model", *SHRINK), "nn.Module"),
    "a missing function": (("shrink", "mynets:nothing", *SHRINK), "nothing"),
    "user code that fails": (("shrink", "mynets:breaks", *SHRINK), "on fire"),
    "a pickled module": (("shrink", "mynets:small", "--weights", "whole.pth", *SHRINK), "is a whole pickled object"),
    "an empty data file": (
        ("shrink", "model.pt2", "--data", "empty.safetensors", "--latency", "1ms", "--out", "never"),
        "empty",
    ),
    "an empty data set": (
        ("shrink", "model.pt2", "--data", "mynets:no_data", "--latency", "1ms", "--out", "never"),
        "no train images",
    ),
    "unknown data": (("shrink", "model.pt2", "--data", "imagenet", "--latency", "1ms", "--out", "never"), "imagenet"),
    "no limit": (("shrink", "model.pt2", "--data", "digits", "--out", "never"), "at least one"),
    "a negative limit": (("shrink", "model.pt2", "--data", "digits", "--latency", "-3ms", "--out", "never"), "-3ms"),
    "an unknown unit": (("shrink", "model.pt2", "--data", "digits", "--size", "2ly", "--out", "never"), "2ly"),
    "an unknown runtime": (("shrink", "model.pt2", *SHRINK, "--runtime", "abacus"), "abacus"),
    "a device of torch that is not there": (("shrink", "model.pt2", *SHRINK, "--compute", "quantum"), "quantum"),
    "no bundle": (("verify", "."), "manifest.json"),
    "no recipe": (("apply", "nowhere.json", "model.pt2", "--data", "digits", "--out", "never"), "nowhere.json"),
    "a recipe with a mistake": (
        ("apply", "mistake.json", "model.pt2", "--data", "digits", "--out", "never"),
        "steps.0.factorise.layers.conv2d_1.ranks",
    ),
    "a recipe that does not fit": (
        ("apply", "unfit.json", "model.pt2", "--data", "digits", "--out", "never"),
        "step 2 of the recipe (merge)",
    ),
    "an unknown zoo name": (("train", "resnet9000", "--data", "digits", "--out", "never"), "resnet8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_ends_with_status_2_and_one_clear_error(home: Path, case: str) -> None:
    arguments, named = WRONG[case]
    done = slimwright(home, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("error:") == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "never").exists()
    assert not [path for path in home.iterdir() if path.name.startswith(".never")]


def test_help_shows_examples_and_needs_no_torch(home: Path) -> None:
    done = slimwright_alone(home, "shrink", "--help")
    assert done.returncode == 0
    assert "slimwright shrink resnet8-wide --data digits --latency 0.5x" in done.stdout
    probe = "import slimwright.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
