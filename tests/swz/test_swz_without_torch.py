"""What reads packed files in numpy alone."""

import subprocess
import sys

from slimwright.graph.allowed import DTYPES
from slimwright.swz import forms


def test_packed_files_are_read_without_torch() -> None:
    code = "import sys, slimwright.swz.skeleton; print({'torch', 'onnx', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_files_know_every_dtype_of_a_net() -> None:
    assert set(forms.DTYPES) == set(DTYPES)
