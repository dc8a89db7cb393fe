"""Random networks for the tests: steps that read any earlier values, every list of them a valid network."""

from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import SHAPE, lively
from slimwright.graph import Net
from slimwright.importers import capture

Command = tuple[str, int, int, int]  # what, two values by number counted back from the latest, a size


class Step(nn.Module):
    """A function of two earlier values, and the layers it uses."""

    def __init__(self, run: Callable[..., Tensor], *layers: nn.Module, scale: Tensor | None = None) -> None:
        super().__init__()
        self.run = run
        self.layers = nn.ModuleList(layers)
        if scale is not None:
            self.scale = nn.Parameter(scale)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """[N, C, h, w] and [N, C', h', w'] -> [N, C'', h'', w'']."""
        own = (self.scale,) if hasattr(self, "scale") else ()
        return self.run(one, other, *self.layers, *own)


def _one(*layers: nn.Module) -> Step:
    return Step(lambda x, _, *inner: nn.Sequential(*inner)(x), *layers)


def _same(one: Tensor, _: Tensor, _size: int) -> Step:
    return Step(lambda x, _: x)


def _parts(channels: int, size: int) -> int:
    """The largest number up to `size` by which the channels can be divided."""
    return max(n for n in range(1, size + 1) if channels % n == 0)


def _conv(one: Tensor, _: Tensor, size: int) -> Step:
    kernel = 3 if size % 2 else 1
    return _one(nn.Conv2d(one.shape[1], size, kernel, padding=kernel // 2, bias=size > 3))


def _strided(one: Tensor, _: Tensor, size: int) -> Step:
    return _one(nn.Conv2d(one.shape[1], size, 3, stride=2, padding=1))


def _depthwise(one: Tensor, _: Tensor, size: int) -> Step:
    channels = one.shape[1]
    return _one(nn.Conv2d(channels, channels * (1 + size % 2), 3, padding=1, groups=channels))


def _grouped(one: Tensor, _: Tensor, size: int) -> Step:
    groups = _parts(one.shape[1], size)
    return _one(nn.Conv2d(one.shape[1], groups * (2 + size % 2), 3, padding=1, groups=groups))


def _gate(one: Tensor, _: Tensor, size: int) -> Step:
    channels = one.shape[1]

    def run(x: Tensor, _: Tensor, down: nn.Module, up: nn.Module) -> Tensor:
        return x * torch.sigmoid(up(torch.relu(down(F.adaptive_avg_pool2d(x, 1)))))

    return Step(run, nn.Conv2d(channels, size, 1), nn.Conv2d(size, channels, 1))


def _linear_gate(one: Tensor, _: Tensor, size: int) -> Step:
    channels = one.shape[1]

    def run(x: Tensor, _: Tensor, down: nn.Module, up: nn.Module) -> Tensor:
        return x * torch.sigmoid(up(torch.relu(down(x.mean((2, 3)))))).view(x.shape[0], x.shape[1], 1, 1)

    return Step(run, nn.Linear(channels, size), nn.Linear(size, channels))


def _add(one: Tensor, other: Tensor, _: int) -> Step:
    if one.shape[2] != other.shape[2]:
        return _same(one, other, 0)
    if one.shape[1] == other.shape[1]:
        return Step(lambda x, y: x + y)
    return Step(lambda x, y, conv: x + conv(y), nn.Conv2d(other.shape[1], one.shape[1], 1))


def _mul(one: Tensor, other: Tensor, size: int) -> Step:
    return Step(lambda x, y: x * torch.tanh(y)) if one.shape == other.shape else _same(one, other, size)


def _cat(one: Tensor, other: Tensor, size: int) -> Step:
    fits = one.shape[2] == other.shape[2] and one.shape[1] + other.shape[1] <= MOST
    return Step(lambda x, y: torch.cat([x, y], 1)) if fits else _same(one, other, size)


def _interleave(one: Tensor, other: Tensor, size: int) -> Step:
    fits = one.shape == other.shape and 2 * one.shape[1] <= MOST
    return Step(lambda x, y: torch.stack([x, y], 2).flatten(1, 2)) if fits else _same(one, other, size)


def _pool(function: Callable[..., Tensor]) -> Callable[[Tensor, Tensor, int], Step]:
    return lambda one, other, size: Step(lambda x, _: function(x, 2)) if one.shape[2] > 1 else _same(one, other, size)


def _up(one: Tensor, other: Tensor, size: int) -> Step:
    return Step(lambda x, _: F.interpolate(x, scale_factor=2)) if one.shape[2] <= 3 else _same(one, other, size)


def _shuffle(one: Tensor, _: Tensor, size: int) -> Step:
    groups = _parts(one.shape[1], size)

    def run(x: Tensor, _: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    return Step(run)


def _split(one: Tensor, other: Tensor, size: int) -> Step:
    if one.shape[1] < 2:
        return _same(one, other, size)
    at = 1 + size % (one.shape[1] - 1)
    return Step(lambda x, _: torch.split(x, [at, x.shape[1] - at], 1)[size % 2])


def _halves(one: Tensor, other: Tensor, size: int) -> Step:
    if one.shape[1] % 2:
        return _same(one, other, size)
    return Step(lambda x, _: torch.mul(*x.chunk(2, 1)))


def _thinned(one: Tensor, _: Tensor, size: int) -> Step:
    return Step(lambda x, _: x[:, size % 2 if x.shape[1] > 1 else 0 :: 2])


def _mirrored(_: Tensor, __: Tensor, size: int) -> Step:
    return Step(lambda x, _: x.flip(1) if size % 2 else torch.roll(x, 1, 1))


def _radix(one: Tensor, _: Tensor, size: int) -> Step:
    parts = _parts(one.shape[1], size)
    return Step(lambda x, _: x.view(x.shape[0], parts, x.shape[1] // parts, *x.shape[2:]).sum(1))


def _layer_norm(one: Tensor, _: Tensor, __: int) -> Step:
    return Step(lambda x, _, norm: norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(one.shape[1]))


def _group_norm(one: Tensor, _: Tensor, size: int) -> Step:
    groups = _parts(one.shape[1], size)
    if one.shape[2] == 1:  # torch takes no statistics of one number
        return _same(one, one, size)
    return _one(nn.GroupNorm(groups, one.shape[1]))


def _scale(one: Tensor, _: Tensor, size: int) -> Step:
    shape = ((one.shape[1], 1, 1), one.shape[1:], (1,), (1, one.shape[1], 1, 1))[size % 4]
    return Step(lambda x, _, scale: x * scale, scale=torch.rand(shape) + 0.2)


def _mlp(one: Tensor, _: Tensor, size: int) -> Step:
    channels = one.shape[1]

    def run(x: Tensor, _: Tensor, up: nn.Module, down: nn.Module) -> Tensor:
        return x + down(F.gelu(up(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)

    return Step(run, nn.Linear(channels, size), nn.Linear(size, channels))


def _attention(one: Tensor, _: Tensor, size: int) -> Step:
    channels = one.shape[1]
    heads = _parts(channels, size)

    def run(x: Tensor, _: Tensor, qkv: nn.Module, proj: nn.Module) -> Tensor:
        n, c, h, w = x.shape
        parts = qkv(x.flatten(2).transpose(1, 2)).reshape(n, h * w, 3, heads, c // heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return x + proj(mixed.transpose(1, 2).reshape(n, h * w, c)).transpose(1, 2).reshape(n, c, h, w)

    return Step(run, nn.Linear(channels, 3 * channels), nn.Linear(channels, channels))


def _look(_: Tensor, __: Tensor, ___: int) -> Step:
    def run(x: Tensor, _: Tensor, conv: nn.Module) -> Tensor:
        return x * torch.sigmoid(conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))

    return Step(run, nn.Conv2d(2, 1, 1))


def _peek(_: Tensor, __: Tensor, size: int) -> Step:
    return Step(lambda x, _: x * torch.sigmoid(x[:, :size].amax(1, keepdim=True)))


MOST = 16  # channels of a value
STEPS: dict[str, Callable[[Tensor, Tensor, int], Step]] = {
    "conv": _conv,
    "strided": _strided,
    "depthwise": _depthwise,
    "grouped": _grouped,
    "norm": lambda one, _, __: _one(nn.BatchNorm2d(one.shape[1])),
    "relu": lambda _, __, ___: _one(nn.ReLU()),
    "silu": lambda _, __, ___: _one(nn.SiLU()),
    "sigmoid": lambda _, __, ___: _one(nn.Sigmoid()),
    "prelu": lambda one, _, __: _one(nn.PReLU(one.shape[1], 0.3)),
    "gate": _gate,
    "linear gate": _linear_gate,
    "add": _add,
    "mul": _mul,
    "cat": _cat,
    "interleave": _interleave,
    "max": _pool(F.max_pool2d),
    "avg": _pool(F.avg_pool2d),
    "up": _up,
    "shuffle": _shuffle,
    "split": _split,
    "halves": _halves,
    "thinned": _thinned,
    "mirrored": _mirrored,
    "radix": _radix,
    "layer norm": _layer_norm,
    "group norm": _group_norm,
    "scale": _scale,
    "mlp": _mlp,
    "attention": _attention,
    "look": _look,
    "peek": _peek,
}


class RandomCnn(nn.Module):
    """A directed acyclic graph of steps, made by a list of commands; every list is a valid network.

    Each command reads earlier values by number and adds one. Nets end in a pooled or in a flattened head.
    """

    def __init__(self, program: Sequence[Command], *, flat: bool, seed: int = 0) -> None:
        super().__init__()
        self.flat = flat
        self.reads = [(one, other) for _, one, other, _ in program]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            self.first = nn.Conv2d(1, 4, 3, padding=1)
            self.steps = nn.ModuleList()
            values = [self.first(torch.zeros(1, *SHAPE))]
            for what, one, other, size in program:
                read = values[_back(values, one)], values[_back(values, other)]
                self.steps.append(STEPS[what](*read, size).eval())
                values.append(self.steps[-1](*read))
            _, channels, height, _ = values[-1].shape
            self.hidden = nn.Linear(channels * height**2 if flat else channels, 6)
            self.last = nn.Linear(6, 3)
            lively(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 6, 6] -> [N, 3]."""
        values = [self.first(x)]
        for step, (one, other) in zip(self.steps, self.reads, strict=True):
            values.append(step(values[_back(values, one)], values[_back(values, other)]))
        y = values[-1].flatten(1) if self.flat else values[-1].mean((2, 3))
        return self.last(torch.relu(self.hidden(y)))


def _back(values: Sequence[Tensor], number: int) -> int:
    return len(values) - 1 - number % len(values)


def commands(most: int = 7) -> st.SearchStrategy[list[Command]]:
    """Programs for `RandomCnn`."""
    number = st.integers(0, 5)
    return st.lists(
        st.tuples(st.sampled_from(list(STEPS)), number, number, st.integers(2, 5)), min_size=1, max_size=most
    )


def random_net(program: Sequence[Command], *, flat: bool, seed: int = 0) -> Net:
    """Return the captured net of a program."""
    return capture(RandomCnn(program, flat=flat, seed=seed), SHAPE)
