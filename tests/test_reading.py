import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from pydantic import BaseModel

from slimwright.errors import DataError, ModelError, RequestError
from slimwright.kept import (
    as_line,
    from_line,
    keep_json,
    keeping,
    kept_json,
    kept_tensors,
    read_tensors,
    write_tensors,
)
from slimwright.reading import data_of, json_of, plain, reading, stored_tensors, text_of


class Named(BaseModel):
    name: str


@pytest.mark.parametrize(
    "error",
    [
        OverflowError("too large"), KeyError("a"), IndexError("1"), RuntimeError("Storage size calculation overflowed"),
        zipfile.BadZipFile("no zip"), NotImplementedError(), RecursionError(), MemoryError(), EOFError(),
        ValueError(""), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), PermissionError(13, "Permission denied"),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_in_the_block_is_ours_and_names_the_file(error: Exception) -> None:
    with pytest.raises(ModelError, match=r"a/b\.bin") as caught, reading(Path("a/b.bin"), "a saved net", ModelError):
        raise error
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


def test_our_own_errors_and_the_users_interrupt_pass() -> None:
    with pytest.raises(DataError, match=r"^mine$"), reading(Path("a"), "a recipe", RequestError):
        raise DataError("mine")
    with pytest.raises(KeyboardInterrupt), reading(Path("a"), "a recipe", RequestError):
        raise KeyboardInterrupt


def test_a_field_that_is_wrong_is_named(tmp_path: Path) -> None:
    said = r"is not a name: name: Input should be a valid string"
    with pytest.raises(RequestError, match=said), reading(tmp_path, "a name", RequestError):
        Named.model_validate({"name": 3})


def test_pipes_devices_and_folders_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(DataError, match=r"is a pipe or a device .*name a picture"):
            plain(path, "a picture", DataError)
    with pytest.raises(DataError, match="is a folder; name a picture"):
        data_of(tmp_path, "a picture", DataError)
    with pytest.raises(DataError, match="does not exist; it should be a picture"):
        text_of(tmp_path / "none", "a picture", DataError)


def test_a_whole_number_that_no_float_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(f'{{"box": [{10**300 - 1}]}}')
    assert json_of(path, "boxes")["box"][0] < math.inf
    path.write_text(f'{{"box": [-{10**400}]}}')
    with pytest.raises(DataError, match=r"boxes\.json is not boxes.*: it names a whole number of 402 digits"):
        json_of(path, "boxes", DataError)


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room
    with pytest.raises(RequestError, match="1,099,511,627,776 bytes; a recipe has at most 16,777,216"):
        text_of(tmp_path / "hole", "a recipe")


def test_text_is_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfna\xc3\xafve")
    assert text_of(tmp_path / "a", "a text") == "naïve"
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(RequestError, match="it is no text in UTF-8"):
        text_of(tmp_path / "a", "a text")


def test_deep_nesting_is_told(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(RequestError, match="it is nested too deeply"):
        json_of(tmp_path / "deep.json", "a recipe")


def test_tensors_and_texts_come_back_with_their_checksum(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(2, 3),
        "half": torch.tensor(1.5, dtype=torch.bfloat16),
        "none": torch.zeros(0, 4, dtype=torch.int64),
        "bits": torch.tensor([True, False]),
    }
    write_tensors(tmp_path / "kept", tensors, {"key": "one"})
    back, notes = read_tensors(tmp_path / "kept", "kept", DataError)
    assert notes == {"key": "one"} and back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in tensors.items())
    found = kept_tensors(tmp_path / "kept", "one")
    assert found is not None and torch.equal(found[0]["a"], tensors["a"])
    assert kept_tensors(tmp_path / "kept", "other") is None and kept_tensors(tmp_path / "none", "one") is None


def test_tensors_that_share_their_memory_are_kept_apart(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": whole, "again": whole, "row": whole[1], "turned": whole.T, "alone": torch.ones(2)}
    write_tensors(tmp_path / "kept", tensors)
    back, _ = read_tensors(tmp_path / "kept", "kept", DataError)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_tensors_that_were_changed_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    write_tensors(path, {"a": torch.ones(4)}, {"key": "one"})
    whole = path.read_bytes()
    for at in (len(whole) - 1, len(whole) - 10):  # a bit of a value
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert kept_tensors(path, "one") is None
        with pytest.raises(DataError, match="changed since it was written"):
            read_tensors(path, "kept", DataError)
    tensors, notes = stored_tensors(path, "kept")
    path.write_bytes(whole)
    safetensors.torch.save_file(tensors, path, {**notes, "key": "two"})  # another note under the same checksum
    assert kept_tensors(path, "two") is None
    path.write_bytes(whole[: len(whole) // 2])
    assert kept_tensors(path, "one") is None


def test_what_a_killed_job_was_writing_into_a_cache_goes_with_the_next(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".evidence-1.safetensors.{gone.pid}-abc.part").write_text("half")
    (tmp_path / f".evidence-1.safetensors.{os.getpid()}-abc.part").write_text("under way")
    (tmp_path / "evidence-1.safetensors").write_text("whole")
    with keeping(tmp_path) as cache:
        assert {path.name for path in cache.iterdir()} == {
            "evidence-1.safetensors", f".evidence-1.safetensors.{os.getpid()}-abc.part"
        }  # fmt: skip


def test_json_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, "ü"], "a": {"nested": True}}
    keep_json(tmp_path / "kept.json", value)
    assert kept_json(tmp_path / "kept.json") == value
    text = (tmp_path / "kept.json").read_text()
    for old, new in (("2.5", "2.4"), ("true", "false"), ("}", ""), (text, ""), (text, "{}"), (text, "[" * 100_000)):
        (tmp_path / "kept.json").write_text(text.replace(old, new))
        assert kept_json(tmp_path / "kept.json") is None
    assert kept_json(tmp_path / "none") is None


def test_a_line_holds_no_numbers_that_are_none() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            as_line({"a": value})
    assert from_line(json.dumps(json.loads(as_line({"a": 1.5})))) == {"a": 1.5}
