"""What a machine tells of itself, read from folders laid out as the system lays them out."""

from pathlib import Path

from slimwright.runner.machine import about, cache_bytes


def test_the_last_level_of_the_caches_is_the_largest(tmp_path: Path) -> None:
    for number, size in enumerate(("48K", "32K", "1024K", "32768K")):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(size + "\n")
    assert cache_bytes(tmp_path) == 32 << 20
    (tmp_path / "index3" / "size").write_text("\n")
    assert cache_bytes(tmp_path) == 1 << 20


def test_a_system_that_does_not_tell_of_caches_has_none_told(tmp_path: Path) -> None:
    assert cache_bytes(tmp_path) == 0
    assert about()["cache_bytes"] == cache_bytes()
