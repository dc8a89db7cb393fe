"""Folders that appear whole or not at all: the last one stays until the next is there, and nothing is left over."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from slimwright import atomic
from slimwright.atomic import appearing, replacing, swept, write_text
from slimwright.errors import RequestError

MARK = "made.json"
KILLED = """
import os, sys
from pathlib import Path
from slimwright import atomic

moved = Path.rename
def rename(self, target):
    if self.name.startswith(".out.") and Path(target).name == "out":
        os.kill(os.getpid(), 9)
    return moved(self, target)

Path.rename = rename
atomic._exchanged = lambda one, other: False
with atomic.appearing(Path(sys.argv[1]), "made.json") as folder:
    (folder / "made.json").write_text("now")
"""
WRITES = """
import sys
from pathlib import Path
from slimwright.atomic import appearing

for number in range(100):
    with appearing(Path(sys.argv[1]), "made.json") as folder:
        (folder / "made.json").write_text(sys.argv[2])
        (folder / "inner").mkdir()
        (folder / "inner" / sys.argv[2]).write_text(sys.argv[2])
"""


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
    """A disk that exchanges no names and refuses to move the new folder, and nothing but that."""
    monkeypatch.setattr(atomic, "_exchanged", lambda one, other: False)
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


def test_there_is_no_moment_without_a_whole_folder(out: Path) -> None:
    gone, over = list[Path](), threading.Event()

    def look() -> None:
        while not over.is_set():
            gone.extend(path for path in (out, out / MARK) if not path.exists())

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(200):
        with appearing(out, MARK) as folder:
            write(folder, str(number))
    over.set()
    looking.join()
    assert not gone and held(out) == holding("199")
    assert list(out.parent.iterdir()) == [out]


def test_where_names_cannot_be_exchanged_a_folder_is_replaced_in_two_moves(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchanged", lambda one, other: False)
    with appearing(out, MARK) as folder:
        write(folder, "now")
    assert held(out) == holding("now")
    assert list(out.parent.iterdir()) == [out]


def test_a_kill_between_two_moves_loses_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert killed.returncode == -9 and not out.exists()
    swept(out.parent, out.name)
    assert held(out) == holding("before")
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("there", [True, False])
def test_of_two_that_write_at_once_one_wins_whole_and_the_other_says_so(there: bool, out: Path) -> None:
    place = out if there else out.parent / "new"
    with pytest.raises(RequestError, match="was written by another process meanwhile"), appearing(place, MARK) as slow:
        write(slow, "slow")
        with appearing(place, MARK) as fast:
            write(fast, "fast")
    assert held(place) == holding("fast")
    assert {path.name for path in out.parent.iterdir()} == {out.name, place.name}


def test_processes_that_write_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES, str(tmp_path / "out")]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abcd"]
    said = [writer.communicate()[1] for writer in writers]
    (mark,) = {path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert held(tmp_path / "out") == holding(mark)
    for writer, error in zip(writers, said, strict=True):
        assert writer.returncode == 0 or "another process" in error or "not made by this command" in error, error
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "page.html").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "page.html", "a page")
    assert (tmp_path / "precious").read_text() == "years of work"
    assert (tmp_path / "page.html").read_text() == "a page" and not (tmp_path / "page.html").is_symlink()


def test_pipes_devices_and_folders_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path, what in ((tmp_path / "pipe", "a pipe or a device"), (Path("/dev/full"), "a pipe or a device"),
                       (tmp_path / "folder", "a folder")):  # fmt: skip
        with pytest.raises(RequestError, match=f"{path} is {what} and is not replaced"):
            write_text(path, "a page")
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "folder"}
    for path in (tmp_path / "pipe", Path("/dev/full")):
        with pytest.raises(RequestError, match="is a pipe or a device and is not replaced"):
            appearing(path, MARK, force=True).__enter__()
    assert (tmp_path / "pipe").is_fifo() and Path("/dev/full").is_char_device()


def test_a_full_disk_and_a_missing_folder_are_told_and_nothing_changes(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", "before")
    said = r"cannot write to .*page\.html: No space left"
    with pytest.raises(RequestError, match=said), replacing(tmp_path / "page.html") as temporary:
        temporary.write_text("half a p")
        raise OSError(28, "No space left on device")
    assert held(tmp_path) == {"page.html": "before"}
    with pytest.raises(RequestError, match=r"cannot write to .*none/page\.html: No such file"):
        write_text(tmp_path / "none" / "page.html", "a page")
    assert not (tmp_path / "none").exists()


def test_what_a_killed_process_was_writing_goes_with_the_next(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".page.html.{gone.pid}-abc.part").write_text("half a p")
    (tmp_path / f".page.html.{os.getpid()}-abc.part").write_text("under way")
    (tmp_path / f".other.html.{gone.pid}-abc.part").write_text("of something else")
    write_text(tmp_path / "page.html", "a page")
    assert {path.name for path in tmp_path.iterdir()} == {
        "page.html", f".page.html.{os.getpid()}-abc.part", f".other.html.{gone.pid}-abc.part"
    }  # fmt: skip
