"""Arrays written row by row: a network's outputs may be larger than a board's memory."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from slimwright.runner.job import JobError


class RowFiles:
    """Writes .npy files of `count` rows each, a row at a time; the others are like a file's first row."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stack = ExitStack()
        self._files: dict[Path, tuple[IO[bytes], NDArray[Any]]] = {}  # with the first row

    def __enter__(self) -> "RowFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def write(self, path: Path, row: NDArray[Any]) -> None:
        """Append a row [1, ...]. Raises JobError where it is not like the first one."""
        if path not in self._files:
            opened = self._stack.enter_context(path.open("wb"))
            shape = (self._count, *row.shape[1:])
            header = {"descr": np.lib.format.dtype_to_descr(row.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(opened, header)
            self._files[path] = opened, row
        file, first = self._files[path]
        if (row.shape, row.dtype) != (first.shape, first.dtype):
            raise JobError(
                "run", f"the rows of {path.name} differ: {row.dtype} {row.shape}, {first.dtype} {first.shape}"
            )
        file.write(np.ascontiguousarray(row).data)
