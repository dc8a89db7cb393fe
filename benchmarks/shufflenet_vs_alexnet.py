"""ShuffleNet 0.5x (g = 3) against AlexNet in every runtime, one thread, at the paper's three image sizes.

Zhang et al. 2018 (arXiv 1707.01083, table 8) measured 12 to 14 times on a phone; by multiply-accumulates it is 18.
Weights do not matter for time and are random. The two networks take turns in one process; each artefact is compared
with its graph first. `--quick` takes two of the runtimes, and fewer runs.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console

from lib.errors import relative_error
from lib.results import RUNTIME_PACKAGES, Column, Row, environment, options, publish, show
from slimwright.cost import count
from slimwright.errors import SlimwrightError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.runtimes import RUNTIMES, Workshop
from slimwright.runtimes.known import installed
from slimwright.targets import Effort, Local, measure
from slimwright.techniques.fold import fold_batch_norm
from slimwright.zoo import build

SIZES = ((224, 224), (480, 640), (720, 1280))
PAPER = {(224, 224): 12.1, (480, 640): 13.2, (720, 1280): 14.0}  # 184.0 / 15.2, 1156.7 / 87.4, 3633.9 / 260.1 ms
NETWORKS = {"shufflenet": "shufflenet-g3-0.5x", "alexnet": "alexnet"}
QUICK_RUNTIMES = ("onnxruntime", "ncnn")
RUNS, QUICK_RUNS = 40, 10
SEED = 0
COLUMNS = (
    Column("size", "image"),
    Column("runtime", "runtime"),
    Column("alexnet_ms", "AlexNet, ms", "{:.2f}"),
    Column("shufflenet_ms", "ShuffleNet, ms", "{:.2f}"),
    Column("ratio", "ratio", "{:.1f}x"),
    Column("macs_ratio", "by MACs", "{:.1f}x"),
    Column("alexnet_rate", "AlexNet, G MACs/s", "{:.0f}"),
    Column("shufflenet_rate", "ShuffleNet", "{:.0f}"),
    Column("paper", "paper's phone", "{:.1f}x"),
    Column("error", "largest error", "{:.0e}"),
)


def main() -> None:
    chosen = options(__doc__ or "")
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    runtimes = QUICK_RUNTIMES if chosen.quick else [name for name in RUNTIMES if name != "ort"]
    rows = list(measured([name for name in runtimes if installed(name)], QUICK_RUNS if chosen.quick else RUNS, say))
    show("ShuffleNet 0.5x against AlexNet, one thread", COLUMNS, rows, sections=("size",))
    headline = {}
    for height, width in SIZES:
        of_size = [row for row in rows if row["size"] == f"{height}x{width}"]
        headline[f"best_ratio_{height}"] = round(max(float(row["ratio"]) for row in of_size), 2)
    publish(chosen, headline=headline, rows=rows, environment=environment(*RUNTIME_PACKAGES, seed=SEED))


def measured(runtimes: Sequence[str], runs: int, say: Callable[[str], object]) -> Iterator[Row]:
    """One row for each size and runtime; a runtime that fails is reported and left out."""
    with Workshop() as workshop, tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            nets = {key: fold_batch_norm(capture(build(name, seed=SEED), (3, *size))) for key, name in NETWORKS.items()}
            for runtime in runtimes:
                try:
                    yield row(nets, size, runtime, workshop, Path(folder), runs)
                except SlimwrightError as error:
                    say(f"{runtime} at {size[0]}x{size[1]}: {error}")


def row(nets: dict[str, Net], size: tuple[int, int], runtime: str, workshop: Workshop, folder: Path, runs: int) -> Row:
    """Convert both, compare with their graphs, and time them in turn."""
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(SEED))
    place, artefacts, worst = Local(), {}, 0.0
    for key, net in nets.items():
        artefacts[key] = workshop.convert(net, runtime, "fp32", folder / key / runtime)
        outputs = measure(place, {key: artefacts[key]}, Effort(), inputs=[image])[key].outputs
        assert outputs is not None
        worst = max(worst, relative_error(outputs[0], net.run(image)[0]))
    seen = measure(place, artefacts, Effort(runs=runs, warm_up=3))
    alexnet, shufflenet = (seen[key].latency for key in ("alexnet", "shufflenet"))
    assert alexnet is not None and shufflenet is not None
    macs = {key: count(net).macs for key, net in nets.items()}
    return {
        "size": f"{size[0]}x{size[1]}",
        "runtime": runtime,
        "alexnet_ms": alexnet.median_ms,
        "shufflenet_ms": shufflenet.median_ms,
        "ratio": alexnet.median_ms / shufflenet.median_ms,
        "macs_ratio": macs["alexnet"] / macs["shufflenet"],
        "alexnet_rate": macs["alexnet"] / alexnet.median_ms * 1e-6,
        "shufflenet_rate": macs["shufflenet"] / shufflenet.median_ms * 1e-6,
        "paper": PAPER[size],
        "error": worst,
    }


if __name__ == "__main__":
    main()
