"""Run an ONNX model in a process of its own and print the peak resident memory as JSON.

Run as a script, it imports nothing but the runtime: `rss_probe.py MODEL RUNS`, or without MODEL for the empty runtime.
VmHWM is the peak of this process alone; `ru_maxrss` would start from the parent's.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort


def peak_rss_bytes() -> int:
    """Peak resident memory of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell the peak memory of a process")


def main() -> None:
    """Load the model named in the arguments, run it, and print what was seen."""
    if len(sys.argv) > 1:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
        (entry,) = session.get_inputs()
        image = np.zeros(entry.shape, np.float32)
        for _ in range(int(sys.argv[2])):
            session.run(None, {entry.name: image})
    print(json.dumps({"peak_rss_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
