"""What a device sends back is untrusted input: whatever it is, it is a result or an error that says where from."""

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from answering_board import LATENCY, SIDE, Board, saved
from slimwright.errors import DeviceError, ProofError, RequestError
from slimwright.runner.pack import packed_files
from slimwright.runtimes.artefact import Artefact
from slimwright.targets import Measurement, measure
from slimwright.targets.measuring import Effort

IMAGES = torch.zeros(2, 1, 4, 4)


def measured(answer: bytes) -> Measurement:
    artefact = Artefact("onnxruntime", "fp32", (), ((1, 1, 4, 4),), ((1, 3),))
    return measure(Board(answer), {"small": artefact}, Effort(), inputs=[IMAGES])["small"]


def answer(result: Any, scores: bytes | None = None) -> bytes:
    files = {"result.json": json.dumps(result).encode()}
    return packed_files(files if scores is None else files | {"outputs-0-0.npy": scores})


def claimed(shape: tuple[int, ...]) -> bytes:
    """Six values that are said to have `shape`."""
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(held, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return held.getvalue() + bytes(24)


GOOD = saved(np.arange(6, dtype=np.float32).reshape(2, 3))


def test_a_result_is_read() -> None:
    found = measured(answer({"sides": [SIDE], "about": {}}, GOOD))
    assert found.outputs is not None and found.outputs[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (found.cold_start_ms, found.own_rss_bytes, found.temperature_c) == (2.0, 20, 40.0)


@pytest.mark.parametrize(
    "side",
    [
        {"name": "other"},
        {"latency": LATENCY | {"median_ms": float("nan")}},
        {"latency": LATENCY | {"median_ms": None}},
        {"latency": LATENCY | {"runs": 0}},
        {"load_ms": "fast"},
        {"load_ms": float("inf")},
        {"peak_rss_bytes": None},
        {"surplus": 1},
        {"kernels": [{"name": "conv"}]},
        {"kernels": [{"name": "conv", "kind": "conv", "ms": -1.0}]},
        {"kernels": [{"name": "conv", "kind": "conv", "ms": 1.0}] * 100_001},
        {"latency": LATENCY | {"median_ms": 0, "p10_ms": 0}},  # no run takes no time
        {"latency": LATENCY | {"median_ms": 3.0}},  # beyond its own p90
        {"latency": LATENCY | {"runs": 10**18}},
        {"load_ms": -1.0},
        {"peak_rss_bytes": 10**400},
        {"planned_bytes": -1},
        {"temperature_c": 1e9},
        {"name": "small" * 1000},
    ],
    ids=lambda side: str(side)[:40],
)
def test_a_side_that_is_none_is_refused(side: dict[str, object]) -> None:
    with pytest.raises(DeviceError, match="a board sent back"):
        measured(answer({"sides": [SIDE | side]}, GOOD))


@pytest.mark.parametrize(
    "scores",
    [
        None,
        b"",
        GOOD[:-1],
        saved(np.zeros((3, 3), np.float32)),
        saved(np.zeros(2, np.float32)),
        saved(np.zeros((2, 3), np.float64)),
        saved(np.array([[None]], object), pickled=True),
        claimed((2, 9)),
        claimed((2, 1 << 50)),
        claimed((2, 1 << 60)),
        claimed((2, 0)),
        claimed((2, -3)),
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'shape': (" + b"(" * 91,  # what no parser likes
    ],
)
def test_scores_that_are_none_are_refused(scores: bytes | None) -> None:
    with pytest.raises(DeviceError, match="a board sent back"):
        measured(answer({"sides": [SIDE]}, scores))


def test_times_that_were_asked_for_must_be_there() -> None:
    artefact = Artefact("onnxruntime", "fp32", (), ((1, 1, 4, 4),), ((1, 3),))
    board = Board(answer({"sides": [SIDE | {"latency": None}]}, GOOD))
    with pytest.raises(DeviceError, match="a board sent back no times"):
        measure(board, {"small": artefact}, Effort(runs=3), inputs=[IMAGES])
    assert measure(board, {"small": artefact}, Effort(), inputs=[IMAGES])["small"].latency is None


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("missing", RequestError),
        ("load", ProofError),
        ("run", ProofError),
        ("crash", ProofError),
        ("disk", DeviceError),
    ],
)
def test_what_went_wrong_there_is_told_with_where(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^on a board: it broke$"):
        measured(answer({"error": {"kind": kind, "message": "it broke"}}))


def test_what_a_device_says_steers_no_terminal() -> None:
    with pytest.raises(ProofError) as told:
        measured(answer({"error": {"kind": "run", "message": "\x1b[2Jgone\r\n" + "x" * 9999}}))
    assert str(told.value).startswith("on a board:  [2Jgone  xxx")
    assert len(str(told.value)) < 600


@given(st.binary(max_size=2000))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DeviceError, match="a board sent back"):
        measured(data)
    with pytest.raises(DeviceError, match="a board sent back"):
        Board(data).about()


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "null", "{}", '{"sides": {}}'])
def test_json_that_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="a board sent back"):
        measured(packed_files({"result.json": text.encode()}))


def test_a_description_is_read_and_nothing_more() -> None:
    told = {"cpu": "c", "machine": "arm64", "cores": 4, "system": "s", "python": "3.12", "byteorder": "little"}
    whole = told | {"cache_bytes": 1 << 20, "runtimes": {"ncnn": "1"}}
    assert Board(json.dumps(whole).encode()).about() == whole
    for wrong in (
        told,
        whole | {"cores": 0},
        whole | {"cache_bytes": -1},
        whole | {"runtimes": {"ncnn": 1}},
        whole | {"more": 1},
    ):
        with pytest.raises(DeviceError, match="describes no device"):
            Board(json.dumps(wrong).encode()).about()
    assert Board(json.dumps(told | {"runtimes": {}}).encode()).about()["cache_bytes"] == 0
