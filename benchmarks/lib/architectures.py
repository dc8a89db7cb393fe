"""The networks of a survey: all of torchvision's classifiers, and the smallest of every family in timm.

The list is built, not written. A timm family is one source file and the head of the name (`resnet50d` and `resnet18`
are one, `resnetv2_50` and `seresnet50` are others); every member is built without memory, on the meta device, and the
one with the fewest parameters stands for it. timm's `test_` models, made for its own tests, are left out. What kind a
network is comes from watching one image pass through it without memory:

    attention     it calls an attention kernel, or one module multiplies values by values twice (queries by keys, the
                  result by values; parameters do not count)
    convolution   a convolution that does not read the image: patch embeddings do not count

    convolutional: the second; hybrid: both; transformer: the first; other: neither, or recurrent.

Weights are random. Constant ones (gains of one, biases of zero, layer scales of 1e-6) are drawn at random, since
channels that all do the same could be exchanged without anybody noticing, and batch norms take the statistics of random
images, moved a little, so that signals neither die out nor explode.
"""

import functools
import json
import re
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from slimwright.atomic import replacing

KINDS = ("convolutional", "hybrid", "transformer", "other")
RULES = 2  # of what is on the list and of what kind; to be raised with every change of them
TORCHVISION_SIDES = {"inception_v3": 299}  # pixels; all others are published at 224
NO_AUXILIARY_HEADS = {"googlenet", "inception_v3"}  # they have heads that only training uses
CLASSES = 1000  # where timm's own configuration has no classifier
BATCH = 4  # images that batch norms take their statistics from


@dataclass(frozen=True)
class Architecture:
    """One network of the survey. `image_shape` [C, H, W]; `error` says why it could not be watched, if so."""

    name: str  # "timm/resnet10t", "torchvision/resnet18"
    kind: str
    image_shape: tuple[int, ...]
    params: int
    error: str = ""


def architectures(cache: Path) -> list[Architecture]:
    """Return the networks, small ones first; `cache` is a folder that keeps the list for the installed versions."""
    path = cache / f"architectures-{RULES}-timm{version('timm')}-torchvision{version('torchvision')}.json"
    if path.exists():
        kept = json.loads(path.read_text())["architectures"]
        return [Architecture(**{**entry, "image_shape": tuple(entry["image_shape"])}) for entry in kept]
    start = time.perf_counter()
    Console(stderr=True).print("building the list of networks: some minutes, once for these versions of the libraries")
    found = [*map(watched, torchvision_names()), *map(watched, timm_names())]
    found.sort(key=lambda one: one.params)
    path.parent.mkdir(parents=True, exist_ok=True)
    built = {"seconds": round(time.perf_counter() - start), "architectures": [asdict(one) for one in found]}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(built, indent=1) + "\n")
    return found


def torchvision_names() -> list[str]:
    models = torchvision().models
    return [f"torchvision/{name}" for name in models.list_models(module=models)]


def timm_names() -> list[str]:
    """One name per family: its member with the fewest parameters."""
    timm = timm_library()
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module in timm.list_modules():
        for name in timm.list_models(module=module):
            if not name.startswith("test_"):
                families[module, family(name)].append(name)
    return [f"timm/{_smallest(names)}" for names in families.values()]


def family(name: str) -> str:
    """The part of a model's name that says what it is, not how large: "res2net50_26w_4s" -> "res2net"."""
    first, _, rest = name.partition("_")
    if len(first) <= 2:  # "tf_mixnet_s", "nf_regnet_b0": who made it, or a prefix that is no family of its own
        first = f"{first}_{rest.partition('_')[0]}"
    return re.sub(r"(?<!v)(\d+[a-z]{0,2})+$", "", first)  # "mobilenetv2" stays


def watched(name: str) -> Architecture:
    """Build a network without memory, pass one image through it, and say of what kind it is."""
    model = _without_memory(name)
    shape = image_shape(name, model)
    params = sum(p.numel() for p in model.parameters())
    watch = _Watch(shape[0], recurrent=any(isinstance(module, nn.RNNBase) for module in model.modules()))
    hooks = list(watch.hooks(model))
    try:
        with torch.no_grad(), torch.device("meta"), watch:
            model(torch.empty(1, *shape))
    except Exception as error:  # any of many: the model is told of, and still takes part in the survey
        return Architecture(name, watch.kind, shape, params, f"{type(error).__name__}: {error}".splitlines()[0])
    finally:
        for hook in hooks:
            hook.remove()
    return Architecture(name, watch.kind, shape, params)


def image_shape(name: str, model: nn.Module) -> tuple[int, ...]:
    """[C, H, W] that the network was published at."""
    library, _, short = name.partition("/")
    if library == "timm":
        cfg: Any = model.pretrained_cfg
        return tuple(cfg["input_size"])
    side = TORCHVISION_SIDES.get(short, 224)
    return (3, side, side)


def built(one: Architecture, seed: int) -> nn.Module:
    """Return the network in eval mode, with random weights of which no two channels are alike. Deterministic."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _created(one.name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            _varied(parameter)
        _settle(model, torch.randn(BATCH, *one.image_shape))
    return model


def _created(name: str) -> nn.Module:
    library, _, short = name.partition("/")
    if library == "torchvision":
        auxiliary = {"aux_logits": False, "init_weights": True} if short in NO_AUXILIARY_HEADS else {}
        model: nn.Module = torchvision().models.get_model(short, weights=None, **auxiliary)
        return model
    timm = timm_library()
    headless = timm.get_pretrained_cfg_value(short, "num_classes") == 0
    model = timm.create_model(short, num_classes=CLASSES) if headless else timm.create_model(short)
    return model


def _without_memory(name: str) -> nn.Module:
    """Return the network on the meta device, in eval mode."""
    try:
        with torch.device("meta"):
            return _created(name).eval()
    except (NotImplementedError, RuntimeError):  # some compute their widths with tensors
        return _created(name).eval().to("meta")


def _varied(parameter: Tensor) -> None:
    """Draw a parameter anew if all its values are one and the same."""
    if not parameter.is_floating_point() or not bool((parameter == parameter.reshape(-1)[0]).all()):
        return
    noise = torch.rand_like(parameter)
    if parameter.reshape(-1)[0] != 0:
        parameter.copy_(0.5 + noise)  # a gain
    elif parameter.numel() == 1:
        parameter.copy_(0.2 + 0.6 * noise)  # a gain that starts its branch at nothing
    else:
        parameter.copy_(0.2 * (noise - 0.5))  # a bias


def _settle(model: nn.Module, images: Tensor) -> None:
    """Give every batch norm the statistics of what reaches it from these images, moved by a tenth or so.

    Where a channel hardly varies about its mean, the variance is taken for larger than it is: dividing by it would
    blow up rounding errors until nothing can be compared.
    """

    def settle(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        over = [dim for dim in range(inputs[0].ndim) if dim != 1]
        variance, mean = torch.var_mean(inputs[0], over, correction=0)
        variance = torch.maximum(variance, mean**2 / 4).clamp(min=1e-6)
        norm.running_mean.copy_(mean + 0.2 * variance.sqrt() * torch.randn_like(mean))  # type: ignore[operator]
        norm.running_var.copy_(variance * (0.7 + 0.6 * torch.rand_like(mean)))  # type: ignore[operator]

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    if norms:
        model(images)
    for hook in hooks:
        hook.remove()


class _Watch(TorchFunctionMode):
    """Counts attention kernels, products of two values by module, and convolutions that do not read the image."""

    PRODUCTS = ("matmul", "bmm", "einsum", "baddbmm", "__matmul__", "__rmatmul__")

    def __init__(self, image_channels: int, *, recurrent: bool) -> None:
        super().__init__()
        self.image_channels, self.recurrent = image_channels, recurrent
        self.inside: list[int] = []  # the modules whose forward is running, outermost first
        self.calls = 0
        self.products: Counter[int] = Counter()
        self.kernels = 0
        self.convolutions = 0

    @property
    def kind(self) -> str:
        attention = self.kernels > 0 or max(self.products.values(), default=0) >= 2
        if self.convolutions and not self.recurrent:
            return "hybrid" if attention else "convolutional"
        return "transformer" if attention else "other"

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """Keep `inside` up to date; a module that runs twice counts as two."""
        for module in model.modules():
            yield module.register_forward_pre_hook(self._enter)
            yield module.register_forward_hook(self._leave)

    def _enter(self, *_: object) -> None:
        self.calls += 1
        self.inside.append(self.calls)

    def _leave(self, *_: object) -> None:
        self.inside.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See every call of torch before it is made."""
        name = getattr(func, "__name__", "")
        if "attention" in name:
            self.kernels += 1
        elif name in self.PRODUCTS:
            factors = [t for t in _tensors(args) if not isinstance(t, nn.Parameter)]
            self.products[self.inside[-1] if self.inside else 0] += len(factors) >= 2
        elif name == "conv2d" and args[0].shape[-3] != self.image_channels:
            self.convolutions += 1
        return func(*args, **(kwargs or {}))


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _smallest(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    sizes = {}
    for name in names:
        sizes[name] = sum(p.numel() for p in _without_memory(f"timm/{name}").parameters())
    return min(names, key=sizes.__getitem__)


@functools.cache
def torchvision() -> Any:
    """Import torchvision, whose compiled part may be built for another torch; its classifiers do without that part."""
    try:
        import torchvision
    except RuntimeError:  # it describes two operators of the compiled part, and stops where they are missing
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float most) -> Tensor")
        import torchvision
    return torchvision


def timm_library() -> Any:
    """Import timm, and torchvision before it."""
    torchvision()  # timm imports it
    import timm

    return timm
