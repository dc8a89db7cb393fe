"""The journal of a job: each result is appended the moment it is there, under a key of everything that shapes it.

One line of JSON a result. A job that was killed finds every line but the one that was being written, whose torn end is
dropped. Files that belong to a result, such as a net, lie in a folder of the result's key beside the journal. Lines and
files bear checksums: from the first that was changed on, nothing counts.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimwright.atomic import stamped, swept
from slimwright.kept import as_line, from_line, keep_json, kept_json
from slimwright.reading import sha256_of

JOURNAL, SEAL = "journal.jsonl", "checksums.json"
Result = Mapping[str, Any]  # JSON-ready


@dataclass(frozen=True)
class Journal:
    """Results by key, in `folder`."""

    folder: Path
    results: dict[str, Result] = field(default_factory=dict)

    def get(self, key: str) -> Result | None:
        """Return the result under a key; None where there is none."""
        return self.results.get(key)

    def add(self, key: str, result: Result) -> Result:
        """Append a result; it is on the disk when this returns. Return it as it will be read back."""
        line = as_line({"key": key, "result": result})
        with (self.folder / JOURNAL).open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        found: Result = from_line(line)["result"]
        self.results[key] = found
        return found

    def once(self, key: str, compute: Callable[[], Result]) -> Result:
        """Return the result under a key, computed and appended where it is not there."""
        found = self.get(key)
        return found if found is not None else self.add(key, compute())

    def files(self, key: str) -> Path:
        """Return the folder for the files of a result."""
        return self.folder / key

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """Give a folder that becomes `files(key)` when the block ends well."""
        folder = stamped(self.folder, key)
        try:
            yield folder
            keep_json(folder / SEAL, _sums(folder))
            shutil.rmtree(self.files(key), ignore_errors=True)
            folder.rename(self.files(key))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep_files_of(self, keys: Iterable[str]) -> None:
        """Remove the files of all results but these."""
        kept = set(keys)
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)


def open_journal(folder: Path, *, fresh: bool = False) -> Journal:
    """Return the journal in `folder`, with what an earlier run left there; empty if `fresh`.

    A torn last line is cut off. A line that cannot be read, or whose files were changed, ends the journal: it is
    dropped with what stands behind it. Folders that a killed run was writing are removed.
    """
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    swept(folder)
    path, results, whole = folder / JOURNAL, {}, 0
    if path.exists():
        for line in path.read_bytes().splitlines(keepends=True):
            entry = _read(line)
            if entry is None or not _whole(folder / entry[0]):
                break
            results[entry[0]] = entry[1]
            whole += len(line)
        if whole < path.stat().st_size:
            os.truncate(path, whole)
    return Journal(folder, results)


def key_of(*parts: object) -> str:
    """Return the key of a result: a hash over everything that shapes it, as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _whole(folder: Path) -> bool:
    """Whether the files of a result are as they were written, or there are none."""
    return not folder.is_dir() or kept_json(folder / SEAL) == _sums(folder)


def _sums(folder: Path) -> dict[str, str]:
    """The hash of every file in a folder but the seal."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _read(line: bytes) -> tuple[str, Result] | None:
    """One line's key and result; None where it is torn or not a line of a journal."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = from_line(line)
        key, result = found["key"], found["result"]
    except (ValueError, KeyError, TypeError):
        return None
    return (key, result) if isinstance(key, str) and isinstance(result, dict) else None
