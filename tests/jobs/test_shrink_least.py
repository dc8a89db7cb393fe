"""The main job where a cost shall be least, and where INT8 holds only with some layers in float."""

from pathlib import Path

import numpy as np
import pytest

from scripted_jobs import Done, done
from scripted_target import Scores, Scripted, Turn, in_blocks
from slimwright import Budget
from slimwright.errors import BudgetError
from slimwright.graph import load_net
from slimwright.measure.bundle import CandidateRecord
from slimwright.techniques import Quantize
from small_digits import SIZES, small_digit_net

MOST = 1.0  # points of accuracy that may be lost


@pytest.fixture(scope="module")
def fastest(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The least time within a drop; a model takes what its layers take, four channels at a time."""
    board = Scripted(layer_ms=in_blocks(4))
    return done(board, Budget(minimise="latency", max_drop=MOST), tmp_path_factory.mktemp("fastest") / "b")


def drop(job: Done, one: CandidateRecord) -> float:
    """Points of accuracy that a candidate loses on the validation part."""
    return job.candidate("original").validation_score - one.validation_score


def test_the_fastest_candidate_within_the_drop_is_shipped(fastest: Done) -> None:
    manifest = fastest.bundle.manifest
    (chosen,) = (one for one in manifest.candidates if one.chosen)
    within = [one for one in manifest.candidates if one.proven and drop(fastest, one) <= MOST]
    assert len(within) > 2 and chosen in within
    assert chosen.latency_ms == min(one.latency_ms for one in within)
    assert chosen.latency_ms < 0.8 * fastest.candidate("original").latency_ms
    assert fastest.bundle.summary.latency_ms < 0.8 * fastest.bundle.summary.latency_ms_original


def test_candidates_that_are_faster_and_lose_more_are_told(fastest: Done) -> None:
    (chosen,) = (one for one in fastest.bundle.manifest.candidates if one.chosen)
    faster = [one for one in fastest.bundle.manifest.candidates if one.latency_ms < chosen.latency_ms]
    assert len({one.name for one in fastest.bundle.manifest.candidates}) == len(fastest.bundle.manifest.candidates)
    assert faster and all(drop(fastest, one) > MOST for one in faster)
    whys = {one.why for one in fastest.bundle.manifest.decisions if one.outcome == "not chosen"}
    assert whys >= {f"it loses {drop(fastest, one):.2f} points, more than {MOST:g}" for one in faster}


def test_a_cost_to_minimise_needs_no_limit(fastest: Done) -> None:
    manifest = fastest.bundle.manifest
    assert manifest.budget == {"max_drop": "1.0", "minimise": "latency"} and manifest.limits == {}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """INT8 takes half the time, and gives nonsense where each of the layers is in INT8."""

    def whole_ms(turn: Turn, layers_ms: float) -> float:
        return layers_ms * (0.5 if turn.model.quantized else 1.0)

    def scores(turn: Turn, found: Scores) -> Scores:
        return np.roll(found, 3, axis=1) if all(layer.quantized for layer in turn.model.layers) else found

    budget = Budget(latency_ms="0.6x", max_drop=20)
    return done(Scripted(whole_ms=whole_ms, scores=scores), budget, tmp_path_factory.mktemp("mixed") / "b")


def test_int8_that_fails_whole_is_tried_with_its_first_and_last_layer_in_float(mixed: Done) -> None:
    names = ["original", "int8", "int8, rounded by least squares", "int8, 2 layers in float"]
    assert [one.name for one in mixed.bundle.manifest.candidates] == names
    *wholes, part = (mixed.candidate(name) for name in names[1:])
    assert not any(whole.proven or whole.chosen for whole in wholes) and part.proven and part.chosen
    assert mixed.outcomes()["candidate 'int8'"] == "taken back"
    assert mixed.reason("candidate 'int8'").startswith("it failed its proof: its outputs differ from the network's")


def test_what_is_shipped_has_its_first_and_last_layer_in_float(mixed: Done) -> None:
    first, middle, last = (node.name for node in small_digit_net().weighted())
    (step,) = (step for step in mixed.bundle.recipe.steps if isinstance(step, Quantize))
    assert step == Quantize(images=SIZES["calibration"], keep_float=(first, last), rounding="least squares")
    assert [layer.quantized for layer in mixed.board.told[-1].model.layers] == [False, True, False]
    net = load_net(mixed.bundle.path / "net")
    assert set(net.encodings) == {net[middle].tensors["weight"]}
    assert mixed.bundle.summary.within_budget and mixed.bundle.manifest.result.precision == "int8"


def test_a_whole_network_that_loses_little_within_all_limits_ends_the_search(mixed: Done, tmp_path: Path) -> None:
    """Nothing is observed, no layer is timed; a limit with no room for noise does not end it."""
    assert not mixed.board.layer_jobs and mixed.outcomes()["planning"] == "not chosen"
    assert "observe" not in {event.stage for event in mixed.told}
    assert drop(mixed, mixed.candidate("int8, 2 layers in float")) <= 0.25 * mixed.bundle.manifest.max_drop
    board = Scripted(mixed.board.runs, whole_ms=mixed.board.whole_ms, scores=mixed.board.scores)
    tight = done(board, Budget(latency_ms="0.505x", max_drop=20), tmp_path / "b")
    assert len(tight.bundle.manifest.candidates) > 3 and "planning" not in tight.outcomes()


def test_energy_may_be_limited_on_a_board_that_can_measure_it(tmp_path: Path) -> None:
    board = Scripted(energy_mj=lambda turn: 1 + turn.model.macs * 1e-5)
    limited = done(board, Budget(energy_mj="0.8x", max_drop=100), tmp_path / "b").bundle
    original, result = limited.manifest.original, limited.manifest.result
    assert original.energy_mj == pytest.approx(1 + original.macs * 1e-5)
    assert result.energy_mj == pytest.approx(1 + result.macs * 1e-5)
    assert limited.manifest.limits == {"energy_mj": pytest.approx(0.8 * (1 + original.macs * 1e-5))}
    assert limited.summary.within_budget and result.macs < original.macs


def test_energy_that_the_board_cannot_measure_is_no_limit(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="energy_mj was not measured"):
        done(Scripted(), Budget(energy_mj="0.8x", max_drop=100), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
