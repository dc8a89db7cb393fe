"""Outputs written row by row are the files that numpy would have written at once."""

from pathlib import Path

import numpy as np
import pytest

from slimwright.runner.job import JobError
from slimwright.runner.rows import RowFiles


@pytest.mark.parametrize("shape", [(3, 2, 4), (3, 5), (3,)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_rows_make_the_array(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)
    other = np.arange(6, dtype=np.float32).reshape(3, 2)
    with RowFiles(3) as files:
        for row, second in zip(whole, other, strict=True):
            files.write(tmp_path / "a.npy", np.asarray(row)[None])
            files.write(tmp_path / "b.npy", second[None])
    for name, wanted in (("a", whole), ("b", other)):
        found = np.load(tmp_path / f"{name}.npy", allow_pickle=False)
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted)


def test_a_row_that_does_not_lie_in_one_piece_is_written_in_order(tmp_path: Path) -> None:
    turned = np.arange(6, dtype=np.float32).reshape(1, 2, 3).transpose(0, 2, 1)
    with RowFiles(1) as files:
        files.write(tmp_path / "a.npy", turned)
    assert np.array_equal(np.load(tmp_path / "a.npy"), turned)


def test_a_row_unlike_the_first_is_refused(tmp_path: Path) -> None:
    for other in (np.zeros((1, 3), np.float32), np.zeros((1, 2), np.int64)):
        with RowFiles(2) as files:
            files.write(tmp_path / "a.npy", np.zeros((1, 2), np.float32))
            with pytest.raises(JobError, match=r"the rows of a\.npy differ"):
                files.write(tmp_path / "a.npy", other)
