"""The step that hashes: weights share values by their places alone, and the file holds the values."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from slimwright.errors import ModelError, RequestError
from slimwright.graph import Net, load_net, save_net
from slimwright.storage import read_packed, write_packed
from slimwright.swz.hashed import Hashed
from slimwright.tasks import Classification
from slimwright.techniques import Hash, Recipe, Share, Tune, applied, sentences
from slimwright.train import mean_loss
from small_digits import few_digits, made, matrices, small_digit_net

TUNE = Tune(epochs=4, rate=0.05)


@pytest.mark.parametrize("later", [(), (TUNE,)])
def test_weights_of_one_code_are_equal(later: tuple[Tune, ...]) -> None:
    small = made(Hash(weights=4, seed=3), *later)
    for before, weight in zip(matrices(small_digit_net()).values(), matrices(small).values(), strict=True):
        values = round(weight.numel() / 4)
        codes = torch.from_numpy(Hashed(values, 3).codes(weight.numel()))
        for code in codes.unique()[:50]:
            assert len(weight.flatten()[codes == code].unique()) == 1
        assert values / 2 < len(weight.unique()) <= values and not torch.equal(weight, before)


@pytest.mark.parametrize("each", [8, 16])
def test_solved_values_lose_less_than_means_and_tuned_ones_less_still(each: int) -> None:
    """Training loss, beside that of the mean of each value's weights; by a twentieth at least."""
    net = small_digit_net()
    weights = {node.tensors["weight"]: net.tensors[node.tensors["weight"]] for node in net.weighted()}
    hashed = {name: Hashed(round(weight.numel() / each), 0) for name, weight in weights.items()}
    means = net.edited(tensors={name: _means(weight, hashed[name]) for name, weight in weights.items()})
    solved, tuned = made(Hash(weights=each)), made(Hash(weights=each), TUNE)
    assert loss(tuned) < 0.95 * loss(solved) < 0.95 * 0.5 * loss(means)


def loss(net: Net) -> float:
    data = few_digits()
    return mean_loss(net.to_module(), data, "train", Classification(data.labels))


def _means(weight: torch.Tensor, hashed: Hashed) -> torch.Tensor:
    codes = torch.from_numpy(hashed.codes(weight.numel()))
    sums = torch.zeros(hashed.values).index_add(0, codes, weight.flatten())
    return (sums / torch.bincount(codes, minlength=hashed.values).clamp_min(1))[codes].reshape(weight.shape)


@pytest.mark.parametrize("later", [(), (TUNE,)])
def test_a_file_holds_the_values_and_no_codes(later: tuple[Tune, ...], tmp_path: Path) -> None:
    small = made(Hash(weights=8), *later)
    found = write_packed(small, tmp_path / "net.swz")
    weights = {node.tensors["weight"] for node in small.weighted()}
    hashed = [one for one in found.tensors if one.form == "hashed"]
    assert {one.name for one in hashed} == weights
    assert all(one.size_bytes <= small.size_bytes(one.name) + 12 for one in hashed)
    assert all(small.size_bytes(one.name) == 4 * round(one.values / 8) for one in hashed)
    assert read_packed(tmp_path / "net.swz").digest == small.digest
    save_net(small, tmp_path / "net")
    assert load_net(tmp_path / "net").encodings == small.encodings


def test_an_encoding_of_another_name_is_refused(tmp_path: Path) -> None:
    save_net(made(Hash(weights=8, images=30)), tmp_path / "net")
    path = tmp_path / "net" / "net.json"
    text = path.read_text()
    for bad in ("hashed 0 0", "hashed 9 -1", "hashed 9999999999 0", "hashed 9", "hashed 9 0 0"):
        path.write_text(text.replace('"hashed 9 0"', f'"{bad}"'))
        assert bad in path.read_text()
        with pytest.raises(ModelError, match=f"encoded as '{bad}'"):
            load_net(tmp_path / "net")


def test_costs_are_known_before_weights_are() -> None:
    recipe = Recipe(original=None, steps=(Hash(weights=8, images=30),))
    nets = [applied(recipe, small_digit_net(), few_digits(), cost_only=only).draft.net for only in (False, True)]
    assert nets[0].encodings == nets[1].encodings and nets[0].encodings


def test_layers_may_be_named_and_small_ones_are_left_alone_and_told() -> None:
    net = small_digit_net()
    work = applied(Recipe(original=None, steps=(Hash(weights={"conv2d": 500, "linear": 8}),)), net, few_digits())
    assert work.draft.unsolved["conv2d"] == "its 72 weights cannot share values 500 at a time"
    before, after = (list(matrices(one).values()) for one in (net, work.draft.net))
    assert torch.equal(before[0], after[0]) and not torch.equal(before[2], after[2])
    assert list(work.draft.net.encodings) == ["6.weight"] and list(work.kept) == ["6.weight"]
    with pytest.raises(RequestError, match="no layer 'gone' to hash"):
        made(Hash(weights={"gone": 4}))
    with pytest.raises(ValidationError):
        Hash(weights=1)


def test_a_step_behind_that_chooses_codes_takes_their_place() -> None:
    small = made(Hash(weights=4), Share(bits=2))
    assert all(len(weight.unique()) <= 4 for weight in matrices(small).values())


def test_the_recipe_says_it() -> None:
    recipe = Recipe(original=None, steps=(Hash(weights=8), Hash(weights={"fc": 16}, images=9)))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    said = sentences(recipe)
    assert said[0].startswith("Let 8 weights share each value") and "fc 16" in said[1] and "9 calibration" in said[1]
