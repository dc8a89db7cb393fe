"""Folders that slimwright writes: they appear whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimwright.errors import RequestError


@contextmanager
def appearing(out: Path, mark: str) -> Iterator[Path]:
    """Give a hidden folder beside `out` that takes its place when the block ends well; else nothing is left.

    Raises RequestError where `out` is there and is not ours to replace: it is not empty and holds no file named `mark`.
    """
    if out.exists() and not (out / mark).exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RequestError(f"{out} exists and was not made by this command; name another folder with --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise RequestError(f"cannot write to {out}: {error.strerror}") from error
    try:
        yield folder
        folder.chmod(0o755)
        old = folder.with_name(folder.name + ".old")
        if out.exists():
            out.rename(old)
        folder.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
