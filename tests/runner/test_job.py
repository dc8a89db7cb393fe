"""Jobs come over a network: what is read is in bounds and inside its folder, or it is refused."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.runner.job import MOST_RUNS, MOST_VALUES, Job, JobError, Side, read_job, write_job

SIDE: dict[str, Any] = {
    "name": "a",
    "runtime": "onnxruntime",
    "precision": "fp32",
    "files": ["model.onnx"],
    "shapes": [[1, 3, 8, 8], [1, 5]],
    "threads": 1,
    "dtypes": [],
    "inputs": [],
    "outputs": [],
    "output_shapes": [],
}
TIMES = {"runs": 5, "warm_up": 1, "least_s": 0.5, "profile_runs": 0, "profile_rounds": 1, "evict_bytes": 0,
         "energy_s": 0.0}  # fmt: skip
JOB: dict[str, Any] = {"sides": [SIDE], **TIMES}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    (tmp_path / "job/model.onnx").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"")
    return tmp_path / "job"


def put(folder: Path, found: object) -> Path:
    (folder / "job.json").write_text(json.dumps(found))
    return folder


def test_a_job_is_read_as_it_was_written(folder: Path) -> None:
    job = Job(
        (
            Side(
                "a",
                "ncnn",
                "fp16",
                ("model.onnx",),
                ((1, 3, 8, 8), (1, 5)),
                2,
                ("float32", "int64"),
                ("a", "b"),
                ("c",),
                ((1,),),
            ),
        ),
        runs=7,
        least_s=0.25,
    )
    write_job(job, folder)
    assert read_job(folder) == job


@pytest.mark.parametrize(
    "changed",
    [
        {"files": ["../secret"]},
        {"files": ["/etc/passwd"]},
        {"files": ["."]},
        {"files": [".."]},
        {"files": [""]},
        {"files": ["missing"]},
        {"files": ["model.onnx\0"]},
        {"files": [7]},
        {"files": []},
        {"files": "model.onnx"},
        {"files": ["model.onnx"] * 17},
        {"runtime": "os"},
        {"runtime": ["onnxruntime"]},
        {"runtime": "../sessions/ncnn"},
        {"shapes": [[]]},
        {"shapes": [[1, 0]]},
        {"shapes": [[1, -3]]},
        {"shapes": [[1, 1 << 25]]},
        {"shapes": [[1, *[1 << 16] * 4]]},
        {"shapes": [[1, MOST_VALUES + 1]]},
        {"shapes": [[1, float("inf")]]},
        {"shapes": [[1, float("nan")]]},
        {"shapes": [[1, None]]},
        {"shapes": [[1] * 9]},
        {"shapes": []},
        {"shapes": [1, 3, 8, 8]},
        {"shapes": [[2, 3, 8, 8]]},
        {"shapes": [[1, 3]] * 65},
        {"shapes": None},
        {"output_shapes": [[]]},
        {"output_shapes": [[2, 3]]},
        {"output_shapes": [[1, MOST_VALUES + 1]]},
        {"output_shapes": [[1, 3]], "outputs": ["a", "b"]},
        {"dtypes": ["float32"]},
        {"dtypes": ["float32", "float64"]},
        {"dtypes": ["float32", ["int64"]]},
        {"inputs": ["a"]},
        {"inputs": "ab"},
        {"outputs": ["a"] * 65},
        {"threads": -1},
        {"threads": 1e9},
        {"threads": True},
        {"threads": "1"},
    ],
    ids=str,
)
def test_a_side_out_of_bounds_is_refused(changed: dict[str, object], folder: Path) -> None:
    with pytest.raises(JobError, match="this is no job"):
        read_job(put(folder, JOB | {"sides": [SIDE | changed]}))


@pytest.mark.parametrize(
    "changed",
    [
        {"runs": -1},
        {"runs": MOST_RUNS + 1},
        {"runs": float("nan")},
        {"runs": 10**400},
        {"least_s": float("inf")},
        {"least_s": 1e9},
        {"energy_s": None},
        {"warm_up": []},
        {"sides": []},
        {"sides": SIDE},
        {"sides": [SIDE] * 513},
        {"sides": [None]},
        {"sides": [[1]]},
    ],
    ids=lambda changed: str(changed)[:30],
)
def test_a_job_out_of_bounds_is_refused(changed: dict[str, object], folder: Path) -> None:
    with pytest.raises(JobError, match="this is no job") as refused:
        read_job(put(folder, JOB | changed))
    assert refused.value.kind == "job"


@pytest.mark.parametrize("missing", [*JOB])
def test_a_job_without_a_field_is_refused(missing: str, folder: Path) -> None:
    with pytest.raises(JobError, match=missing):
        read_job(put(folder, {key: value for key, value in JOB.items() if key != missing}))


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"7" * 5000, b"null"], ids=lambda text: text[:4]
)
def test_text_that_is_no_job_is_refused(text: bytes, folder: Path) -> None:
    (folder / "job.json").write_bytes(text)
    with pytest.raises(JobError, match="this is no job"):
        read_job(folder)


def test_a_link_out_of_the_folder_never_gets_in_by_its_path(folder: Path) -> None:
    with pytest.raises(JobError, match="not in the job's folder"):
        read_job(put(folder, JOB | {"sides": [SIDE | {"files": ["../job/model.onnx"]}]}))


@given(st.sampled_from([*JOB, *SIDE]), JSON)
def test_any_value_anywhere_is_a_job_in_bounds_or_refused(key: str, value: object) -> None:
    found = JOB | {key: value} if key in JOB else JOB | {"sides": [SIDE | {key: value}]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(b"")
        try:
            job = read_job(put(folder, found))
        except JobError:
            return
        assert 0 <= job.runs <= MOST_RUNS
        assert all((folder / file).parent == folder for side in job.sides for file in side.files)
        assert all(isinstance(side.name, str) and 0 < len(side.shapes) <= 64 for side in job.sides)
        assert all(0 < len(shape) <= 8 for side in job.sides for shape in (*side.shapes, *side.output_shapes))
