"""What an app needs to know of a model besides its weights, written beside it and, for ONNX and LiteRT, into it.

    about.json       names, shapes and dtypes of inputs and outputs; labels, preprocessing, task, licence

An `.onnx` file holds labels, preprocessing, task and licence among its metadata_props, as JSON or text, under
`slimwright.labels`, `slimwright.preprocessing`, `slimwright.task` and `slimwright.license`. A `.tflite` file holds the
same under the same names among its metadata.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from slimwright.data import Dataset
from slimwright.graph import Net
from slimwright.measure.bundle import ABOUT, as_json
from slimwright.measure.record import Record
from slimwright.runtimes import Artefact
from slimwright.tasks import Task


class End(Record):
    """An input or output, as the model's file calls it; its shape is that for one image, batch first."""

    name: str
    shape: list[int]
    dtype: str


class FreeDimension(Record):
    """A dimension that may have other sizes: larger than the one in the shape by multiples of `step`."""

    dimension: int
    step: int


class FreeEnd(End):
    """An input whose height and width, or the like, the model's files leave free."""

    free: list[FreeDimension]


class Card(Record):
    """What `about.json` holds."""

    inputs: list[FreeEnd | End]
    outputs: list[End]
    labels: list[str]
    preprocessing: dict[str, object]
    task: str
    license: str


@dataclass(frozen=True)
class About:
    """What is said of a model whatever its files are."""

    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, object] = field(default_factory=dict)
    task: str = ""
    licence: str = ""

    @classmethod
    def of(cls, data: Dataset | None, task: Task, licence: str) -> "About":
        """Return what data and task say."""
        if data is None:
            return cls(task=task.name, licence=licence)
        return cls(tuple(data.labels), dict(data.preprocessing), task.name, licence)

    def put_into(self, artefact: Artefact) -> None:
        """Write into an artefact's files what their format has a place for; for `.tflite` where LiteRT is installed."""
        for path in artefact.files:
            if path.suffix == ".onnx":
                self._write_into(path)
            elif path.suffix == ".tflite" and find_spec("ai_edge_litert") is not None:
                from slimwright.measure.tflite import put_into

                put_into(path, self._said)

    def write(self, net: Net, artefact: Artefact, folder: Path) -> None:
        """Write `about.json` into `folder`."""
        outputs = [net[name] for name in net.outputs]
        names = [artefact.input_names or [n.name for n in net.inputs], artefact.output_names or net.outputs]
        inputs, found = (
            [End(name=name, shape=list(node.shape), dtype=node.dtype) for name, node in zip(called, nodes, strict=True)]
            for called, nodes in zip(names, (net.inputs, outputs), strict=True)
        )
        free = _free_dimensions(net, artefact)
        card = Card(
            inputs=[
                FreeEnd(**dict(end), free=free[number]) if number in free else end for number, end in enumerate(inputs)
            ],
            outputs=found, labels=list(self.labels), preprocessing=dict(self.preprocessing),
            task=self.task, license=self.licence,
        )  # fmt: skip
        (folder / ABOUT).write_text(as_json(card))

    @property
    def _said(self) -> dict[str, str]:
        """What is known, by the names under which files hold it."""
        said = {
            "labels": json.dumps(self.labels) if self.labels else "",
            "preprocessing": json.dumps(self.preprocessing) if self.preprocessing else "",
            "task": self.task,
            "license": self.licence,
        }
        return {f"slimwright.{key}": value for key, value in said.items() if value}

    def _write_into(self, path: Path) -> None:
        import onnx

        model = onnx.load(path)
        kept = {entry.key: entry.value for entry in model.metadata_props} | self._said
        onnx.helper.set_model_props(model, kept)
        onnx.save(model, path)


def _free_dimensions(net: Net, artefact: Artefact) -> dict[int, list[FreeDimension]]:
    """The dimensions of inputs, by their number, that an artefact leaves free."""
    found: dict[int, list[FreeDimension]] = {}
    names = {name for name, _ in artefact.free_sizes}
    for size in (size for size in (net.ends.free if net.ends else ()) if size.name in names):
        for number, axis in size.places:
            found.setdefault(number, []).append(FreeDimension(dimension=axis, step=size.step))
    return found
