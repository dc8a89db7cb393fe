"""The plan of a fleet: what it says, and what is refused with the field that is wrong."""

from pathlib import Path

import pytest

from slimwright.errors import RequestError
from slimwright.jobs.fleet import load_plan

HEAD = "model: net\ndata: digits\n"


def plan(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def test_budgets_by_subsets_are_deployed(tmp_path: Path) -> None:
    text = (
        HEAD
        + "budgets: {a: {latency: 0.5x}, b: {macs: 1000000, runtime: ncnn}}\nsubsets: {every: all, few: [0, two]}\n"
    )
    found = load_plan(plan(tmp_path, text)).every
    assert [one.name for one in found] == ["every/a", "every/b", "few/a", "few/b"]
    assert found[2].classes == ("0", "two") and found[0].classes == ()
    assert found[1].budget.macs == "1000000" and found[1].runtime == "ncnn" and found[0].runtime == "onnxruntime"
    assert found[0].ground != found[1].ground and found[0].asked.said == {"latency": "0.5x"}


def test_some_pairs_may_be_listed(tmp_path: Path) -> None:
    text = HEAD + "budgets: {a: {latency: 1ms}, b: {size: 1MB}}\ndeployments: [{subset: all, budget: b}]\n"
    assert [one.name for one in load_plan(plan(tmp_path, text)).every] == ["all/b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budgets: {a: {latency: 0.5x}}\n", "model"),
        (HEAD + "budgets: {}\n", "budgets"),
        (HEAD + "budgets: {a: {latency: fast}}\n", "budget 'a': latency_ms is 'fast'"),
        (HEAD + "budgets: {a: {max_drop: 1}}\n", "budget 'a': a budget needs at least one limit"),
        (HEAD + "budgets: {a: {latency: 0.5x, minimise: size}}\n", r"budgets\.a\.minimise"),
        (HEAD + "budgets: {../a: {latency: 0.5x}}\n", "budgets"),
        (HEAD + "budgets: {a: {latency: 0.5x}}\nsubsets: {one: [0]}\n", "subset 'one' names 1 classes"),
        (HEAD + "budgets: {a: {latency: 0.5x}}\nsubsets: {one: [0, 0]}\n", "each once"),
        (HEAD + "budgets: {a: {latency: 0.5x}}\ndeployments: [{subset: x, budget: a}]\n", "no such subset"),
        (HEAD + "budgets: {a: &x {latency: 0.5x}, b: *x}\n", "aliases"),
        (HEAD + "budgets: !!python/object/apply:os.system ['true']\n", "is not the plan of a fleet"),
        ("- just\n- a list\n", "is not the plan of a fleet"),
        ("{", "is not the plan of a fleet"),
    ],
)
def test_a_wrong_plan_is_refused_by_its_field(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said):
        load_plan(plan(tmp_path, text))
    with pytest.raises(RequestError, match=r"plan\.yaml"):
        load_plan(plan(tmp_path, text))


def test_a_plan_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        load_plan(tmp_path / "none.yaml")
