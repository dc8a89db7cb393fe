import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from example_nets import SHAPE, hand_made
from slimwright.coupling import couple
from slimwright.data import ArrayData, split
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques import (
    TECHNIQUES,
    Factorise,
    Fold,
    Merge,
    Prune,
    Quantize,
    Ranks,
    Recipe,
    Regions,
    Remove,
    Solve,
    Step,
    Subset,
    Technique,
    Tune,
    Work,
    applied,
    apply,
    in_turns,
    load_recipe,
)


@pytest.fixture(scope="module")
def data() -> ArrayData:
    images = torch.randn(60, *SHAPE, generator=torch.Generator().manual_seed(0))
    return ArrayData("noise", ("a", "b", "c"), split(images, torch.arange(60) % 3, seed=0))


def group_of(net: Net) -> str:
    return couple(net).groups[0].name


def full(net: Net) -> Recipe:
    steps = (
        Prune(keep={group_of(net): [0, 2, 5]}),
        Solve(),
        Tune(epochs=2, rate=0.01, seed=4),
        Fold(),
        Quantize(images=8),
    )
    return Recipe(original=net.digest, steps=steps)


STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(Prune, keep=st.dictionaries(st.text(max_size=5), st.lists(st.integers(0, 99), max_size=4), max_size=3)),
    st.builds(Tune, epochs=st.integers(1, 99), rate=st.floats(1e-6, 1), seed=st.integers(0, 2**31)),
    st.builds(Fold),
    st.builds(
        Factorise, layers=st.dictionaries(st.text(max_size=5), st.builds(Ranks, ranks=st.just((3,))), max_size=2)
    ),
    st.builds(Merge, streamlines=st.lists(st.text(max_size=5), max_size=2).map(tuple)),
    st.builds(Remove, layers=st.lists(st.text(max_size=5), max_size=2).map(tuple), kernel=st.integers(1, 7)),
    st.builds(Subset, classes=st.lists(st.integers(0, 9), max_size=3).map(tuple)),
    st.builds(Regions, epochs=st.integers(1, 9)),
    st.builds(Solve, images=st.none() | st.integers(1, 99)),
    st.builds(Quantize, images=st.integers(1, 999)),
)


@given(original=st.text(max_size=9), steps=st.lists(STEPS, max_size=4))
def test_a_recipe_survives_json(original: str, steps: list[Step]) -> None:
    recipe = Recipe(original=original, steps=tuple(steps))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    "text",
    [
        '{"original": "x", "steps": [], "run": "os.system"}',
        '{"original": "x", "steps": [{"step": "fold_batch_norm", "then": "more"}]}',
        '{"original": "x", "steps": [{"step": "tune", "epochs": 0, "rate": 0.1}]}',
        '{"original": "x", "steps": [{"step": "tune", "epochs": 1, "rate": -1}]}',
        '{"original": "x", "steps": [{"step": "quantize", "images": 8, "precision": "int4"}]}',
        '{"original": "x", "steps": [{"step": "prune", "keep": {"a": [0.5]}}]}',
        '{"original": "x", "steps": [{"step": "eval"}]}',
        '{"original": "x", "steps": [{}]}',
        '{"steps": []}',
        "[]",
        "{",
    ],
)
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate_json(text)


def test_a_recipe_cannot_be_changed(residual: Net) -> None:
    with pytest.raises(ValidationError):
        full(residual).original = "another"  # type: ignore[misc]


def test_the_precision_is_that_of_the_quantize_step(residual: Net, data: ArrayData) -> None:
    assert apply(full(residual), residual, data).precision == "int8"
    assert apply(Recipe(original=None, steps=(Fold(),)), residual, data).precision == "fp32"


def test_applying_a_recipe_twice_gives_the_same_net(residual: Net, data: ArrayData) -> None:
    recipe = full(residual)
    torch.manual_seed(1)
    first = apply(recipe, residual, data)
    torch.manual_seed(2)
    again = apply(Recipe.model_validate_json(recipe.model_dump_json()), residual, data)
    assert first.digest == again.digest
    assert first.digest != residual.digest
    assert tuple(first.tensors["conv1.weight"].shape) == (3, 1, 3, 3)
    assert "batch_norm" not in {node.op for node in first.nodes}


def test_a_recipe_without_steps_changes_nothing(residual: Net, data: ArrayData) -> None:
    assert apply(Recipe(original=residual.digest, steps=()), residual, data) is residual
    only_quantized = Recipe(original=residual.digest, steps=(Quantize(images=8),))
    encoded = apply(only_quantized, residual, data)
    assert encoded.precision == "int8" and encoded.nodes == residual.nodes
    assert encoded.tensors.keys() == residual.tensors.keys()
    assert all(
        encoded.tensors[name] is tensor for name, tensor in residual.tensors.items()
    )  # rounding is the exporter's


def test_a_recipe_of_another_net_is_refused(residual: Net, data: ArrayData) -> None:
    other = capture(hand_made("Residual", seed=1), SHAPE)
    with pytest.raises(RequestError, match="starts from another net"):
        apply(full(residual), other, data)


@pytest.mark.parametrize(
    "keep", [{"conv9": [0]}, {"conv2d": []}, {"conv2d": [0, 0]}, {"conv2d": [99]}, {"conv2d": [-1]}]
)
def test_channels_that_are_not_there_are_told_with_the_step(
    keep: dict[str, list[int]], residual: Net, data: ArrayData
) -> None:
    recipe = Recipe(original=residual.digest, steps=(Prune(keep=keep), Fold()))
    with pytest.raises(RequestError, match=r"step 1 of the recipe \(prune\): "):
        apply(recipe, residual, data)


def test_steps_compose_in_any_order(residual: Net, data: ArrayData) -> None:
    prune, factors = Prune(keep={group_of(residual): [0, 2, 3, 5]}), {"conv2d_1": Ranks(kind="output", ranks=(2,))}
    orders = (
        (prune, Factorise(layers=factors), Solve()),
        (Factorise(layers=factors, images=9), Solve(), prune, Solve(images=9)),
        (prune, Solve(), Regions(epochs=2), Factorise(layers=factors), Regions(epochs=2)),
        (Fold(), Subset(classes=(2, 0)), prune, Solve(), Tune(epochs=1, rate=0.01), Factorise(layers=factors), Solve()),
    )
    for steps in orders:
        recipe = Recipe(original=residual.digest, steps=steps)
        net = apply(recipe, residual, data)
        assert apply(recipe, residual, data).digest == net.digest
        assert tuple(net.tensors["conv1.weight"].shape) == (4, 1, 3, 3)
        assert {tuple(net.tensors[f"conv2.{part}.weight"].shape) for part in "ab"} == {(2, 4, 3, 3), (4, 2, 1, 1)}
        assert net[net.outputs[0]].shape == ((1, 2) if Subset(classes=(2, 0)) in steps else (1, 3))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Factorise(layers={"conv2d_1": Ranks(kind="output", ranks=(99,))}), r"step 2 .*\(factorise\): .*conv2d_1.*99"),
        (Merge(streamlines=("conv2d",)), r"step 2 .*\(merge\): no convolution 'conv2d'"),
        (Merge(branches=("concat",)), r"step 2 .*\(merge\): no concatenation 'concat'"),
        (Remove(layers=("conv2d",)), r"step 2 .*\(remove\): 'conv2d' is no layer that can be removed"),
        (Remove(collapse=("add",), kernel=2), r"step 2 .*\(remove\): 'add' cannot collapse to a 2x2"),
        (Subset(classes=(3,)), r"step 2 .*\(subset\): \[3\] are no distinct classes of the 3"),
    ],
)
def test_a_step_that_does_not_fit_is_named(step: Step, said: str, residual: Net, data: ArrayData) -> None:
    with pytest.raises(RequestError, match=said):
        apply(Recipe(original=residual.digest, steps=(Fold(), step)), residual, data)


def test_layers_are_factorised_in_turns(data: ArrayData) -> None:
    torch.manual_seed(0)
    net = capture(hand_made("Residual"), SHAPE)
    convs = [node.name for node in net.weighted() if node.op == "conv2d"]
    layers = {name: Ranks(kind="output", ranks=(2,)) for name in convs}
    assert len(convs) > 1
    tune = Tune(epochs=1, rate=0.01)
    once, each = (in_turns(layers, groups, tune, images=9) for groups in ([convs], [[name] for name in convs]))
    assert [step.step for step in once] == ["factorise", "tune"]
    assert [step.step for step in each] == ["factorise", "tune"] * len(convs)
    assert [step.epochs for step in (*once, *each) if isinstance(step, Tune)] == [len(convs), *[1] * len(convs)]
    assert [list(step.layers) for step in each if isinstance(step, Factorise)] == [[name] for name in convs]
    nets = [apply(Recipe(original=None, steps=steps), net, data) for steps in (once, each)]
    shapes = [{name: tuple(t.shape) for name, t in small.tensors.items()} for small in nets]
    assert shapes[0] == shapes[1] and nets[0].digest != nets[1].digest


@pytest.mark.parametrize(
    ("groups", "named"), [([["a"]], "'b'"), ([["a", "b"], ["a"]], "'a'"), ([["a", "b", "c"]], "'c'")]
)
def test_a_layer_in_no_group_or_in_two_is_named(groups: list[str], named: str) -> None:
    layers = {name: Ranks(kind="svd", ranks=(2,)) for name in "ab"}
    with pytest.raises(RequestError, match=named):
        in_turns(layers, groups, Tune(epochs=1, rate=0.01))


@pytest.mark.parametrize("name", ["Residual", "Concat", "Separable", "Gated", "InPlace", "SharedNorm"])
@pytest.mark.parametrize("ranks", [Ranks(kind="output", ranks=(1,)), Ranks(kind="tucker2", ranks=(1, 1))], ids=str)
def test_what_is_made_for_its_costs_alone_has_the_form_of_what_is_solved(
    name: str, ranks: Ranks, data: ArrayData
) -> None:
    """Layers get biases where the solution needs them, and these take bytes."""
    net = capture(hand_made(name), SHAPE)
    group = max(couple(net).groups, key=lambda one: one.size)
    factorisable = [
        n
        for n in net.weighted()
        if n.arguments.get("groups", 1) == 1 and net.tensors[n.tensors["weight"]].shape[2:] == (3, 3)
    ]
    layers = {node.name: ranks for node in factorisable}
    for steps in (
        (Prune(keep={group.name: [*range(group.size - 1)]}), Solve()),
        (Factorise(layers=layers), Solve()),
        (Prune(keep={group.name: [*range(group.size - 1)]}), Factorise(layers=layers), Solve()),
        (Factorise(layers=layers), Fold(), Quantize(rounding="least squares", images=8)),
        (Fold(), Quantize(rounding="least squares", weight_bits=4, activation_bits=None, images=8)),
    ):
        recipe = Recipe(original=net.digest, steps=steps)
        made, solved = (applied(recipe, net, data, cost_only=only).draft.net for only in (True, False))
        assert _form(made) == _form(solved)


def _form(net: Net) -> list[dict[str, tuple[str, tuple[int, ...]]]]:
    """The tensors of each layer: their names and shapes, by what they are."""
    layers = [node for node in net.nodes if node.tensors and node.name in net.layers]
    return [{role: (name, tuple(net.tensors[name].shape)) for role, name in node.tensors.items()} for node in layers]


def test_recipes_that_begin_in_the_same_way_go_on_from_there(residual: Net, data: ArrayData) -> None:
    done: list[str] = []

    def counted(technique: Technique) -> Technique:
        def apply_step(step: Step, work: Work) -> Work:
            done.append(step.step)
            return technique.apply(step, work)

        return replace(technique, apply=apply_step)

    techniques = tuple(map(counted, TECHNIQUES))
    begun: dict[str, Work] = {}
    first, other = (Prune(keep={group_of(residual): kept}) for kept in ([0, 2, 5], [1, 2, 5]))
    for steps in ((first, Solve(images=20)), (first, Solve(images=20), Fold()), (other, Fold())):
        recipe = Recipe(original=residual.digest, steps=steps)
        work = applied(recipe, residual, data, techniques=techniques, begun=begun)
        assert work.draft.net.digest == apply(recipe, residual, data).digest
    assert done == ["prune", "solve", "fold_batch_norm", "prune", "fold_batch_norm"]


@pytest.mark.parametrize("steps", [
    {"step": "remove", "collapse": ["add"], "kernel": 2**31},
    {"step": "prune", "keep": {"conv2d": [0, 2**63]}},
    {"step": "factorise", "layers": {"conv2d": {"kind": "svd", "ranks": [10**30]}}},
    {"step": "subset", "classes": [-(2**40)]},
])  # fmt: skip
def test_numbers_beyond_any_network_are_refused_as_a_recipe_is_read(steps: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"original": None, "steps": [steps]}))
    with pytest.raises(RequestError, match="must lie between"):
        load_recipe(path)
