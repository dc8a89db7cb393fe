"""Folders that appear whole or not at all: the last one stays until the next is there, and nothing is left over."""

import os
from pathlib import Path

import pytest

from slimwright.atomic import appearing
from slimwright.errors import RequestError

MARK = "made.json"


class Interrupted(Exception):
    """By whoever waits."""


def write(folder: Path, text: str) -> None:
    (folder / MARK).write_text(text)
    (folder / "inner").mkdir()
    (folder / "inner" / text).write_text(text)


def held(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def holding(text: str) -> dict[str, str]:
    return {MARK: text, f"inner/{text}": text}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of before."""
    out = tmp_path / "home" / "out"
    out.mkdir(parents=True)
    write(out, "before")
    return out


def test_a_folder_appears_at_the_end_and_others_may_read_it(tmp_path: Path) -> None:
    out = tmp_path / "new" / "home" / "out"
    with appearing(out, MARK) as folder:
        write(folder, "now")
        assert not out.exists() and folder.parent == out.parent and folder.name.startswith(".out.")
    assert held(out) == holding("now") and out.stat().st_mode & 0o777 == 0o755
    assert list(out.parent.iterdir()) == [out]


def test_the_last_one_stays_until_the_next_takes_its_place(out: Path) -> None:
    with appearing(out, MARK) as folder:
        write(folder, "now")
        assert held(out) == holding("before")
    assert held(out) == holding("now")
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt])
def test_a_block_that_fails_changes_nothing(out: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), appearing(out, MARK) as folder:
        write(folder, "now")
        raise error
    assert held(out) == holding("before")
    assert list(out.parent.iterdir()) == [out]


def test_a_block_that_fails_where_nothing_was_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), appearing(tmp_path / "out", MARK) as folder:
        write(folder, "now")
        raise Interrupted
    assert not list(tmp_path.iterdir())


def test_the_last_one_comes_back_where_the_next_cannot_take_its_place(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses to move the new folder, and nothing but that."""
    rename, refused = os.rename, []

    def refusing(source: Path, target: Path) -> None:
        if (Path(source) / "inner" / "now").exists():
            refused.append(target)
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refusing)
    with (
        pytest.raises(RequestError, match=r"cannot write to .*out: Input/output error"),
        appearing(out, MARK) as folder,
    ):
        write(folder, "now")
    assert refused == [out]
    assert held(out) == holding("before")
    assert list(out.parent.iterdir()) == [out]


def test_a_link_to_a_folder_stays_a_link(out: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(out)
    with appearing(link, MARK) as folder:
        write(folder, "now")
    assert link.is_symlink() and held(link) == held(out) == holding("now")
    assert list(out.parent.iterdir()) == [out]
    assert sorted(tmp_path.iterdir()) == [out.parent, link]


def test_an_empty_folder_is_taken_and_one_that_is_not_ours_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with appearing(tmp_path / "empty", MARK) as folder:
        write(folder, "now")
    assert held(tmp_path / "empty") == holding("now")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("years of work")
    for name in ("theirs", "file"):
        with pytest.raises(RequestError, match=f"{name} exists and was not made by this command"):
            appearing(tmp_path / name, MARK).__enter__()
    assert held(tmp_path / "theirs") == {"thesis.txt": "years of work"}
    assert (tmp_path / "file").read_text() == "years of work"
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "theirs", "file"}


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"cannot write to .*file/out: "):
        appearing(tmp_path / "file" / "out", MARK).__enter__()


def test_a_folder_of_ours_that_holds_something_else_is_left_alone(out: Path) -> None:
    ours = (MARK, "inner/*")
    (out / ".DS_Store").write_text("left by a system")
    with appearing(out, MARK, ours=ours) as folder:
        write(folder, "now")
    assert held(out) == holding("now")
    (out / "deep").mkdir()
    (out / "deep" / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match=r"out holds deep/thesis\.txt, which this command did not write"):
        appearing(out, MARK, ours=ours).__enter__()
    assert held(out) == holding("now") | {"deep/thesis.txt": "years of work"}
    with appearing(out, MARK, ours=ours, force=True) as folder:
        write(folder, "later")
    assert held(out) == holding("later")


def test_with_force_a_file_or_a_strange_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("years of work")
    for name in ("theirs", "file"):
        with appearing(tmp_path / name, MARK, force=True) as folder:
            write(folder, "now")
        assert held(tmp_path / name) == holding("now")
    assert {path.name for path in tmp_path.iterdir()} == {"theirs", "file"}


@pytest.mark.parametrize("kind", ["the working directory", "the home directory"])
def test_force_spares_the_folder_that_somebody_is_in(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    if kind == "the home directory":
        monkeypatch.setenv("HOME", str(tmp_path / "outer" / "inner"))
    else:
        monkeypatch.chdir(tmp_path / "outer" / "inner")
    for out in (tmp_path / "outer", tmp_path / "outer" / "inner"):
        with pytest.raises(RequestError, match=f"holds {kind}, which --force does not replace"):
            appearing(out, MARK, force=True).__enter__()
    assert (tmp_path / "outer" / "inner").is_dir()
