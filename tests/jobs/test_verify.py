"""The final proof and its repetition: each check fails where its promise is broken, and only there."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from guarded_data import Guarded
from scripted_jobs import done
from scripted_target import Runs, Scores, Scripted, Turn, in_blocks, unchanged, with_wrong
from slimwright import Budget, Bundle
from slimwright.data import ArrayData, Batch, labelled
from slimwright.errors import DataError, ProofError, RequestError
from slimwright.jobs.verify import Check, verify
from small_digits import SIZES, few_digits, labels_of

WIDE = in_blocks(16, least=32)
RUNS = Runs()
PARITY, ORIGINAL, RESULT = "outputs agree with the network", "accuracy, original", "accuracy, result"
LATENCY, MEMORY, BUDGET = "latency, share of the original", "peak memory of a process", "budget"
EVERY = {PARITY, ORIGINAL, RESULT, LATENCY, MEMORY, BUDGET}
LABELS = labels_of("test")
PERCENT = 100 / SIZES["test"]  # of accuracy, that an image is
Change = Mapping[str, object]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Half the multiply-accumulates; time was not limited."""
    out = tmp_path_factory.mktemp("verified") / "b"
    return done(Scripted(RUNS, WIDE), Budget(macs="0.5x", max_drop=100), out).bundle


def is_result(turn: Turn) -> bool:
    """True for the smaller of the two models."""
    return turn.model.macs < 60_000


def times(factor: float) -> Callable[[Turn, float], float]:
    """The result takes so many times what it took."""
    return lambda turn, ms: ms * (factor if is_result(turn) else 1.0)


def off(share: float) -> Callable[[Turn, Scores], Scores]:
    """One of the result's scores is off, by a share of the largest; the least of an image, so no name changes."""

    def scores(turn: Turn, found: Scores) -> Scores:
        changed = found.copy()
        changed[5, found[5].argmin()] -= share * np.abs(found).max() * is_result(turn)
        return changed

    return scores


def wrong(which: Callable[[Turn], bool], count: int) -> Callable[[Turn, Scores], Scores]:
    """One of the two models names some images more wrongly."""
    return lambda turn, found: with_wrong(found, LABELS, count) if which(turn) else found


def promising(bundle: Bundle, manifest: Change | None = None, **summary: object) -> Bundle:
    """The bundle with other promises."""
    told = bundle.manifest.summary.model_copy(update=summary)
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"summary": told, **(manifest or {})}))


def verified(
    bundle: Bundle,
    whole_ms: Callable[[Turn, float], float] | None = None,
    scores: Callable[[Turn, Scores], Scores] = unchanged,
    rss_bytes: Callable[[Turn], int] | None = None,
) -> dict[str, Check]:
    """What `verify` finds on a board, by name; nobody may read another part than the test part."""
    board = Scripted(RUNS, WIDE, whole_ms or times(1.0), scores)
    board.rss_bytes = rss_bytes or board.rss_bytes
    data = Guarded(few_digits(), "train", "calibration", "validation")
    found = {check.what: check for check in verify(bundle, data, board)}
    assert set(found) == EVERY
    assert [turn.images for turn in board.told] == [SIZES["test"], SIZES["test"], 0, 0]
    return found


def failed(checks: Mapping[str, Check]) -> set[str]:
    return {what for what, check in checks.items() if not check.passed}


def test_a_bundle_is_proven_again_where_it_was_made(bundle: Bundle) -> None:
    checks = verified(bundle)
    assert failed(checks) == set()
    for what, told in ((ORIGINAL, bundle.summary.score_original), (RESULT, bundle.summary.score)):
        assert checks[what].promised == checks[what].found == f"{told:.2f} %"
    assert checks[LATENCY].promised == checks[LATENCY].found == f"{bundle.summary.latency_ratio:.3f}x"
    assert checks[BUDGET].promised == checks[BUDGET].found == "within"


def test_a_slower_machine_changes_no_share(bundle: Bundle) -> None:
    limited = promising(bundle, {"limits": {"latency_ms": 1.01 * bundle.summary.latency_ms}})
    assert failed(verified(limited, lambda turn, ms: 5 * ms)) == set()


@pytest.mark.parametrize(("share", "broken"), [(5e-4, set()), (2e-3, {PARITY})])
def test_scores_of_fp32_may_be_off_by_a_thousandth(bundle: Bundle, share: float, broken: set[str]) -> None:
    assert failed(verified(bundle, scores=off(share))) == broken


@pytest.mark.parametrize(("share", "broken"), [(0.3, set()), (0.6, {PARITY})])
def test_scores_of_int8_may_be_off_by_half(bundle: Bundle, share: float, broken: set[str]) -> None:
    result = bundle.manifest.result.model_copy(update={"precision": "int8"})
    assert failed(verified(promising(bundle, {"result": result}), scores=off(share))) == broken


def test_the_scores_of_the_original_are_not_compared_with_the_net(bundle: Bundle) -> None:
    def doubled(turn: Turn, found: Scores) -> Scores:
        return found if is_result(turn) else 2 * found

    assert failed(verified(bundle, scores=doubled)) == set()


def test_images_that_are_named_otherwise_fail_the_proof_of_the_result(bundle: Bundle) -> None:
    checks = verified(bundle, scores=wrong(is_result, 3))
    assert failed(checks) >= {PARITY, RESULT} and failed(checks) <= {PARITY, RESULT, BUDGET}
    agreement = (SIZES["test"] - 3) / SIZES["test"]
    assert checks[PARITY].found.endswith(f"{agreement:.1%} alike")
    assert checks[RESULT].found == f"{bundle.summary.score - 3 * PERCENT:.2f} %"


def test_an_original_that_lost_accuracy_is_told(bundle: Bundle) -> None:
    checks = verified(bundle, scores=wrong(lambda turn: not is_result(turn), 1))
    assert failed(checks) == {ORIGINAL}
    assert checks[ORIGINAL].found == f"{bundle.summary.score_original - PERCENT:.2f} %"


@pytest.mark.parametrize(("which", "what"), [("score", RESULT), ("score_original", ORIGINAL)])
def test_accuracy_may_be_three_thousandths_below_its_promise_and_any_amount_above(
    bundle: Bundle, which: str, what: str
) -> None:
    told = getattr(bundle.summary, which)
    assert failed(verified(promising(bundle, **{which: told + 0.29}))) == set()
    assert failed(verified(promising(bundle, **{which: told + 0.31}))) == {what}
    assert failed(verified(promising(bundle, **{which: told - 30}))) == set()


@pytest.mark.parametrize(("factor", "broken"), [(0.2, set()), (1.14, set()), (1.16, {LATENCY})])
def test_the_result_may_be_a_seventh_slower_than_promised(bundle: Bundle, factor: float, broken: set[str]) -> None:
    checks = verified(bundle, times(factor))
    assert failed(checks) == broken
    assert checks[LATENCY].found == f"{factor * bundle.summary.latency_ratio:.3f}x"


@pytest.mark.parametrize(
    ("limit", "factor", "broken"),
    [(2.0, 1.9, set()), (2.0, 2.1, {LATENCY, BUDGET}), (1.05, 1.1, {BUDGET}), (0.5, 1.1, {BUDGET})],
)
def test_the_result_may_take_all_that_its_budget_allows(
    bundle: Bundle, limit: float, factor: float, broken: set[str]
) -> None:
    limited = promising(bundle, {"limits": {"latency_ms": limit * bundle.summary.latency_ms}})
    assert failed(verified(limited, times(factor))) == broken


@pytest.mark.parametrize(("factor", "broken"), [(0.5, set()), (1.14, set()), (1.16, {MEMORY})])
def test_the_result_may_take_a_seventh_more_memory_than_promised(
    bundle: Bundle, factor: float, broken: set[str]
) -> None:
    told = bundle.manifest.result.peak_rss_bytes
    checks = verified(bundle, rss_bytes=lambda turn: int(factor * told) if is_result(turn) else 10 * told)
    assert failed(checks) == broken
    assert checks[MEMORY].promised == f"{told / 1e6:.1f} MB"
    assert checks[MEMORY].found == f"{factor * told / 1e6:.1f} MB"


@pytest.mark.parametrize("name", ["size_bytes", "macs", "peak_activation_bytes"])
def test_a_limit_that_is_not_kept_fails_the_budget(bundle: Bundle, name: str) -> None:
    cost = getattr(bundle.manifest.result, name)
    assert failed(verified(promising(bundle, {"limits": {name: cost}}))) == set()
    checks = verified(promising(bundle, {"limits": {name: cost / 1.25}}))
    assert failed(checks) == {BUDGET}
    assert checks[BUDGET].found.startswith(f"{name} is {cost:,.0f}, 25.0 % over its limit of ")


def test_a_budget_that_was_missed_before_may_be_missed_again(bundle: Bundle) -> None:
    missed = promising(bundle, {"limits": {"macs": 10.0}}, within_budget=False, misses=["macs, by far"])
    checks = verified(missed)
    assert failed(checks) == set()
    assert checks[BUDGET].promised == "macs, by far" and "over its limit of 10" in checks[BUDGET].found


def test_accuracy_that_is_lost_counts_against_the_budget_and_accuracy_that_is_won_does_not(bundle: Bundle) -> None:
    none = promising(bundle, {"max_drop": 3.0})
    lost = verified(none, scores=wrong(is_result, 9))
    assert BUDGET in failed(lost) and "accuracy drops by 1" in lost[BUDGET].found and "limit 3" in lost[BUDGET].found
    won = verified(none, scores=wrong(lambda turn: not is_result(turn), 9))
    assert BUDGET not in failed(won) and won[BUDGET].found == "within"


def less_a_row(batch: Batch) -> Batch:
    """Images without their first row."""
    images, labels = labelled(batch)
    return images[:, :, 1:], labels


def test_other_data_is_refused(bundle: Bundle) -> None:
    data = few_digits()
    others = {
        "labels": ArrayData(data.name, tuple("abcdefghij"), data.parts),
        "order": ArrayData(data.name, data.labels[::-1], data.parts),
        "shape": ArrayData(data.name, data.labels, {part: less_a_row(batch) for part, batch in data.parts.items()}),
    }
    board = Scripted(RUNS, WIDE)
    for other in others.values():
        with pytest.raises(DataError, match="the bundle was proven on 'few digits'"):
            verify(bundle, other, board)
    assert board.jobs == 0


def test_a_proof_that_needs_more_memory_than_there_is_does_not_begin(bundle: Bundle) -> None:
    board = Scripted(RUNS, WIDE)
    with pytest.raises(RequestError, match=r"^proving the result on .* and 100.kB are there: .* --memory-limit$"):
        verify(bundle, few_digits(), board, memory_bytes=100_000)
    assert board.jobs == 0


def test_a_result_that_fails_the_final_proof_is_not_shipped(bundle: Bundle) -> None:
    """What is there already stays."""

    def spoilt(turn: Turn, found: Scores) -> Scores:
        return off(0.01)(turn, found) if turn.images == SIZES["test"] else found

    board, out = Scripted(RUNS, WIDE, scores=spoilt), bundle.path
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ProofError, match=r"the result does not compute what its net .*: relative error 0\.01 "):
        done(board, Budget(macs="0.5x", max_drop=100), out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert list(out.parent.iterdir()) == [out]
    assert [turn.images for turn in board.told][-4:] == [SIZES["test"], SIZES["test"], 0, 0]


def test_int8_that_is_as_fast_is_not_planned_for_where_size_does_not_count(bundle: Bundle) -> None:
    names = [candidate.name for candidate in bundle.manifest.candidates]
    assert names == ["original", "int8", "pruned", "pruned, solved in full"] and bundle.manifest.candidates[1].proven
    assert bundle.manifest.candidates[1].latency_ms == bundle.manifest.candidates[0].latency_ms
