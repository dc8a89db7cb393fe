"""Policies on a search whose best answer is known: what they propose, find, repeat, and go on with."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from scripted_search import BLOCKS, FREE, SCORE, Told, original, residual_net, scored, searched, space
from slimwright import errors
from slimwright.errors import MissingExtra, RequestError
from slimwright.search import METHODS, Evaluation, Reward, Search, hypervolume
from slimwright.search.policies.reward import limit_share
from slimwright.techniques import Prune, Remove
from slow import slow

FEW = 12
LEARNED_IN = 40  # tries, of which the policies below are better than random ones
SEEDS, TIGHT = (0, 1, 2), "0.45x"


def tried(method: str, folder: Path, *, evaluations: int = FEW, seed: int = 0) -> list[str]:
    """The recipes that a policy asks for, in order."""
    _, evaluate = searched(Search(method, evaluations, seed), folder, space())
    return evaluate.asked


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_candidates(method: str, tmp_path: Path) -> None:
    first, again = (tried(method, tmp_path / name) for name in ("first", "again"))
    assert first == again and len(set(first)) > 1
    if method != "netadapt":  # which draws nothing
        assert tried(method, tmp_path / "other", seed=1) != first


@pytest.mark.parametrize("method", METHODS)
def test_a_search_that_was_killed_goes_on_and_evaluates_nothing_twice(method: str, tmp_path: Path) -> None:
    policy = Search(method, FEW)
    wanted, whole = searched(policy, tmp_path / "whole", space())
    with pytest.raises(KeyboardInterrupt):
        searched(policy, tmp_path / "killed", space(), most=whole.evaluated // 2)
    found, rest = searched(policy, tmp_path / "killed", space())
    assert rest.evaluated == whole.evaluated - whole.evaluated // 2
    assert rest.asked == whole.asked and found.key == wanted.key


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_within_the_limit_and_no_more_is_tried_than_was_asked_for(method: str, tmp_path: Path) -> None:
    told = Told()
    best, evaluate = searched(Search(method, FEW), tmp_path, space(told=told))
    assert best.cost.macs <= 0.6 * original().cost.macs
    tries = [event for event in told.events if event.stage == "search"]
    assert 0 < tries[-1].done <= FEW == tries[-1].total
    assert [event.done for event in tries] == list(range(1, len(tries) + 1))
    assert all("of the macs, accuracy" in event.note and "networks" in event.picture for event in tries)
    assert evaluate.evaluated <= FEW + 3  # and the best few, solved on all images


@pytest.mark.parametrize("method", [each for each in METHODS if each not in ("random", "reinforce")])
def test_no_candidate_is_beyond_the_limit(method: str, tmp_path: Path) -> None:
    """Costs are counted here, so what cannot meet the limit is masked; NetAdapt comes from above, a round at a time."""
    told, seen = Told(), list[Evaluation]()
    policy = Search(method, FEW)

    def watched(where: object, evaluate: object, journal: object) -> Evaluation:
        def noted(candidate: object) -> Evaluation:
            one: Evaluation = evaluate(candidate)  # type: ignore[operator]
            seen.append(one)
            return one

        return policy(where, noted, journal)  # type: ignore[arg-type]

    searched(watched, tmp_path, space(told=told))
    limit = 0.6 * original().cost.macs
    fitting = [one.cost.macs <= limit for one in seen]
    assert all(fitting) if method != "netadapt" else fitting[-1]


Mean = tuple[float, float]  # over seeds: the best score, and the area of the front below the limit


def mean(method: str, folder: Path) -> Mean:
    """How well a policy does on average over seeds, with as many evaluations as any other."""
    bests, areas = 0.0, 0.0
    for seed in SEEDS:
        best, evaluate = searched(Search(method, LEARNED_IN, seed), folder / f"{method}{seed}", space(TIGHT))
        bests += best.score / len(SEEDS)
        areas += hypervolume(evaluate.points, float(TIGHT.rstrip("x")), 0.0) / len(SEEDS)
    return bests, areas


@pytest.fixture(scope="module")
def at_random(tmp_path_factory: pytest.TempPathFactory) -> Mean:
    return mean("random", tmp_path_factory.mktemp("random"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reinforce", "ddpg", "netadapt", "tpe"])
def test_a_policy_finds_a_better_net_than_a_random_one(method: str, at_random: Mean, tmp_path: Path) -> None:
    assert mean(method, tmp_path)[0] > at_random[0]


@pytest.mark.parametrize("method", ["nsga2", slow("tpe")])
def test_a_policy_of_two_aims_finds_a_better_front_than_a_random_one(
    method: str, at_random: Mean, tmp_path: Path
) -> None:
    assert mean(method, tmp_path)[1] > at_random[1]


@pytest.mark.slow
def test_with_ranks_every_policy_of_all_knobs_stays_within_the_limit(tmp_path: Path) -> None:
    for method in ("nsga2", "tpe", "netadapt", "random"):
        best, _ = searched(Search(method, 6), tmp_path / method, space(ranks=True))
        assert best.cost.macs <= 0.6 * original().cost.macs, method


def test_nothing_is_searched_where_the_whole_net_will_do(tmp_path: Path) -> None:
    told = Told()
    best, evaluate = searched(Search("nsga2", FEW), tmp_path, space("1x", told=told))
    assert best.key == original().key and not evaluate.asked
    assert told.notes[-1][:2] == ("search", "not chosen")


def test_the_script_knows_which_blocks_may_go() -> None:
    sums = [node.name for node in residual_net().nodes if node.op == "add"]
    for number, name in enumerate(sums):
        assert (scored((Remove(layers=(name,)),)) == SCORE) is (number in FREE)
    assert len(sums) == BLOCKS and scored((Prune(keep={}),)) == SCORE


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"method": "luck"}, "there is no policy 'luck'; there are plan, reinforce"),
        ({"method": "tpe", "evaluations": 0}, "at least 1 evaluation, not 0"),
    ],
)
def test_what_is_no_search_is_refused(how: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Search(**how)  # type: ignore[arg-type]


def test_a_policy_that_tries_nets_refuses_to_minimise(tmp_path: Path) -> None:
    where = space()
    goal = replace(where.goal, budget=replace(where.budget, minimise="macs"))
    with pytest.raises(RequestError, match="the least of a cost is found by the policy plan"):
        searched(Search("tpe"), tmp_path, replace(where, goal=goal))


def test_the_paper_s_rewards_are_what_its_tables_give() -> None:
    """ResNet-18 and VGG11 on CIFAR-10: accuracy, compression, seconds beside the teacher's (tables of the paper)."""
    reward = Reward()
    resnet, vgg = (0.83, 5.46), (0.90, 3.43)
    for accuracy, times, seconds, (whole, took), wanted in (
        (0.81, 5.71, 1.48, resnet, 0.459),
        (0.81, 4.34, 1.60, resnet, 0.397),
        (0.81, 2.56, 1.69, resnet, 0.337),
        (0.84, 20.8, 1.11, vgg, 0.257),
        (0.81, 20.8, 1.13, vgg, 0.196),
        (0.85, 9.0, 1.49, vgg, 0.078),
    ):
        assert reward.of(accuracy / whole, seconds / took, 1 / times) == pytest.approx(wanted, abs=6e-4)


def test_what_failed_is_worth_less_than_anything() -> None:
    where = space()
    one = original()
    assert Reward()(where, replace(one, proven=False)) == -1 < Reward()(where, replace(one, score=0.0))
    assert limit_share(where) == pytest.approx(0.6)


@pytest.mark.parametrize("wrong", [{"score": 0.0}, {"cost": float("nan")}, {"steepness": -1.0}])
def test_thresholds_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="must be numbers above 0"):
        Reward(**wrong)


def test_without_optuna_a_policy_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "optuna" else find_spec(name))
    with pytest.raises(
        MissingExtra, match=r"the policy tpe needs optuna: python -m pip install 'slimwright\[search\]'"
    ):
        searched(Search("tpe", FEW), tmp_path, space())
