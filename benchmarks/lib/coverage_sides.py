"""What each side does with one network, in a process of its own: `work` is where that process begins.

Every stage is announced to the parent with the CPU seconds it may take. The kernel enforces them: a stage that runs
over is ended by SIGPROF, also inside a loop in C++. CPU seconds, because they hardly depend on what else runs. Whatever
is found is sent at once, so that nothing is lost when a later stage ends the process.
"""

import copy
import random
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lib import other_task_side
from lib.architectures import Architecture, built
from lib.other_tasks import KIND
from slimwright.coupling.masked import masked

SEED = 0
SHARE_LEFT = 0.5
PRUNED = 0.97  # of the parameters, at most, are left of a network that counts as pruned
EXACT = {torch.float64: 1e-8, torch.float32: 1e-5}  # largest error relative to the largest score: cut against masked
EXPORTED = 1e-4  # the same in float32: ONNX Runtime against torch
LIMITS = {  # CPU seconds; the peer's "prune" does what takes us four stages, and may take as long as those
    "slimwright": {
        "build": 120, "capture": 75, "compare": 60, "couple": 15, "choose": 15, "prune": 15, "check": 180,
        "export": 120, "run": 60,
    },
    "torch-pruning": {"build": 120, "prune": 120, "forward": 60, "check": 180, "export": 120, "run": 60},
}  # fmt: skip
PROJECTIONS = ("qkv", "q", "k", "v", "kv", "query", "key", "value")
Found = Mapping[str, object]

if TYPE_CHECKING:
    from slimwright.graph import Net


@dataclass(frozen=True)
class Task:
    """One network for one side. `until` is the last stage to run, or empty; `patience` multiplies the limits."""

    architecture: Architecture
    side: str
    until: str = ""
    patience: float = 1.0


class Finished(Exception):
    """The last stage that was asked for is done."""


class Progress:
    """Tells the parent what this process is at."""

    def __init__(self, task: Task, pipe: "Connection[Any, Any]") -> None:
        self.task, self.pipe = task, pipe

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run a block within its limit. Raises Finished behind the last stage that was asked for."""
        limit = LIMITS[self.task.side][name] * self.task.patience
        self.pipe.send(("stage", name, limit))
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, limit)  # nobody handles its signal, so it ends the process
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.pipe.send(("seconds", name, time.process_time() - start))
        if name == self.task.until:
            raise Finished

    def found(self, findings: Found) -> None:
        """Add to the row of this task."""
        self.pipe.send(("found", findings))


def work(task: Task, pipe: "Connection[Any, Any]") -> None:
    """Do one task and tell of it; an error of any kind is told, too."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    progress = Progress(task, pipe)
    try:
        if task.architecture.kind == KIND:
            other_task_side.by_slimwright(task.architecture.name, progress)
        else:
            SIDES[task.side](task.architecture, progress)
    except Finished:
        pass
    except BrokenPipeError:  # the parent was killed
        return
    except Exception as error:  # what fails, and how, is what the survey is about
        lines = str(error).strip().splitlines()
        pipe.send(("failed", type(error).__name__, lines[0] if lines else ""))
        return
    pipe.send(("done",))


def by_slimwright(one: Architecture, progress: Progress) -> None:
    from slimwright.cost import count
    from slimwright.coupling import choose, couple, cut
    from slimwright.importers import capture

    model, images, scores = _started(one, progress)
    with progress.stage("capture"):
        net = capture(model, one.image_shape)
    with progress.stage("compare"), torch.no_grad():
        module = net.to_module()
        same = torch.equal(module(images[:2]), scores) and torch.equal(module(images[2:]), model(images[2:]))
        progress.found({"captured": same, "capture_error": _relative(module(images[:2]), scores)})
    with progress.stage("couple"):
        coupling = couple(net)
        cost = count(net)
        frozen = Counter(_without_names(why) for why in coupling.frozen.values())
        progress.found(
            {
                "groups": len(coupling.groups),
                "layers": sum(1 for _ in net.weighted()),
                "frozen": dict(frozen.most_common(8)),
                "macs": cost.macs,
            }
        )
    with progress.stage("choose"):
        keep = choose(coupling, SHARE_LEFT, seed=SEED)
        sizes = sum(group.size for group in coupling.groups)
        progress.found({"channels_left": sum(len(keep[group.name]) for group in coupling.groups) / max(sizes, 1)})
    with progress.stage("prune"), torch.no_grad():
        small = cut(net, keep, coupling)
        got = small.to_module()(images[:2])
        left = count(small)
        assert got.shape == scores.shape
        progress.found(pruned(left.params, cost.params) | {"macs_left": left.macs / cost.macs})
    with progress.stage("check"), torch.no_grad():
        dtype = _widest(net)
        wanted = masked(net, coupling, keep, images[:2].to(dtype))
        error = _relative(small.to_module().to(dtype)(images[:2].to(dtype)), wanted.scores)
        progress.found(judged(error, _relative(wanted.scores, scores), dtype) | {"norms": len(wanted.norms)})
    _exported(lambda path: _written(small, path), got[:1], images[:1], progress)


def _written(net: "Net", path: Path) -> None:
    from slimwright.runtimes import onnxruntime

    onnxruntime.write_onnx(net, path)


def by_torch_pruning(one: Architecture, progress: Progress) -> None:
    """The peer as its README and its own survey of torchvision use it, helped where they help a network by hand."""
    import torch_pruning as tp

    model, images, scores = _started(one, progress)
    original = copy.deepcopy(model)
    before = sum(p.numel() for p in model.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    with progress.stage("prune"):
        heads = _attention_heads(model)
        pruner = tp.pruner.BasePruner(
            model,
            images[:1],
            importance=tp.importance.GroupMagnitudeImportance(),
            pruning_ratio=1 - SHARE_LEFT,
            ignored_layers=_whole_layers(model, scores.shape[-1]),
            num_heads=heads,
            round_to=_round_to(model),
        )
        dropped = _Dropped(model, pruner.DG)
        for group in pruner.step(interactive=True):
            dropped.note(group)
            group.prune()
        _tell_attention(model, heads, pruner.num_heads)
    with progress.stage("forward"), torch.no_grad():
        got = model.eval()(images[:2])
        assert got.shape == scores.shape
        progress.found(pruned(sum(p.numel() for p in model.parameters()), before))
    with progress.stage("check"), torch.no_grad():
        if dropped.statistics:
            progress.found({"norms": len(dropped.statistics)})
        else:
            dropped.hide(original)
            error, effect, dtype = _compared(model, original, images[:2], scores)
            progress.found(judged(error, effect, dtype) | {"norms": 0})
    _exported(lambda path: _export_module(model, images[:1], path), got[:1], images[:1], progress)


def _whole_layers(model: nn.Module, classes: int) -> list[nn.Module]:
    """Layers that give the scores, and output projections of torch's own attention, as the peer's survey has it."""
    kept = nn.modules.linear.NonDynamicallyQuantizableLinear
    return [
        module
        for module in model.modules()
        if isinstance(module, kept)
        or (isinstance(module, nn.Linear) and module.out_features == classes)
        or (isinstance(module, nn.Conv2d) and module.out_channels == classes)
    ]


def _attention_heads(model: nn.Module) -> dict[nn.Module, int]:
    """The number of heads of every projection to queries, keys and values."""
    found: dict[nn.Module, int] = {}
    for module in model.modules():
        heads: Any = getattr(module, "num_heads", None)
        for name, child in module.named_children():
            if isinstance(heads, int) and name in PROJECTIONS and isinstance(child, nn.Linear):
                found[child] = heads
    return found


def _round_to(model: nn.Module) -> int | None:
    """A multiple of their heads for torchvision's vision transformers, as in the peer's own survey."""
    heads = [module.num_heads for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    return heads[0] if heads else None


def _tell_attention(model: nn.Module, before: Mapping[nn.Module, int], heads: Mapping[nn.Module, int]) -> None:
    """Attention modules keep sizes as numbers: set those that the peer's examples set by hand."""
    attention: Any
    for attention in model.modules():
        if getattr(attention, "qkv", None) in before:
            attention.num_heads = heads[attention.qkv]
            attention.head_dim = attention.qkv.out_features // (3 * attention.num_heads)
            if hasattr(attention, "attn_dim"):
                attention.attn_dim = attention.head_dim * attention.num_heads
    whole: Any = model
    if hasattr(whole, "hidden_dim") and hasattr(whole, "conv_proj"):
        whole.hidden_dim = whole.conv_proj.out_channels


class _Dropped:
    """Which input channels of which layers the peer took away, in the original's numbering."""

    def __init__(self, model: nn.Module, graph: Any) -> None:
        self.graph = graph
        self.names = {module: name for name, module in model.named_modules()}
        self.left: dict[str, list[int]] = {}
        self.whole: dict[str, int] = {}
        kinds = {name: type(module).__name__.lower() for module, name in self.names.items() if module._parameters}
        # norms over channels: no module with zeros in it computes what is left of them
        self.statistics = [name for name, kind in kinds.items() if "norm" in kind and "batch" not in kind]

    def note(self, group: Any) -> None:
        """See what a group takes from each layer. Several groups may take from one layer, one after the other."""
        for dependency, indices in group:
            module = dependency.target.module
            name = self.names.get(module)
            if name is None:
                continue
            if not self.graph.is_in_channel_pruning_fn(dependency.handler):
                continue
            if isinstance(module, nn.Conv2d | nn.Linear):
                size = module.in_channels if isinstance(module, nn.Conv2d) else module.in_features
                self.whole.setdefault(name, size)
                left = self.left.setdefault(name, list(range(size)))
                gone = {getattr(index, "idx", index) for index in indices}
                self.left[name] = [channel for place, channel in enumerate(left) if place not in gone]

    def hide(self, original: nn.Module) -> None:
        """Make the original's layers read zeros there."""
        for name, left in self.left.items():
            layer = original.get_submodule(name)
            shown = torch.zeros(self.whole[name], dtype=torch.bool)
            shown[left] = True
            if isinstance(layer, nn.Conv2d):
                shown = shown[:, None, None]
            layer.register_forward_pre_hook(lambda _, inputs, shown=shown: (torch.where(shown, inputs[0], 0),))


SIDES: dict[str, Callable[[Architecture, Progress], None]] = {
    "slimwright": by_slimwright,
    "torch-pruning": by_torch_pruning,
}


def _started(one: Architecture, progress: Progress) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network, five images, and its scores for the first two."""
    with progress.stage("build"), torch.no_grad():
        random.seed(SEED)
        np.random.seed(SEED)
        model = built(one, SEED)
        images = torch.randn(5, *one.image_shape)
        scores = model(images[:2])
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise ValueError("gives no table of scores")
        if not bool(torch.isfinite(scores).all()) or float(scores.std()) == 0:
            raise ValueError("random weights give no usable scores")
        moved = _relative(model(images[:2] * (1 + 1e-6)), scores)
        progress.found({"spread": _relative(scores[:1], scores[1:]), "amplified": moved / 1e-6})
    return model, images, scores


def _exported(write: Callable[[Path], None], scores: Tensor, image: Tensor, progress: Progress) -> None:
    """Write the pruned network as ONNX, run it in ONNX Runtime, and compare."""
    from lib.onnx_runs import onnx_scores

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.onnx"
        with progress.stage("export"):
            write(path)
        with progress.stage("run"):
            error = _relative(onnx_scores(path, image), scores)
            progress.found({"exported": error <= EXPORTED, "export_error": error})


def _export_module(model: nn.Module, image: Tensor, path: Path) -> None:
    """Write a plain module as slimwright writes its nets."""
    from slimwright.runtimes.onnxruntime import INPUT, OPSET, OUTPUT

    program = torch.onnx.export(
        model, (image,), dynamo=True, opset_version=OPSET, verbose=False, input_names=[INPUT], output_names=[OUTPUT]
    )
    assert program is not None
    program.save(str(path), external_data=False)


def _widest(net: Any) -> torch.dtype:
    """float64, where small mistakes show, unless a node asks for float32 by name."""
    asks = any("torch.float32" in str(node.arguments.get("dtype")) for node in net.nodes)
    return torch.float32 if asks else torch.float64


def _compared(
    model: nn.Module, original: nn.Module, images: Tensor, scores: Tensor
) -> tuple[float, float, torch.dtype]:
    """Error of one module against another, how much that one differs from `scores`, and the dtype it was found in."""
    wanted = original(images)
    error, effect = _relative(model(images), wanted), _relative(wanted, scores)
    try:
        wide = images.double()
        exact = _relative(copy.deepcopy(model).double()(wide), original.double()(wide))
    except RuntimeError:  # it makes float32 tensors of its own
        return error, effect, torch.float32
    return exact, effect, torch.float64


def judged(error: float, effect: float, dtype: torch.dtype) -> dict[str, object]:
    """Exact is what is off by little, and by far less than pruning changes."""
    exact = error <= min(EXACT[dtype], effect / 100)
    return {"exact": exact, "error": error, "effect": effect, "precision": str(dtype).removeprefix("torch.")}


def pruned(left: int, before: int) -> dict[str, object]:
    return {"params_left": left / before, "pruned": left <= PRUNED * before}


def _relative(got: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest wanted value."""
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


def _without_names(reason: str) -> str:
    """A reason for many layers at once: "'conv3' (softmax) mixes them" -> "(softmax) mixes them"."""
    return " ".join(word for word in reason.split() if not word.startswith("'"))
