"""What is done with one network of another task: captured, cut by half, compared with the masked one, exported."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lib.other_tasks import OTHER_TASKS, ready

if TYPE_CHECKING:
    from lib.coverage_sides import Progress

ENOUGH = 0.35  # of the parameters, at most, are left of a network whose layers may all be halved


def by_slimwright(name: str, progress: "Progress") -> None:
    """Tell of each stage, as of a classifier."""
    from lib.coverage_sides import EXPORTED, SEED, SHARE_LEFT, judged, pruned
    from slimwright.cost import count
    from slimwright.coupling import choose, couple, cut
    from slimwright.coupling.masked import masked
    from slimwright.importers import capture
    from slimwright.runner.job import Side
    from slimwright.runner.sessions.onnxruntime import Session
    from slimwright.runtimes import onnxruntime

    shapes = OTHER_TASKS[name].shapes
    with progress.stage("build"), torch.no_grad():
        model, inputs = ready(name, SEED, 5)
    with progress.stage("capture"):
        net = capture(model, shapes[0] if len(shapes) == 1 else shapes)
    with progress.stage("compare"), torch.no_grad():
        pairs = [(outputs(net.to_module(), some), outputs(model, some)) for some in (cut_to(inputs, 2), inputs)]
        progress.found(
            {
                "captured": all(torch.equal(a, b) for mine, its in pairs for a, b in zip(mine, its, strict=True)),
                "capture_error": max(apart(mine, its) for mine, its in pairs),
            }
        )
    with progress.stage("couple"):
        coupling, cost = couple(net), count(net)
        progress.found({"groups": len(coupling.groups), "macs": cost.macs, "whole": OTHER_TASKS[name].whole})
    with progress.stage("choose"):
        keep = choose(coupling, SHARE_LEFT, seed=SEED)
    with progress.stage("prune"), torch.no_grad():
        small = cut(net, keep, coupling)
        left = count(small)
        progress.found(pruned(left.params, cost.params) | {"macs_left": left.macs / cost.macs})
    with progress.stage("check"), torch.no_grad():
        asks = any("torch.float32" in str(node.arguments.get("dtype")) for node in net.nodes)
        dtype = torch.float32 if asks else torch.float64
        wide = [tensor.to(dtype) for tensor in cut_to(inputs, 2)]
        wanted = masked(net, coupling, keep, wide)
        error = apart(outputs(small.to_module().to(dtype), wide), wanted.outputs)
        effect = apart([o.float() for o in wanted.outputs], outputs(model, cut_to(inputs, 2)))
        progress.found(judged(error, effect, dtype) | {"norms": len(wanted.norms)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.onnx"
        with progress.stage("export"):
            onnxruntime.write_onnx(small, path)
        with progress.stage("run"):
            first = cut_to(inputs, 1)
            side = Side("", "onnxruntime", "fp32", (path.name,), tuple(tuple(tensor.shape) for tensor in first))
            got = [torch.from_numpy(found) for found in Session([path], side).run([t.numpy() for t in first])]
            error = apart(got, small.run(first))
            progress.found({"exported": error <= EXPORTED, "export_error": error})


def outputs(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What a module gives, as a list."""
    with torch.no_grad():
        found = module(*inputs)
    return [found] if isinstance(found, Tensor) else [*found]


def cut_to(inputs: Sequence[Tensor], images: int) -> list[Tensor]:
    """The first images of each input."""
    return [tensor[:images] for tensor in inputs]


def apart(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest difference of any output, relative to its largest value."""
    pairs = zip(got, wanted, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)
