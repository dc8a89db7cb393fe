"""What the templates of a kit are told about a bundle.

A bundle is untrusted input, and what is said here becomes code. So only numbers, names from tables of this file and
names of a checked form are told; labels lie in a text file that the code reads.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slimwright.data import Preprocessing, preprocessing_of
from slimwright.data.preprocessing import LEVELS
from slimwright.errors import BundleError, RequestError
from slimwright.jobs.kit.answers import SAID, Answer, answer_of, names_of
from slimwright.measure import TOLERANCE, Bundle
from slimwright.runtimes import RUNTIMES

Language = Literal["python", "cpp", "android", "ios"]
LANGUAGES: Mapping[str, str] = {"python": "Python", "cpp": "C++", "android": "Kotlin", "ios": "Swift"}
MADE_FOR: Mapping[str, tuple[str, ...]] = {  # the runtimes that a language's templates know
    "python": ("onnxruntime", "ort", "ncnn", "mnn", "executorch", "litert", "openvino"),
    "cpp": ("onnxruntime", "ort", "ncnn"),
    "android": ("onnxruntime", "ort", "litert", "executorch"),
    "ios": ("onnxruntime", "ort", "executorch"),
}
PACKAGES: Mapping[str, str] = {  # of Python
    "onnxruntime": "onnxruntime",
    "ort": "onnxruntime",
    "ncnn": "ncnn",
    "mnn": "MNN",
    "executorch": "executorch",
    "litert": "ai-edge-litert",
    "openvino": "openvino",
}
PLACED = ("points", "boxes")  # answers in pixels of the picture
SPATIAL = (*PLACED, "mask", "picture", "map", "values")  # answers whose pixels have a place in the picture
BLOB = re.compile(r"[A-Za-z0-9_./:-]{1,200}")


@dataclass(frozen=True)
class Facts:
    """What code for one language is made of."""

    bundle: Bundle
    language: Language
    how: Preprocessing | None  # None where the bundle does not say how a picture becomes what the network reads

    @property
    def runtime(self) -> str:
        """The runtime of the bundle's model."""
        return self.bundle.manifest.runtime

    @property
    def answer(self) -> Answer:
        """What is made of the outputs."""
        return answer_of(self.bundle.manifest)

    @property
    def names(self) -> list[str]:
        """What labels.txt holds."""
        return names_of(self.answer, self.bundle.manifest.data.labels)

    def told(self, *, samples: int, pictured: bool) -> Mapping[str, Any]:
        """Return what templates are told, by name."""
        side, how, answer = self.bundle.manifest.result, self.how, self.answer
        inputs, outputs = _blobs(self.bundle) if self.runtime == "ncnn" else ([""], [])
        return {
            "title": "A network made by slimwright",
            "language": self.language,
            "language_title": LANGUAGES[self.language],
            "runtime": self.runtime,
            "runtime_title": RUNTIMES[self.runtime].title,
            "requirements": [PACKAGES[self.runtime], "numpy", *(["pillow"] if how else [])],
            "precision": side.precision,
            "files": side.files,
            "shape": side.input_shapes[0],
            "outputs": side.output_shapes,
            "input_name": inputs[0],
            "output_names": outputs,
            "sizes": [math.prod(shape) for shape in side.output_shapes],
            "answer": answer.name,
            "answer_said": SAID[answer.name],
            "sized": how is not None and answer.name in PLACED,
            "spatial": how is not None and answer.name in SPATIAL,
            "boxed": "box" in self.bundle.manifest.data.preprocessing,
            **answer.told,
            "tolerance": TOLERANCE[side.precision],
            "samples": samples,
            "pictured": pictured,
            "how": how,
            "covered": how.covered if how else None,
            "mean": _shares(how.mean, how) if how else None,
            "std": _shares(how.std, how) if how else None,
            "fill": _filled(how) if how else None,
        }


def facts_of(bundle: Bundle, language: Language) -> Facts:
    """Return what a kit in a language is made of.

    Raises RequestError where there is no kit in the language for the runtime or the net's inputs, and BundleError where
    the manifest is not one that slimwright writes.
    """
    manifest = bundle.manifest
    side = manifest.result
    if manifest.runtime not in MADE_FOR[language]:
        there = ", ".join(RUNTIMES[name].title for name in MADE_FOR[language])
        raise RequestError(
            f"there is no kit in {LANGUAGES[language]} for {RUNTIMES[manifest.runtime].title}; there is for {there}. "
            "Run shrink with another --runtime, or choose another --for"
        )
    if len(side.input_shapes) != 1 or len(side.input_shapes[0]) != 4:
        raise RequestError(
            f"a kit is made for nets that read one picture, and this one reads {side.input_shapes}; run its artefact "
            "in code of your own"
        )
    if bad := [name for name in side.files if not re.fullmatch(r"model\.[a-z]{2,8}", name)]:
        raise BundleError(f"{bundle.path} calls a file {bad[0]!r}, which is not a name that slimwright gives")
    how = preprocessing_of(manifest.data.preprocessing)
    if how and how.channels == "grey3":
        raise RequestError(
            "there is no kit for pictures that are grey in three channels; run the artefact in your code"
        )
    if how and list(how.shape) != side.input_shapes[0][1:]:
        raise BundleError(
            f"{bundle.path} says that pictures become {list(how.shape)}, but its model reads {side.input_shapes[0][1:]}"
        )
    return Facts(bundle, language, how)


def _each(values: tuple[float, ...], how: Preprocessing) -> list[float]:
    """A number for each channel."""
    return list(values) if len(values) > 1 else list(values) * how.shape[0]


def _shares(values: tuple[float, ...], how: Preprocessing) -> list[float]:
    """A mean or deviation for each channel, of levels as shares of 255, whatever they are divided by."""
    return [number if how.scale == LEVELS else number * how.scale / LEVELS for number in _each(values, how)]


def _filled(how: Preprocessing) -> list[float]:
    """The level of each channel where the picture is not."""
    return (
        [how.scale * mean for mean in _each(how.mean, how)] if how.fit == "line" else [float(how.fill)] * how.shape[0]
    )


def _blobs(bundle: Bundle) -> tuple[list[str], list[str]]:
    """What ncnn's .param file calls its inputs, and its outputs: what no layer reads. Raises BundleError."""
    read: set[str] = set()
    made: list[str] = []
    inputs: list[str] = []
    path: Path = bundle.path / bundle.manifest.result.files[0]
    for line in path.read_text("utf-8").splitlines()[2:]:
        words = line.split()
        if len(words) < 4:
            continue
        takes, gives = int(words[2]), int(words[3])
        read |= set(words[4 : 4 + takes])
        made += words[4 + takes : 4 + takes + gives]
        inputs += words[4 + takes : 4 + takes + gives] if words[0] == "Input" else []
    outputs = [name for name in made if name not in read]
    if len(inputs) != 1 or len(outputs) != len(bundle.manifest.result.output_shapes):
        raise BundleError(f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, other than the manifest says")
    if bad := [name for name in (*inputs, *outputs) if not BLOB.fullmatch(name)]:
        raise BundleError(f"{path} calls a blob {bad[0]!r}, which is not a name that a converter gives")
    return inputs, outputs
