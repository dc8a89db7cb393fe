"""What became of sizes that a file leaves free is told in words."""

from dataclasses import replace
from pathlib import Path

import pytest

from slimwright.graph import Net
from slimwright.graph.ends import BATCH_FIRST, Ends, FreeSize
from slimwright.measure import decisions_on_sizes
from slimwright.runtimes import Artefact

COMPARED = "it was compared with the network at two of them"
TOLD = {  # runtime, the net's step, whether the artefact has it free
    ("onnxruntime", 1, True): (
        "kept",
        "the artefact takes others too; it was compared with the network at two of them",
    ),
    ("ort", 32, True): (
        "kept",
        "the artefact takes others in steps of 32 too; it was compared with the network at two of them",
    ),
    ("onnxruntime", 32, False): ("taken back", "it is 6 in the artefact: at others it computes something else"),
    ("onnxruntime", 0, False): ("taken back", "it is 6 in the artefact: numbers in the network follow from it"),
    ("ncnn", 32, False): ("left whole", "it is 6 in the artefact: those of ncnn (.param, .bin) have fixed sizes"),
}


@pytest.mark.parametrize("case", TOLD)
def test_each_size_is_told_with_its_reason(residual: Net, case: tuple[str, int, bool]) -> None:
    runtime, step, kept = case
    ends = Ends(("x",), ("y",), (BATCH_FIRST,), sizes=(FreeSize("height", ((0, 2),), step),))
    free = (("height", 6),) if kept else ()
    artefact = Artefact(runtime, "fp32", (Path("model"),), (residual.input.shape,), free_sizes=free)
    (told,) = decisions_on_sizes(replace(residual, ends=ends), artefact)
    assert told.what == "free size 'height'" and (told.outcome, told.why) == TOLD[case]


def test_a_model_without_free_sizes_has_nothing_told(residual: Net) -> None:
    artefact = Artefact("ncnn", "fp32", (Path("model"),), (residual.input.shape,))
    assert not list(decisions_on_sizes(residual, artefact))
