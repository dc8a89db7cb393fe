"""`slimwright pack` and `unpack`: a net as one small file, and back."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimwright.cli.arguments import (
    DEFAULT_CACHE,
    CacheOption,
    ExpectOption,
    ForceOption,
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
    task_of,
)
from slimwright.cli.consoles import out_console, progress
from slimwright.errors import ModelError, RequestError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from slimwright.graph import Net
    from slimwright.jobs.packing import Scores
    from slimwright.storage import Packed

PACK = (
    "Examples:\n\n  slimwright pack bundle/ --out model.swz\n\n"
    "  slimwright pack lenet-300-100 --data mnist:mnist/ --size 50x --max-drop 0.3 --out model.swz\n\n"
    "  slimwright pack tuned/ --base bundle/ --out update.swz\n\n"
    "  slimwright pack model.onnx --out model.swz --json\n\n"
    "The file is a model wherever one is taken: slimwright inspect model.swz"
)
UNPACK = (
    "Examples:\n\n  slimwright unpack model.swz --out net/\n\n  slimwright unpack update.swz --base bundle/ --out net/"
)
BaseOption = Annotated[str | None, typer.Option(help="a model that the device has: what is like it is not stored")]


def pack(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="the file, .swz; it appears whole or not at all")],
    base: BaseOption = None,
    size: Annotated[
        str | None,
        typer.Option(help="round the weights so that the file is as small: 200kB, or 50x smaller; needs --data"),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="what the weights are rounded for, as `shrink --data` takes it")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0, help="how much the metric may drop on the test part; exit status 1 beyond")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="of the calibration part, then the training part; as many as show enough")
    ] = None,
    preprocessing: PreprocessingOption = None,
    task: TaskOption = None,
    expect: ExpectOption = None,
    weights: WeightsOption = None,
    image: ImageOption = None,
    sizes: InputOption = None,
    memory_limit: MemoryOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = DEFAULT_CACHE,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a network as one small file: without any loss, or with its weights rounded to the size that you ask for."""
    from slimwright.atomic import check_replaceable
    from slimwright.cli.sources import load_data
    from slimwright.cli.subjects import named_original
    from slimwright.cli.trained import Training
    from slimwright.cost import size_asked
    from slimwright.graph import unlisted
    from slimwright.jobs.packing import fitted, scores
    from slimwright.jobs.setups import set_up
    from slimwright.storage import SUFFIX, plain_bytes, write_packed

    if out.suffix != SUFFIX:
        raise RequestError(f"{out} would not be known as a packed net; name a file that ends in {SUFFIX} with --out")
    check_replaceable(out, SUFFIX[1:].upper(), "--out", force=force)
    if (size is None) != (data is None):
        raise RequestError("a size is met by rounding weights for data, so --size and --data go together")
    known, scored = _net(base) if base else None, None
    with progress(quiet) as tell:
        found = load_data(data, seed, preprocessing, tell=tell) if data else None
        training = Training(cache=cache, memory_bytes=memory_limit)
        original = named_original(model, found, image=image, sizes=sizes, weights=weights, training=training, tell=tell)
        net = original.net
        if found and size:
            wanted = task_of(task, found, original)
            original, found = set_up(original, wanted, found, expect=expect, embed=False, tell=tell)
            asked = size_asked(size, plain_bytes(net))
            net = fitted(net, found, wanted, asked, images=images, base=known, memory_bytes=memory_limit, tell=tell).net
            scored = scores(original, net, found, wanted)
    if strange := unlisted(net):
        raise ModelError(f"{model} calls {strange[0]}, which no file may name, so that no file of it could be read")
    packed = write_packed(net, out, base=known)
    if as_json:
        print(json.dumps(as_data(packed, scored), indent=1))
    else:
        out_console.print(table(packed, f"{model} as {out}"))
        if scored:
            before, after = map(scored.metric.shown, scored.test)
            out_console.print(f"{scored.metric.name} {before} -> {after} on the test part", soft_wrap=True)
    if scored and max_drop is not None and scored.drop > max_drop:
        raise typer.Exit(1)


def unpack(
    packed: Annotated[Path, typer.Argument(help="a file that pack wrote")],
    out: Annotated[Path, typer.Option(help="folder for the net; it appears whole or not at all")],
    base: BaseOption = None,
    force: ForceOption = False,
) -> None:
    """Save the network in a packed file as a net: the same, to the bit."""
    from slimwright.atomic import appearing
    from slimwright.graph import FILES, save_net
    from slimwright.storage import read_packed

    with appearing(out, FILES[0], ours=FILES, force=force) as folder:
        save_net(read_packed(packed, base=_net(base) if base else None), folder)
    out_console.print(f"saved in {out}", soft_wrap=True)


def as_data(found: "Packed", scored: "Scores | None" = None) -> dict[str, Any]:
    """Return what a packed file holds as JSON-ready data, and what became of the metric where weights were rounded."""
    tensors = [
        {"name": one.name, "form": one.form, "values": one.values, "bytes": one.size_bytes} for one in found.tensors
    ]
    sizes = {"bytes": found.size_bytes, "header_bytes": found.header_bytes}
    said: dict[str, Any] = {**sizes, "values": found.values, "ratio": found.times_smaller, "tensors": tensors}
    if scored:
        said |= {"metric": scored.metric.name, "validation": scored.validation, "test": scored.test}
    return said


def table(found: "Packed", title: str) -> "RenderableType":
    """Return a line for each tensor, one for the graph, and the file's size in all."""
    from rich.box import SIMPLE
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from slimwright.units import counted, significant, times

    values = found.values
    made = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_footer=True)
    bits = significant(8 * found.size_bytes / values) if values else ""
    footers = {"tensor": "in all", "form": "", "values": counted(values), "bytes": f"{found.size_bytes:,}"}
    for name, footer in {**footers, "bits a value": bits}.items():
        made.add_column(name, footer=footer, justify="left" if name in ("tensor", "form") else "right")
    for one in found.tensors:
        share = significant(8 * one.size_bytes / one.values) if one.values else ""
        made.add_row(Text(one.name), one.form, f"{one.values:,}", f"{one.size_bytes:,}", share)
    made.add_row("graph and table", "", "", f"{found.header_bytes:,}", "")
    ratio = times(found.times_smaller)
    return Group(Text(title, style="bold"), made, Text(f"{ratio} smaller than at 4 bytes a number"))


def _net(spec: str) -> "Net":
    from slimwright.cli.subjects import subjects

    return subjects([spec])[0].original.net
