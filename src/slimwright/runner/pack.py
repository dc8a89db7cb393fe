"""Folders of plain files as bytes, and the runner itself as one file that Python runs.

The archives are tar files of the plainest kind, and nothing else is read: Python's own reader would follow links, and
turn a kilobyte that describes a hole into gigabytes.
"""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

MOST_FILES, BLOCK = 2048, 512
STARTS_WITH = b"#!/usr/bin/env python3\n"


def packed(folder: Path) -> bytes:
    """Return the plain files of a folder as a tar archive."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                archive.add(path, path.name)
    return held.getvalue()


def packed_files(files: Mapping[str, bytes]) -> bytes:
    """Return files that are in memory as such an archive."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return held.getvalue()


def unpack(data: bytes, folder: Path) -> None:
    """Write the files of an archive into a folder. Raises ValueError for anything but plain files with plain names."""
    held, at, count = memoryview(data), 0, 0
    while at + BLOCK <= len(held) and held[at]:
        name, size = _entry(bytes(held[at : at + BLOCK]))
        at += BLOCK
        if size > len(held) - at or count >= MOST_FILES:
            raise ValueError("the archive is damaged: it ends early, or holds too many files")
        (folder / name).write_bytes(held[at : at + size])
        at += -(-size // BLOCK) * BLOCK
        count += 1
    if at + BLOCK > len(held):
        raise ValueError("the archive is damaged: it has no end")


def _entry(header: bytes) -> tuple[str, int]:
    """A plain file's name and size, from its header block (POSIX.1-1988, ustar)."""
    try:
        expected, size = int(header[148:156].strip(b" \0"), 8), int(header[124:136].strip(b" \0"), 8)
        name = header[:100].rstrip(b"\0").decode()
    except ValueError as error:
        raise ValueError(f"the archive is damaged: {error}") from error
    if sum(header[:148]) + sum(header[156:]) + 8 * ord(" ") != expected or size < 0:
        raise ValueError("the archive is damaged: a header does not add up")
    plain = Path(name).name == name and name not in ("", ".", "..") and name.isprintable()
    if header[156:157] not in (b"0", b"\0") or header[345] or not plain:
        raise ValueError(f"the archive holds {name!r}, which is no plain file")
    return name, size


def runner() -> bytes:
    """Return the runner as one file, which any Python 3.10 or newer runs: `python3 runner.pyz FOLDER`."""
    here = Path(__file__).parent
    held = io.BytesIO(STARTS_WITH)
    held.seek(0, io.SEEK_END)
    with zipfile.ZipFile(held, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", "from slimwright.runner.__main__ import main\n\nmain()\n")
        archive.writestr("slimwright/__init__.py", "")
        for path in sorted(here.rglob("*.py")):
            archive.writestr(f"slimwright/runner/{path.relative_to(here).as_posix()}", path.read_bytes())
    return held.getvalue()
