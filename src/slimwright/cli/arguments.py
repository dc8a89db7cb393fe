"""What the commands' arguments and options are called, and what their help says."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimwright.cli.consoles import err_console
from slimwright.errors import RequestError

if TYPE_CHECKING:
    from slimwright.data import Dataset
    from slimwright.measure import Original
    from slimwright.tasks import Task

DEFAULT_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slimwright"


def _bytes(text: str) -> int:
    from slimwright.cost import bytes_of

    return bytes_of(text)


ModelArgument = Annotated[
    str, typer.Argument(help="zoo name, .onnx, .pt2 or .swz file, saved net, bundle, module:callable")
]
DataOption = Annotated[
    str,
    typer.Option(
        help="digits, glyphs, scenes:boxes, mnist:FOLDER, cifar10:FOLDER, folder:PATH@SIZE (or identities:, lines:, "
        "coco:, yolo:, voc:, masks:, pairs:, table:, points:), x.safetensors, module:callable"
    ),
]
PreprocessingOption = Annotated[
    str | None,
    typer.Option(
        help="how pictures become what the model reads: mean=0.5,std=0.5,channels=BGR,fit=letterbox,crop=0.875, or a "
        "file: .toml, .json, timm's config.json, Hugging Face's preprocessor_config.json"
    ),
]
EmbedOption = Annotated[
    bool,
    typer.Option(
        "--embed-preprocessing", help="put the normalization into the model, which then takes levels 0..255 as they are"
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        help="what the outputs mean: classification, top-5, multi-label, segmentation, restoration, ssim, depth, "
        "regression, keypoints, detection, detection-50, embedding, recall, ctc, character-error, imitation (give what "
        "the original gave, no labels needed), or module:callable; by default what the data suggests"
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        help="weights for a zoo name or module:callable: .safetensors, or a file of torch.save, of which nothing is run"
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="names of the model's outputs in order, a file with one a line or cat,dog: where the data's labels are "
        "some of them, the model's head is cut to these",
    ),
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        "--only",
        help="a network for these of the data's classes alone: cat,dog or a file with one a line; images of others are "
        "left out, and the head is cut",
    ),
]
ExpectOption = Annotated[
    str | None,
    typer.Option(
        help="what the original's metric must reach on the validation part, such as 0.76 or 76%, or nothing is done; "
        "without, only what is plainly set up wrongly is refused; 0 takes everything"
    ),
]
ImageOption = Annotated[str | None, typer.Option(help="channels x height x width, if not the network's own")]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", help="size of an input that an .onnx file leaves open: x=1x3x48x192; may be repeated"),
]
LicenceOption = Annotated[
    str, typer.Option("--license", help="of the model: a name or a text, written into what is handed back")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="show no progress")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="replace what is at --out, even if this command did not write it")
]
SeedOption = Annotated[int, typer.Option(min=0, help="of the data's split")]
CacheOption = Annotated[
    Path,
    typer.Option(envvar="SLIMWRIGHT_CACHE", help="everything that is not to be computed again is kept here"),
]
RuntimesOption = Annotated[
    list[str] | None,
    typer.Option(help="onnxruntime, ort, ncnn, mnn, executorch, litert, openvino, or all; may be repeated"),
]
OutOption = Annotated[Path, typer.Option(help="folder for the bundle; it appears whole or not at all")]
LatencyOption = Annotated[str | None, typer.Option(help="most time per image: 12ms, or 0.5x of the original")]
SizeOption = Annotated[str | None, typer.Option(help="largest model file: 2MB, or 0.25x")]
ActivationsOption = Annotated[str | None, typer.Option(help="largest activation memory: 300kB, or 0.5x")]
MacsOption = Annotated[str | None, typer.Option(help="most multiply-accumulates: 20M, or 0.5x")]
EnergyOption = Annotated[str | None, typer.Option(help="most energy per image: 3mJ, or 0.5x; needs a counter")]
DropOption = Annotated[
    float, typer.Option(help="how much the metric may drop, in its own steps: percentage points of accuracy")
]
RuntimeOption = Annotated[
    str, typer.Option(help="that the result is for: onnxruntime, ort, ncnn, mnn, executorch, litert or openvino")
]
EpochsOption = Annotated[int, typer.Option(min=0, help="fine-tuning, only if the metric drops too far")]
MinutesOption = Annotated[
    float | None,
    typer.Option(help="fine-tune on and on, as many epochs at a time, while that helps and this time is left"),
]
ChoicesSeedOption = Annotated[int, typer.Option(help="of the data's split and of every choice")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="start over; without, a job that was stopped goes on")]
TargetOption = Annotated[str, typer.Option(help="where artefacts run: local, ssh:HOST or ssh:USER@HOST:PORT")]
ComputeOption = Annotated[
    str, typer.Option(help="where this machine observes, solves and trains: cpu, cuda, cuda:1; torch must know it")
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory-limit",
        parser=_bytes,
        metavar="SIZE",
        help="most memory that the work here, a conversion and a run on the target may take each, such as 4GB; by "
        "default what the machine has available",
    ),
]


def with_classes(original: "Original", names: str | None, data: "Dataset | None") -> "Original":
    """Return the original with its head cut to the data's labels, which are found among `--classes`.

    Raises RequestError where there is no data to have labels, or as many names as outputs.
    """
    from slimwright.data import class_names, places_of
    from slimwright.measure import kept_to

    if names is None:
        return original
    if data is None:
        raise RequestError("--classes names the model's outputs, of which the data's labels are kept; give --data too")
    every, outputs = class_names(names), original.output_shapes
    if len(outputs) == 1 and outputs[0][-1] != len(every):
        raise RequestError(f"--classes names {len(every)} classes; the model gives scores of {outputs[0][-1]}")
    return kept_to(original, places_of(data.labels, every))


def places_named(only: str | None, data: "Dataset") -> tuple[int, ...] | None:
    """Return the places of the classes of `--only` among the data's. Raises DataError for one that is not there."""
    from slimwright.data import class_names, places_of

    return None if only is None else places_of(class_names(only), data.labels)


def kept_classes(
    original: "Original", data: "Dataset", places: tuple[int, ...] | None, classes: str | None
) -> "tuple[Original, Dataset]":
    """Return the original and the data for the classes at `places` of the data's, or for all that the data shows.

    Raises RequestError as `with_classes` does, and where the model has other classes than the data.
    """
    from slimwright.data import of_classes
    from slimwright.measure import kept_to

    whole = with_classes(original, classes, data)
    if places is None:
        return whole, data
    if whole.output_shapes[0][-1] != len(data.labels):
        raise RequestError(
            f"the model scores {whole.output_shapes[0][-1]} classes and the data has {len(data.labels)}: name those of "
            "the model with --classes"
        )
    return kept_to(whole, places), of_classes(data, places)


def task_of(spec: str | None, data: "Dataset", original: "Original") -> "Task":
    """Return the task that `--task` names, or what the data suggests. Raises RequestError for an unknown one."""
    from slimwright.cli.sources import load_task
    from slimwright.tasks import task_for

    wanted = load_task(spec) if spec is not None and ":" in spec else spec
    task = task_for(data, original.output_shapes, original.forward, wanted)
    if said := getattr(task, "said", ""):  # what was guessed shall be seen
        err_console.print(said, soft_wrap=True)
    return task
