"""`slimwright inspect`, `compare`, `doctor` and `devices`: what networks cost, and where they run."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from slimwright.cli.arguments import (
    ClassesOption,
    ExpectOption,
    ImageOption,
    InputOption,
    JsonOption,
    MemoryOption,
    ModelArgument,
    PreprocessingOption,
    QuietOption,
    SeedOption,
    TaskOption,
    WeightsOption,
)
from slimwright.cli.consoles import out_console, progress

INSPECT = (
    "Examples:\n\n  slimwright inspect resnet20\n\n"
    "  slimwright inspect model.pt2 --measure --html model.html\n\n"
    "  slimwright inspect mynets:resnet --image 3x224x224 --depth 2\n\n"
    "  slimwright inspect mobilenet-v2 squeezenet1.1 customnet2 --image 3x96x96\n\n"
    "  slimwright inspect trained/ bundle/ --data digits --json"
)
COMPARE = (
    "Examples:\n\n  slimwright compare model.onnx bundle/ --data images.safetensors\n\n"
    "  slimwright compare mobilenet-v2 squeezenet1.1 --image 3x96x96 --json"
)
DOCTOR = (
    "Examples:\n\n  slimwright doctor mobilenet-v2\n\n"
    "  slimwright doctor model.onnx --runtime executorch --runtime litert --precision fp32 --precision int8\n\n"
    "  slimwright doctor mynets:resnet --image 3x96x96 --json"
)
DEVICES = (
    "Examples:\n\n  slimwright devices\n\n  slimwright devices mobilenet-v2 --device pi4 --device my.toml\n\n"
    "  slimwright devices model.onnx --threads 1 --json"
)


def inspect(
    models: Annotated[
        list[str],
        typer.Argument(
            help="zoo name, .onnx, .pt2 or .swz file, saved net, bundle, or module:callable; several are compared"
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="measure the metric on this data: digits, a .safetensors file, module:callable")
    ] = None,
    preprocessing: PreprocessingOption = None,
    task: TaskOption = None,
    classes: ClassesOption = None,
    expect: ExpectOption = None,
    image: ImageOption = None,
    sizes: InputOption = None,
    weights: WeightsOption = None,
    measure: Annotated[
        bool | None,
        typer.Option(
            "--measure/--no-measure",
            help="export, and time in ONNX Runtime; the default is to, only where several are compared",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="one row for each module this many names deep, not for each layer")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="write a page with tables and charts to this file")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace what is at --html, whatever wrote it")] = False,
    memory_limit: MemoryOption = None,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a network costs, layer by layer, or compare several. Counts are exact, for one image."""
    from slimwright import jobs
    from slimwright.cli import tables
    from slimwright.cli.arguments import task_of, with_classes
    from slimwright.cli.sources import load_data
    from slimwright.cli.subjects import subjects
    from slimwright.measure import as_data
    from slimwright.report import check_drawing, check_page, write_inspection

    if html:
        check_drawing("a page's charts need")
        check_page(html, force=force)
    with progress(quiet) as tell:
        found = load_data(data, seed, preprocessing, tell=tell) if data else None
        nets = subjects(models, data=found, image=image, sizes=sizes, weights=weights, tell=tell)
        if classes:
            cut = [with_classes(net.original, classes, found) for net in nets]
            nets = [dataclasses.replace(net, original=of, artefact=None) for net, of in zip(nets, cut, strict=True)]
        wanted = task_of(task, found, nets[0].original) if found and task else None
        timed = len(nets) > 1 if measure is None else measure
        seen = jobs.inspect(
            nets, data=found, task=wanted, expect=expect, timed=timed, memory_bytes=memory_limit, tell=tell
        )
    if html:
        write_inspection(html, seen, depth, force=force)
    if as_json:
        print(json.dumps(as_data(seen, depth), indent=1))
    elif len(seen) > 1:
        out_console.print(tables.comparison(seen))
    else:
        out_console.print(tables.layers(seen[0], depth, out_console.width))


def compare(
    first: ModelArgument,
    second: ModelArgument,
    data: Annotated[str | None, typer.Option(help="show both its test part; without, random images")] = None,
    task: TaskOption = None,
    image: ImageOption = None,
    sizes: InputOption = None,
    memory_limit: MemoryOption = None,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two networks: counts, size, score, how far their outputs are apart, and latency measured in turn."""
    from slimwright import jobs
    from slimwright.cli import tables
    from slimwright.cli.arguments import task_of
    from slimwright.cli.sources import load_data
    from slimwright.cli.subjects import subjects

    with progress(quiet) as tell:
        found = load_data(data, seed) if data else None
        one, other = subjects((first, second), data=found, image=image, sizes=sizes, tell=tell)
        wanted = task_of(task, found, one.original) if found and task else None
        seen = jobs.compare(one, other, data=found, task=wanted, memory_bytes=memory_limit, tell=tell)
    if as_json:
        print(json.dumps(tables.comparison_data(seen), indent=1))
    else:
        out_console.print(tables.side_by_side(seen))


def doctor(
    model: ModelArgument,
    runtime: Annotated[
        list[str] | None, typer.Option(help="look at this one only, else at all; may be repeated")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32 (as is), fp16 or int8; may be repeated")] = None,
    image: ImageOption = None,
    sizes: InputOption = None,
    data: Annotated[
        str | None, typer.Option(help="look at its images, not at random ones, and calibrate INT8 on them")
    ] = None,
    preprocessing: PreprocessingOption = None,
    weights: WeightsOption = None,
    memory_limit: MemoryOption = None,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Try a network in every runtime: does it convert, run, stay equal, what is slow, and what to change."""
    from slimwright.cli.doctor_tables import diagnosed, diagnosis_data
    from slimwright.cli.sources import load_data
    from slimwright.cli.subjects import subjects
    from slimwright.jobs.doctor import examine

    with progress(quiet) as tell:
        found = load_data(data, seed, preprocessing, tell=tell) if data else None
        (subject,) = subjects([model], data=found, image=image, sizes=sizes, weights=weights)
        seen = examine(
            subject.original.net,
            model,
            runtimes=runtime or (),
            precisions=precision or ("fp32",),
            data=found,
            memory_bytes=memory_limit,
            tell=tell,
        )
    if as_json:
        print(json.dumps(diagnosis_data(seen), indent=1))
    else:
        out_console.print(diagnosed(seen, out_console.width))
    raise typer.Exit(0 if seen.well else 1)


def devices(
    model: Annotated[
        str | None, typer.Argument(help="predict what this takes on each: zoo name, file, saved net, bundle")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="only this one, by name, or a .toml profile; may be given again")
    ] = None,
    image: ImageOption = None,
    sizes: InputOption = None,
    weights: WeightsOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="cores to count on; all by default")] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """List known devices, or what a network will at least take on each of them: predicted, not measured."""
    from slimwright.cli import device_tables
    from slimwright.cli.subjects import subjects
    from slimwright.cost.device import load_device, load_devices

    chosen = [load_device(name) for name in device] if device else load_devices()
    if model is None:
        if as_json:
            print(json.dumps(device_tables.devices_data(chosen), indent=1))
        else:
            out_console.print(device_tables.devices_table(chosen, out_console.width))
        return
    with progress(quiet) as tell:
        (subject,) = subjects([model], image=image, sizes=sizes, weights=weights, tell=tell)
    found = device_tables.predictions(subject.original.net, chosen, threads)
    if as_json:
        print(json.dumps(device_tables.predictions_data(model, chosen, found), indent=1))
    else:
        width = out_console.width
        out_console.print(device_tables.predictions_table(model, chosen, found, threads=threads, width=width))
