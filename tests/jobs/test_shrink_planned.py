"""The main job with a latency limit, on a board whose every time is known: what is planned, measured and said of it."""

import pytest

from scripted_jobs import Done, done
from scripted_target import EMPTY_RSS_BYTES, Scores, Scripted, Turn, in_blocks, with_wrong
from slimwright import Budget, load_bundle
from slimwright.cost import count
from slimwright.evidence import load_evidence, observe
from slimwright.graph import load_net
from slimwright.reading import sha256_of
from slimwright.search.planning import LEAST_IMAGES
from slimwright.tasks import Classification
from slimwright.techniques import Factorise, Fold, Prune, Quantize, Solve
from small_digits import SIZES, few_digits, labels_of, small_digit_net

LIMIT, INT8_SHARE = 0.25, 0.5  # of the original's time
STEP = 4  # channels that the board computes at once
LAYERS = ("0", "2", "6")
BEST = "pruned and factorised, int8"
FACTORISED = (
    BEST,
    f"{BEST}, solved in full",
)  # of one plan; which one names more images correctly hangs on the processor
WHOLE = {"0": 8, "2": 16}  # channels of the convolutions


def drifting(turn: Turn, layers_ms: float) -> float:
    """INT8 takes half the time, and every job finds the clock somewhere else."""
    return layers_ms * (INT8_SHARE if turn.model.quantized else 1.0) * clock(turn)


def clock(turn: Turn) -> float:
    """What a job's times are multiplied by."""
    return 1 + 0.25 * (turn.job % 4)


def by_form(turn: Turn, scores: Scores) -> Scores:
    """INT8 of layers that are not factorised names three images more wrongly, few enough to be proven."""
    if turn.images == SIZES["validation"] and turn.model.quantized and len(turn.model.layers) == len(LAYERS):
        return with_wrong(scores, labels_of("validation"), 3)
    return scores


def started(turn: Turn) -> dict[str, object]:
    """What tells the artefacts apart, beside their times."""
    return {"load_ms": 2.0, "first_run_ms": turn.model.size_bytes / 1e4, "planned_bytes": turn.model.macs}


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A quarter of the time, and any accuracy."""
    folder = tmp_path_factory.mktemp("timed")
    board = Scripted(layer_ms=in_blocks(STEP), whole_ms=drifting, scores=by_form, more=started)
    budget = Budget(latency_ms=f"{LIMIT}x", max_drop=100)
    return done(board, budget, folder / "b", seed=7, cache=folder / "cache", name="small")


def test_channels_alone_and_with_ranks_are_planned_in_both_precisions(timed: Done) -> None:
    kinds = ("pruned", "pruned and factorised")
    names = ["original", "int8", *kinds, *(f"{kind}, int8" for kind in kinds), f"{BEST}, solved in full"]
    assert [candidate.name for candidate in timed.bundle.manifest.candidates] == names
    assert [timed.candidate(name).precision == "int8" for name in names] == ["int8" in name for name in names]


def test_the_same_layers_are_timed_once_whatever_their_weights(timed: Done) -> None:
    """The board drifts: another measurement would be another number."""
    share, full = timed.candidate(BEST), timed.candidate(f"{BEST}, solved in full")
    assert share.latency_ms == full.latency_ms and (share.images, full.images) == (128, None)


def test_layers_are_timed_many_in_a_job(timed: Done) -> None:
    assert len(timed.board.layers) > 50  # 32 of the channel step's, more of the net's own
    assert timed.board.layer_jobs <= 9
    assert {layer.pixels for layer in timed.board.layers} >= {16 * 16, 8 * 8}  # of the net's own convolutions
    assert timed.bundle.manifest.channel_step == STEP


def test_what_is_predicted_of_a_plan_is_what_its_layers_take_in_its_precision(timed: Done) -> None:
    """To the last digit almost: every plan lies on the grid, and the board is nothing but the sum of its layers."""
    planned = [each for each in timed.bundle.manifest.candidates if each.predicted_damage is not None]
    assert len(planned) == 5
    for candidate in planned:
        assert candidate.predicted_latency_ms == pytest.approx(candidate.latency_ms, rel=1e-6)
        assert candidate.predicted_damage is not None and candidate.predicted_damage > 0
    assert all(timed.candidate(name).predicted_latency_ms is None for name in ("original", "int8"))


def test_what_int8_gains_is_not_cut_away_again(timed: Done) -> None:
    for kind in ("pruned", "pruned and factorised"):
        fp32, int8 = timed.candidate(kind), timed.candidate(f"{kind}, int8")
        assert int8.macs > 1.5 * fp32.macs
        assert int8.latency_ms <= LIMIT * timed.candidate("original").latency_ms


def test_every_time_is_that_of_the_originals_clock(timed: Done) -> None:
    first = next(turn for turn in timed.board.told if not turn.images)  # timed alone
    whole_ms = sum(map(in_blocks(STEP), first.model.layers))
    scored = [turn for turn in timed.board.told if turn.images == SIZES["validation"]]
    for candidate, turn in zip(timed.bundle.manifest.candidates, scored, strict=True):
        assert candidate.macs == turn.model.macs and candidate.size_bytes == turn.model.size_bytes
        share = sum(map(in_blocks(STEP), turn.model.layers)) / whole_ms * (INT8_SHARE if turn.model.quantized else 1)
        assert candidate.latency_ms == pytest.approx(share * whole_ms * clock(first), rel=1e-9)


def test_candidates_are_judged_on_the_validation_part_and_the_result_alone_on_the_test_part(timed: Done) -> None:
    scored = [turn.images for turn in timed.board.told if turn.images]
    assert scored == [SIZES["validation"]] * 7 + [SIZES["test"]] * 2
    assert timed.data.read[-1] == "test" and timed.data.read.count("test") == 1
    assert set(timed.data.read) == {"calibration", "validation", "test"}
    assert timed.bundle.manifest.proof.images == SIZES["test"]


def test_the_calibration_part_is_observed_with_the_jobs_seed(timed: Done) -> None:
    (path,) = (timed.bundle.path.parent / "cache").glob("evidence-*")
    found, data = load_evidence(path), few_digits()
    task = Classification(data.labels)
    expected = observe(small_digit_net(), data.batches("calibration", 64), task=task, seed=7)
    other = observe(small_digit_net(), data.batches("calibration", 64), task=task, seed=0)
    assert int(found.images.sum()) == SIZES["calibration"]
    for name, sums in found.layers.items():
        assert sums.gram.equal(expected.layers[name].gram)
        assert sums.fisher.equal(expected.layers[name].fisher)
    assert any(not sums.fisher.equal(other.layers[name].fisher) for name, sums in found.layers.items())


def test_the_one_that_is_chosen_is_the_one_that_is_shipped(timed: Done) -> None:
    manifest, steps = timed.bundle.manifest, timed.bundle.recipe.steps
    (chosen,) = (candidate for candidate in manifest.candidates if candidate.chosen)
    assert chosen.name in FACTORISED
    assert chosen.validation_score == max(timed.candidate(name).validation_score for name in FACTORISED)
    assert (chosen.macs, chosen.size_bytes) == (manifest.result.macs, manifest.result.size_bytes)
    assert [type(step) for step in steps] == [Prune, Factorise, Solve, Fold, Quantize]
    assert [step.images for step in steps if isinstance(step, Quantize)] == [SIZES["calibration"]]
    ranked_on = None if chosen.name == FACTORISED[1] else LEAST_IMAGES
    assert [step.images for step in steps if isinstance(step, Solve)] == [ranked_on]
    assert [step.images for step in steps if isinstance(step, Factorise)] == [LEAST_IMAGES]
    net = load_net(timed.bundle.path / "net")
    assert count(net).macs == manifest.result.macs < manifest.original.macs == count(small_digit_net()).macs
    last = timed.board.told[-1].model
    assert last.quantized and last.digest == sha256_of(timed.bundle.path / "model.onnx")
    assert timed.board.told[0].model.digest == sha256_of(timed.bundle.path / "original.onnx")


def test_both_sides_are_told_as_the_final_proof_measured_them(timed: Done) -> None:
    manifest = timed.bundle.manifest
    proof = {turn.model.digest: turn for turn in timed.board.told if not turn.images and turn.job >= last_timing(timed)}
    assert len(proof) == 2
    for side, name in ((manifest.original, "original.onnx"), (manifest.result, "model.onnx")):
        turn = proof[sha256_of(timed.bundle.path / name)]
        ms = drifting(turn, sum(map(in_blocks(STEP), turn.model.layers)))
        assert (side.latency.median_ms, side.latency.p10_ms) == pytest.approx((ms, 0.9 * ms))
        assert (side.latency.p90_ms, side.latency.cpu_ms) == pytest.approx((1.1 * ms, ms))
        assert side.cold_start_ms == pytest.approx(2 + turn.model.size_bytes / 1e4)
        assert side.planned_bytes == turn.model.macs
        assert side.peak_rss_bytes == timed.board.rss_bytes(turn)
        assert sum(side.kernel_ms.values()) == pytest.approx(sum(map(in_blocks(STEP), turn.model.layers)))
        assert side.files == [name] and side.size_bytes == turn.model.size_bytes
    summary = manifest.summary
    assert summary.latency_ratio == pytest.approx(
        manifest.result.latency.median_ms / manifest.original.latency.median_ms
    )
    assert manifest.limits == {"latency_ms": pytest.approx(LIMIT * manifest.original.latency.median_ms)}
    assert summary.within_budget and not summary.misses and summary.latency_ratio <= LIMIT
    assert manifest.empty_runtime_rss_bytes == EMPTY_RSS_BYTES


def last_timing(timed: Done) -> int:
    """The job that timed both sides for the final proof."""
    return max(turn.job for turn in timed.board.told if not turn.images)


def test_a_bundle_says_what_was_asked_and_of_which_board(timed: Done) -> None:
    manifest = timed.bundle.manifest
    assert (manifest.seed, manifest.model, manifest.target) == (7, "small", "a scripted board")
    assert manifest.budget == {"latency_ms": "0.25x", "max_drop": "100"}
    assert manifest.max_drop == 100 and manifest.machine["cpu"] == "scripted"
    assert manifest.data.sizes == SIZES and manifest.data.labels == list(few_digits().labels)
    assert load_bundle(timed.bundle.path).manifest == manifest


def test_candidates_that_hold_but_are_not_shipped_are_not_chosen(timed: Done) -> None:
    outcomes = timed.outcomes()
    names = [candidate.name for candidate in timed.bundle.manifest.candidates if candidate.name != "original"]
    told = {what.split("'")[1]: outcome for what, outcome in outcomes.items() if what.startswith("candidate")}
    (chosen,) = (candidate.name for candidate in timed.bundle.manifest.candidates if candidate.chosen)
    assert told == {name: "kept" if name == chosen else "not chosen" for name in names}
    share = timed.candidate("int8").latency_ms / (LIMIT * timed.candidate("original").latency_ms)
    assert timed.reason("candidate 'int8'") == f"latency_ms is {share:.2f}x its limit"
    best, pruned = (timed.candidate(name) for name in (chosen, "pruned, int8"))
    assert best.proven and pruned.proven and pruned.validation_score < best.validation_score
    behind = best.validation_score - pruned.validation_score
    assert timed.reason("candidate 'pruned, int8'").startswith(f"{behind:.2f} points worse on the validation part")
    lost = timed.candidate("original").validation_score - best.validation_score
    assert timed.reason(f"candidate '{chosen}'").endswith(
        f"; {lost:.2f} points of accuracy lost on the validation part"
    )
    kept = f"{best.latency_ms / timed.candidate('original').latency_ms:.2f}x the original's time, measured; "
    assert timed.reason(f"candidate '{chosen}'").startswith(kept)


def test_what_became_of_channels_and_ranks_is_what_was_done_to_the_layers(timed: Done) -> None:
    outcomes, layers = timed.outcomes(), {layer.name: layer for layer in timed.bundle.manifest.layers}
    for name, whole in WHOLE.items():
        left = layers[name].channels_after
        said = f"{name}: {whole} -> {left} channels" if left < whole else f"{name}: all {whole} channels"
        assert outcomes[said] == ("kept" if left < whole else "left whole")
        assert timed.reason(said).startswith("predicted damage" if left < whole else "the plan leaves it whole")
    assert {layers[name].channels_after < whole for name, whole in WHOLE.items()} == {True, False}
    (factorise,) = (step for step in timed.bundle.recipe.steps if isinstance(step, Factorise))
    ((_, ranks),) = factorise.layers.items()
    assert outcomes[f"2: {ranks.kind} at {' and '.join(map(str, ranks.ranks))}"] == "kept"
    assert outcomes["6: all channels"] == "left whole"
    assert timed.reason("6: all channels") == "they must stay: the net returns them"
