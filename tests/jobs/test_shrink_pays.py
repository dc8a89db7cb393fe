"""The main job where something does not pay: INT8 that is slow or wrong, nets that are smaller and no faster."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from scripted_jobs import Done, done
from scripted_target import Layer, Runs, Scores, Scripted, Turn, in_blocks
from slimwright import Budget
from slimwright.data import labelled
from slimwright.graph import load_net
from slimwright.runtimes.onnxruntime import INPUT, quantize
from slimwright.techniques import Quantize
from small_digits import SIZES, few_digits, labels_of, small_digit_net

Folder = Callable[[str], Path]
WIDE = in_blocks(16, least=32)  # channels in steps of 16: too wide for ranks in the small net
RUNS = Runs()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return lambda name: tmp_path_factory.mktemp(name) / "b"


def small_models(job: Done, *, quantized: bool) -> list[Turn]:
    """Models of a precision, smaller than the original, that the board was sent."""
    whole_macs = job.board.told[0].model.macs
    return [turn for turn in job.board.told if turn.model.quantized == quantized and turn.model.macs < whole_macs]


@pytest.fixture(scope="module")
def no_faster(folder: Folder) -> Done:
    """No smaller net is faster than the whole one of its precision; INT8 gives what FP32 gives."""
    known: dict[int, Scores] = {}

    def as_before(turn: Turn, scores: Scores) -> Scores:
        return known.setdefault(turn.images, scores)

    board = Scripted(RUNS, WIDE, lambda turn, _: 0.5 if turn.model.quantized else 1.0, as_before)
    budget = Budget(latency_ms="0.05x", max_drop=0)
    return done(board, budget, folder("no_faster"))


def test_plans_that_are_no_faster_than_the_whole_net_of_their_precision_are_taken_back(no_faster: Done) -> None:
    outcomes = no_faster.outcomes()
    assert [each.name for each in no_faster.bundle.manifest.candidates] == ["original", "int8"]
    for name in ("pruned", "pruned, int8"):
        assert outcomes[f"plan '{name}'"] == "taken back"
        assert no_faster.reason(f"plan '{name}'").startswith("the smaller net takes 1.00x the time of the whole one")
    assert small_models(no_faster, quantized=False) and small_models(no_faster, quantized=True)  # they were measured
    assert {turn.images for quantized in (False, True) for turn in small_models(no_faster, quantized=quantized)} == {0}


def test_a_budget_that_nothing_meets_is_missed_by_the_nearest(no_faster: Done) -> None:
    manifest = no_faster.bundle.manifest
    assert [candidate.chosen for candidate in manifest.candidates] == [False, True]
    assert no_faster.outcomes()["candidate 'int8'"] == "kept"
    assert manifest.summary.misses == ["latency_ms is 0.5, 900.0 % over its limit of 0.05"]
    assert not manifest.summary.within_budget and manifest.summary.latency_ratio == 0.5
    assert manifest.result.macs == manifest.original.macs


def test_channels_are_told_whole_where_the_chosen_one_is_not_pruned(no_faster: Done) -> None:
    for what in ("0: all 8 channels", "2: all 16 channels"):
        assert no_faster.outcomes()[what] == "left whole"
        assert no_faster.reason(what) == "the chosen candidate is not pruned"


def test_nothing_is_tuned_where_no_more_accuracy_is_lost_than_may_be(no_faster: Done) -> None:
    """None may be lost, and none is; the train part is closed."""
    first, chosen = no_faster.bundle.manifest.candidates
    assert first.validation_score == chosen.validation_score
    assert no_faster.bundle.manifest.max_drop == 0
    assert "fine-tuning" not in no_faster.outcomes()


def test_int8_is_calibrated_on_all_of_the_calibration_part(no_faster: Done, tmp_path: Path) -> None:
    path, parts = no_faster.bundle.path, few_digits().parts
    (images, _), (others, _) = labelled(parts["calibration"]), labelled(parts["validation"])
    shipped = scales(path / "model.onnx")
    for name, some in {"few": images[:8], "other": others, "right": images}.items():
        quantize(path / "original.onnx", tmp_path / name, {INPUT: some.numpy()})
        assert same(shipped, scales(tmp_path / name)) == (name == "right"), name
    (step,) = (step for step in no_faster.bundle.recipe.steps if isinstance(step, Quantize))
    assert step.images == SIZES["calibration"]


def scales(path: Path) -> dict[str, NDArray[np.float32]]:
    """What an INT8 model multiplies by."""
    held = onnx.load(path).graph.initializer
    return {each.name: numpy_helper.to_array(each) for each in held if each.data_type == onnx.TensorProto.FLOAT}


def same(some: dict[str, NDArray[np.float32]], others: dict[str, NDArray[np.float32]]) -> bool:
    return bool(some) and list(some) == list(others) and all(np.array_equal(some[name], others[name]) for name in some)


@pytest.fixture(scope="module")
def unproven(folder: Folder) -> Done:
    """INT8 takes a hundredth of the time and names every image rightly, by scores that its net does not give."""

    def too_good(turn: Turn, scores: Scores) -> Scores:
        if not turn.model.quantized or turn.images != SIZES["validation"]:
            return scores
        right: Scores = np.eye(10, dtype=np.float32)[labels_of("validation")]
        changed: Scores = scores + 10 * np.abs(scores).max() * right
        return changed

    board = Scripted(RUNS, WIDE, lambda turn, ms: 0.01 * ms if turn.model.quantized else ms, too_good)
    return done(board, Budget(macs="0.5x", max_drop=100), folder("unproven"))


def test_int8_that_is_not_proven_is_neither_planned_for_nor_shipped(unproven: Done) -> None:
    int8, pruned = unproven.candidate("int8"), unproven.candidate("pruned, solved in full")
    assert int8.validation_score == 100 > pruned.validation_score and int8.latency_ms < 0.1 * pruned.latency_ms
    assert pruned.proven and not int8.proven
    assert pruned.chosen and not int8.chosen
    names = [
        "original",
        "int8",
        "int8, rounded by least squares",
        "int8, 2 layers in float",
        "int8, 1 layer in float that it damages most",
        "pruned",
        "pruned, solved in full",
    ]
    assert [candidate.name for candidate in unproven.bundle.manifest.candidates] == names
    assert not small_models(unproven, quantized=True)
    assert unproven.bundle.manifest.result.precision == "fp32"


def test_what_fails_its_proof_is_taken_back(unproven: Done) -> None:
    assert unproven.outcomes()["candidate 'int8'"] == "taken back"
    why = r"it failed its proof: its outputs differ from the network's: relative error ([\d.]+) \(at most 0\.5\), "
    told = re.match(why, unproven.reason("candidate 'int8'"))
    assert told is not None and float(told[1]) == pytest.approx(10, rel=0.05)  # of the net's largest, not INT8's


def test_without_a_limit_on_time_no_layer_of_the_net_is_timed(unproven: Done) -> None:
    own = {layer.pixels for layer in unproven.board.told[0].model.layers}
    assert own == {16 * 16, 8 * 8, 1}
    assert unproven.board.layers and not own & {layer.pixels for layer in unproven.board.layers}
    assert unproven.candidate("pruned").predicted_latency_ms is None


@pytest.fixture(scope="module")
def slow_int8(folder: Folder) -> Done:
    """INT8 is small enough and takes half as long again; smaller nets take as long as the whole one."""
    board = Scripted(RUNS, WIDE, lambda turn, _: 1.5 if turn.model.quantized else 1.0)
    return done(board, Budget(size_bytes="0.8x", max_drop=100), folder("slow_int8"))


def test_int8_that_is_slower_is_neither_planned_for_nor_shipped_however_small(slow_int8: Done) -> None:
    int8, limit = slow_int8.candidate("int8"), slow_int8.bundle.manifest.limits["size_bytes"]
    assert int8.proven and int8.size_bytes < limit and not int8.chosen
    assert not small_models(slow_int8, quantized=True)
    assert slow_int8.outcomes()["candidate 'int8'"] == "taken back"
    assert slow_int8.reason("candidate 'int8'") == "it takes 1.50x the original's time; a slower model is never shipped"


def test_a_net_that_is_no_faster_is_shipped_where_its_size_counts(slow_int8: Done) -> None:
    manifest, pruned = slow_int8.bundle.manifest, slow_int8.candidate("pruned, solved in full")
    assert pruned.chosen and pruned.latency_ms == slow_int8.candidate("original").latency_ms
    assert manifest.summary.within_budget and manifest.result.size_bytes <= 0.8 * manifest.original.size_bytes
    assert manifest.summary.size_bytes == manifest.result.size_bytes == pruned.size_bytes


@pytest.mark.parametrize(("disturbed", "ships"), [(2, True), (3, False)])
def test_what_seems_slower_is_timed_again_before_that_is_believed(folder: Folder, disturbed: int, ships: bool) -> None:
    """Every smaller net takes four times as long in the first jobs that time it, as beside other work."""
    seen: Counter[str] = Counter()

    def at_first(turn: Turn, layers_ms: float) -> float:
        seen[turn.model.digest] += 1
        smaller = turn.model.macs < board.told[0].model.macs
        return 4 * layers_ms if smaller and seen[turn.model.digest] <= disturbed else layers_ms

    board = Scripted(RUNS, WIDE, at_first)
    job = done(board, Budget(macs="0.5x", max_drop=100), folder("disturbed"))
    manifest = job.bundle.manifest
    assert (manifest.result.macs < manifest.original.macs) == manifest.summary.within_budget == ships
    assert ships or "a slower model is never shipped" in job.reason("candidate 'pruned'")


def test_where_odd_counts_are_slower_than_the_whole_channels_are_planned_in_steps(folder: Folder) -> None:
    """Channels that are no multiple of eight take three times as long as the whole, as kernels for blocks can."""

    def ms(layer: Layer) -> float:
        odd = any(channels % 8 for channels in (layer.inputs, layer.outputs) if channels > 10)
        return 3 * in_blocks(8)(layer) if odd else in_blocks(8)(layer)

    job = done(Scripted(RUNS, ms), Budget(macs="0.6x", max_drop=100), folder("odd"), net=small_digit_net(4))
    shipped = job.candidate("pruned in steps of 32, solved in full")
    assert shipped.chosen and shipped.latency_ms < job.candidate("original").latency_ms
    assert job.outcomes()["candidate 'pruned'"] == "taken back"
    assert "a slower model is never shipped" in job.reason("candidate 'pruned'")
    assert job.bundle.summary.within_budget and job.bundle.manifest.result.macs <= job.bundle.manifest.limits["macs"]
    saved = load_net(job.bundle.path / "net")
    assert [saved.tensors[node.tensors["weight"]].shape[0] % 8 for node in saved.weighted()][:2] == [0, 0]


@pytest.fixture(scope="module")
def half_fixed(folder: Folder) -> Done:
    """Half the time does not fall with the layers, which no prediction knows; INT8 is as fast as FP32."""
    whole_ms = 0.9472

    def fixed(turn: Turn, layers_ms: float) -> float:
        return whole_ms + layers_ms

    board = Scripted(RUNS, WIDE, fixed)
    return done(board, Budget(latency_ms="0.7x", size_bytes="0.5x", max_drop=100), folder("half_fixed"))


def test_a_plan_is_corrected_until_what_was_measured_fits(half_fixed: Done) -> None:
    original, pruned = half_fixed.candidate("original"), half_fixed.candidate("pruned, int8")
    assert pruned.predicted_latency_ms is not None
    assert pruned.predicted_latency_ms < 0.6 * original.latency_ms < pruned.latency_ms <= 0.7 * original.latency_ms
    measured = {turn.model.macs for turn in small_models(half_fixed, quantized=True)}
    assert len(measured) == 3  # a first guess, and two that are nearer to the limit
    assert half_fixed.bundle.summary.within_budget


def test_int8_that_is_as_fast_is_planned_for_where_size_counts(half_fixed: Done) -> None:
    assert half_fixed.candidate("int8").latency_ms == half_fixed.candidate("original").latency_ms
    names = [candidate.name for candidate in half_fixed.bundle.manifest.candidates]
    assert names == [
        "original",
        "int8",
        "pruned",
        "pruned, int8",
        "pruned, int8, solved in full",
    ]  # no second plan where there are no ranks
    limit = half_fixed.bundle.manifest.limits["size_bytes"]
    assert all(half_fixed.candidate(name).size_bytes <= limit for name in ("pruned", "pruned, int8"))
