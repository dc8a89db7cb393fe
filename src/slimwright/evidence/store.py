"""Read saved evidence, as untrusted input; keep the sums of a pass that is not over, so that a kill costs little."""

import hashlib
import json
from pathlib import Path
from time import monotonic

import torch

from slimwright.data import Batch, fingerprint
from slimwright.errors import DataError
from slimwright.evidence.sums import FORMAT, ROLES, Evidence, LayerSums, shapes_of
from slimwright.kept import read_tensors
from slimwright.reading import reading

EVERY_BATCHES, EVERY_S = 32, 30.0  # whichever is first
S_PER_BYTE = 3e-7  # at least, from one time to the next: a ResNet-50's sums are a gigabyte, and take 20 s to write


def load_evidence(path: Path) -> Evidence:
    """Return the evidence saved at `path`. Raises DataError where the file is no evidence or is damaged."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Evidence, dict[str, str]]:
    """The evidence in a file, and its metadata."""
    what = "saved evidence"
    tensors, notes = read_tensors(path, what, DataError)
    if notes.get("format") != FORMAT:
        raise DataError(f"{path} is not saved evidence: its format is {notes.get('format')!r}, not {FORMAT!r}")
    with reading(path, what, DataError):
        groups = tuple(tuple(group) for group in json.loads(notes["groups"]))
        skipped = dict(json.loads(notes["skipped"]))
        images, taylor_images = tensors.pop("images"), tensors.pop("taylor_images")
        names = dict.fromkeys(name.rpartition("/")[0] for name in tensors)
        layers = {name: LayerSums(**{role: tensors.pop(f"{name}/{role}") for role in ROLES}) for name in names}
        found = Evidence(notes["net"], images, layers, groups, taylor_images, skipped)
    if fault := _fault(found) or ("tensors beyond those of its layers" if tensors else ""):
        raise DataError(f"{path} is not saved evidence, or is damaged: {fault}")
    return found, notes


class Checkpoint:
    """Sums of the first batches of a pass, in a file that comes up to date every so often; without a path, nothing.

    It belongs to the pass whose key it bears; any other file is taken for none. `sums` is what was found.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key
        self.sums: Evidence | None = None
        self._number, self._hasher = 0, hashlib.sha256()  # of the batches of this pass
        self._wanted, self._digest = 0, ""  # of those whose sums were found
        if path is not None and path.exists():
            try:
                found, notes = _read(path)
            except DataError:
                found, notes = None, {}
            if notes.get("key") == key:
                self.sums, self._wanted, self._digest = found, int(notes["batches"]), notes["seen"]
        self._written = 0, monotonic()

    def holds(self, batch: Batch) -> bool:
        """Take note of the next batch of the pass: True where the sums that were found hold it.

        Raises DataError where they are of other images.
        """
        if self._path is None:
            return False
        self._number += 1
        self._hasher.update(fingerprint(batch).encode())
        if self._number == self._wanted and self._hasher.hexdigest() != self._digest:
            raise self._foreign()
        return self._number <= self._wanted

    def keep(self, sums: Evidence) -> None:
        """Write the sums of the batches so far, if it is time to."""
        batches, when = self._written
        since = monotonic() - when
        due = self._number - batches >= EVERY_BATCHES or since >= EVERY_S
        if due and since >= S_PER_BYTE * sum(tensor.nbytes for tensor in sums.tensors().values()):
            self.write(sums)

    def write(self, sums: Evidence) -> None:
        """Write the sums of the batches so far."""
        if self._path is None:
            return
        notes = {"key": self._key, "batches": str(self._number), "seen": self._hasher.hexdigest()}
        sums.save(self._path, notes)
        self._written = self._number, monotonic()

    def ended(self) -> None:
        """Take note that there are no more batches. Raises DataError where the sums found are of more than these."""
        if self._number < self._wanted:
            raise self._foreign()

    def remove(self) -> None:
        """Delete the file: the pass is over."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _foreign(self) -> DataError:
        return DataError(f"{self._path} holds sums over other images; remove it, or name another file for these")


def _fault(found: Evidence) -> str:
    """What does not fit together, or nothing."""
    labels = [label for group in found.groups for label in group]
    if not all(found.groups) or not all(type(label) is int and label >= 0 for label in labels):
        return "its groups of classes are no classes"
    if not labels or len(set(labels)) < len(labels):
        return "its groups have classes in common, or there are none"
    if not all(isinstance(text, str) for pair in found.skipped.items() for text in pair):
        return "it does not say which layers were skipped"
    count = len(found.groups)
    for name in ("images", "taylor_images"):
        tensor: torch.Tensor = getattr(found, name)
        if tensor.dtype != torch.int64 or tensor.shape != (count,) or int(tensor.min()) < 0:
            return f"{name} is {tensor.dtype} {list(tensor.shape)}, not a number for each of {count} groups"
    for name, sums in found.layers.items():
        if sums.total.ndim != 3 or sums.magnitude.ndim != 2 or sums.fisher.ndim != 2:
            return f"the sums of layer '{name}' have no channels or taps"
        _, parts, size = sums.total.shape
        inputs, outputs = sums.magnitude.shape[1], sums.fisher.shape[1]
        for role, shape in shapes_of(parts, size, inputs, outputs).items():
            tensor = getattr(sums, role)
            if tensor.dtype != torch.float64 or tensor.shape != (count, *shape):
                return f"{role} of layer '{name}' is {tensor.dtype} {list(tensor.shape)}, not {[count, *shape]}"
            if not bool(torch.isfinite(tensor).all()):
                return f"{role} of layer '{name}' holds NaN or infinite values"
    return ""
