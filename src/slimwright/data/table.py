"""A table with a line for each picture: its path, and what a network shall say of it.

    path,age [years],weight [kg]        numbers: regression
    path,glasses,beard                  0 or 1 in every column: multi-label, and the columns name the labels
    path,kind                           one column of text: classification

Paths are relative to the table's folder. The first line names the columns; they are separated by tabs, semicolons or
commas, whichever that line has most of.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slimwright.data import files
from slimwright.data.pictures import SUFFIXES, pictures
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import Share, StreamedData, of_pictures, parted
from slimwright.errors import DataError

DELIMITERS = "\t;,"
MOST_COLUMNS = 4096
FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}  # as spreadsheets and pandas write them, too


@dataclass(frozen=True)
class Table:
    """The cells of a table, line by line; `columns` are the names of all but the first, which is `paths`."""

    at: Path
    columns: tuple[str, ...]
    paths: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]  # [N, K]
    lines: tuple[int, ...]  # in the file, of each row

    def number(self, row: int, column: int) -> float:
        """Return a cell as a finite number. Raises DataError, naming line and column."""
        try:
            found = float(self.cells[row][column])
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise self.wrong(row, column, "is not a number")
        return found

    def wrong(self, row: int, column: int, why: str) -> DataError:
        """Return the error that says what is wrong with a cell."""
        cell = self.cells[row][column]
        return DataError(
            f"line {self.lines[row]} of {self.at}, column '{self.columns[column]}': {cell[:40]!r} {why}; correct it, "
            "or leave the line out"
        )


def table_file(path: Path, how: Preprocessing, seed: int = 0) -> StreamedData:
    """Return the pictures that a table lists, with the numbers, flags or classes in its other columns.

    `seed` deals them into the parts. Raises DataError, naming line and column.
    """
    table = read_table(path)
    every = [{row[column] for row in table.cells} for column in range(len(table.columns))]
    texts = [column for column, values in enumerate(every) if not any(map(_is_number, values))]
    if all(value.lower() in FLAGS for values in every for value in values):
        flags = torch.tensor([[FLAGS[cell.lower()] for cell in row] for row in table.cells])
        return _data(table, how, seed, flags, table.columns)
    if texts == [0] and len(every) == 1:
        names = tuple(sorted(every[0]))
        if "" in names:
            raise table.wrong([row[0] for row in table.cells].index(""), 0, "names no class")
        places = {name: place for place, name in enumerate(names)}
        return _data(table, how, seed, torch.tensor([places[name] for (name,) in table.cells]), names)
    if texts:
        raise DataError(
            f"column '{table.columns[texts[0]]}' of {path} holds text beside {len(every) - 1} other columns; a "
            "picture has one class, or numbers: keep that column alone, or leave it out"
        )
    rows, columns = range(len(table.cells)), range(len(every))
    numbers = torch.tensor([[table.number(row, column) for column in columns] for row in rows], dtype=torch.float32)
    return _data(table, how, seed, numbers, table.columns, task="regression")


def read_table(path: Path) -> Table:
    """Return the cells of a CSV file. Raises DataError, naming the line, where it is no table of pictures."""
    text = files.text(path.parent, path)
    first = text.partition("\n")[0]
    rows = list(_rows(path, text, max(DELIMITERS, key=first.count)))
    if len(rows) < 2:
        raise DataError(f"{path} has {len(rows)} lines; it needs one with the columns' names, and one for each picture")
    (_, (_, *columns)), *rest = rows
    if not 1 <= len(columns) <= MOST_COLUMNS or len(set(columns)) < len(columns) or not all(columns):
        raise DataError(
            f"line 1 of {path} must name the columns, each once: the pictures' paths, and 1 to {MOST_COLUMNS} others; "
            f"it reads {first[:60]!r}"
        )
    if all(map(_is_number, columns)) or rows[0][1][0].lower().endswith(SUFFIXES):
        raise DataError(f"line 1 of {path} must name the columns, and reads {first[:60]!r}; add such a line")
    for line, row in rest:
        if len(row) != 1 + len(columns):
            raise DataError(f"line {line} of {path} has {len(row)} cells, and line 1 {1 + len(columns)}; correct it")
        try:
            files.held(path.parent, path.parent / row[0])
        except DataError as error:
            raise DataError(f"line {line} of {path}: {error}; the first column is the pictures' paths") from error
    lines, cells = zip(*rest, strict=True)
    return Table(path, tuple(columns), tuple(row[0] for row in cells), tuple(tuple(row[1:]) for row in cells), lines)


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers, spaces around cells taken away."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(row):
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {path} cannot be read: {error}; correct it") from error


def _data(
    table: Table, how: Preprocessing, seed: int, targets: Tensor, names: Sequence[str], task: str = ""
) -> StreamedData:
    root = table.at.parent
    share = Share(
        partial(pictures, root, table.paths, how), np.arange(len(table.paths)), targets, pictures=(root, table.paths)
    )
    parts = parted([share], names=names, image_shape=how.shape, seed=seed)
    return of_pictures(table.at.stem, names, how, parts, task=task)


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
