"""The main job with a limit on the packed file: fewer weights, coarser weights, and the file that is handed back."""

import pytest

from scripted_jobs import Done, done
from scripted_target import Scripted, in_blocks
from slimwright import Budget
from slimwright.graph import load_net
from slimwright.storage import packed_bytes, read_packed
from slimwright.techniques import Round
from small_digits import small_digit_net

SHARE = 0.08  # of the original's packed file


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("packed")
    budget = Budget(packed_bytes=f"{SHARE}x", max_drop=100)
    return done(Scripted(layer_ms=in_blocks(4)), budget, folder / "b", seed=7, cache=folder / "cache", name="small")


def test_the_file_takes_what_was_asked_within_one_per_cent(packed: Done) -> None:
    manifest = packed.bundle.manifest
    asked = SHARE * packed_bytes(small_digit_net())
    assert manifest.limits["packed_bytes"] == pytest.approx(asked)
    found = manifest.result.packed_bytes
    assert found is not None and 0.985 * asked <= found <= asked and manifest.summary.within_budget
    file = packed.bundle.path / "model.swz"
    assert file.stat().st_size == found and "model.swz" in manifest.sha256
    assert read_packed(file).digest == load_net(packed.bundle.path / "net").digest


def test_fewer_weights_are_tried_beside_all_of_them(packed: Done) -> None:
    names = [candidate.name for candidate in packed.bundle.manifest.candidates]
    assert names[0] == "original" and names[1].startswith("rounded to")
    assert any("of the weights, rounded to" in name for name in names)
    steps = packed.bundle.recipe.steps
    assert isinstance(steps[-1], Round) and steps[-1].size_bytes is not None and steps[-1].images is None


def test_the_best_that_was_measured_is_solved_in_full_and_shipped(packed: Done) -> None:
    tried = packed.bundle.manifest.candidates
    chosen = next(candidate for candidate in tried if candidate.chosen)
    ranked = [one for one in tried if "rounded" in one.name and "in full" not in one.name]
    best = max(one.validation_score for one in ranked)
    assert chosen.name.removesuffix(", solved in full") in {one.name for one in ranked if one.validation_score == best}


def test_a_size_that_no_rounding_reaches_is_missed_and_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tiny")
    budget = Budget(packed_bytes="60B", max_drop=100)
    found = done(Scripted(layer_ms=in_blocks(4)), budget, folder / "b", seed=7, cache=folder / "cache", name="small")
    assert not found.bundle.summary.within_budget
    assert any("packed" in miss for miss in found.bundle.summary.misses)
