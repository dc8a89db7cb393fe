"""What kits make of outputs is what the tasks make of them: in Python and C++ it is run, in Kotlin and Swift parsed."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from kit_answers import CASES, LABELS, Case, case
from kits import bundled, cpp_program, loaded, rendered, replace_card
from slimwright.data import ArrayData
from slimwright.jobs.kit import Language, facts_of
from slimwright.measure import Bundle, TaskCard
from slimwright.runtimes import Artefact
from slimwright.tasks import Detection, Keypoints, Outputs, Regression, Restoration, Segmentation, Yolo
from slimwright.tasks.keypoints import peaks
from slow import slow

COMPILED = {"mask", "foreground in shares", "heat maps", "coordinates", "picture", "objectness", "queries", "CenterNet"}
SIZES = ((61, 40), (33, 80))  # width and height of two pictures
SURE = 0.25
SHOWN = {  # how a C++ program prints an answer, by its type
    "mask": 'for (int one : answer_of(outputs).classes) std::printf("%d\\n", one);',
    "scored points": "for (const Point& one : answer_of(outputs, labels, width, height)) "
    'std::printf("%s\\t%.9g\\t%.9g\\t%.9g\\n", one.name.c_str(), one.x, one.y, one.score);',
    "points": "for (const Point& one : answer_of(outputs, labels, width, height)) "
    'std::printf("%s\\t%.9g\\t%.9g\\n", one.name.c_str(), one.x, one.y);',
    "picture": 'for (int one : answer_of(outputs).levels) std::printf("%d\\n", one);',
    "boxes": "for (const Box& one : answer_of(outputs, labels, width, height)) "
    'std::printf("%s\\t%.9g\\t%.9g\\t%.9g\\t%.9g\\t%.9g\\n", one.label.c_str(), one.score, one.x1, one.y1, '
    "one.x2, one.y2);",
}
PROGRAM = """
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "predictor.hpp"

using namespace slimwright;

int main(int, char** words) {
    const std::vector<std::string> labels = { %(labels)s };
    const int width = std::atoi(words[1]), height = std::atoi(words[2]);
    std::vector<Values> outputs;
    for (int k = 0; k < %(count)d; ++k) {
        std::ifstream file(words[3 + k], std::ios::binary);
        const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        const float* values = reinterpret_cast<const float*>(bytes.data());
        outputs.emplace_back(values, values + bytes.size() / sizeof(float));
    }
    (void)width, (void)height;
    %(show)s
}
"""


def bundle_of(one: Case) -> Bundle:
    """A bundle of a net that gives such outputs; its artefact is not there."""
    shapes = tuple((1, *output.shape[1:]) for output in one.outputs)
    made = Artefact("onnxruntime", "fp32", (Path("model.onnx"),), ((1, *one.how.shape),), shapes)
    return bundled(made, one.data, one.task)


def predictor(bundle: Bundle, folder: Path) -> Any:
    """The Python kit's predictor, without its network."""
    folder.mkdir(exist_ok=True)
    (folder / "predictor.py").write_text(rendered(bundle, "python")["predictor.py"])
    made = loaded(folder)["Predictor"]
    net = made.__new__(made)
    net.labels = facts_of(bundle, "python").names
    return net


def given(outputs: Outputs, image: int) -> list[NDArray[np.float32]]:
    """What a runtime gives for one image."""
    return [output[image : image + 1].numpy() for output in outputs]


def alone(outputs: Outputs, image: int) -> Outputs:
    return tuple(output[image : image + 1] for output in outputs)


def assert_placed(one: Case, found: Any, wanted: Tensor, size: tuple[int, int]) -> None:
    """The data set takes points of the picture to where the task found them, in pixels of what the network reads."""
    points = np.array(found, np.float64).reshape(-1, 2)
    assert np.allclose(one.how.placement(*size).moved(points), wanted.double().numpy().reshape(-1, 2), atol=1e-4)


@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_what_the_task_makes_of_the_outputs(name: str, image: int, tmp_path: Path) -> None:
    one = case(name)
    net, outputs, size, task = predictor(bundle_of(one), tmp_path), given(one.outputs, image), SIZES[image], one.task
    if isinstance(task, Segmentation):
        mask = net.answer(outputs)
        assert mask.shape == (one.how.height, one.how.width) and len(np.unique(mask)) == len(one.labels)
        assert task.score(alone(one.outputs, image), Tensor(mask[None]).long()) == 100  # the same at every pixel
    elif isinstance(task, Keypoints):
        found = net.answer(outputs, size)
        maps = one.outputs[0].ndim == 4
        assert [point[0] for point in found] == list(one.labels or map(str, range(4)))
        assert_placed(one, [point[1:3] for point in found], _places(task, one.outputs[0][image : image + 1]), size)
        if maps:
            assert [point[3] for point in found] == pytest.approx(one.outputs[0][image].amax((1, 2)).tolist())
        near = task.score(alone(one.outputs, image), Tensor([[[*_moved(one, p[1:3], size), 1] for p in found]]))
        assert near == 100  # by the metric itself
    elif isinstance(task, Restoration):
        levels = net.answer(outputs)
        assert levels.dtype == np.uint8 and levels.shape == (2 * one.how.height, 2 * one.how.width, 3)
        wanted = (one.outputs[0][image] / task.white).clamp(0, 1).mul(255).round().numpy().astype(np.uint8)
        wanted = wanted[::-1] if one.how.channels == "BGR" else wanted
        assert np.array_equal(levels, np.broadcast_to(wanted, (3, *wanted.shape[1:])).transpose(1, 2, 0))
        assert levels.min() == 0 and levels.max() == 255
    else:
        assert isinstance(task, Detection)
        assert_detected(one, net, image, size)


def _places(task: Keypoints, output: Tensor) -> Tensor:
    """Points [K, 2] in pixels of what the network reads."""
    if output.ndim == 4:
        cell = output.new_tensor([task.width / output.shape[3], task.height / output.shape[2]])
        return (peaks(output) * cell)[0]
    return output.reshape(-1, 2) * output.new_tensor([task.width, task.height] if task.shares else [1, 1])


def _moved(one: Case, point: Any, size: tuple[int, int]) -> Any:
    return one.how.placement(*size).moved(np.array(point))


def assert_detected(one: Case, net: Any, image: int, size: tuple[int, int]) -> None:
    assert isinstance(one.task, Detection)
    every = one.task.form.decode(one.outputs)[image]
    for least in (None, 0.6, 0.0):
        wanted = every[every[:, 4] > (SURE if least is None else least)]
        found = net.answer(given(one.outputs, image), size, *(() if least is None else (least,)))
        assert len(wanted) > 2 and [row[0] for row in found] == [LABELS[int(kind)] for kind in wanted[:, 5]]
        assert [row[1] for row in found] == pytest.approx(wanted[:, 4].tolist(), abs=1e-6)
        assert_placed(one, [row[2] for row in found], wanted[:, :4], size)


@pytest.mark.parametrize("name", [name if name in COMPILED else slow(name) for name in CASES])
def test_the_cpp_kit_gives_the_same_answer(name: str, tmp_path: Path) -> None:
    one = case(name)
    bundle = bundle_of(one)
    facts = facts_of(bundle, "cpp")
    labels = ", ".join(f'"{label}"' for label in facts.names)
    shown = SHOWN["scored points" if facts.answer.name == "points" and facts.answer.told["map"] else facts.answer.name]
    program = PROGRAM % {"labels": labels, "count": len(one.outputs), "show": shown}
    main = cpp_program(tmp_path, rendered(bundle, "cpp"), program)
    for image, size in enumerate(SIZES):
        outputs = given(one.outputs, image)
        for k, output in enumerate(outputs):
            (tmp_path / f"{k}.bin").write_bytes(output.astype("<f4").tobytes())
        bins = [f"{k}.bin" for k in range(len(outputs))]
        command = [str(main), *map(str, size), *bins]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert_same(done.stdout.splitlines(), _flat(predictor(bundle, tmp_path), outputs, size))


def _flat(net: Any, outputs: list[NDArray[np.float32]], size: tuple[int, int]) -> list[list[Any]]:
    """The Python kit's answer, a list of words and numbers for each thing."""
    takes_size = "size" in net.answer.__annotations__
    found = net.answer(outputs, size) if takes_size else net.answer(outputs)
    if not takes_size:
        return [[number] for number in found.flatten().tolist()]
    return [[part for word in one for part in (word if isinstance(word, list) else [word])] for one in found]


def assert_same(lines: list[str], wanted: list[list[Any]]) -> None:
    assert len(lines) == len(wanted)
    for line, its in zip(lines, wanted, strict=True):
        words = line.split("\t")
        assert len(words) == len(its)
        for word, value in zip(words, its, strict=True):
            assert word == value if isinstance(value, str) else float(word) == pytest.approx(value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("language", "grammar"), [("android", tree_sitter_kotlin), ("ios", tree_sitter_swift)])
@pytest.mark.parametrize("name", CASES)
def test_kotlin_and_swift_answers_are_what_their_parsers_read(name: str, language: Language, grammar: Any) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    for file, code in rendered(bundle_of(case(name)), language).items():
        if not file.endswith(".md"):
            assert not parser.parse(code.encode()).root_node.has_error, file


@pytest.mark.parametrize("language", ["python", "cpp", "android", "ios"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mask", "The mask has 24 x 20 pixels"),
        ("heat maps", "a score (the value of its heat map's largest cell)"),
        ("picture", "The picture has 48 x 40 pixels"),
        ("anchor-free", "overlap by more\nthan 0.6 (intersection over union)"),
        ("CenterNet", "Boxes whose\nscore is not above 0.25 are left out"),
    ],
)
def test_the_readme_says_what_the_answer_is(name: str, said: str, language: Language) -> None:
    assert said in rendered(bundle_of(case(name)), language)["README.md"]


def test_the_readme_says_where_pictures_must_be_cut_first() -> None:
    one = case("heat maps")
    cut = ArrayData("people", LABELS, one.data.parts, {**one.data.preprocessing, "box": "1.25 times as large"})
    said = "Cut such a part out of the picture first."
    assert said in rendered(replace_card(bundle_of(one), cut), "cpp")["README.md"]
    assert said not in rendered(bundle_of(one), "cpp")["README.md"]


def test_without_a_preprocessing_places_are_those_of_what_the_network_reads(tmp_path: Path) -> None:
    one = case("anchor-free")
    bundle = bundle_of(one)
    plain = ArrayData("things", LABELS, one.data.parts, {"layout": "NCHW"})
    net = predictor(replace_card(bundle, plain), tmp_path)
    assert isinstance(one.task, Detection)
    wanted = one.task.form.decode(one.outputs)[0]
    found = net.answer(given(one.outputs, 0), 0.4)
    assert np.allclose([row[2] for row in found], wanted[wanted[:, 4] > 0.4][:, :4].numpy(), atol=1e-5)


def test_raw_values_are_the_answer_where_they_are_what_was_learned(tmp_path: Path) -> None:
    one = case("heat maps")
    depth = Restoration((1, 24, 20), 0.3, "MAE", name="depth")
    for task, shape, answer in ((Regression((1.0,)), (1, 1), "numbers"), (depth, (1, 1, 12, 10), "map")):
        side = bundle_of(one).manifest.result.model_copy(update={"output_shapes": [list(shape)]})
        bundle = replace_card(bundle_of(one), one.data, task=TaskCard.of(task), result=side)
        assert facts_of(bundle, "python").answer.name == answer
        outputs = [np.zeros(shape, np.float32)]
        assert predictor(bundle, tmp_path).answer(outputs) is outputs


def test_outputs_that_only_the_users_code_reads_stay_as_they_are() -> None:
    one = case("anchor-free")
    own = Detection(LABELS, lambda outputs: [output[0] for output in outputs])
    bundle = replace_card(bundle_of(one), one.data, task=TaskCard.of(own))
    assert facts_of(bundle, "python").answer.name == "values"
    assert "The code knows no more of the outputs" in rendered(bundle, "python")["README.md"]


@pytest.mark.parametrize("name", CASES)
def test_outputs_of_other_shapes_than_the_form_says_stay_as_they_are(name: str) -> None:
    bundle, one = bundle_of(case(name)), case(name)
    assert facts_of(bundle, "python").answer.name != "values"
    for shapes in ([], [[1]], [[1, 7, 5, 5, 5]], [[1, 0, 0, 0]], [[1, 10**9, 3, 3]], [[1, 5, 5]] * 4):
        side = bundle.manifest.result.model_copy(update={"output_shapes": shapes})
        assert facts_of(replace_card(bundle, one.data, result=side), "python").answer.name == "values", shapes


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("picture", {"white": "1.0); evil("}),
        ("picture", {"white": float("nan")}),
        ("anchor-free", {"unit": [1.0, 0.0]}),
        ("anchor-free", {"unit": [1e-300, 1.0]}),
        ("anchor-free", {"unit": [1.0, float("inf")]}),
        ("anchor-free", {"at": -1}),
        ("anchor-free", {"kind": "evil"}),
        ("anchor-free", {"more": 1}),
        ("logits", {"scale": "exec"}),
        ("logits", {"background": 7}),
        ("CenterNet", {"cell": [4.0]}),
        ("mask", {"shares": "perhaps"}),
    ],
)
def test_a_bundle_cannot_say_a_form_that_makes_no_sense(name: str, change: dict[str, object]) -> None:
    card = TaskCard.of(case(name).task)
    assert TaskCard.model_validate_json(card.model_dump_json()) == card
    said = card.model_dump(mode="json")
    with pytest.raises(ValidationError, match="form"):
        TaskCard.model_validate({**said, "form": {**said["form"], **change}})


def test_an_output_that_is_not_there_is_not_read() -> None:
    one = case("anchor-free")
    assert isinstance(one.task, Detection) and isinstance(one.task.form, Yolo)
    card = TaskCard.of(one.task)
    assert card.form is not None
    beyond = card.model_copy(update={"form": card.form.model_copy(update={"at": 3})})
    assert facts_of(replace_card(bundle_of(one), one.data, task=beyond), "python").answer.name == "values"
