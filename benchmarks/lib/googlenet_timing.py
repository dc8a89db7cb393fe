"""What merging and shrinking layers saves in ONNX Runtime, one thread: shares of time, totals, GoogLeNet's blocks.

Times of whole networks are processor time. The networks have random weights: neither time nor memory depends on them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lib import onnx_runs
from lib.onnx_profile import block_ms, export_as_written, non_tensor_share, profiled, with_lrn_operators
from lib.results import Row
from lib.slim_googlenet import Choice, merged
from lib.untrained import captured
from slimwright.cost import count
from slimwright.graph import Net
from slimwright.graph.liveness import plan_memory
from slimwright.runtimes import onnxruntime
from slimwright.techniques.fold import fold_batch_norm
from slimwright.techniques.merge import streamline, streamlines
from slimwright.techniques.remove import removed
from slimwright.techniques.solver.draft import Draft

ORIGINAL, NORM_OPERATOR, MERGED, COMBINED = "original", "original, LRN operators", "merged", "merged, pruned"
PAPER_SHARE = {"alexnet-bvlc": 0.3208, "googlenet": 0.6203, "resnet50": 0.5566}  # table 1, Intel x86 with Caffe
PAPER_MS = {  # table 5, Galaxy S5: original, merged, merged and low-rank
    "conv1": (94.92, 8.424, 6.038), "conv2": (153.8, 16.62, 9.259), "3a": (55.23, 21.17, 9.459),
    "3b": (98.41, 25.94, 11.74), "4a": (30.53, 16.80, 8.966), "4b": (32.60, 20.29, 11.65), "4c": (46.96, 18.71, 9.102),
    "4d": (36.88, 24.67, 10.05), "4e": (48.24, 28.08, 14.08), "5a": (24.64, 10.69, 5.36), "5b": (24.92, 14.58, 6.65),
    "loss3": (3.014, 2.97, 2.902),
}  # fmt: skip


def timed(
    full: Net, cut: Mapping[str, Net], chosen: Mapping[str, str], folder: Path, runs: int
) -> tuple[list[Row], list[Row], list[Row]]:
    """Export every full network and return its rows: shares of time, totals, GoogLeNet's blocks."""
    families = {"googlenet": {ORIGINAL: full, **cut}, "alexnet-bvlc": alexnets(), "resnet50": resnets()}
    paths = {
        family: {side: folder / f"{family}-{i}.onnx" for i, side in enumerate(sides)}
        for family, sides in families.items()
    }
    for family, sides in families.items():
        for side, net in sides.items():
            onnxruntime.write_onnx(net, paths[family][side])
    for name in ("googlenet", "alexnet-bvlc"):
        paths[name][NORM_OPERATOR] = folder / f"{name}-operator.onnx"
        with_lrn_operators(paths[name][ORIGINAL], paths[name][NORM_OPERATOR])
    raw = folder / "resnet50-raw.onnx"
    export_as_written(captured("resnet50"), raw)
    totals = [row for name, sides in paths.items() for row in total_rows(name, families[name], sides, runs)]
    shares = list(share_rows(paths, chosen[MERGED], raw, runs // 3))
    marked = {ORIGINAL: ORIGINAL, **chosen}
    blocks = block_rows({kind: paths["googlenet"][side] for kind, side in marked.items()}, runs)
    return shares, totals, blocks


def cut_like(choice: Choice, full: Net) -> Net:
    """The full network merged, with as many channels of each group as were chosen; any do at random weights."""
    draft = merged(full)
    keep = {name: np.arange(kept) for name, kept in choice.full.items() if kept < draft.net[name].shape[1]}
    return draft.cut(keep).net


def alexnets() -> dict[str, Net]:
    """AlexNet, and as the paper takes its norms out: the poolings stay. And the second layer with its pooling, too."""
    net = captured("alexnet-bvlc")
    first, second = (node.name for node in net.nodes if node.op == "lrn")
    one = removed(Draft.of(net), first)
    two = removed(one, second)
    return {
        ORIGINAL: net,
        "norm1 taken in": one.net,
        "norm1, norm2": two.net,
        "norm1, norm2, pool2": streamline(two, streamlines(two.net)[0]).net,
    }


def resnets() -> dict[str, Net]:
    """ResNet-50, its batch norms folded, and with its first pooling taken in."""
    net = fold_batch_norm(captured("resnet50"))
    return {ORIGINAL: net, "conv1 with its pooling": streamline(Draft.of(net), streamlines(net)[0]).net}


def share_rows(paths: Mapping[str, Mapping[str, Path]], side: str, raw: Path, runs: int) -> Iterator[Row]:
    """The share of time in layers without weights, as shipped and with each operator a kernel of its own."""
    files = {
        ("googlenet", ""): paths["googlenet"][ORIGINAL],
        ("googlenet", ", LRN operators"): paths["googlenet"][NORM_OPERATOR],
        ("googlenet", ", merged"): paths["googlenet"][side],
        ("alexnet-bvlc", ""): paths["alexnet-bvlc"][ORIGINAL],
        ("alexnet-bvlc", ", LRN operators"): paths["alexnet-bvlc"][NORM_OPERATOR],
        ("resnet50", ""): paths["resnet50"][ORIGINAL],
        ("resnet50", ", batch norms not folded"): raw,
    }
    for optimised in (True, False):
        kernels = profiled({"".join(key): path for key, path in files.items()}, runs, optimised=optimised)
        for name, form in files:
            yield {
                "what": "non-tensor share",
                "network": name + form,
                "optimised": "yes" if optimised else "no",
                "share": non_tensor_share(kernels[name + form]),
                "paper_share": PAPER_SHARE[name],
            }


def total_rows(name: str, nets: Mapping[str, Net], paths: Mapping[str, Path], runs: int) -> Iterator[Row]:
    """Time and memory of each side, over the faster original."""
    taken = cpu_ms(paths, nets[ORIGINAL].input.shape, runs)
    before = min(taken[side] for side in paths if side.startswith(ORIGINAL))
    for side, path in paths.items():
        net = nets.get(side, nets[ORIGINAL])
        macs = count(net).macs
        yield {
            "what": "total",
            "network": name,
            "net": side,
            "macs": macs,
            "cpu_ms": taken[side],
            "speedup": before / taken[side],
            "gmacs_per_s": macs / taken[side] * 1e-6,
            "arena_mb": plan_memory(net).arena_bytes / 1e6,
            "rss_mb": onnx_runs.alone(path, net.input.shape).own_rss_bytes / 1e6,
        }


def cpu_ms(paths: Mapping[str, Path], shape: tuple[int, ...], runs: int) -> dict[str, float]:
    """Median milliseconds of processor time of a run, on one thread, all models in turn.

    Not of the wall clock: where a machine does other things too, these interrupt long runs more often than short ones.
    """
    return {side: one.latency.cpu_ms for side, one in onnx_runs.in_turn(paths, shape, runs).items() if one.latency}


def block_rows(paths: Mapping[str, Path], runs: int) -> list[Row]:
    """Milliseconds of each block before and after, beside the paper's speed-ups on a phone."""
    taken = profiled(paths, runs)
    found = {side: block_ms(kernels, paths[side]) for side, kernels in taken.items()}
    rows: list[Row] = []
    for block, (original, merged_ms, both_ms) in PAPER_MS.items():
        rows.append(
            {
                "what": "block",
                "block": block,
                "ms": found[ORIGINAL][block],
                "merged_ms": found[MERGED][block],
                "combined_ms": found[COMBINED][block],
                "merged_speedup": found[ORIGINAL][block] / found[MERGED][block],
                "combined_speedup": found[ORIGINAL][block] / found[COMBINED][block],
                "paper_merged_speedup": original / merged_ms,
                "paper_combined_speedup": original / both_ms,
            }
        )
    return rows
