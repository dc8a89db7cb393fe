"""`slimwright shrink`, `verify`, `sign` and `report`: the main job, its proof again, its signature and its page."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    JsonOption,
    LicenceOption,
    MemoryOption,
    ModelArgument,
    OnlyOption,
    PreprocessingOption,
    QuietOption,
    TargetOption,
    TaskOption,
    WeightsOption,
    kept_classes,
    task_of,
)
from slimwright.cli.consoles import err_console, out_console, progress
from slimwright.errors import RequestError

if TYPE_CHECKING:
    from slimwright.data import Described
    from slimwright.measure import Bundle

SHRINK = (
    "Examples:\n\n"
    "  slimwright shrink resnet8-wide --data digits --latency 0.5x --out bundle/\n\n"
    "  slimwright shrink model.onnx --data images.safetensors --latency 4ms --size 2MB --max-drop 0.5 --out bundle/\n\n"
    "  slimwright shrink unet.pt2 --data folder:photos@64 --task imitation --latency 0.5x --max-drop 5 --out b/\n\n"
    "  slimwright shrink model.onnx --data mydata:load --minimise latency --max-drop 1 --out bundle/\n\n"
    "  slimwright shrink model.onnx --data images.safetensors --pareto --out front/"
)
VERIFY = (
    "Examples:\n\n  slimwright verify bundle/ --data digits\n\n"
    "  slimwright verify bundle/ --data digits --key public.pem"
)
SIGN = (
    "Example:\n\n  slimwright sign bundle/ --key private.pem\n\n"
    "How to make a pair of keys:\n\n"
    "  openssl ecparam -name prime256v1 -genkey -noout -out private.pem\n\n"
    "  openssl ec -in private.pem -pubout -out public.pem\n\n"
    "Keep private.pem to yourself. Whoever has public.pem can check bundles: slimwright verify bundle/ --key public.pem"
)
REPORT = "Example:\n\n  slimwright report bundle/"


def shrink(
    model: ModelArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="folder for the bundle; it appears whole or not at all")],
    latency: Annotated[str | None, typer.Option(help="most time per image: 12ms, or 0.5x of the original")] = None,
    size: Annotated[str | None, typer.Option(help="largest model file: 2MB, or 0.25x")] = None,
    packed: Annotated[
        str | None,
        typer.Option(help="largest packed file, for which weights are rounded: 50kB, or 0.02x of the original's"),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="largest activation memory: 300kB, or 0.5x")] = None,
    macs: Annotated[str | None, typer.Option(help="most multiply-accumulates: 20M, or 0.5x")] = None,
    energy: Annotated[str | None, typer.Option(help="most energy per image: 3mJ, or 0.5x; needs a counter")] = None,
    minimise: Annotated[
        str | None,
        typer.Option(
            help="find the model with the least latency, size, packed, memory, macs or energy within --max-drop"
        ),
    ] = None,
    max_drop: Annotated[
        float, typer.Option(help="how much the metric may drop, in its own steps: percentage points of accuracy")
    ] = 1.0,
    preprocessing: PreprocessingOption = None,
    task: TaskOption = None,
    classes: ClassesOption = None,
    only: OnlyOption = None,
    embed: EmbedOption = False,
    expect: ExpectOption = None,
    runtime: Annotated[
        str, typer.Option(help="that the result is for: onnxruntime, ort, ncnn, mnn, executorch, litert or openvino")
    ] = "onnxruntime",
    target: TargetOption = "local",
    weights: WeightsOption = None,
    licence: LicenceOption = "",
    tune_epochs: Annotated[int, typer.Option(min=0, help="fine-tuning, only if the metric drops too far")] = 3,
    minutes: Annotated[
        float | None,
        typer.Option(help="fine-tune on and on, as many epochs at a time, while that helps and this time is left"),
    ] = None,
    pareto: Annotated[
        bool,
        typer.Option("--pareto", help="no budget: the best network for each of 0.9x to 0.2x of the latency, as a page"),
    ] = False,
    compute: ComputeOption = "cpu",
    seed: Annotated[int, typer.Option(help="of the data's split and of every choice")] = 0,
    memory_limit: MemoryOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over; without, a job that was stopped goes on")] = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the best model within a budget, and prove it on the runtime."""
    from slimwright import jobs
    from slimwright.cli import tables
    from slimwright.cli.sources import load_data, load_original
    from slimwright.cli.trained import Training
    from slimwright.cost import Budget
    from slimwright.measure import as_json as record_text
    from slimwright.report import missing_page
    from slimwright.targets import target as named

    limits = {"latency": latency, "size": size, "packed": packed, "memory": memory, "macs": macs, "energy": energy}
    limits |= {"minimise": minimise}
    given = [f"--{name}" for name, value in limits.items() if value is not None]
    if pareto and given:
        raise RequestError(f"--pareto goes through limits on latency by itself; leave out {' and '.join(given)}")
    budget = (
        None
        if pareto
        else Budget(
            latency_ms=latency,
            size_bytes=size,
            packed_bytes=packed,
            peak_activation_bytes=memory,
            macs=macs,
            energy_mj=energy,
            max_drop=max_drop,
            minimise=minimise,
        )
    )
    settings = jobs.Settings(
        runtime=runtime,
        target=named(target, memory_bytes=memory_limit),
        seed=seed,
        tune_epochs=tune_epochs,
        tune_minutes=minutes,
        device=compute,
        cache=cache,
        name=model,
        licence=licence,
        expect=expect,
        embed=embed,
        fresh=fresh,
        force=force,
        memory_bytes=memory_limit,
    )
    with progress(quiet) as tell:
        found = load_data(data, seed, preprocessing, tell=tell)
        training = Training(cache=cache, device=compute, memory_bytes=memory_limit)
        original = load_original(model, found, weights=weights, training=training, tell=tell)
        original, found = kept_classes(original, found, only, classes)
        wanted = task_of(task, found, original)
        if budget is None:
            front = jobs.front(original, data=found, out=out, task=wanted, settings=settings, tell=tell)
        else:
            bundle = jobs.shrink(
                original, data=found, budget=budget, out=out, task=wanted, settings=settings, tell=tell
            )
    if budget is None:
        if as_json:
            print(record_text(front))
        else:
            out_console.print(tables.front(front, out), soft_wrap=True)
        return
    if quiet and (why := missing_page()):  # else the job has said so
        err_console.print(why, soft_wrap=True)
    if as_json:
        print(record_text(bundle.summary))
    else:
        out_console.print(tables.summary(bundle), soft_wrap=True)
    raise typer.Exit(0 if bundle.summary.within_budget else 1)


def verify(
    bundle: Annotated[Path, typer.Argument(help="folder that shrink made")],
    data: Annotated[str | None, typer.Option(help="the data it was proven on; digits needs no naming")] = None,
    preprocessing: PreprocessingOption = None,
    task: TaskOption = None,
    target: TargetOption = "local",
    key: Annotated[
        Path | None, typer.Option(help="public key: first check that the bundle is the one that was signed")
    ] = None,
    memory_limit: MemoryOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a bundle's proof again, here or on a device: parity, metric, latency, memory, budget."""
    from slimwright.cli import tables
    from slimwright.cli.sources import load_data, load_task
    from slimwright.jobs.verify import verify as verified
    from slimwright.measure import check_signature, load_bundle
    from slimwright.targets import target as named

    if key is not None:
        check_signature(bundle, key)
    found = load_bundle(bundle)
    name = data or found.manifest.data.name
    if data is None and name != "digits":  # a bundle must not be able to name code that is then run
        raise RequestError(f"this bundle was proven on '{name}'; name that data with --data")
    wanted = load_task(task) if task and ":" in task else None
    with progress(quiet) as tell:
        loaded = load_data(name, found.manifest.seed, preprocessing or _recorded(found, name), tell=tell)
        place = named(target, memory_bytes=memory_limit)
        checks = verified(found, loaded, place, task=wanted, memory_bytes=memory_limit, tell=tell)
    passed = all(check.passed for check in checks)
    if as_json:
        print(json.dumps({"passed": passed, "checks": [dataclasses.asdict(check) for check in checks]}, indent=1))
    else:
        out_console.print(tables.checked(f"{bundle}: {'proven' if passed else 'NOT proven'}", checks))
    raise typer.Exit(0 if passed else 1)


def _recorded(bundle: "Bundle", data: str) -> "Described | None":
    """How the bundle says that its pictures were prepared, where `data` is pictures."""
    from slimwright.cli.sources import PICTURED
    from slimwright.data import Described, recorded

    said = bundle.manifest.data.preprocessing
    if data.partition(":")[0] in PICTURED and "fit" in said:
        return recorded(said, str(bundle.path))
    return Described(mean=(0.0,), std=(1.0,), scale=1.0) if "embedded" in said else None


def sign(
    bundle: Annotated[Path, typer.Argument(help="folder that shrink made")],
    key: Annotated[Path, typer.Option(help="private key on an elliptic curve, in PEM")],
) -> None:
    """Sign every file of a bundle, its measurements too, with a key of your own."""
    from slimwright.measure import SIGNATURE, is_encrypted
    from slimwright.measure import sign as signed

    password = typer.prompt(f"password of {key}", hide_input=True, err=True).encode() if is_encrypted(key) else None
    names = signed(bundle, key, password)
    out_console.print(f"{bundle / SIGNATURE} signs {len(names)} files", soft_wrap=True)


def report(bundle: Annotated[Path, typer.Argument(help="folder that shrink made")]) -> None:
    """Write the HTML page and the pictures of a bundle again."""
    from slimwright.measure import SIGNATURE, load_bundle
    from slimwright.report import write_report

    found = load_bundle(bundle)
    write_report(bundle, found.manifest, found.recipe)
    out_console.print(f"{bundle / 'report.html'}", soft_wrap=True)
    if (bundle / SIGNATURE).exists():
        why = f"{bundle} is signed, and so was its page: sign the bundle again, or verify --key refuses the new page"
        err_console.print(why, soft_wrap=True)
