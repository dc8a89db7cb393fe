"""A fleet on a scripted board, in this process and on Ray: what it shares, keeps, goes on from, and leaves alone."""

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dying_data import Dying
from guarded_data import Guarded
from scripted_target import Scripted, in_blocks
from shared_workshop import shared_workshop
from slimwright import Net, Settings
from slimwright.cost import count
from slimwright.data import Dataset
from slimwright.errors import DataError, RequestError
from slimwright.jobs.fleet import Crew, FleetPlan, fleet, fleet_plans
from slimwright.measure import Fleet, original_of
from slimwright.reading import sha256_of
from slimwright.storage import read_packed
from small_digits import few_digits, small_digit_net

LOOSE = {"max_drop": 100.0}
BUDGETS = {
    "half": {"macs": "0.5x", **LOOSE},
    "near": {"macs": "0.501x", **LOOSE},
    "fast": {"latency": "0.6x", **LOOSE},
}
SUBSETS = {"every": "all", "low": [0, 1, 2, 3, 4]}


def asked(budgets: Sequence[str] = tuple(BUDGETS), subsets: Sequence[str] = tuple(SUBSETS), **more: Any) -> FleetPlan:
    content = {
        "budgets": {name: BUDGETS[name] for name in budgets},
        "subsets": {name: SUBSETS[name] for name in subsets},
    }
    return FleetPlan.model_validate({"model": "small", "data": "few digits", **content, **more})


def made(plan: FleetPlan, home: Path, out: str = "fleet", *, board: Scripted | None = None, **more: Any) -> Fleet:
    data: Dataset = more.pop("data", few_digits())
    crew = more.pop("crew", None)
    settings = Settings(target=board or Scripted(), cache=home / "cache", workshop=shared_workshop(), **more)
    return fleet(original_of(small_digit_net(), []), plan, data=data, out=home / out, settings=settings, crew=crew)


@functools.cache
def blocks() -> Scripted:
    return Scripted(layer_ms=in_blocks(4))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="module")
def found(home: Path) -> Fleet:
    return made(asked(), home, board=blocks())


def test_every_deployment_is_proven_within_its_limits(found: Fleet) -> None:
    assert [one.name for one in found.deployed] == [f"{subset}/{budget}" for subset in SUBSETS for budget in BUDGETS]
    assert not found.failed and found.within_budget
    for one in found.deployed:
        before, after = one.model.original, one.model.result
        assert one.model.proof.passed and one.model.reading.passed
        if "macs" in one.limits:
            assert after.macs <= one.limits["macs"] == pytest.approx(float(one.asked["macs"][:-1]) * before.macs)
        else:
            assert after.latency_ms <= one.limits["latency_ms"] == pytest.approx(0.6 * before.latency_ms)


def test_a_subset_has_a_head_for_its_classes_alone(found: Fleet, home: Path) -> None:
    for one in found.deployed:
        folder = home / "fleet" / "models" / one.model.key
        net = packed(home / "fleet", one.model.key)
        assert net[net.outputs[0]].shape == (1, len(one.classes))
        assert count(net).macs == one.model.result.macs
        assert json.loads((folder / "about.json").read_text())["labels"] == one.classes
        files = {path.name: sha256_of(path) for path in folder.iterdir() if path.name != "proof.json"}
        assert one.model.sha256 == files and {"model.onnx", "net.swz", "recipe.json", "about.json"} == files.keys()
    assert {len(one.classes) for one in found.deployed} == {5, 10}


def test_scores_are_those_of_the_packed_net_on_the_test_part(found: Fleet, home: Path) -> None:
    images, labels = few_digits().parts["test"]
    assert isinstance(images, torch.Tensor) and isinstance(labels, torch.Tensor)
    for one in found.deployed:
        chosen = torch.isin(labels, torch.tensor([int(name) for name in one.classes]))
        net = packed(home / "fleet", one.model.key)
        (scores,) = net.run((images[chosen],))
        right = 100 * float((scores.argmax(1) == labels[chosen]).double().mean())  # classes 0 to 4 keep their numbers
        assert one.model.result.score == pytest.approx(right)


def test_deployments_with_one_plan_share_a_model(found: Fleet, home: Path) -> None:
    keys = {one.name: one.model.key for one in found.deployed}
    assert keys["every/half"] == keys["every/near"] and keys["low/half"] == keys["low/near"]
    assert keys["every/half"] != keys["every/fast"] and keys["every/half"] != keys["low/half"]
    assert {path.name for path in (home / "fleet" / "models").iterdir()} == set(keys.values())
    assert [one.tried for one in found.deployed if one.budget == "near"] == [0, 0]


def test_what_is_finished_is_not_made_again(found: Fleet, home: Path) -> None:
    records = {path: path.stat().st_mtime_ns for path in (home / "fleet" / "deployments").rglob("*.json")}
    (home / "fleet" / "deployments" / "low" / "fast.json").write_text("{ cut short")
    again = made(asked(), home, board=Scripted(layer_ms=in_blocks(4)))
    assert again.deployed[:5] == found.deployed[:5]
    assert again.deployed[5].model == found.deployed[5].model and again.deployed[5].tried == 0  # its model is there
    same = [path for path, when in records.items() if path.stat().st_mtime_ns == when]
    assert len(same) == 5


def test_one_failure_stops_no_other(home: Path) -> None:
    (home / "blocked" / "deployments" / "every" / "half.json").mkdir(parents=True)
    (home / "blocked" / "fleet.json").write_text("{}")
    seen = made(asked(["half", "near"], ["every"]), home, "blocked")
    (failed,) = seen.failed
    assert failed.name == "every/half" and "half.json" in failed.why
    assert [one.name for one in seen.deployed] == ["every/near"] and not seen.within_budget


def test_plans_alone_read_no_test_part_and_build_nothing(home: Path) -> None:
    board = Scripted(layer_ms=in_blocks(4))
    settings = Settings(target=board, cache=home / "cache", workshop=shared_workshop())
    data = Guarded(few_digits(), "test", "train")
    plans = fleet_plans(original_of(small_digit_net(), []), asked(subsets=["every"]), data=data, settings=settings)
    assert list(plans) == [f"every/{budget}" for budget in BUDGETS]
    assert all(one.feasible for one in plans.values())
    assert plans["every/half"].costs["macs"] <= 0.5 * count(small_digit_net()).macs
    assert plans["every/fast"].costs.keys() == {"latency_ms"}


@pytest.mark.slow
def test_workers_of_ray_make_the_same_and_one_that_dies_loses_nothing(found: Fleet, home: Path, tmp_path: Path) -> None:
    every, marker = few_digits(), tmp_path / "dead"
    dying = Dying(every.name, every.labels, every.parts, every.preprocessing, every.augment, marker, os.getpid())
    board = Scripted(layer_ms=in_blocks(4))
    there = made(asked(["half"], ["low"]), home, "there", board=board, crew=Crew(2), data=dying)
    assert not there.failed, there.failed
    assert marker.exists()
    (one,) = there.deployed
    (other,) = (each for each in found.deployed if each.name == one.name)
    assert (one.key, one.model.key, one.drop) == (other.key, other.model.key, other.drop)
    assert one.model.result == other.model.result and one.model.candidate == other.model.candidate
    nets = [packed(home / out, one.model.key) for out in ("fleet", "there")]
    assert nets[0].digest == nets[1].digest
    assert [path.name for path in (home / "there" / "deployments").rglob("*.json")] == ["half.json"]


def packed(folder: Path, key: str) -> Net:
    """A model of a fleet."""
    return read_packed(folder / "models" / key / "net.swz", base=read_packed(folder / "base.swz"))


def test_an_address_of_fsspec_holds_the_same(home: Path, tmp_path: Path) -> None:
    plan, board = asked(["half"], ["every"]), Scripted()
    settings = Settings(target=board, cache=home / "cache", workshop=shared_workshop())
    original = original_of(small_digit_net(), [])
    seen = fleet(original, plan, data=few_digits(), out="memory://fleets/one", settings=settings)
    again = fleet(original, plan, data=few_digits(), out="memory://fleets/one", settings=settings)
    assert seen.deployed == again.deployed and seen.within_budget


def test_what_cannot_be_is_refused_before_anything_is_done(home: Path, tmp_path: Path) -> None:
    original, board = original_of(small_digit_net(), []), Scripted()
    settings = Settings(target=board, cache=tmp_path / "cache")
    wrong = asked(["half"], ["every"]).model_copy(update={"subsets": {"pets": ["cat", "dog"]}})
    with pytest.raises(DataError, match=r"subset 'pets'.*'cat'"):
        fleet(original, wrong, data=few_digits(), out=tmp_path / "out", settings=settings)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(RequestError, match="is not a fleet"):
        fleet(original, asked(["half"]), data=few_digits(), out=tmp_path / "thesis", settings=settings)
    with pytest.raises(RequestError, match="nothing can be kept at nowhere://"):
        fleet(original, asked(["half"]), data=few_digits(), out="nowhere://x", settings=settings)
    with pytest.raises(RequestError, match="0 workers"):
        fleet_plans(original, asked(["half"], ["every"]), data=few_digits(), settings=settings, crew=Crew(-1))
