"""The main job from Python, on real digits and the real runtime."""

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from onnx_files import onnx_scores
from policies import in_float
from proofs import accuracy, net_scores
from shared_workshop import shared_workshop
from slimwright import Budget, Bundle, Net, Settings, capture, load_bundle, shrink
from slimwright.data import ArrayData, Batch, digits, labelled, whole
from slimwright.errors import BudgetError, DataError, RequestError
from slimwright.graph import load_net
from slimwright.progress import Event
from slimwright.runner.machine import Described
from slimwright.targets import Local


@pytest.fixture(scope="module")
def data() -> ArrayData:
    return digits()


@pytest.fixture(scope="module")
def net(trained: nn.Module, data: ArrayData) -> Net:
    return capture(trained, data.image_shape)


@pytest.fixture(scope="module")
def bundle(net: Net, data: ArrayData, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "half"
    budget = Budget(macs="0.5x", max_drop=5.0)
    return shrink(
        net,
        data=data,
        budget=budget,
        out=out,
        settings=Settings(workshop=shared_workshop(), cache=cache, name="resnet8"),
    )


def test_a_bundle_holds_all_that_it_promises(bundle: Bundle) -> None:
    files = {"model.onnx", "original.onnx", "recipe.json", "manifest.json", "about.json", "sbom.json", "report.html"}
    assert {path.name for path in bundle.path.iterdir()} == files | {"net", "plots"}
    assert load_bundle(bundle.path).manifest == bundle.manifest
    assert not [path for path in bundle.path.parent.iterdir() if path != bundle.path]


def test_without_what_draws_charts_the_bundle_has_no_page(
    bundle: Bundle, net: Net, data: ArrayData, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    told: list[Event] = []
    settings, out = Settings(cache=cache, name="resnet8"), tmp_path / "plain"
    plain = shrink(
        net, data=data, budget=Budget(macs="0.5x", max_drop=5.0), out=out, settings=settings, tell=told.append
    )
    left = {path.name for path in bundle.path.iterdir()} - {path.name for path in out.iterdir()}
    assert left == {"report.html", "plots"} and load_bundle(out).recipe == plain.recipe == bundle.recipe
    assert any(event.note.startswith("the page was left out: the page's charts need altair") for event in told)


def test_the_result_meets_the_budget_and_the_summary_tells_the_truth(bundle: Bundle, net: Net, data: ArrayData) -> None:
    summary = bundle.summary
    images, labels = labelled(whole(data, "test"))
    assert summary.score == accuracy(onnx_scores(bundle.path / "model.onnx", images), labels)
    assert summary.score_original == accuracy(net_scores(net, images), labels)  # of the model as it was given
    assert summary.size_bytes == (bundle.path / "model.onnx").stat().st_size
    assert summary.within_budget
    assert bundle.manifest.result.macs <= 0.5 * bundle.manifest.original.macs
    assert summary.score >= summary.score_original - 5
    assert summary.latency_ratio == pytest.approx(summary.latency_ms / summary.latency_ms_original)


def test_the_saved_net_is_the_one_that_was_exported(bundle: Bundle, data: ArrayData) -> None:
    images, _ = labelled(whole(data, "validation"))
    expected = net_scores(load_net(bundle.path / "net"), images)
    found = onnx_scores(bundle.path / "model.onnx", images)
    tolerance = bundle.manifest.proof.tolerance
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_artefact_has_fewer_channels_in_its_weights(bundle: Bundle) -> None:
    def weights(name: str) -> int:
        model = onnx.load(bundle.path / name)
        return sum(int(torch.tensor(list(w.dims)).prod()) for w in model.graph.initializer if len(w.dims) == 4)

    assert weights("model.onnx") < 0.7 * weights("original.onnx")


def test_predictions_stand_apart_from_measurements(bundle: Bundle) -> None:
    tried = {candidate.name: candidate for candidate in bundle.manifest.candidates}
    assert tried["original"].predicted_damage is None
    assert tried["pruned"].predicted_damage is not None
    assert tried["pruned"].latency_ms > 0
    assert [c.chosen for c in bundle.manifest.candidates].count(True) == 1


class Sorted(nn.Module):
    """No layer at all: the first ten of the sorted pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sort(x.flatten(1)).values[:, :10]


def test_a_model_without_layers_comes_back_as_it_was(data: ArrayData, cache: Path, tmp_path: Path) -> None:
    budget = Budget(latency_ms="0.01x", max_drop=0.0)
    found = shrink(
        Sorted(),
        data=data,
        budget=budget,
        out=tmp_path / "b",
        settings=Settings(workshop=shared_workshop(), cache=cache, expect="0"),
    )
    assert not found.summary.within_budget and found.manifest.result.macs == 0
    assert load_net(found.path / "net").digest == capture(Sorted(), data.image_shape).digest


@pytest.mark.slow
def test_fine_tuning_helps_where_the_accuracy_budget_is_missed(
    net: Net, data: ArrayData, cache: Path, tmp_path: Path
) -> None:
    budget, settings = (
        Budget(macs="0.015x", max_drop=0.0),
        Settings(workshop=shared_workshop(), cache=cache, tune_epochs=2, policy=in_float),
    )
    found = shrink(net, data=data, budget=budget, out=tmp_path / "b", settings=settings)
    tuned = [c for c in found.manifest.candidates if c.name.endswith("tuned")]
    assert len(tuned) == 1
    before = next(
        c for c in found.manifest.candidates if c.name == tuned[0].name.replace(", tuned", ", solved in full")
    )
    assert tuned[0].validation_score > before.validation_score
    assert "fine-tuning" in {decision.what for decision in found.manifest.decisions}


def test_what_stands_in_for_a_profiler_must_be_there(net: Net, data: ArrayData, tmp_path: Path) -> None:
    class Bare(Local):
        def about(self) -> Described:
            return super().about() | {"runtimes": {"executorch": "1.4"}}

    settings = Settings(runtime="executorch", target=Bare())
    with pytest.raises(RequestError, match=r"times them in onnxruntime, which is not .*pip install onnx"):
        shrink(net, data=data, budget=Budget(macs="0.5x"), out=tmp_path / "b", settings=settings)
    assert not (tmp_path / "b").exists()


def test_a_job_that_is_stopped_leaves_nothing_behind(net: Net, data: ArrayData, cache: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if event.stage == "solve":
            raise Stop

    with pytest.raises(Stop):
        shrink(
            net,
            data=data,
            budget=Budget(macs="0.5x"),
            out=tmp_path / "b",
            settings=Settings(workshop=shared_workshop(), cache=cache),
            tell=stop,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_not_replaced(net: Net, data: ArrayData, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match="was not made by this command"):
        shrink(net, data=data, budget=Budget(macs="0.5x"), out=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_model_for_other_images_is_refused(net: Net, data: ArrayData, tmp_path: Path) -> None:
    parts = {part: (torch.zeros(4, 3, 32, 32), torch.arange(4)) for part in data.parts}
    rgb = ArrayData("rgb", data.labels, parts)
    with pytest.raises(DataError, match=r"\[1, 32, 32\].*\[3, 32, 32\]"):
        shrink(net, data=rgb, budget=Budget(macs="0.5x"), out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def three_classes(batch: Batch) -> Batch:
    """Nine images, and labels of three classes."""
    images, labels = labelled(batch)
    return images[:9], labels[:9] % 3


def test_a_model_for_other_classes_is_refused(net: Net, data: ArrayData, tmp_path: Path) -> None:
    three = ArrayData("three", ("a", "b", "c"), {part: three_classes(batch) for part, batch in data.parts.items()})
    with pytest.raises(DataError, match="3 classes"):
        shrink(net, data=three, budget=Budget(macs="0.5x"), out=tmp_path / "b")


def test_a_plain_module_is_taken_too_and_a_bad_one_is_named(data: ArrayData, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot take images"):
        shrink(nn.Linear(3, 10), data=data, budget=Budget(macs="0.5x"), out=tmp_path / "b")


def test_a_budget_needs_a_limit() -> None:
    with pytest.raises(BudgetError, match="at least one"):
        Budget()


def test_the_recipe_in_the_bundle_gives_the_structure_again(bundle: Bundle, net: Net, data: ArrayData) -> None:
    from slimwright.techniques import apply

    again = apply(bundle.recipe, net, data)
    saved = load_net(bundle.path / "net")
    assert [n.name for n in again.nodes] == [n.name for n in saved.nodes]
    for name, tensor in saved.tensors.items():
        assert torch.allclose(again.tensors[name], tensor, atol=1e-4), name
    assert json.loads((bundle.path / "recipe.json").read_text())["original"] == net.digest
