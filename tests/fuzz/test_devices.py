"""What a device answers, and a job that comes down a wire, changed at random: a result, or an error of ours."""

import json
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from answering_board import SIDE, Board, saved
from mutating import as_text, numbered, with_changes, with_other_bytes
from slimwright.errors import DeviceError, ProofError, RequestError
from slimwright.runner.job import JOB, Job, JobError, Side, read_job
from slimwright.runner.machine import about
from slimwright.runner.pack import packed_files
from slimwright.runtimes import Artefact
from slimwright.targets import Effort, measure

CASES = 500
KERNEL = {"name": "conv", "kind": "Conv", "ms": 0.5}
RESULT = {"sides": [SIDE | {"kernels": [KERNEL]}]}
IMAGES = torch.zeros(2, 1, 4, 4)
SCORES = saved(np.arange(6, dtype=np.float32).reshape(2, 3))
ARTEFACT = Artefact("onnxruntime", "fp32", (), ((1, 1, 4, 4),), ((1, 3),))


def answered(chance: random.Random) -> bytes:
    """A result that lies in its numbers, its outputs or its archive."""
    result, outputs = json.dumps(RESULT).encode(), SCORES
    if chance.random() < 0.6:
        result = as_text(with_changes(RESULT, chance), chance)
    elif chance.random() < 0.5:
        outputs = with_other_bytes(outputs, chance)
    whole = packed_files({"result.json": result, "outputs-0-0.npy": outputs})
    return with_other_bytes(whole, chance) if chance.random() < 0.3 else whole


def test_an_answer_that_was_changed_is_a_result_or_refused() -> None:
    read = 0
    for number, chance in enumerate(numbered(CASES)):
        try:
            found = measure(
                Board(answered(chance)), {"small": ARTEFACT}, Effort(runs=3), inputs=[torch.zeros(2, 1, 4, 4)]
            )
        except (DeviceError, ProofError, RequestError) as error:
            assert "a board" in str(error) and "\x1b" not in str(error), f"case {number}"
            continue
        latency = found["small"].latency
        assert latency is not None and 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms < 1e16
        read += 1
    assert read > CASES / 50


def test_a_description_that_was_changed_is_one_or_refused() -> None:
    for number, chance in enumerate(numbered(CASES)):
        data = as_text(with_changes(about(), chance), chance)
        try:
            assert Board(data).about()["cores"] > 0
        except DeviceError as error:
            assert "a board" in str(error), f"case {number}"


def test_a_job_that_was_changed_is_one_or_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"0")
    side = Side("small", "onnxruntime", "fp32", ("model.onnx",), ((1, 1, 4, 4),), output_shapes=((1, 3),))
    whole = json.loads(json.dumps(asdict(Job((side,), runs=3))))
    for number, chance in enumerate(numbered(CASES)):
        (tmp_path / JOB).write_bytes(as_text(with_changes(whole, chance), chance))
        try:
            job = read_job(tmp_path)
        except JobError:
            continue
        assert job.sides and all((tmp_path / name).parent == tmp_path for one in job.sides for name in one.files), (
            number
        )
