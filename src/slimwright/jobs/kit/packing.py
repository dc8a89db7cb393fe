"""A kit's model as fewer bytes to download: a packed net, skeletons of the artefact's files, and a reader of both.

packed/weights.swz      the weights
packed/NAME.skeleton    an artefact's file without them; a file that holds none is copied as it is
packed/swz.hpp, ...     the reader: Python's is the package `slimwright.swz` itself
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import slimwright.errors
import slimwright.swz
from slimwright.errors import RequestError
from slimwright.graph import load_net
from slimwright.measure import NET, Bundle
from slimwright.storage import write_packed
from slimwright.swz.skeleton import skeleton
from slimwright.techniques import fold_batch_norm

FOLDER, WEIGHTS, SUFFIX = "packed", "weights.swz", ".skeleton"
READER = Path(__file__).parent / "reader"


@dataclass(frozen=True)
class Download:
    """What a packed model takes: its bytes, without the reader's, those of the artefact, and the skeletons' names."""

    size_bytes: int
    artefact_bytes: int
    skeletons: tuple[str, ...]

    @property
    def told(self) -> Mapping[str, object]:
        """What the README is told."""
        kilobytes = [f"{size / 1e3:.4g}" for size in (self.size_bytes, self.artefact_bytes)]
        return {"kilobytes": kilobytes, "skeletons": self.skeletons, "suffix": SUFFIX}


def write_download(bundle: Bundle, folder: Path, *, python: bool) -> Download:
    """Write the packed model and its reader, in Python or in C++, into the new `folder`; return what it takes.

    Raises RequestError where that is not smaller than the artefact.
    """
    folder.mkdir()
    artefact = bundle.artefact("result")
    write_packed(fold_batch_norm(load_net(bundle.path / NET)), folder / WEIGHTS)
    weights = (folder / WEIGHTS).read_bytes()
    before = {path: path.read_bytes() for path in artefact.files}
    written = {WEIGHTS: len(weights)}
    for path, data in before.items():
        made, left_out = skeleton(data, weights)
        name, data = (f"{path.name}{SUFFIX}", made) if left_out else (path.name, data)
        (folder / name).write_bytes(data)
        written[name] = len(data)
    skeletons = tuple(name for name in written if name.endswith(SUFFIX))
    found = Download(sum(written.values()), sum(map(len, before.values())), skeletons)
    if found.size_bytes >= found.artefact_bytes:
        raise RequestError(
            f"packed, the model would take {found.size_bytes:,} bytes, and its own files take "
            f"{found.artefact_bytes:,}. Weights take less where they are pruned, shared or of few bits, and are left "
            "out of files that hold them in float32 or float16. Leave --packed out"
        )
    _write_reader(folder, python=python)
    return found


def _write_reader(folder: Path, *, python: bool) -> None:
    if not python:
        for path in sorted(READER.iterdir()):
            shutil.copyfile(path, folder / path.name)
        return
    (folder / "swz").mkdir()
    home = Path(slimwright.swz.__file__).parent
    for path in (Path(slimwright.errors.__file__), *sorted(home.glob("*.py"))):
        text = path.read_text("utf-8").replace("slimwright.swz", "swz").replace("slimwright.errors", "swz.errors")
        (folder / "swz" / path.name).write_text(text, "utf-8")
