"""A child's own control group, in a made-up root whose groups come and go with their files, as in Linux."""

import os
from pathlib import Path
from typing import Any

import pytest

from slimwright.runner.control_group import BESIDE, NAME, control_group

USER = 1000
OWN = "user.slice/app.slice/run.scope"
FILES = ("cgroup.procs", "cgroup.subtree_control", "memory.max", "cgroup.kill")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process in three groups, one in another; the system makes and removes groups below them."""
    mkdir, rmdir = os.mkdir, os.rmdir
    home = tmp_path / "sys/fs/cgroup"

    def made(path: Any, *how: Any, **more: Any) -> None:
        if (Path(path).parent / "refuses").exists():
            raise PermissionError(path)
        mkdir(path, *how, **more)
        if Path(path).is_relative_to(home):
            for name in FILES:
                (Path(path) / name).touch()
            if (Path(path).parent / "has no memory").exists():
                (Path(path) / "memory.max").unlink()
                (Path(path) / "memory.max").symlink_to(tmp_path / "no/such/file")

    def removed(path: Any, *how: Any, **more: Any) -> None:
        if not Path(path).is_relative_to(home):
            rmdir(path, *how, **more)
        elif (Path(path) / "cgroup.procs").read_text() and not (Path(path) / "cgroup.kill").read_text():
            raise OSError(16, "Device or resource busy")
        else:
            for file in Path(path).iterdir():
                file.unlink()
            rmdir(path)

    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"0::/{OWN}\n")
    (home / OWN).mkdir(parents=True)
    for group in [home, *(home / OWN).parents]:
        if group.is_relative_to(home):
            (group / "cgroup.subtree_control").write_text("cpu memory pids\n")
            if os.geteuid() == 0:
                os.chown(group, USER, -1)  # as if systemd had given it to a user
    monkeypatch.setattr(os, "mkdir", made)
    monkeypatch.setattr(os, "rmdir", removed)
    return tmp_path


def groups(root: Path) -> list[Path]:
    return sorted(root.rglob(f"{NAME}*"))


def test_a_child_has_a_group_beside_its_parents_until_it_ends(root: Path) -> None:
    before = sorted(root.rglob("*"))
    with control_group(10**9, root) as add:
        (group,) = groups(root)
        assert group.parent == root / "sys/fs/cgroup/user.slice/app.slice"
        assert (group / "memory.max").read_text() == str(10**9 + BESIDE)
        add(123)
        assert (group / "cgroup.procs").read_text() == "123"
    assert sorted(root.rglob("*")) == before


def test_a_group_goes_whatever_happens(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt), control_group(10**9, root) as add:
        add(123)
        raise KeyboardInterrupt
    assert not groups(root)


@pytest.mark.parametrize("lack", ["deals out no memory", "refuses", "has no memory"])
def test_the_nearest_group_that_allows_one_is_taken(lack: str, root: Path) -> None:
    nearest = root / "sys/fs/cgroup/user.slice/app.slice"
    if lack == "deals out no memory":
        (nearest / "cgroup.subtree_control").write_text("cpu pids\n")
    else:
        (nearest / lack).touch()
    with control_group(10**9, root):
        (group,) = groups(root)
        assert group.parent == nearest.parent
    assert not groups(root)


@pytest.mark.parametrize(
    "said",
    [
        "4:memory:/user.slice/app.slice/run.scope\n0::/user.slice/app.slice/run.scope\n",
        "4:memory:/user.slice/app.slice/run.scope\n",
        "0::/\n",
        "0::/../../user.slice/app.slice/run.scope\n",
        "",
    ],
    ids=["version 1 and 2", "version 1", "the root itself", "out of what a container sees", "nothing"],
)
def test_nothing_is_made_where_groups_are_not_ours_to_make(said: str, root: Path) -> None:
    (root / "proc/self/cgroup").write_text(said)
    before = sorted(root.rglob("*"))
    with control_group(10**9, root) as add:
        add(123)
        assert sorted(root.rglob("*")) == before


def test_nothing_is_made_without_a_limit_or_without_a_system_that_has_groups(root: Path, tmp_path: Path) -> None:
    for limit, where in ((None, root), (10**9, tmp_path / "elsewhere")):
        with control_group(limit, where) as add:
            add(123)
            assert not groups(root)
    assert not (tmp_path / "elsewhere").exists()


def test_what_killed_runs_left_is_removed_by_the_next_and_nothing_else(root: Path) -> None:
    place = root / "sys/fs/cgroup/user.slice/app.slice"
    for name in (f"{NAME}left", f"{NAME}used", "other"):
        (place / name).mkdir()
    (place / f"{NAME}used" / "cgroup.procs").write_text("77\n")
    with control_group(10**9, root):
        assert not (place / f"{NAME}left").exists()
    assert groups(root) == [place / f"{NAME}used"] and (place / "other").exists()
    assert (place / f"{NAME}used" / "cgroup.procs").read_text() == "77\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders to root")
def test_groups_of_root_are_the_systems_own(root: Path) -> None:
    for group in (root / "sys/fs/cgroup" / OWN).parents:
        if group.is_relative_to(root / "sys/fs/cgroup"):
            os.chown(group, 0, -1)
    with control_group(10**9, root):
        assert not groups(root)
