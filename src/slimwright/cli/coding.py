"""`slimwright codec`: pictures as small files and back, training of what all share, comparison with other codecs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimwright.cli.arguments import DEFAULT_CACHE, CacheOption, ForceOption, JsonOption, QuietOption
from slimwright.cli.consoles import err_console, out_console, progress
from slimwright.errors import RequestError

if TYPE_CHECKING:
    from slimwright.codec.encoding import Aim

CODEC = "Pictures as small files: with what all pictures share, or with parameters of their own."
ENCODE = (
    "Examples:\n\n  slimwright codec encode photo.png --psnr 34 --out photo.swi\n\n"
    "  slimwright codec encode photo.png --max-bytes 10000 --overfit --out photo.swi\n\n"
    "  slimwright codec encode photo.png --ratio 40 --weights faces.png --tile 128 --copies 3 --out photo.swi --json"
)
DECODE = "Example:\n\n  slimwright codec decode photo.swi --out photo.png"
EVALUATE = (
    "Examples:\n\n  slimwright codec evaluate photo.png --bpp 0.5\n\n"
    "  slimwright codec evaluate photos/ --quality 24 --quality 32 --overfit --json"
)
TRAIN = (
    "Examples:\n\n  slimwright codec train samples --out shared.safetensors\n\n"
    "  slimwright codec train photos/ --iterations 4000 --out shared.safetensors"
)
SUFFIX, MOST_COPIES = ".swi", 16
SAMPLES = "samples"

PictureArgument = Annotated[Path, typer.Argument(help="a picture: .png, .jpg, .webp, .bmp, .gif or .tif")]
QualityOption = Annotated[
    int | None,
    typer.Option(
        min=0, max=64, help="the gain: eighths of an octave from the coarsest step up; 24 is a small photograph"
    ),
]
MostBytesOption = Annotated[
    int | None, typer.Option("--max-bytes", min=1, help="the best picture in at most so many bytes")
]
RatioOption = Annotated[
    float | None,
    typer.Option(min=1, help="at least so many times smaller than at 3 bytes a pixel, and at most 5 % more"),
]
BppOption = Annotated[float | None, typer.Option(min=0, help="at most so many bits a pixel")]
PsnrOption = Annotated[float | None, typer.Option(min=1, help="at least so many dB, in the fewest bytes")]
OverfitOption = Annotated[
    bool, typer.Option("--overfit", help="fit parameters to this picture, which travel with it: smaller, and slower")
]
RoundsOption = Annotated[int, typer.Option(min=1, max=16, help="of fitting, with --overfit")]
ParametersOption = Annotated[
    Path | None, typer.Option(help="what all pictures share, a file of `codec train`; by default what is shipped")
]
FitSeedOption = Annotated[int, typer.Option("--seed", min=0, help="of what fitting sees, and in which order")]
TileOption = Annotated[
    int, typer.Option(min=64, max=1024, help="side of a tile in pixels, a multiple of 64: what a lost packet costs")
]

app = typer.Typer(no_args_is_help=True, help=CODEC)


@app.command(epilog=ENCODE)
def encode(
    picture: PictureArgument,
    out: Annotated[Path, typer.Option(help="the file, .swi; it appears whole or not at all")],
    quality: QualityOption = None,
    max_bytes: MostBytesOption = None,
    ratio: RatioOption = None,
    bpp: BppOption = None,
    psnr: PsnrOption = None,
    overfit: OverfitOption = False,
    rounds: RoundsOption = 1,
    weights: Annotated[
        Path | None, typer.Option(help="a grey picture as large: where it is brighter, errors count more")
    ] = None,
    tile: TileOption = 512,
    copies: Annotated[int, typer.Option(min=1, max=MOST_COPIES, help="of the head, without which nothing decodes")] = 1,
    parameters: ParametersOption = None,
    seed: FitSeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a picture as a small file, at the quality, the size or the ratio that you ask for."""
    from slimwright.atomic import check_replaceable
    from slimwright.codec.encoding import Options, encoded
    from slimwright.codec.files import picture_in, weights_in, write_compressed
    from slimwright.codec.overfitting import Effort, overfitted_to
    from slimwright.codec.packets import MARK
    from slimwright.codec.picturing import source_of

    if out.suffix != SUFFIX:
        raise RequestError(f"{out} would not be known as a compressed picture; name a file that ends in {SUFFIX}")
    if tile % 64:
        raise RequestError(f"--tile {tile} is not a multiple of 64")
    check_replaceable(out, MARK.decode(), "--out", force=force)
    pixels = picture_in(picture)
    aim = aim_of(pixels[0].numel(), quality=quality, max_bytes=max_bytes, ratio=ratio, bpp=bpp, psnr=psnr)
    shared, options = _shared(parameters), Options(tile, copies)
    source = source_of(pixels, weights_in(weights, pixels) if weights else None)
    with progress(quiet) as tell:
        if overfit:
            found = overfitted_to(source, shared, aim, options, Effort(rounds, seed=seed), tell)
        else:
            found = encoded(source, shared, aim, options, tell)
    write_compressed(out, found.data)
    said = _sizes(len(found.data), pixels[0].numel()) | {"psnr": found.psnr, "quality": found.head.quality}
    said |= {"own_parameter_bytes": len(found.head.own), "overfitted": bool(found.head.own)}
    _print(said, f"{out}: {len(found.data):,} bytes, {said['bpp']:.3f} bits a pixel, {found.psnr:.2f} dB", as_json)


@app.command(epilog=DECODE)
def decode(
    compressed: Annotated[Path, typer.Argument(help="a file that encode wrote, or what arrived of it")],
    out: Annotated[Path, typer.Option(help="the picture: .png, .webp, .bmp or .tif, all without loss")],
    parameters: ParametersOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the picture in a file. Tiles that were lost are filled in; exit status 1 then."""
    from slimwright.codec.decoding import decoded
    from slimwright.codec.files import check_lossless, compressed_in, write_picture

    check_lossless(out)
    _check_free(out, force=force)
    with progress(quiet) as tell:
        found = decoded(compressed_in(compressed), _shared(parameters), tell)
    write_picture(out, found.picture)
    head = found.head
    said = {"width": head.width, "height": head.height, "tiles": found.tiles, "concealed": list(found.concealed)}
    _print(said, f"saved in {out}", as_json)
    if found.concealed:
        lost = ", ".join(map(str, found.concealed))
        err_console.print(f"{len(found.concealed)} of {found.tiles} tiles were lost and are filled in: {lost}")
        raise typer.Exit(1)


@app.command(epilog=EVALUATE)
def evaluate(
    pictures: Annotated[Path, typer.Argument(help="a picture, or a folder of them")],
    quality: Annotated[list[int] | None, typer.Option(min=0, max=64, help="may be given several times")] = None,
    bpp: BppOption = None,
    overfit: OverfitOption = False,
    rounds: RoundsOption = 1,
    parameters: ParametersOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare with JPEG and WebP at the same size: PSNR and MS-SSIM, measured on what each decoder gives."""
    from slimwright.codec.encoding import Aim
    from slimwright.codec.evaluating import evaluated, table
    from slimwright.codec.files import picture_in, pictures_in
    from slimwright.codec.overfitting import Effort

    if (quality is None) == (bpp is None):
        raise RequestError("give --quality, once or several times, or --bpp")
    named = pictures_in(pictures) if pictures.is_dir() else {pictures.name: picture_in(pictures)}
    rows = []
    with progress(quiet) as tell:
        for name, pixels in named.items():
            aims = [Aim(quality=one) for one in quality or ()]
            aims += [aim_of(pixels[0].numel(), bpp=bpp)] if bpp is not None else []
            for aim in aims:
                rows += evaluated(name, pixels, aim, _shared(parameters), Effort(rounds) if overfit else None, tell)
    if as_json:
        print(json.dumps([row.as_data() for row in rows], indent=1))
    else:
        out_console.print(table(rows))


@app.command(epilog=TRAIN)
def train(
    pictures: Annotated[
        str, typer.Argument(help="a folder of pictures, or `samples`: those that the package was trained on")
    ],
    out: Annotated[Path, typer.Option(help="the file, .safetensors, replaced at once")],
    iterations: Annotated[int, typer.Option(min=4, help="of the context net, on one crop each")] = 1600,
    seed: FitSeedOption = 0,
    cache: CacheOption = DEFAULT_CACHE,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train what all pictures share. A training that was stopped goes on with the same command."""
    from slimwright.codec.files import pictures_in
    from slimwright.codec.parameters import saved
    from slimwright.codec.photographs import TRAINING, photographs
    from slimwright.codec.training import plan_of, trained

    if out.suffix != ".safetensors":
        raise RequestError(f"{out} would not be known as parameters; name a file that ends in .safetensors")
    _check_free(out, force=force)
    found = photographs(TRAINING) if pictures == SAMPLES else pictures_in(Path(pictures))
    with progress(quiet) as tell:
        tensors = trained(list(found.values()), plan_of(iterations, seed), cache, tell)
    made = saved(tensors, out)
    count = sum(tensor.numel() for tensor in made.tensors.values())
    said = {"pictures": len(found), "parameters": count, "bytes": out.stat().st_size, "checksum": made.checksum}
    _print(said, f"{out}: {count:,} parameters from {len(found)} pictures", as_json)


def aim_of(
    pixels: int,
    *,
    quality: int | None = None,
    max_bytes: int | None = None,
    ratio: float | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
) -> "Aim":
    """Return what the options ask for. Raises RequestError unless exactly one of them is given."""
    from slimwright.codec.encoding import Aim

    given = [one for one in (quality, max_bytes, ratio, bpp, psnr) if one is not None]
    if len(given) != 1:
        raise RequestError("give one of --quality, --max-bytes, --ratio, --bpp and --psnr")
    if ratio is not None:
        max_bytes = int(3 * pixels / ratio)
    if bpp is not None:
        max_bytes = int(bpp * pixels / 8)
    return Aim(quality=quality, most_bytes=max_bytes, psnr=psnr)


def _check_free(out: Path, *, force: bool) -> None:
    if out.exists() and not force:
        raise RequestError(f"{out} exists; name another file with --out, or replace it with --force")


def _shared(path: Path | None) -> Any:
    from slimwright.codec.parameters import SHIPPED, parameters

    return parameters(path or SHIPPED)


def _sizes(size: int, pixels: int) -> dict[str, Any]:
    return {"bytes": size, "bpp": 8 * size / pixels, "ratio": 3 * pixels / size}


def _print(said: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(said, indent=1))
    else:
        out_console.print(line, soft_wrap=True)
