"""What a journal keeps of a job that is killed at any moment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.kept import as_line
from slimwright.search import key_of, open_journal
from slimwright.search.journal import JOURNAL

RESULT = st.dictionaries(
    st.text(max_size=4), st.integers() | st.floats(allow_nan=False, allow_infinity=False), max_size=3
)


def test_what_was_added_is_there_for_the_next_run(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "job")
    assert journal.add("a", {"score": 0.1, "shapes": ((1, 2), (3,))}) == {"score": 0.1, "shapes": [[1, 2], [3]]}
    again = open_journal(tmp_path / "job")
    assert again.get("a") == {"score": 0.1, "shapes": [[1, 2], [3]]} and again.get("b") is None


def test_a_result_is_computed_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def compute() -> dict[str, int]:
        asked.append(1)
        return {"n": len(asked)}

    for _ in range(2):
        journal = open_journal(tmp_path)
        assert [journal.once("k", compute)["n"] for _ in range(2)] == [1, 1]
    assert len(asked) == 1


@given(results=st.lists(RESULT, min_size=1, max_size=4), data=st.data())
def test_of_a_torn_journal_every_whole_line_is_kept_and_the_next_line_stands_behind_them(
    results: list[dict[str, float]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    journal = open_journal(folder)
    for number, result in enumerate(results):
        journal.add(str(number), result)
    whole = (folder / JOURNAL).read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    (folder / JOURNAL).write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    torn = open_journal(folder)
    assert list(torn.results) == [str(number) for number in range(kept)]
    torn.add("next", {"x": 1})
    assert list(open_journal(folder).results) == [*(str(number) for number in range(kept)), "next"]


def test_fresh_forgets_everything(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "job")
    journal.add("a", {})
    with journal.writing("a") as folder:
        (folder / "net").write_text("weights")
    fresh = open_journal(tmp_path / "job", fresh=True)
    assert fresh.results == {} and not (tmp_path / "job" / "a").exists()


def test_files_of_a_result_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(KeyError), journal.writing("a") as folder:
        (folder / "net").write_text("half")
        raise KeyError
    assert not journal.files("a").exists() and [path.name for path in tmp_path.iterdir()] == []
    with journal.writing("a") as folder:
        (folder / "net").write_text("whole")
    assert (journal.files("a") / "net").read_text() == "whole"
    with journal.writing("b"):
        pass
    journal.keep_files_of(["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_what_a_killed_process_was_writing_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from slimwright.search import open_journal\n"
        "with open_journal(Path(sys.argv[1])).writing('a') as folder:\n"
        "    (folder / 'net').write_text('half'); print('there', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ)
    assert child.stdout is not None and child.stdout.readline() == b"there\n"
    (left,) = tmp_path.iterdir()
    open_journal(tmp_path)
    assert left.exists()  # whoever writes it still runs
    child.kill()
    child.wait()
    open_journal(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_that_of_everything_that_shapes_a_result() -> None:
    context = {"net": "a", "seed": 0, "threads": 1}
    assert key_of(context, 1) == key_of(dict(reversed(context.items())), 1)
    others = [key_of({**context, name: "other"}, 1) for name in context]
    assert len({key_of(context, 1), key_of(context, 2), *others}) == 5


NO_ENTRIES: tuple[object, ...] = ([], {}, {"key": 1, "result": {}}, {"key": "b", "result": 3})


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b"{}\n",
        *(as_line(entry).encode() + b"\n" for entry in NO_ENTRIES),
        as_line({"key": "b", "result": {"loss": 1.5}}).replace("1.5", "1.4").encode() + b"\n",  # its checksum stays
        b"\xff\n",
    ],
)
def test_a_line_that_is_none_of_a_journals_ends_it(line: bytes, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(as_line({"key": "a", "result": {}}).encode() + b"\n" + line)
    assert list(open_journal(tmp_path).results) == ["a"]


def test_a_result_whose_files_were_changed_is_dropped_with_all_that_follows(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for key in "abc":
        with journal.writing(key) as folder:
            (folder / "net").mkdir()
            (folder / "net" / "weights").write_bytes(b"123")
        journal.add(key, {})
    assert list(open_journal(tmp_path).results) == ["a", "b", "c"]
    (journal.files("b") / "net" / "weights").write_bytes(b"124")
    assert list(open_journal(tmp_path).results) == ["a"]
    assert list(open_journal(tmp_path).results) == ["a"]


def test_files_that_are_no_longer_kept_take_no_result_away(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with journal.writing("a") as folder:
        (folder / "weights").write_bytes(b"123")
    journal.add("a", {})
    journal.keep_files_of([])
    assert list(open_journal(tmp_path).results) == ["a"]
