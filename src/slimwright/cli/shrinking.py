"""`slimwright shrink`, `verify`, `sign` and `report`: the main job, its proof again, its signature and its page."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from slimwright.cli.arguments import (
    DEFAULT_CACHE,
    ActivationsOption,
    CacheOption,
    ChoicesSeedOption,
    ClassesOption,
    ComputeOption,
    DataOption,
    DropOption,
    EmbedOption,
    EnergyOption,
    EpochsOption,
    ExpectOption,
    ForceOption,
    FreshOption,
    JsonOption,
    LatencyOption,
    LicenceOption,
    MacsOption,
    MemoryOption,
    MinutesOption,
    ModelArgument,
    OnlyOption,
    OutOption,
    PreprocessingOption,
    QuietOption,
    RuntimeOption,
    SizeOption,
    TargetOption,
    TaskOption,
    WeightsOption,
    kept_classes,
    places_named,
    task_of,
)
from slimwright.cli.consoles import err_console, out_console, progress
from slimwright.errors import RequestError

if TYPE_CHECKING:
    from slimwright.cost import Budget
    from slimwright.data import Dataset, Described
    from slimwright.jobs import Settings
    from slimwright.measure import Bundle, Original
    from slimwright.progress import Tell
    from slimwright.tasks import Task

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
    out: OutOption,
    latency: LatencyOption = None,
    size: SizeOption = None,
    packed: Annotated[
        str | None,
        typer.Option(help="largest packed file, for which weights are rounded: 50kB, or 0.02x of the original's"),
    ] = None,
    memory: ActivationsOption = None,
    macs: MacsOption = None,
    energy: EnergyOption = None,
    minimise: Annotated[
        str | None,
        typer.Option(
            help="find the model with the least latency, size, packed, memory, macs or energy within --max-drop"
        ),
    ] = None,
    max_drop: DropOption = 1.0,
    preprocessing: PreprocessingOption = None,
    task: TaskOption = None,
    classes: ClassesOption = None,
    only: OnlyOption = None,
    embed: EmbedOption = False,
    expect: ExpectOption = None,
    runtime: RuntimeOption = "onnxruntime",
    target: TargetOption = "local",
    weights: WeightsOption = None,
    licence: LicenceOption = "",
    tune_epochs: EpochsOption = 3,
    minutes: MinutesOption = None,
    pareto: Annotated[
        bool,
        typer.Option("--pareto", help="no budget: the best network for each of 0.9x to 0.2x of the latency, as a page"),
    ] = False,
    compute: ComputeOption = "cpu",
    seed: ChoicesSeedOption = 0,
    memory_limit: MemoryOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    fresh: FreshOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the best model within a budget, and prove it on the runtime."""
    from slimwright import jobs
    from slimwright.cli import tables
    from slimwright.cost import Budget
    from slimwright.measure import as_json as record_text
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
    subject = Named(model, data, preprocessing, task, classes, only, weights)
    if budget is not None:
        shrunk(subject, budget, settings, out, quiet=quiet, as_json=as_json)
    with progress(quiet) as tell:
        original, found, wanted = subject.loaded(settings, tell)
        front = jobs.front(original, data=found, out=out, task=wanted, settings=settings, tell=tell)
    if as_json:
        print(record_text(front))
    else:
        out_console.print(tables.front(front, out), soft_wrap=True)


@dataclass(frozen=True)
class Named:
    """What the command line names: a model, its data, and what both mean."""

    model: str
    data: str
    preprocessing: str | None
    task: str | None
    classes: str | None
    only: str | None
    weights: Path | None

    def loaded(self, settings: "Settings", tell: "Tell") -> "tuple[Original, Dataset, Task]":
        """Return the model, the data and the task."""
        from slimwright.cli.sources import load_data, load_original
        from slimwright.cli.trained import Training

        assert settings.cache is not None
        found = load_data(self.data, settings.seed, self.preprocessing, tell=tell)
        places = places_named(self.only, found)
        training = Training(cache=settings.cache, device=settings.device, memory_bytes=settings.memory_bytes)
        original = load_original(self.model, found, weights=self.weights, training=training, tell=tell)
        original, found = kept_classes(original, found, places, self.classes)
        return original, found, task_of(self.task, found, original)


def shrunk(
    subject: Named, budget: "Budget", settings: "Settings", out: Path, *, quiet: bool, as_json: bool
) -> NoReturn:
    """Make a bundle, say what it came to, and exit: with 1 where the budget is missed."""
    from slimwright import jobs
    from slimwright.cli import tables
    from slimwright.measure import as_json as record_text
    from slimwright.report import missing_page

    with progress(quiet) as tell:
        original, found, wanted = subject.loaded(settings, tell)
        bundle = jobs.shrink(original, data=found, budget=budget, out=out, task=wanted, settings=settings, tell=tell)
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
