import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import operator_calls
from operator_calls import Numbers
from slimwright.errors import UnsupportedOp
from slimwright.graph.allowed import ALLOWED, MOST_PARTS, check_call, check_named, work
from slimwright.graph.ops import INTEGER, OPS, aten, call_aten

CALLS = 50_000
SECONDS = 600  # on a machine that does much else; they take about 25 seconds of one core
NOT_CALLED = ["to.device"]  # a net keeps no device


@pytest.mark.slow
def test_no_call_of_an_allowed_operator_crashes_or_reads_beside_its_tensors(tmp_path: Path) -> None:
    script, log = Path(operator_calls.__file__), tmp_path / "log"
    ended = subprocess.run(
        [sys.executable, str(script), str(log), "0", str(CALLS)], capture_output=True, text=True, timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{log.read_text()}: {ended.stderr[-500:]}"
    found = json.loads(ended.stdout)
    assert sum(found["ended"].values()) == CALLS
    assert found["ended"]["made"] > CALLS / 2
    assert found["never made"] == NOT_CALLED


def test_a_call_that_reads_beside_its_tensors_is_noticed() -> None:
    source = Numbers((5,), torch.float32, (1.0,), transposed=False, expanded=False)
    with pytest.raises(AssertionError, match="what lies around"):
        operator_calls.made("_reshape_alias_copy.default", {"self": source, "size": [20], "stride": [1]})


def test_every_allowed_operator_is_one_that_writes_nothing() -> None:
    for overload in ALLOWED:
        assert not aten(overload)._schema.is_mutable, overload


def test_every_row_is_allowed() -> None:
    assert {name for op in OPS.values() for name in op.overloads} <= ALLOWED | INTEGER.keys()


@pytest.mark.parametrize(
    "overload",
    ["as_strided.default", "_reshape_alias.default", "_reshape_alias_copy.default", "_weight_norm_interface.default",
     "view.dtype", "from_file.default", "empty_like.default", "set_.source_Tensor", "relu_.default", "", "relu"],
)  # fmt: skip
def test_other_operators_are_refused_by_name(overload: str) -> None:
    with pytest.raises(UnsupportedOp, match=f"operator {overload} is not one of those that a file may name"):
        check_named(overload)


IMAGE = torch.zeros(1, 2, 4, 4, device="meta")
TRUSTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a dilation of zero": ("conv2d.default", {"dilation": [1, 0]}, "dilation is 0"),
    "no groups": ("channel_shuffle.default", {"self": IMAGE, "groups": 0}, "groups is 0"),
    "a step backwards": ("max_pool2d.default", {"self": IMAGE, "kernel_size": 2, "stride": -1}, "stride is -1"),
    "a dtype without kernels": ("to.dtype", {"self": IMAGE, "dtype": "torch.qint8"}, "dtype is torch.qint8"),
    "a factor of another size": (
        "_upsample_bicubic2d_aa.default",
        {"self": IMAGE, "output_size": [8, 8], "align_corners": False, "scales_h": 1e-5, "scales_w": 2.0},
        "by a factor of 1e-05",
    ),
    "elements that lie on each other": ("median.dim", {"self": IMAGE.expand(3, 2, 4, 4), "dim": 0}, "was expanded"),
    "a scale of nothing": (
        "fake_quantize_per_tensor_affine.default",
        {"self": IMAGE, "scale": 0.0, "zero_point": 0, "quant_min": 0, "quant_max": 255},
        "scale is 0.0",
    ),
    "an interpolation that is none": (
        "grid_sampler_3d.default",
        {"input": IMAGE[None], "grid": IMAGE, "interpolation_mode": 2, "padding_mode": 0, "align_corners": False},
        "no interpolation 2",
    ),
    "a statistic of another layer": (
        "_native_batch_norm_legit_no_training.default",
        {"input": IMAGE, "weight": None, "bias": None, "running_mean": IMAGE[0, 0, 0], "running_var": IMAGE[0, 0, 0]},
        r"running_mean has the shape \[4\] for 2 channels",
    ),
    "a million parts": (
        "unbind.int", {"self": torch.zeros(MOST_PARTS + 1, device="meta"), "dim": 0}, f"{MOST_PARTS + 1} values"
    ),
    "a million sections": ("tensor_split.sections", {"self": IMAGE, "sections": 2**40, "dim": 0}, f"{2**40} values"),
}  # fmt: skip


@pytest.mark.parametrize("what", TRUSTED)
def test_what_a_kernel_would_trust_is_refused(what: str) -> None:
    overload, arguments, said = TRUSTED[what]
    with pytest.raises(ValueError, match=said):
        check_call(overload, arguments)


def test_a_state_for_another_batch_is_refused_before_the_kernel_reads_behind_it() -> None:
    network = torch.nn.LSTM(3, 2)
    params = list(network.parameters())

    def called(batch: int) -> object:
        states = [torch.zeros(1, 2, 2), torch.zeros(1, batch, 2)]
        return call_aten("lstm.input", {
            "input": torch.zeros(4, 2, 3), "hx": states, "params": params, "has_biases": True, "num_layers": 1,
            "dropout": 0.0, "train": False, "bidirectional": False, "batch_first": False,
        })  # fmt: skip

    called(2)
    with pytest.raises(ValueError, match=r"\(1, 1, 2\).*they must have"):
        called(1)


def test_the_work_of_a_layer_is_about_its_multiplications() -> None:
    weight, image, made = torch.zeros(8, 4, 3, 3), torch.zeros(1, 4, 10, 10), torch.zeros(1, 8, 10, 10)
    assert (
        work("conv2d.default", {"input": image, "weight": weight}, made) == 800 * 4 * 9 * 2
    )  # twice: the fewer outputs
    assert work("mm.default", {"self": torch.zeros(3, 40), "mat2": torch.zeros(40, 5)}, torch.zeros(3, 5)) == 200 * 40
