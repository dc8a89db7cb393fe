"""LeNets on MNIST in few bytes, untrained and after a few minutes of tuning: how small, and what that costs in errors.

Every row starts from the same weights. Ours, untrained, is `slimwright pack --size`: weights are rounded by output
error and the price of their bits on about 8,000 images without labels, and the whole file counts, with its graph and
biases. Beside it weights are rounded to the nearest of a grid that gives the same size in the same file, without data;
and to 8 bits with one step for each layer, compressed by zlib and xz. Deep Compression's published rows (Han et al.
2016, Table 1) are for orientation: its nets were retrained. "tuned" is a recipe before that: training in which ever
more weights become zero, the original teaching, and a cut of the channels that nothing reads then. Its seconds are
those of a core. The test part takes part in no choice.

Four convolutional nets stand beside NNCodec (lib/nncodec_side.py), each as small as it gets while the validation part
loses at most half a point; ours untrained, on 512 calibration images, NNCodec without data. The whole file counts of
both. A third row is ours, its integers coded by DeepCABAC. Rows are kept as they come: a run that was stopped goes on.
"""

import lzma
import math
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from lib import over_nncodec
from lib.kept_nets import trained_once
from lib.packaged import mnist_folder
from lib.results import Column, Row, environment, keep, kept, parser, publish, rows_file, show
from lib.structured_networks import DATA
from lib.structured_networks import trained as glyph_net
from slimwright.data import Dataset, mnist, whole
from slimwright.graph import Net
from slimwright.jobs.packing import fitted
from slimwright.progress import Event
from slimwright.storage import packed_bytes, plain_bytes, read_packed, write_packed
from slimwright.tasks import Classification
from slimwright.techniques import Recipe, Step, Trim, Tune, Work, applied
from slimwright.train import Schedule
from slimwright.zoo import build

OUT = Path(__file__).resolve().parents[1] / "out" / "deep-compression"
SEED, STEP_BYTES = 0, 4
TRAINING = Schedule(epochs=12, rate=0.05, batch_size=64, seed=SEED)
SHORT = Schedule(epochs=3, rate=0.05, batch_size=64, seed=SEED)
SIZES = {"lenet-300-100": (25, 40, 50, 75, 100), "lenet5": (25, 39, 50, 100, 200)}
QUICK = {"lenet-300-100": (50,)}
GENTLE = {"teacher_share": 0.5, "temperature": 1.0, "batch_size": 64, "seed": SEED}
FIRST = {  # zeros, before channels are cut that nothing reads
    "lenet-300-100": Tune(epochs=6, rate=0.05, zeros=0.95, **GENTLE),
    "lenet5": Tune(epochs=3, rate=0.02, zeros=0.98, **GENTLE),
}
LEFT = {"lenet-300-100": (5300, 30, 0.05), "lenet5": (1700, 10, 0.02)}  # weights, then; epochs and rate
TUNED_SIZES = {"lenet-300-100": (130, 200, 300), "lenet5": (400, 620, 800)}
MOST_ERROR = {"lenet-300-100": 1.9, "lenet5": 1.0}  # per cent, that published nets of such sizes have
PUBLISHED = {"lenet-300-100": (40, 1.64, 1.58), "lenet5": (39, 0.80, 0.74)}  # times, error before and after
ALLOWED = 0.15  # points
BESIDE_NNCODEC = ("resnet20", "vgg16-half", "mobilenet-v2-half", "lenet5")
READ = 5  # times that a file is read, of which the fastest counts
COLUMNS = (
    Column("network", "network"),
    Column("method", "method"),
    Column("size_bytes", "bytes", "{:,}"),
    Column("times", "smaller", "{:.1f}x"),
    Column("error", "test error", "{:.2f} %"),
    Column("original_error", "original", "{:.2f} %"),
    Column("seconds", "took", "{:.0f} s"),
)


def main() -> None:
    known = parser(__doc__ or "")
    known.add_argument("--networks", default=",".join((*SIZES, *BESIDE_NNCODEC[:3])), help="any of these")
    asked = known.parse_args()
    torch.set_num_threads(1)
    data = mnist(mnist_folder(OUT))
    schedule, rows_at = SHORT if asked.quick else TRAINING, rows_file(asked, OUT)
    have = {(row["network"], row["part"]) for row in kept(rows_at)}
    for name, part, make in parts(data, schedule, quick=asked.quick):
        if name in asked.networks.split(",") and (name, part) not in have:
            for row in [*make()]:  # a part is kept whole
                keep({**row, "part": part}, rows_at)
                print(f"{name}, {row['method']}: {row['times']:.1f}x, {row['error']} %", file=sys.stderr)
    order = (*SIZES, *BESIDE_NNCODEC)
    rows = sorted(kept(rows_at), key=lambda row: order.index(str(row["network"])))
    show("Nets in few bytes", COLUMNS, rows, sections=("network",))
    publish(
        asked, headline=headline(rows, data, schedule), rows=rows, environment=environment("constriction", seed=SEED)
    )


def parts(data: Dataset, schedule: Schedule, *, quick: bool) -> Iterator[tuple[str, str, Callable[[], Iterable[Row]]]]:
    """The rows of each net: as it is at each size, tuned, and beside NNCodec."""
    for name, sizes in (QUICK if quick else SIZES).items():
        yield name, "untrained", partial(untrained_rows, name, sizes, data, schedule)
        if not quick:
            yield name, "tuned", partial(tuned_rows, name, data)
    for name in () if quick else BESIDE_NNCODEC:
        yield name, "beside NNCodec", partial(_beside_nncodec, name, data)


def headline(rows: Sequence[Row], data: Dataset, schedule: Schedule) -> dict[str, float]:
    """How small nets get, how long they take to read, and by how much the files are smaller than NNCodec's."""
    ours = [row for row in rows if row["method"] == "slimwright" and row["network"] == "lenet-300-100"]
    good = [row for row in ours if float(row["error"]) <= float(row["original_error"]) + ALLOWED]
    best = max(good or ours, key=lambda row: float(row["times"]) if good else -float(row["error"]), default={})
    return {
        "lenet300_untrained": float(best.get("times", math.nan)),
        "lenet300_error": float(best.get("error", math.nan)),
        "lenet300_original_error": float(best.get("original_error", math.nan)),
        **{f"{name.replace('-100', '').replace('-', '')}_tuned": _tuned(rows, name) for name in LEFT},
        "over_nncodec": _over(rows, "NNCodec"),
        "over_deepcabac": _over(rows, "DeepCABAC, slimwright's integers"),
        "lossless_saved": _lossless_saved(_trained("lenet-300-100", data, schedule)),
        "unpack_m_weights_per_s": _unpack_speed(_trained("lenet-300-100", data, schedule)),
    }


def untrained_rows(name: str, sizes: tuple[int, ...], data: Dataset, schedule: Schedule) -> Iterator[Row]:
    """Every method on one net."""
    net, task = _trained(name, data, schedule), Classification(data.labels)
    plain = plain_bytes(net)
    facts: dict[str, str | int | float] = {"network": name, "original_error": _error(net, data)}

    def row(method: str, made: Net, size: int, seconds: float = 0.0) -> Row:
        sizes = {"size_bytes": size, "times": plain / size}
        return {**facts, "method": method, **sizes, "error": _error(made, data), "seconds": seconds}

    for method, compress in (("8 bits, zlib", lambda data: zlib.compress(data, 9)), ("8 bits, xz", lzma.compress)):
        yield row(method, *_eight_bits(net, compress))
    for times in sizes:
        began = time.perf_counter()
        found = fitted(net, data, task, plain / times)
        yield row("slimwright", found.net, found.size_bytes, time.perf_counter() - began)
        near = _nearest_of_size(net, found.size_bytes)
        yield row("rounded to nearest, the same file", near, packed_bytes(near))
    times, original, after = PUBLISHED[name]
    facts = {"network": name, "original_error": original, "size_bytes": int(plain / times), "times": float(times)}
    yield {**facts, "method": "Deep Compression, published", "error": after, "seconds": 0.0}


def tuned_rows(name: str, data: Dataset) -> Iterator[Row]:
    """The net after training in which weights become zero, rounded at last."""
    net = _trained(name, data, TRAINING)
    task, began = Classification(data.labels), time.process_time()
    original_error, begun = _error(net, data), dict[str, Work]()
    steps: list[Step] = [FIRST[name], Trim()]
    wide = applied(Recipe(original=net.digest, steps=tuple(steps)), net, data, task=task, begun=begun).draft.net
    left, epochs, rate = LEFT[name]
    zeros = 1 - left / sum(wide.tensors[weight].numel() for weight in _matrices(wide))
    steps += [Tune(epochs=epochs, rate=rate, zeros=zeros, **GENTLE), Trim()]
    sparse = applied(Recipe(original=net.digest, steps=tuple(steps)), net, data, task=task, begun=begun).draft.net
    tuning = time.process_time() - began
    for times in TUNED_SIZES[name]:
        began = time.process_time()
        found = fitted(sparse, data, task, plain_bytes(net) / times)
        yield {
            "network": name,
            "method": "slimwright, tuned",
            "size_bytes": found.size_bytes,
            "times": plain_bytes(net) / found.size_bytes,
            "error": _error(found.net, data),
            "original_error": original_error,
            "seconds": tuning + time.process_time() - began,
        }


def _beside_nncodec(name: str, mnist_data: Dataset) -> Iterator[Row]:
    """The rows of one net that stand beside NNCodec's."""
    if name in SIZES:
        data: Dataset = mnist_data
        net = _trained(name, data, TRAINING)
    else:
        data = glyph_data()
        net = glyph_net(name, "glyphs", data)
    yield from over_nncodec.rows(name, net, data, OUT)


@cache
def glyph_data() -> Dataset:
    return DATA["glyphs"]()


def _over(rows: Sequence[Row], method: str) -> float:
    """By how many times, at least, files of another method are larger than ours; NaN where none was made."""
    sizes = {(row["network"], row["method"]): float(row["size_bytes"]) for row in rows}
    found = [size / sizes[name, "slimwright, untrained"] for (name, other), size in sizes.items() if other == method]
    return min(found, default=math.nan)


def _error(net: Net, data: Dataset) -> float:
    """Errors in 100 images of the test part."""
    images, labels = whole(data, "test")
    return round(100 - Classification(data.labels).score(net.run((torch.as_tensor(images),)), labels), 2)


def _tuned(rows: Sequence[Row], name: str) -> float:
    """How many times smaller the smallest tuned net is that errs little enough; NaN where none does."""
    tuned = [row for row in rows if row["method"] == "slimwright, tuned" and row["network"] == name]
    return max((float(row["times"]) for row in tuned if float(row["error"]) <= MOST_ERROR[name]), default=math.nan)


def _trained(name: str, data: Dataset, schedule: Schedule) -> Net:
    say = Console(stderr=True, soft_wrap=True, highlight=False).print

    def tell(event: Event) -> None:
        say(f"training {name}: {event.done}/{event.total}")

    torch.manual_seed(SEED)
    return trained_once(name, lambda: build(name, classes=10, in_channels=1), data, schedule, OUT, tell=tell)


def _matrices(net: Net) -> list[str]:
    return [node.tensors["weight"] for node in net.weighted()]


def _on_grid(weight: Tensor, step: float) -> Tensor:
    return ((weight / step).round() + 0.0) * torch.tensor(step, dtype=torch.float32)


def _eight_bits(net: Net, compress: Callable[[bytes], bytes]) -> tuple[Net, int]:
    """The net with weights of 8 bits, and the bytes that they take compressed, biases in half precision beside them."""
    made, size = {}, 0
    for name, tensor in net.tensors.items():
        if name in _matrices(net):
            step = float(tensor.abs().max()) / 127
            made[name] = _on_grid(tensor, step)
            size += len(compress((tensor / step).round().to(torch.int8).numpy().tobytes())) + STEP_BYTES
        else:
            made[name] = tensor.half().float()
            size += 2 * tensor.numel()
    return net.edited(tensors=made), size


def _nearest_of_size(net: Net, size_bytes: int) -> Net:
    """The net with every weight on the nearest point of a grid, as coarse as the size asks for."""
    low, high = 1e-3, 1e2
    made = net
    for _ in range(14):
        middle = (low * high) ** 0.5
        tensors = {
            name: _on_grid(net.tensors[name], middle * float(net.tensors[name].std())) for name in _matrices(net)
        }
        biases = {name: _on_grid(t, 1 / 256) for name, t in net.tensors.items() if name not in tensors}
        made = net.edited(tensors={**tensors, **biases})
        low, high = (middle, high) if packed_bytes(made) > size_bytes else (low, middle)
    return made


def _lossless_saved(net: Net) -> float:
    """The share of a trained float32 net that its packed file saves, every bit kept."""
    return 1 - packed_bytes(net) / plain_bytes(net)


def _unpack_speed(trained: Net) -> float:
    """Millions of weights a second that are read of a packed LeNet whose weights are rounded to nearest."""
    net = _nearest_of_size(trained, 30_000)
    path, seconds = OUT / "speed.swz", []
    write_packed(net, path)
    for _ in range(READ):
        began = time.perf_counter()
        read_packed(path)
        seconds.append(time.perf_counter() - began)
    return sum(tensor.numel() for tensor in net.tensors.values()) / min(seconds) / 1e6


if __name__ == "__main__":
    main()
