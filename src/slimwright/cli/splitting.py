"""`slimwright split`: a net cut in two for a link, and both sides of it on this machine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from slimwright.cli.arguments import (
    DEFAULT_CACHE,
    CacheOption,
    DataOption,
    ExpectOption,
    ForceOption,
    JsonOption,
    MemoryOption,
    ModelArgument,
    OutOption,
    PreprocessingOption,
    QuietOption,
    SeedOption,
    TaskOption,
    WeightsOption,
    task_of,
)
from slimwright.cli.consoles import err_console, out_console, progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from slimwright.codec.split.records import Manifest

SPLIT = "A net cut in two for a link: the first layers on a phone, a few bytes over the link, the others on a server."
MAKE = (
    "Examples:\n\n  slimwright split resnet20 --data digits --link 4g --out split/\n\n"
    "  slimwright split model.onnx --data folder:photos@224 --uplink 12Mbps --rtt 40ms --max-bytes 400 --out split/\n\n"
    "  slimwright split bundle/ --data digits --link 3g --phone-slowdown 10 --server-speedup 4 --out split/ --json"
)
SERVE = "Example:\n\n  slimwright split serve split/ --token-file token.txt --port 8080"
SEND = "Example:\n\n  slimwright split send split/ photo.png --server http://127.0.0.1:8080 --token-file token.txt"
MAKING = "make"

BundleArgument = Annotated[Path, typer.Argument(help="a folder that `slimwright split` wrote")]
TokenOption = Annotated[
    Path,
    typer.Option(help="a file with the secret that both sides know: 16 characters or more; nobody else may read it"),
]


class Commands(TyperGroup):
    """Commands, of which one need not be named: what is no command is the model to be split."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name in front where it is left out."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [MAKING, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=Commands, no_args_is_help=True, help=SPLIT)


@app.command(MAKING, epilog=MAKE)
def make(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    link: Annotated[str | None, typer.Option(help="3g, 4g, 5g or wifi: averages of surveys")] = None,
    uplink: Annotated[
        str | None, typer.Option(help="instead of a link's name: what it carries upwards, 12Mbps")
    ] = None,
    rtt: Annotated[str | None, typer.Option(help="and how long a round trip takes: 40ms")] = None,
    max_drop: Annotated[float, typer.Option(help="how much the metric may drop, in its own steps; above 0")] = 1.0,
    max_bytes: Annotated[
        int | None,
        typer.Option(help="no message is larger, whatever the image; by default a quarter above the largest seen"),
    ] = None,
    phone_slowdown: Annotated[float, typer.Option(help="how many times as slow as this machine the phone is")] = 1.0,
    server_speedup: Annotated[float, typer.Option(help="how many times as fast as this machine the server is")] = 1.0,
    candidates: Annotated[int, typer.Option(min=1, help="cuts that are measured, of those predicted to be best")] = 3,
    tune_minutes: Annotated[
        float | None, typer.Option(help="train the server's part for coarser messages, for each cut that is measured")
    ] = None,
    preprocessing: PreprocessingOption = None,
    task: TaskOption = None,
    expect: ExpectOption = None,
    weights: WeightsOption = None,
    memory_limit: MemoryOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = DEFAULT_CACHE,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Cut a net where an image is answered soonest over a link. The command's name may be left out."""
    from slimwright.cli.sources import load_data, load_original
    from slimwright.cli.trained import Training
    from slimwright.codec.split.job import Request
    from slimwright.codec.split.links import link_of
    from slimwright.codec.split.making import split
    from slimwright.codec.split.timing import Machines
    from slimwright.measure import as_json as json_text

    request = Request(
        link=link_of(link, uplink, rtt),
        machines=Machines(phone_slowdown, server_speedup),
        max_drop=max_drop,
        max_bytes=max_bytes,
        tune_minutes=tune_minutes,
        candidates=candidates,
        name=model,
        expect=expect,
        cache=cache,
        memory_bytes=memory_limit,
        force=force,
    )
    with progress(quiet) as tell:
        found = load_data(data, seed, preprocessing, tell=tell)
        training = Training(cache=cache, memory_bytes=memory_limit)
        original = load_original(model, found, weights=weights, training=training, tell=tell)
        made = split(original, found, task_of(task, found, original), request, out=out, tell=tell)
    if as_json:
        print(json_text(made))
    else:
        out_console.print(table(made))
        out_console.print(f"saved in {out}", soft_wrap=True)
    if not made.within:
        metric = made.metric.metric
        err_console.print(
            f"{metric.name} drops by {metric.number(made.drop)} {metric.step} on the test part, more than {max_drop:g}",
            soft_wrap=True,
        )
        raise typer.Exit(1)


@app.command(epilog=SERVE)
def serve(
    bundle: BundleArgument,
    token_file: TokenOption,
    host: Annotated[str, typer.Option(help="where to listen; by default to this machine alone")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free, which is printed")] = 8080,
    as_json: JsonOption = False,
) -> None:
    """Answer messages of a split over HTTP, until stopped. The server is a reference: put what does TLS before it."""
    from slimwright.codec.split.bundle import load_split
    from slimwright.errors import check_extra

    check_extra("server", "serving a split needs", "fastapi", "uvicorn")
    from slimwright.codec.split.serving import serve as answer
    from slimwright.codec.split.sides import ServerSide, token_in

    token, side = token_in(token_file), ServerSide.of(load_split(bundle))

    def tell(url: str) -> None:
        print(json.dumps({"url": url}) if as_json else f"listening at {url}", flush=True)

    answer(side, token, host=host, port=port, tell=tell)


@app.command(epilog=SEND)
def send(
    bundle: BundleArgument,
    picture: Annotated[Path, typer.Argument(help="a picture: .png, .jpg, .webp, .bmp, .gif or .tif")],
    server: Annotated[str, typer.Option(help="where `split serve` listens: http://127.0.0.1:8080")],
    token_file: TokenOption,
    timeout: Annotated[float, typer.Option(help="seconds that the server may take")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Run the phone's part on a picture, send the message, and print what the server answers."""
    from slimwright.codec.split.asking import Server, asked
    from slimwright.codec.split.bundle import load_split
    from slimwright.codec.split.sides import PhoneSide, image_in, token_in

    found = load_split(bundle)
    where = Server(server, token_in(token_file), timeout)
    message = PhoneSide.of(found).message([image_in(picture, found.manifest)])
    outputs = asked(where, message, found)
    if as_json:
        said = {"message_bytes": len(message), "outputs": [one.tolist() for one in outputs]}
        print(json.dumps(said | {"labels": found.manifest.labels}, indent=1))
        return
    out_console.print(f"{len(message)} bytes sent", soft_wrap=True)
    labels = found.manifest.labels
    for number, one in enumerate(outputs):
        if one.shape == (1, len(labels)):
            for label, score in zip(labels, one[0].tolist(), strict=True):
                out_console.print(f"{score:10.4f}  {label}", soft_wrap=True, highlight=False, markup=False)
        else:
            out_console.print(
                f"output {number}: {list(one.shape)}; --json prints its numbers", soft_wrap=True, markup=False
            )


def table(said: "Manifest") -> "RenderableType":
    """Return what a split does beside its alternatives, and its cuts as they were predicted and measured."""
    from rich.box import SIMPLE
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from slimwright.codec.split.telling import HEADS, cut_rows, rows_of

    def filled(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
        made = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        for place, head in enumerate(heads):
            made.add_column(head, justify="right" if place else "left")
        for row in rows:
            made.add_row(*map(Text, row))
        return made

    heads, rows = cut_rows(said)
    link = said.link
    title = f"{said.model}, cut behind {said.after}: over {link.name}, at most {said.most_bytes} bytes a message"
    notes = [Text(note) for note in said.notes]
    return Group(filled(title, HEADS, rows_of(said)), filled("Cuts", heads, rows), *notes)
