from pathlib import Path

import pytest

from slimwright.data import class_names, places_of
from slimwright.errors import DataError


def test_names_come_from_a_list_or_from_the_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufefftench, Tinca tinca\r\n\ngoldfish\n".encode())
    assert class_names(str(path)) == ("tench, Tinca tinca", "goldfish")
    assert class_names("cat, dog,") == ("cat", "dog")


def test_labels_are_found_in_the_datas_order() -> None:
    assert places_of(["dog", "ant"], ["ant", "cat", "dog"]) == (2, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat,dog,cat", "names 'cat' twice"),
        (" , ", "names no classes"),
        ("missing.txt", "there is no file missing.txt; give a file of class names, or the names with commas"),
    ],
)
def test_names_that_name_nothing_or_one_twice_are_refused(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        class_names(text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match="is not a file of class names"):
        class_names(str(path))


def test_labels_that_are_not_there_are_told_with_what_is_near() -> None:
    with pytest.raises(DataError, match=r"3 classes do not name 'goldfsh' \(is it 'goldfish'\?\), 'zebra'; "):
        places_of(["goldfsh", "zebra", "cat"], ["cat", "dog", "goldfish"])
    with pytest.raises(DataError, match="'4' and 5 more"):
        places_of(list("0123456789"), ["cat"])
    with pytest.raises(DataError, match="has no labels"):
        places_of([], ["cat"])
