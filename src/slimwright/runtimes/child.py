"""What a workshop's process runs: `python -m slimwright.runtimes.child`.

It reads folders from standard input, a line each, and forks for each; it answers with the fork's process number, and
with its exit status once it ended. A folder holds the request, the net and, for INT8, what it is calibrated on; the
artefact's files and the answer are written there.
"""

import importlib
import json
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from slimwright.graph import load_net
from slimwright.importers import capture
from slimwright.runner.control_group import control_group
from slimwright.runner.memory import limit
from slimwright.runtimes.artefact import Written
from slimwright.runtimes.convert import ANSWER, LOG, REQUEST, calibration_file
from slimwright.runtimes.half import within_half
from slimwright.runtimes.known import RUNTIMES
from slimwright.runtimes.suited import suited


def main() -> None:
    """Serve until standard input ends."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    rehearsed = False
    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        request = json.loads((folder / REQUEST).read_text())
        runtime = request["runtime"]
        if not RUNTIMES[runtime].apart:  # those start threads as they are imported, and cannot be forked after
            importlib.import_module(f"slimwright.runtimes.{runtime}")
        if "onnx" in RUNTIMES[runtime].needs and not rehearsed:
            _rehearse()
            rehearsed = True
        _serve(folder, request, out)


def _rehearse() -> None:
    """Write a net of one layer as ONNX: what the exporter does just once, seconds of it, is then done in every fork."""
    from slimwright.runtimes.onnxruntime import write_onnx

    net = capture(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()), (1, 2, 2))
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(net, Path(folder) / "model.onnx")


def _serve(folder: Path, request: Mapping[str, Any], out: BinaryIO) -> None:
    """Convert in a fork, and tell how it ended."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        limit(request["memory_bytes"], request["cpu_s"])
        _convert(folder, request)
        sys.stderr.flush()
        os._exit(0)
    with control_group(request["memory_bytes"]) as add:
        add(pid)
        out.write(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
    out.write(b"%d\n" % os.waitstatus_to_exitcode(status))


def _convert(folder: Path, request: Mapping[str, Any]) -> None:
    """Convert, and answer with the files' names or with the first cause of the failure."""
    try:
        exporter = importlib.import_module(f"slimwright.runtimes.{request['runtime']}")
        net = suited(load_net(folder / "net", carried=request["carried"]), request["runtime"])
        if request["precision"] == "fp16":
            net = within_half(net)
        paths = [folder / calibration_file(k) for k in range(len(net.inputs))]
        given = [np.load(path, allow_pickle=False) for path in paths] if paths[0].exists() else None
        written: Written = exporter.export(net, folder, request["precision"], given)
        answer: dict[str, object] = asdict(written)
    except Exception as error:  # converters raise errors of many unrelated kinds
        traceback.print_exc()
        answer = {"error": first_cause(error)}
    (folder / ANSWER).write_text(json.dumps(answer))


def first_cause(error: BaseException) -> str:
    """What went wrong first, in one line: exporters wrap it in advice on how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    main()
