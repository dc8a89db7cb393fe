"""`slimwright pack` and `unpack`: a net as one small file, and back."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimwright.cli.arguments import ForceOption, ImageOption, InputOption, JsonOption, ModelArgument, WeightsOption
from slimwright.cli.consoles import out_console
from slimwright.errors import ModelError, RequestError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from slimwright.graph import Net
    from slimwright.storage import Packed

PACK = (
    "Examples:\n\n  slimwright pack bundle/ --out model.swz\n\n"
    "  slimwright pack tuned/ --base bundle/ --out update.swz\n\n"
    "  slimwright pack model.onnx --out model.swz --json\n\n"
    "The file is a model wherever one is taken: slimwright inspect model.swz"
)
UNPACK = (
    "Examples:\n\n  slimwright unpack model.swz --out net/\n\n  slimwright unpack update.swz --base bundle/ --out net/"
)
PLAIN_BYTES = 4  # of a number, which the ratio compares with
BaseOption = Annotated[str | None, typer.Option(help="a model that the device has: what is like it is not stored")]


def pack(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="the file, .swz; it appears whole or not at all")],
    base: BaseOption = None,
    weights: WeightsOption = None,
    image: ImageOption = None,
    sizes: InputOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a network as one small file, without any loss: each tensor in the form in which it is smallest."""
    from slimwright.atomic import check_replaceable
    from slimwright.cli.subjects import subjects
    from slimwright.graph import unlisted
    from slimwright.storage import SUFFIX, write_packed

    if out.suffix != SUFFIX:
        raise RequestError(f"{out} would not be known as a packed net; name a file that ends in {SUFFIX} with --out")
    check_replaceable(out, SUFFIX[1:].upper(), "--out", force=force)
    (subject,) = subjects([model], image=image, sizes=sizes, weights=weights)
    net = subject.original.net
    if strange := unlisted(net):
        raise ModelError(f"{model} calls {strange[0]}, which no file may name, so that no file of it could be read")
    found = write_packed(net, out, base=_net(base) if base else None)
    if as_json:
        print(json.dumps(as_data(found), indent=1))
        return
    out_console.print(table(found, f"{model} as {out}"))


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


def as_data(found: "Packed") -> dict[str, Any]:
    """Return what a packed file holds as JSON-ready data."""
    tensors = [
        {"name": one.name, "form": one.form, "values": one.values, "bytes": one.size_bytes} for one in found.tensors
    ]
    values = sum(one.values for one in found.tensors)
    ratio = PLAIN_BYTES * values / found.size_bytes
    said = {"bytes": found.size_bytes, "header_bytes": found.header_bytes, "values": values, "ratio": ratio}
    return {**said, "tensors": tensors}


def table(found: "Packed", title: str) -> "RenderableType":
    """Return a line for each tensor, one for the graph, and the file's size in all."""
    from rich.box import SIMPLE
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from slimwright.units import counted, significant, times

    values = sum(one.values for one in found.tensors)
    made = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_footer=True)
    bits = significant(8 * found.size_bytes / values) if values else ""
    footers = {"tensor": "in all", "form": "", "values": counted(values), "bytes": f"{found.size_bytes:,}"}
    for name, footer in {**footers, "bits a value": bits}.items():
        made.add_column(name, footer=footer, justify="left" if name in ("tensor", "form") else "right")
    for one in found.tensors:
        share = significant(8 * one.size_bytes / one.values) if one.values else ""
        made.add_row(Text(one.name), one.form, f"{one.values:,}", f"{one.size_bytes:,}", share)
    made.add_row("graph and table", "", "", f"{found.header_bytes:,}", "")
    ratio = times(PLAIN_BYTES * values / found.size_bytes)
    return Group(Text(title, style="bold"), made, Text(f"{ratio} smaller than at {PLAIN_BYTES} bytes a number"))


def _net(spec: str) -> "Net":
    from slimwright.cli.subjects import subjects

    return subjects([spec])[0].original.net
