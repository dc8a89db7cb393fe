"""What varies the inputs that are changed at random."""

import os
import subprocess
import sys
from pathlib import Path


def drawn(seed: str) -> str:
    """The first numbers that are drawn for each of two cases, where the surroundings name this seed."""
    script = "from mutating import numbered; print([chance.random() for chance in numbered(1)])"
    said = {**os.environ, "FUZZ_SEED": seed, "FUZZ_TIMES": "2", "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run([sys.executable, "-c", script], env=said, capture_output=True, text=True, check=True).stdout


def test_a_day_is_a_seed_as_the_makefile_names_it() -> None:
    assert drawn("2026-11-30") == drawn("2026-11-30") != drawn("2026-12-01")
    assert drawn("2026-11-30").count(",") == 1
