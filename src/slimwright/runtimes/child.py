"""What a converter's process runs: `python -m slimwright.runtimes.child FOLDER`.

The folder holds the request, the net and, for INT8, the images; the artefact's files and the answer are written there.
"""

import importlib
import json
import logging
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch

from slimwright.graph import load_net
from slimwright.graph.patterns import with_attention_spelled_out
from slimwright.runtimes.convert import ANSWER, IMAGES, REQUEST


def main(folder: Path) -> None:
    """Convert, and answer with the files' names or with the first cause of the failure."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    request = json.loads((folder / REQUEST).read_text())
    exporter = importlib.import_module(f"slimwright.runtimes.{request['runtime']}")
    net = with_attention_spelled_out(load_net(folder / "net"))
    images = np.load(folder / IMAGES, allow_pickle=False) if (folder / IMAGES).exists() else None
    try:
        answer = {"files": exporter.export(net, folder, request["precision"], images)}
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
    main(Path(sys.argv[1]))
