"""`slimwright export`, `apply`, `kit` and `train`: artefacts, nets by recipe, code for apps, trained nets."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from slimwright.cli.arguments import (
    DEFAULT_CACHE,
    CacheOption,
    ClassesOption,
    ComputeOption,
    DataOption,
    EmbedOption,
    ExpectOption,
    ForceOption,
    ImageOption,
    InputOption,
    JsonOption,
    LicenceOption,
    MemoryOption,
    ModelArgument,
    PreprocessingOption,
    QuietOption,
    RuntimesOption,
    SeedOption,
    TargetOption,
    TaskOption,
    WeightsOption,
    task_of,
    with_classes,
)
from slimwright.cli.consoles import out_console, progress
from slimwright.errors import RequestError

if TYPE_CHECKING:
    from slimwright.jobs.kit import Language
    from slimwright.techniques import Rounding

ROUNDINGS: "dict[str, Rounding | None]" = {"runtime": None, "nearest": "nearest", "least-squares": "least squares"}

EXPORT = (
    "Examples:\n\n  slimwright export bundle/ --runtime ncnn --precision int8 --data digits --out exported/\n\n"
    "  slimwright export model.pt2 --runtime all --precision fp32 --precision fp16 --out exported/\n\n"
    "  slimwright export mobilenet-v2 --runtime executorch --runtime litert --out exported/ --json\n\n"
    "  slimwright export resnet8 --precision int8 --rounding least-squares --weight-bits 4 --data digits --out few/"
)
APPLY = (
    "Examples:\n\n  slimwright apply recipe.json resnet20 --data digits --out smaller/\n\n"
    "  slimwright apply bundle/ model.pt2 --data images.safetensors --out again/\n\n"
    "A recipe by hand, for any net that it fits:\n\n"
    '  {"original": null, "steps": [{"step": "merge", "streamlines": ["conv2d"]}, {"step": "solve"}]}'
)
TRAIN = (
    "Examples:\n\n  slimwright train resnet20 --data digits --out resnet20/\n\n"
    "  slimwright train lenet5 --data mnist:mnist/ --epochs 4 --rate 0.02 --batch-size 64 --out lenet5/\n\n"
    "  slimwright train resnet8 --data digits --epochs 60 --schedule patience=5 --schedule weight_decay=1e-4 --out r/"
)
KIT = (
    "Examples:\n\n  slimwright kit bundle/ --for python --data folder:photos@64 --out kit/\n\n"
    "  slimwright kit bundle/ --for android --data folder:photos@64 --packed --out kit/"
)


def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="folder for the artefacts; it appears whole or not at all")],
    runtime: RuntimesOption = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32, fp16, int8, or all; may be repeated")] = None,
    rounding: Annotated[
        Literal["runtime", "nearest", "least-squares"], typer.Option(help="who rounds to INT8, and how")
    ] = "runtime",
    weight_bits: Annotated[
        int | None, typer.Option(min=1, max=8, help="of weights that are not rounded by the runtime; 8")
    ] = None,
    equalise: Annotated[bool, typer.Option("--equalise", help="scale channels alike before INT8")] = False,
    correct_biases: Annotated[
        bool, typer.Option("--correct-biases", help="keep means of outputs that rounding to the nearest moves")
    ] = False,
    data: Annotated[str | None, typer.Option(help="to calibrate INT8 on and to prove the metric with")] = None,
    preprocessing: PreprocessingOption = None,
    task: TaskOption = None,
    classes: ClassesOption = None,
    embed: EmbedOption = False,
    expect: ExpectOption = None,
    image: ImageOption = None,
    sizes: InputOption = None,
    weights: WeightsOption = None,
    licence: LicenceOption = "",
    threads: Annotated[int, typer.Option(min=1, help="of the runtime")] = 1,
    target: TargetOption = "local",
    memory_limit: MemoryOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = DEFAULT_CACHE,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Convert a network for mobile runtimes. Artefacts that fail their proof are reported and not written."""
    from slimwright.cli import tables
    from slimwright.cli.sources import load_data
    from slimwright.cli.subjects import named_original
    from slimwright.cli.trained import Training
    from slimwright.jobs import export as exporting
    from slimwright.measure import as_json as record_text
    from slimwright.targets import target as named

    wanted = exporting.wanted(runtime or ["onnxruntime"], precision or ["fp32"])
    if weight_bits and rounding == "runtime":
        raise RequestError("--weight-bits holds where not the runtime rounds: add --rounding least-squares")
    with progress(quiet) as tell:
        found = load_data(data, seed, preprocessing, tell=tell) if data else None
        training = Training(cache=cache, memory_bytes=memory_limit)
        original = named_original(model, found, image=image, sizes=sizes, weights=weights, training=training, tell=tell)
        original = with_classes(original, classes, found)
        effort = dataclasses.replace(exporting.EFFORT.alone, threads=threads)
        result = exporting.export(
            original,
            exporting.Request(
                wanted,
                name=model,
                licence=licence,
                effort=effort,
                force=force,
                expect=expect,
                embed=embed,
                memory_bytes=memory_limit,
                rounding=ROUNDINGS[rounding],
                weight_bits=weight_bits or 8,
                equalise=equalise,
                correct_biases=correct_biases,
            ),
            data=found,
            out=out,
            task=task_of(task, found, original) if found else None,
            target=named(target, memory_bytes=memory_limit),
            tell=tell,
        )
    if as_json:
        print(record_text(result))
    else:
        out_console.print(tables.exported(result, out_console.width))
        out_console.print(f"in {out}", soft_wrap=True)
    raise typer.Exit(0 if all(artefact.passed for artefact in result.artefacts) else 1)


def apply(
    recipe: Annotated[Path, typer.Argument(help="a recipe (JSON), or a bundle, whose recipe is taken")],
    model: ModelArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="folder for the net that the recipe makes")],
    preprocessing: PreprocessingOption = None,
    task: TaskOption = None,
    weights: WeightsOption = None,
    compute: ComputeOption = "cpu",
    memory_limit: MemoryOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = DEFAULT_CACHE,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take the steps of a recipe, any techniques in any order, and save the net."""
    from slimwright.atomic import appearing
    from slimwright.cli import tables
    from slimwright.cli.sources import load_data, load_original
    from slimwright.cli.trained import Training
    from slimwright.graph import FILES, save_net
    from slimwright.jobs.apply import applied_sides
    from slimwright.kept import kept_at
    from slimwright.techniques import applied, load_recipe

    wanted = load_recipe(recipe)
    with appearing(out, FILES[0], ours=FILES, force=force) as folder, progress(quiet) as tell:
        found = load_data(data, seed, preprocessing, tell=tell)
        training = Training(cache=cache, device=compute, memory_bytes=memory_limit)
        original = load_original(model, found, weights=weights, training=training, tell=tell)
        net, judged = original.net, task_of(task, found, original)
        cache.mkdir(parents=True, exist_ok=True)
        checkpoint = kept_at(cache, "apply", f"{wanted.model_dump_json()} {net.digest} {found.name} {seed}")
        work = applied(wanted, net, found, task=judged, device=compute, checkpoint=checkpoint,
                       memory_bytes=memory_limit, tell=tell)  # fmt: skip
        sides = applied_sides(original, found, judged, work)
        save_net(work.draft.net, folder)
    if as_json:
        print(json.dumps(sides, indent=1))
        return
    steps = ", ".join(step.step for step in wanted.steps)
    out_console.print(tables.applied(f"{model}: {steps}", sides, judged.metric))
    out_console.print(f"saved in {out}", soft_wrap=True)


def kit(
    bundle: Annotated[Path, typer.Argument(help="folder that shrink made")],
    language: Annotated[str, typer.Option("--for", help="python, cpp, android (Kotlin) or ios (Swift)")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="folder for the code; it appears whole or not at all")],
    packed: Annotated[
        bool, typer.Option("--packed", help="add the model in fewer bytes, with a reader that rebuilds its files")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write code that runs a bundle's model in an app: preprocessing, inference, the answer, and a self-test."""
    from slimwright.cli.sources import load_data
    from slimwright.jobs.kit import LANGUAGES
    from slimwright.jobs.kit import kit as written
    from slimwright.measure import load_bundle

    if language not in LANGUAGES:
        raise RequestError(f"there is no kit for '{language}'; there is for {', '.join(LANGUAGES)}")
    found = load_bundle(bundle)
    samples = load_data(data, found.manifest.seed)
    made = written(found, cast("Language", language), samples, out, packed=packed, force=force)
    said = f"{LANGUAGES[language]} code for {made.facts.runtime} in {out}; README.md says how to build and test it"
    out_console.print(said, soft_wrap=True)
    if made.download:
        before, after = made.download.artefact_bytes / 1e3, made.download.size_bytes / 1e3
        out_console.print(f"packed, the model takes {after:.4g} kB in place of {before:.4g} kB", soft_wrap=True)


def train(
    model: Annotated[str, typer.Argument(help="zoo name")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="folder for the trained net")],
    epochs: Annotated[int | None, typer.Option(min=1, help="passes over the train part")] = None,
    rate: Annotated[float | None, typer.Option(help="peak learning rate; halved where the loss explodes")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="images in a step")] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            help="patience=5: end when the validation loss stops falling, the rate being constant; minutes=30; "
            "also momentum, weight_decay, average_over, longest_gradient, label_smoothing, seed; may be repeated"
        ),
    ] = None,
    preprocessing: PreprocessingOption = None,
    compute: ComputeOption = "cpu",
    memory_limit: MemoryOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = DEFAULT_CACHE,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a network of the zoo and save it as a net; a run that was stopped goes on where it was."""
    from slimwright.atomic import appearing
    from slimwright.cli.schedules import schedule_of
    from slimwright.cli.sources import load_data, load_original
    from slimwright.cli.trained import Training
    from slimwright.graph import FILES, save_net
    from slimwright.train import score
    from slimwright.zoo import ZOO, unknown

    if model not in ZOO:
        raise unknown(model, ZOO)
    plan = schedule_of(epochs, rate, batch_size, schedule or ())
    training = Training(plan, cache, compute, memory_limit)
    with appearing(out, FILES[0], ours=FILES, force=force) as folder, progress(quiet) as tell:
        found = load_data(data, seed, preprocessing, tell=tell)
        original = load_original(model, found, training=training, tell=tell)
        save_net(original.net, folder)
    task = task_of(None, found, original)
    shown = task.metric.shown(score(original.net.to_module(), found, "validation", task))
    said = f"{model} on {found.name}: {task.metric.name} {shown} on the validation part, saved in {out}"
    out_console.print(said, soft_wrap=True)
