"""Pictures of lines of text, with what they say. Texts and alphabet are read at first, pictures when a batch asks.

    labels.txt      a line for each picture: its file, a tab, its text
    alphabet.txt    one character a line, in the order of the network's scores, without the blank
    test.txt        as labels.txt, for the test part; without it that is dealt from labels.txt

Where there is no alphabet.txt, the metadata of an .onnx file in the folder may hold the alphabet: readers of PaddleOCR
have it under "character", without the space that they score at the end.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.data import files
from slimwright.data.pictures import opened
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import Numbers, Share, StreamedData, dealt, of_pictures
from slimwright.errors import DataError
from slimwright.importers import metadata

LABELS, TEST, ALPHABET = ("labels.txt", "labels.tsv"), "test.txt", "alphabet.txt"
ENTRY = "character"  # of an .onnx file's metadata
PAD = -1


def text_lines(path: Path, how: Preprocessing, seed: int = 0) -> StreamedData:
    """Return the lines of text in `path`, [C, H, W] of `how`.

    Targets are numbers of characters [N, L] from 1, padded with -1. Raises DataError, naming the file and the line.
    """
    files.folder(path, f"{LABELS[0]}, {ALPHABET} and pictures of lines")
    listed = next((path / name for name in LABELS if (path / name).exists()), path / LABELS[0])
    letters = alphabet(path)
    numbers = {letter: number for number, letter in enumerate(letters, 1)}
    train = _share(path, listed, numbers, how)
    test = _share(path, path / TEST, numbers, how) if (path / TEST).exists() else None
    parts = dealt(train, test, names=(), image_shape=how.shape, seed=seed)
    return of_pictures(path.resolve().name, letters, how, parts, task="ctc")


def in_a_line(height: int, width: int) -> Preprocessing:
    """Return what readers of PaddleOCR want: lines from the left on, BGR levels from -1 to 1."""
    return Preprocessing(height, width, fit="line", channels="BGR", mean=(0.5,) * 3, std=(0.5,) * 3)


def alphabet(path: Path) -> tuple[str, ...]:
    """Return the characters that a reader scores, without the blank. Raises DataError where they are not given."""
    at = path / ALPHABET
    if at.exists():
        return _letters(at, files.text(path, at))
    for model in sorted(path.glob("*.onnx")):
        if held := metadata(files.held(path, model)).get(ENTRY):
            letters = _letters(model, held)
            return letters if " " in letters else (*letters, " ")
    raise DataError(
        f"{at} is missing; write each character that the network scores, in its order and without the blank, on a "
        f'line of its own, or copy the .onnx file into the folder if its metadata has them under "{ENTRY}"'
    )


def _letters(at: Path, text: str) -> tuple[str, ...]:
    """The characters of a list, each on a line; a character may be a space."""
    letters = tuple(text.removesuffix("\n").replace("\r\n", "\n").split("\n"))
    if "" in letters:
        raise DataError(f"line {letters.index('') + 1} of {at} is empty; write one character on each line")
    if twice := [letter for letter in dict.fromkeys(letters) if letters.count(letter) > 1][:1]:
        raise DataError(f"{at} has {twice[0]!r} more than once; each character has one place")
    return letters


def _share(root: Path, listed: Path, numbers: Mapping[str, int], how: Preprocessing) -> Share:
    """The pictures that a file lists, and the numbers of their characters."""
    paths, rows = [], []
    for place, line in enumerate(files.text(root, listed).split("\n"), 1):
        if not line.strip():
            continue
        name, tab, said = line.rstrip("\r").partition("\t")
        if not tab or not name:
            raise DataError(f"line {place} of {listed} has no tab; write a picture's file, a tab, and its text")
        unknown = [letter for letter in said if letter not in numbers]
        if unknown:
            raise DataError(
                f"line {place} of {listed} has {unknown[0]!r}, which is not in the alphabet; add it there if the "
                "network scores it, or leave the line out"
            )
        paths.append(name)
        rows.append([numbers[letter] for letter in said])
    if not rows:
        raise DataError(f"{listed} lists no pictures; write a picture's file, a tab, and its text on each line")
    return Share(partial(_read, root, paths, how), np.arange(len(paths)), (_padded(rows),), pictures=(root, paths))


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    codes = torch.full((len(rows), max(map(len, rows))), PAD, dtype=torch.int64)
    for place, row in enumerate(rows):
        codes[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return codes


def _read(root: Path, paths: Sequence[str], how: Preprocessing, numbers: Numbers) -> NDArray[np.float32]:
    return np.stack([opened(root, root / paths[number], how.normalized) for number in numbers])
