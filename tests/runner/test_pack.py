"""Archives: what goes in comes out, and nothing that comes over a wire leaves its folder."""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.runner.pack import BLOCK, MOST_FILES, packed, packed_files, runner, unpack

NAMES = st.text(
    st.characters(codec="ascii", exclude_characters="/\0", categories=["L", "N", "P"]), min_size=1, max_size=60
)


def header(name: str = "file", **fields: object) -> bytes:
    """One header block, with fields that no honest archive has."""
    entry = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry.tobuf(tarfile.GNU_FORMAT)


def with_checksum(block: bytes) -> bytes:
    total = sum(block[:148]) + sum(block[156:]) + 8 * 32
    return block[:148] + b"%06o\0 " % total + block[156:]


END = bytes(2 * BLOCK)


@given(st.dictionaries(NAMES.filter(lambda name: name not in (".", "..")), st.binary(max_size=2000), max_size=5))
def test_files_come_out_as_they_went_in(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        unpack(packed_files(files), Path(one))
        unpack(packed(Path(one)), Path(two))
        assert {path.name: path.read_bytes() for path in Path(two).iterdir()} == files


def test_folders_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    assert packed(tmp_path) == packed(tmp_path)
    (tmp_path / "there").mkdir()
    unpack(packed(tmp_path), tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]


@pytest.mark.parametrize(
    "block",
    [
        header("../escape"),
        header("/etc/escape"),
        header("a/b"),
        header("."),
        header(".."),
        header("new\nline"),
        header("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        header("link", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        header("folder", type=tarfile.DIRTYPE),
        header("device", type=tarfile.CHRTYPE),
        header("pipe", type=tarfile.FIFOTYPE),
        header("hole", type=tarfile.GNUTYPE_SPARSE),
        header("pax", type=tarfile.XHDTYPE, size=-BLOCK),
        header("long", type=tarfile.GNUTYPE_LONGNAME),
        header("negative", size=-BLOCK),
        header("huge", size=1 << 40),
        header("short", size=1),
        with_checksum(header()[:124] + b"-0000000001\0" + header()[136:]),
        with_checksum(b"a" + b"\xff" * 99 + header()[100:]),
        header()[:BLOCK - 1] + b"!",
        b"x" * BLOCK,
    ],
)  # fmt: skip
def test_anything_but_plain_files_is_refused(block: bytes, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ValueError, match="the archive"):
        unpack(block + (END if b"short" not in block else b""), inside)
    assert not any(inside.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_a_kilobyte_never_becomes_gigabytes(tmp_path: Path) -> None:
    hole = bytearray(header("hole", type=tarfile.GNUTYPE_SPARSE))
    hole[483:495] = b"%011o\0" % (2 << 30)  # the size once the hole is filled
    with pytest.raises(ValueError, match="no plain file"):
        unpack(with_checksum(bytes(hole)) + END, tmp_path)


def test_too_many_files_and_a_missing_end_are_refused(tmp_path: Path) -> None:
    empty = header("file")
    unpack(empty * MOST_FILES + END, tmp_path)
    for data in (empty * (MOST_FILES + 1) + END, empty, b""):
        with pytest.raises(ValueError, match="the archive is damaged"):
            unpack(data, tmp_path)


@given(st.integers(0, 3 * BLOCK - 1), st.integers(0, 255))
def test_a_damaged_archive_stays_in_its_folder(place: int, byte: int) -> None:
    data = bytearray(packed_files({"file": b"content"}))
    data[place] = byte
    with tempfile.TemporaryDirectory() as name:
        inside = Path(name) / "inside"
        inside.mkdir()
        try:
            unpack(bytes(data), inside)
        except ValueError as error:
            assert str(error).startswith("the archive")
        assert [path.name for path in Path(name).iterdir()] == ["inside"]
        assert all(path.is_file() and path.stat().st_size <= len(data) for path in inside.iterdir())


def test_the_runner_needs_nothing_but_python(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.bin").write_bytes(runner())  # whatever its name is
    assert runner()[:2] == b"#!"
    bare = [sys.executable, "-S", "-I", str(tmp_path / "elsewhere.bin")]
    about = json.loads(subprocess.run([*bare, "--about"], capture_output=True, check=True).stdout)
    assert about["cores"] == os.cpu_count()
    wrong = subprocess.run([*bare, "--fly"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "--pipe SECONDS LENGTH" in wrong.stderr


def test_the_runner_imports_nothing_else_of_slimwright(tmp_path: Path) -> None:
    (tmp_path / "runner.pyz").write_bytes(runner())
    program = (
        "import pkgutil, sys; sys.path.insert(0, sys.argv[1]); import slimwright.runner as r\n"
        "for m in pkgutil.walk_packages(r.__path__, 'slimwright.runner.'):\n"
        "    if 'sessions.' not in m.name or m.name.endswith('session'): __import__(m.name)\n"
        "print(sorted(n for n in sys.modules if n.startswith('slimwright') and not n.startswith('slimwright.runner')))"
    )
    command = [sys.executable, "-P", "-c", program, str(tmp_path / "runner.pyz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "['slimwright']"
