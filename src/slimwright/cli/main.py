"""The command line: parse, call once, print, exit status.

Exit status: 0 done and within budget, 1 done but a budget or a proof was missed, 2 the request was wrong, 130 stopped
by hand. Results go to standard output, progress and errors to standard error.
"""

import os

# Threads that wait shall sleep, not spin: on a busy machine spinning makes small operations ten times slower. The
# setting must stand before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime from 1.29 on reports its use to its maker

import dataclasses
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from slimwright.errors import RequestError, SlimwrightError
from slimwright.progress import Event

if TYPE_CHECKING:
    from slimwright.targets import Target

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A trained CNN and a device budget in, a smaller, faster model out, proven on the runtime that will run it.",
)
out_console, err_console = Console(), Console(stderr=True)

ModelArgument = Annotated[str, typer.Argument(help="zoo name, .onnx or .pt2 file, saved net, bundle, module:callable")]
DataOption = Annotated[
    str,
    typer.Option(help="digits, glyphs, mnist:FOLDER, cifar10:FOLDER, folder:PATH@SIZE, x.safetensors, module:callable"),
]
WeightsOption = Annotated[Path | None, typer.Option(help="safetensors weights for a zoo name or module:callable")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
CacheOption = Annotated[
    Path,
    typer.Option(envvar="SLIMWRIGHT_CACHE", help="trained weights, evidence and latency tables are kept here"),
]
TargetOption = Annotated[
    str, typer.Option(help="where artefacts run: local, ssh:HOST, agent:HOST:PORT; the last needs its --token-file")
]
ComputeOption = Annotated[
    str, typer.Option(help="where this machine observes, solves and trains: cpu, cuda, cuda:1; torch must know it")
]
TokenOption = Annotated[Path | None, typer.Option(help="the agent's token, as the agent wrote it")]
DEFAULT_TOKEN = Path.home() / ".slimwright-token"
DEFAULT_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slimwright"


@app.command(
    epilog="Examples:\n\n"
    "  slimwright shrink resnet8-wide --data digits --latency 0.5x --out bundle/\n\n"
    "  slimwright shrink model.pt2 --data images.safetensors --latency 4ms --size 2MB --max-drop 0.5 --out bundle/\n\n"
    "  slimwright shrink mynets:resnet --weights w.safetensors --data mydata:load --latency 0.3x --out bundle/"
)
def shrink(
    model: ModelArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="folder for the bundle; it appears whole or not at all")],
    latency: Annotated[str | None, typer.Option(help="most time per image: 12ms, or 0.5x of the original")] = None,
    size: Annotated[str | None, typer.Option(help="largest model file: 2MB, or 0.25x")] = None,
    memory: Annotated[str | None, typer.Option(help="largest activation memory: 300kB, or 0.5x")] = None,
    macs: Annotated[str | None, typer.Option(help="most multiply-accumulates: 20M, or 0.5x")] = None,
    max_drop: Annotated[float, typer.Option(help="most accuracy lost, in percentage points")] = 1.0,
    runtime: Annotated[
        str, typer.Option(help="that the result is for: onnxruntime, ort, ncnn, mnn, executorch, litert or openvino")
    ] = "onnxruntime",
    target: TargetOption = "local",
    token_file: TokenOption = None,
    weights: WeightsOption = None,
    tune_epochs: Annotated[int, typer.Option(min=0, help="fine-tuning, only if the accuracy budget is missed")] = 3,
    compute: ComputeOption = "cpu",
    seed: Annotated[int, typer.Option(help="of the data's split and of every choice")] = 0,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Find the most accurate model within a budget, and prove it on the runtime."""
    from slimwright import jobs
    from slimwright.cli import tables as listing
    from slimwright.cli.sources import load_data, load_model
    from slimwright.cost import Budget

    budget = Budget(
        latency_ms=latency, size_bytes=size, peak_activation_bytes=memory, macs=macs, max_accuracy_drop=max_drop
    )
    settings = jobs.Settings(
        runtime=runtime,
        target=_target(target, token_file),
        seed=seed,
        tune_epochs=tune_epochs,
        device=compute,
        cache=cache,
        name=model,
    )
    with _progress() as tell:
        found = load_data(data, seed)
        net = load_model(model, found, weights=weights, cache=cache, device=compute, tell=tell)
        bundle = jobs.shrink(net, data=found, budget=budget, out=out, settings=settings, tell=tell)
    if as_json:
        print(bundle.summary.model_dump_json(indent=1))
    else:
        out_console.print(listing.summary(bundle), soft_wrap=True)
    raise typer.Exit(0 if bundle.summary.within_budget else 1)


@app.command(
    epilog="Examples:\n\n  slimwright inspect resnet20\n\n"
    "  slimwright inspect model.pt2 --measure --html model.html\n\n"
    "  slimwright inspect mynets:resnet --image 3x224x224 --depth 2\n\n"
    "  slimwright inspect mobilenet-v2 squeezenet1.1 customnet2 --image 3x96x96\n\n"
    "  slimwright inspect trained/ bundle/ --data digits --json"
)
def inspect(
    models: Annotated[
        list[str],
        typer.Argument(help="zoo name, .pt2 file, saved net, bundle, or module:callable; several are compared"),
    ],
    data: Annotated[
        str | None, typer.Option(help="measure accuracy on this data: digits, a .safetensors file, or module:callable")
    ] = None,
    image: Annotated[str | None, typer.Option(help="channels x height x width, if not the network's own")] = None,
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
    seed: Annotated[int, typer.Option(help="of the data's split")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show what a network costs, layer by layer, or compare several. Counts are exact, for one image."""
    from slimwright.cli import tables as listing
    from slimwright.cli.sources import load_data
    from slimwright.cli.subjects import image_shape, subjects
    from slimwright.measure import inspection
    from slimwright.report import write_inspection

    shape = image_shape(image) if image else None
    with _progress() as tell:
        found = load_data(data, seed) if data else None
        nets = subjects(models, data=found, image=shape, weights=weights, tell=tell)
        timed = len(nets) > 1 if measure is None else measure
        results = inspection.measure(nets, found, tell=tell) if timed else inspection.score(nets, found)
        seen = [inspection.inspect(net, result) for net, result in zip(nets, results, strict=True)]
    if html:
        write_inspection(html, seen, depth)
    if as_json:
        print(json.dumps(inspection.as_data(seen, depth), indent=1))
    elif len(seen) > 1:
        out_console.print(listing.comparison(seen))
    else:
        out_console.print(listing.layers(seen[0], depth, out_console.width))


@app.command(
    epilog="Examples:\n\n  slimwright apply recipe.json resnet20 --data digits --out smaller/\n\n"
    "  slimwright apply bundle/ model.pt2 --data images.safetensors --out again/\n\n"
    "A recipe by hand, for any net that it fits:\n\n"
    '  {"original": null, "steps": [{"step": "merge", "streamlines": ["conv2d"]}, {"step": "solve"}]}'
)
def apply(
    recipe: Annotated[Path, typer.Argument(help="a recipe (JSON), or a bundle, whose recipe is taken")],
    model: ModelArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="folder for the net that comes of it")],
    weights: WeightsOption = None,
    compute: ComputeOption = "cpu",
    seed: Annotated[int, typer.Option(help="of the data's split")] = 0,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Take the steps of a recipe, any techniques in any order, and save the net; quantization is left to `shrink`."""
    from slimwright.atomic import kept_at
    from slimwright.cli import tables as listing
    from slimwright.cli.sources import load_data, load_model
    from slimwright.cost import count
    from slimwright.graph import save_net
    from slimwright.techniques import recipe as recipes
    from slimwright.train import accuracy

    wanted = recipes.load_recipe(recipe)
    with _progress() as tell:
        found = load_data(data, seed)
        net = load_model(model, found, weights=weights, cache=cache, device=compute, tell=tell)
        checkpoint = kept_at(cache, "apply", f"{wanted.model_dump_json()} {net.digest} {found.name} {seed}")
        small = recipes.apply(wanted, net, found, device=compute, checkpoint=checkpoint, tell=tell)
    save_net(small, out)
    sides = {}
    for name, side, judged in (("original", net, found), ("result", small, recipes.scored(wanted, found))):
        counted, right = count(side), accuracy(side.to_module(), judged, "validation")
        sides[name] = {"macs": counted.macs, "params": counted.params, "validation_accuracy": right}
    if as_json:
        print(json.dumps(sides, indent=1))
        return
    out_console.print(listing.applied(f"{model}: {', '.join(step.step for step in wanted.steps)}", sides))
    out_console.print(f"saved in {out}", soft_wrap=True)


@app.command(
    epilog="Examples:\n\n  slimwright devices\n\n  slimwright devices mobilenet-v2 --device pi4 --device my.toml\n\n"
    "  slimwright devices model.onnx --threads 1 --json"
)
def devices(
    model: Annotated[
        str | None, typer.Argument(help="predict what this takes on each: zoo name, file, saved net, bundle")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="only this one, by name, or a .toml profile; may be given again")
    ] = None,
    image: Annotated[str | None, typer.Option(help="channels x height x width, if not the network's own")] = None,
    weights: WeightsOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="cores to count on; all by default")] = None,
    as_json: JsonOption = False,
) -> None:
    """List known devices, or what a network will at least take on each of them: predicted, not measured."""
    from slimwright.cli import device_tables as devices_listing
    from slimwright.cli.subjects import image_shape, subjects
    from slimwright.cost.device import load_device, load_devices

    chosen = [load_device(name) for name in device] if device else load_devices()
    if model is None:
        if as_json:
            print(json.dumps(devices_listing.devices_data(chosen), indent=1))
        else:
            out_console.print(devices_listing.devices_table(chosen, out_console.width))
        return
    with _progress() as tell:
        (subject,) = subjects([model], image=image_shape(image) if image else None, weights=weights, tell=tell)
    found = devices_listing.predictions(subject.net, chosen, threads)
    if as_json:
        print(json.dumps(devices_listing.predictions_data(model, chosen, found), indent=1))
    else:
        width = out_console.width
        out_console.print(devices_listing.predictions_table(model, chosen, found, threads=threads, width=width))


@app.command(
    epilog="Examples:\n\n  slimwright export bundle/ --runtime ncnn --precision int8 --data digits --out exported/\n\n"
    "  slimwright export model.pt2 --runtime all --precision fp32 --precision fp16 --out exported/\n\n"
    "  slimwright export mobilenet-v2 --runtime executorch --runtime litert --out exported/ --json"
)
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="folder for the artefacts; it appears whole or not at all")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="onnxruntime, ort, ncnn, mnn, executorch, litert, openvino, or all; may be repeated"),
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32, fp16, int8, or all; may be repeated")] = None,
    data: Annotated[str | None, typer.Option(help="to calibrate INT8 on and to prove accuracy with")] = None,
    image: Annotated[str | None, typer.Option(help="channels x height x width, if not the network's own")] = None,
    weights: WeightsOption = None,
    threads: Annotated[int, typer.Option(min=1, help="of the runtime")] = 1,
    target: TargetOption = "local",
    token_file: TokenOption = None,
    seed: Annotated[int, typer.Option(help="of the data's split")] = 0,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Convert a network for mobile runtimes; what fails its proof is told of, and not handed over."""
    from slimwright.cli import tables as listing
    from slimwright.cli.sources import load_data, load_model
    from slimwright.cli.subjects import image_shape, subjects
    from slimwright.jobs import export as exporting

    wanted = exporting.wanted(runtime or ["onnxruntime"], precision or ["fp32"])
    with _progress() as tell:
        found = load_data(data, seed) if data else None
        if found:
            net = load_model(model, found, weights=weights, cache=cache, tell=tell)
        else:
            (subject,) = subjects([model], image=image_shape(image) if image else None, weights=weights)
            net = subject.net
        request = exporting.Request(wanted, name=model, effort=dataclasses.replace(exporting.EFFORT, threads=threads))
        place = _target(target, token_file)
        result = exporting.export(net, request, data=found, out=out, target=place, tell=tell)
    if as_json:
        print(result.model_dump_json(indent=1))
    else:
        out_console.print(listing.exported(result, out_console.width))
        out_console.print(f"in {out}", soft_wrap=True)
    raise typer.Exit(0 if all(artefact.passed for artefact in result.artefacts) else 1)


@app.command(
    epilog="Examples:\n\n  slimwright doctor mobilenet-v2\n\n"
    "  slimwright doctor model.onnx --runtime executorch --runtime litert --precision fp32 --precision int8\n\n"
    "  slimwright doctor mynets:resnet --image 3x96x96 --json"
)
def doctor(
    model: ModelArgument,
    runtime: Annotated[
        list[str] | None, typer.Option(help="look at this one only, else at all; may be repeated")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32 (as is), fp16 or int8; may be repeated")] = None,
    image: Annotated[str | None, typer.Option(help="channels x height x width, if not the network's own")] = None,
    data: Annotated[
        str | None, typer.Option(help="look at its images, not at random ones, and calibrate INT8 on them")
    ] = None,
    weights: WeightsOption = None,
    seed: Annotated[int, typer.Option(help="of the data's split")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Try a network in every runtime: does it convert, run, stay equal, what is slow, and what to change."""
    from slimwright.cli.doctor_tables import diagnosed, diagnosis_data
    from slimwright.cli.sources import load_data
    from slimwright.cli.subjects import image_shape, subjects
    from slimwright.jobs.doctor import examine

    with _progress() as tell:
        found = load_data(data, seed) if data else None
        (subject,) = subjects([model], data=found, image=image_shape(image) if image else None, weights=weights)
        seen = examine(
            subject.net, model, runtimes=runtime or (), precisions=precision or ("fp32",), data=found, tell=tell
        )
    if as_json:
        print(json.dumps(diagnosis_data(seen), indent=1))
    else:
        out_console.print(diagnosed(seen, out_console.width))
    raise typer.Exit(0 if seen.well else 1)


@app.command(epilog="Example:\n\n  slimwright verify bundle/ --data digits")
def verify(
    bundle: Annotated[Path, typer.Argument(help="folder that shrink made")],
    data: Annotated[str | None, typer.Option(help="the data it was proven on; digits needs no naming")] = None,
    target: TargetOption = "local",
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a bundle's proof again, here or on a device: parity, accuracy, latency, memory, budget."""
    from slimwright.cli import tables as listing
    from slimwright.cli.sources import load_data
    from slimwright.measure import proof
    from slimwright.measure.bundle import load_bundle

    found = load_bundle(bundle)
    name = data or found.manifest.data.name
    if data is None and name != "digits":  # a bundle must not be able to name code that is then run
        raise RequestError(f"this bundle was proven on '{name}'; name that data with --data")
    checks = proof.verify(found, load_data(name, found.manifest.seed), _target(target, token_file))
    passed = all(check.passed for check in checks)
    if as_json:
        print(json.dumps({"passed": passed, "checks": [dataclasses.asdict(check) for check in checks]}, indent=1))
    else:
        out_console.print(listing.checked(f"{bundle}: {'proven' if passed else 'NOT proven'}", checks))
    raise typer.Exit(0 if passed else 1)


@app.command(epilog="Example:\n\n  slimwright report bundle/")
def report(bundle: Annotated[Path, typer.Argument(help="folder that shrink made")]) -> None:
    """Write the HTML page and the pictures of a bundle anew."""
    from slimwright.measure.bundle import load_bundle
    from slimwright.report import write_report

    found = load_bundle(bundle)
    write_report(bundle, found.manifest, found.recipe)
    out_console.print(f"{bundle / 'report.html'}", soft_wrap=True)


@app.command(epilog="Example:\n\n  slimwright train resnet20 --data digits --out resnet20/")
def train(
    model: Annotated[str, typer.Argument(help="zoo name")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="folder for the trained net")],
    compute: ComputeOption = "cpu",
    seed: Annotated[int, typer.Option(help="of the data's split")] = 0,
    cache: CacheOption = DEFAULT_CACHE,
) -> None:
    """Train a network of the zoo and save it as a net; a run that was stopped goes on where it was."""
    from slimwright.cli.sources import load_data, load_model
    from slimwright.graph import save_net
    from slimwright.train import accuracy
    from slimwright.zoo import ZOO
    from slimwright.zoo.network import unknown

    if model not in ZOO:
        raise unknown(model, ZOO)
    found = load_data(data, seed)
    with _progress() as tell:
        net = load_model(model, found, cache=cache, device=compute, tell=tell)
    save_net(net, out)
    share = accuracy(net.to_module(), found, "validation")
    out_console.print(f"{model} on {found.name}: {share:.2%} on the validation part, saved in {out}", soft_wrap=True)


@app.command(
    epilog="Examples:\n\n  slimwright agent --host 0.0.0.0\n\n  slimwright agent --write runner.pyz\n\n"
    "Jobs are then sent with --target agent:HOST:8765 and the token that is printed."
)
def agent(
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 for all networks")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8765,
    token_file: Annotated[
        Path, typer.Option(help="the token that jobs are signed with; made if it is not there")
    ] = DEFAULT_TOKEN,
    write: Annotated[
        Path | None,
        typer.Option(help="serve nothing; write the runner, as one file, to copy to a device without slimwright"),
    ] = None,
) -> None:
    """Let others run artefacts on this machine: one job at a time, for whoever knows the token."""
    from slimwright.runner import pack, serve

    try:
        if write:
            pack.write_runner(write)
            out_console.print(pack.INSTRUCTIONS.format(file=write.name), soft_wrap=True, markup=False, highlight=False)
        else:
            serve.serve(host, port, serve.token_in(token_file))
    except (ValueError, OSError) as error:
        raise RequestError(f"the agent cannot start, or the runner be written: {error}") from error


def main() -> None:
    """Run the command line."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app()
    except SlimwrightError as error:
        err_console.print(f"[bold red]error:[/] {_escaped(str(error))}", soft_wrap=True)
        sys.exit(2 if isinstance(error, RequestError) else 1)
    except KeyboardInterrupt:
        err_console.print("stopped; the same command goes on from what is in the cache")
        sys.exit(130)


def _target(spec: str, token_file: Path | None) -> "Target":
    from slimwright.targets.named import target

    try:
        token = token_file.read_text().strip() if token_file else None
    except OSError as error:
        raise RequestError(f"cannot read the token in {token_file}: {error.strerror}") from error
    return target(spec, token=token)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


@contextmanager
def _progress() -> Iterator["_Listener"]:
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err_console, disable=not err_console.is_terminal) as bars:
        yield _Listener(bars)


class _Listener:
    """Shows events as bars on a terminal, and as one line per finished stage elsewhere."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        if self.bars.disable:
            if event.done == event.total:
                err_console.print(
                    f"{event.stage}: {event.done}/{event.total} {_escaped(event.note)}".rstrip(), soft_wrap=True
                )
            return
        if event.stage not in self.tasks or self.bars.tasks[self.tasks[event.stage]].finished:
            self.tasks[event.stage] = self.bars.add_task(event.stage, total=event.total, note="")
        self.bars.update(self.tasks[event.stage], completed=event.done, total=event.total, note=_escaped(event.note))


if __name__ == "__main__":
    main()
