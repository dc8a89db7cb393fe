from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_folders import save, squares
from slimwright.data import PARTS, StreamedData, images_of, square, table_file, tensors_of, whole
from slimwright.data.table import read_table
from slimwright.errors import DataError

SMALL = square(16)


def table(home: Path, lines: Sequence[str], name: str = "t.csv") -> Path:
    """A table whose lines begin with the path of a picture."""
    for number, one in enumerate(squares(len(lines) - 1)):
        save(home / "p" / f"{number}.png", one.picture)
    rest = [line.format(p=f"p/{number}.png") for number, line in enumerate(lines[1:])]
    (home / name).write_text("\n".join([lines[0], *rest]))
    return home / name


def targets_of(data: StreamedData) -> torch.Tensor:
    return torch.cat([tensors_of(whole(data, part)[1])[0] for part in PARTS])


def test_numbers_are_a_regression(tmp_path: Path) -> None:
    lines = ["path,age [years],weight", *(f"{{p}},{k},{k / 4 - 1}" for k in range(20))]
    data = table_file(table(tmp_path, lines), SMALL)
    assert data.task == "regression" and data.labels == ("age [years]", "weight")
    found = targets_of(data)
    assert found.dtype == torch.float32 and sorted(found[:, 0].tolist()) == list(range(20))
    torch.testing.assert_close(found[:, 1], found[:, 0] / 4 - 1)
    assert images_of(whole(data, "test")[0]).shape[1:] == (3, 16, 16)


def test_zeros_and_ones_are_labels_that_the_columns_name(tmp_path: Path) -> None:
    data = table_file(
        table(tmp_path, ["path;glasses;beard", *(f"{{p}};{k % 2};{k // 2 % 2}" for k in range(20))]), SMALL
    )
    assert data.task == "" and data.labels == ("glasses", "beard")
    found = targets_of(data)
    assert found.dtype == torch.int64 and found.sum(0).tolist() == [10, 10]
    many = [f"l{k}" for k in range(40)]  # labels do not share out the images
    path = table(
        tmp_path, [",".join(["path", *many]), *("{p}," + ",".join("01"[k % 2] * 40) for k in range(60))], "m.csv"
    )
    assert table_file(path, SMALL).size("calibration") == 5


@pytest.mark.parametrize("words", [("0.0", "1.0"), ("False", "True"), ("false", "1")])
def test_flags_are_read_as_other_programs_write_them(words: tuple[str, str], tmp_path: Path) -> None:
    lines = ["path,glasses,beard", *(f"{{p}},{words[k % 2]},{words[k // 2 % 2]}" for k in range(20))]
    data = table_file(table(tmp_path, lines), SMALL)
    assert data.task == "" and data.labels == ("glasses", "beard")
    assert targets_of(data).sum(0).tolist() == [10, 10]


def test_text_is_a_class_and_each_class_is_dealt_alike(tmp_path: Path) -> None:
    kinds = ["cat", "dog, large", "emu"]
    lines = ["path,kind", *(f'{{p}},"{kinds[k % 3]}"' for k in range(30))]
    data = table_file(table(tmp_path, lines), SMALL)
    assert data.labels == tuple(kinds) and data.task == ""
    for part in PARTS:
        assert tensors_of(whole(data, part)[1])[0].bincount(minlength=3).unique().numel() == 1


def test_tabs_and_marks_of_a_byte_order_are_read(tmp_path: Path) -> None:
    path = table(tmp_path, ["path\tx, in mm\n", *(f"{{p}}\t{k}.5" for k in range(20))], "t.tsv")
    path.write_text("\ufeff" + path.read_text())
    assert table_file(path, SMALL).labels == ("x, in mm",)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["path,age", "{p},3.5", "{p},old"], "line 3 of .*t.csv, column 'age': 'old' is not a number"),
        (["path,age", "{p},3.5", "{p},"], "line 3 of .*t.csv, column 'age': '' is not a number"),
        (["path,age", "{p},3.5", "{p},inf"], "line 3 of .*t.csv, column 'age': 'inf' is not a number"),
        (["path,age", "{p},3.5", "{p},4,5"], "line 3 of .*t.csv has 3 cells, and line 1 2"),
        (["path,age", "{p},3.5", "p/none.png,4"], "line 3 of .*t.csv: .*p/none.png is missing"),
        ([",path", "0,{p}", "1,{p}"], "t.csv: .*/0 is missing .*; the first column is the pictures' paths"),
        (["path,age", "{p},3.5", "../../etc/passwd,4"], "line 3 of .*t.csv: .* (leads out of|is missing)"),
        (["path,kind", "{p},cat", "{p},"], "line 3 of .*t.csv, column 'kind': '' names no class"),
        (["path,name,age", "{p},cat,1", "{p},dog,2"], "column 'name' of .*t.csv holds text beside 1 other columns"),
        (["path,a,a", "{p},1,2"], "line 1 of .*t.csv must name the columns, each once"),
        (["path", "{p}"], "line 1 of .*t.csv must name the columns, each once"),
        (["p/0.png,1", "{p},2"], "line 1 of .*t.csv must name the columns, and reads 'p/0.png,1'; add such a line"),
        (["path,age"], "t.csv has 1 lines"),
        (["path,age", '"{p},3'], "line 2 of .*t.csv cannot be read"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_column(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        table_file(table(tmp_path, lines), SMALL)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_table_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    home = tmp_path_factory.getbasetemp() / "any"
    home.mkdir(exist_ok=True)
    (home / "any.csv").write_text(text, "utf-8", errors="ignore")
    with pytest.raises(DataError):
        read_table(home / "any.csv")  # no picture lies there
