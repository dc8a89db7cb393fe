"""NNCodec (Fraunhofer HHI's coder of ISO/IEC 15938-17, with DeepCABAC), in a process of its own.

Version 2.1.3, Clear BSD without a grant of patents, is built once from the package index and kept. Its frameworks for
training, which import much that is not installed, are left out: tensors go in and come out as arrays.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = "nncodec==2.1.3"
CODE = """
import json, sys, types
import numpy as np
framework = sys.modules["nncodec.framework"] = types.ModuleType("nncodec.framework")
framework.tensorflow_model = framework.pytorch_model = framework.use_case_init = types.SimpleNamespace()
sys.modules["h5py"] = types.ModuleType("h5py")  # for a file format of its own
home, given, made, settings = sys.argv[1:]
sys.path.insert(0, home)
from nncodec import nnc
stream = nnc.compress(dict(np.load(given)), bitstream_path=None, return_bitstream=True, **json.loads(settings))
np.savez(made, stream_bytes=len(stream), **{"tensor " + name: value for name, value in nnc.decompress(stream).items()})
"""


@dataclass(frozen=True)
class Coded:
    """Tensors as they are decoded again, and the bytes of the whole stream."""

    tensors: Mapping[str, NDArray[Any]]
    size_bytes: int


def coded(tensors: Mapping[str, NDArray[Any]], home: Path, **settings: object) -> Coded:
    """Return tensors, float32 or int32, as NNCodec gives them back; integers are only coded, by DeepCABAC.

    The package is built under `home` where it is not there yet. `settings` are those of `nncodec.nnc.compress`.
    """
    site = home / PACKAGE.replace("==", "-")
    if not site.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), PACKAGE]
        subprocess.run(pip, check=True)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        np.savez(given, **tensors)  # type: ignore[arg-type]  # names are no options of it
        run = [sys.executable, "-c", CODE, str(site), str(given), str(made), json.dumps(settings)]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        found = dict(np.load(made))
    size = int(found.pop("stream_bytes"))
    return Coded({name.removeprefix("tensor "): value for name, value in found.items()}, size)
