"""Small networks for the tests, each around one structure that channels pass through in a way of its own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import lively

SHAPE = (1, 6, 6)
CLASSES = 3


class Structure(nn.Module):
    """A stem of `width` channels, a body, and a head that averages over pixels: subclasses give the body."""

    width = 8
    out = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, self.width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(self.width)
        self.build()
        self.fc = nn.Linear(self.out, CLASSES)

    def build(self) -> None:
        """Make the layers of the body."""

    def body(self, x: Tensor) -> Tensor:
        """[N, width, 6, 6] -> [N, out, ...]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(torch.relu(self.bn(self.stem(x))))
        return self.fc(y.flatten(2).mean(2))


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle (Zhang et al. 2018, arXiv 1707.01083, fig. 1)."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleV1(Structure):
    """ShuffleNet units: stride 2 with a concatenation, so that the next groups straddle its parts; then a residual."""

    out = 12

    def build(self) -> None:
        self.squeeze = nn.Conv2d(8, 4, 1, groups=2, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False)
        self.widen = nn.Conv2d(4, 4, 1, groups=2)
        self.squeeze2 = nn.Conv2d(12, 6, 1, groups=2)
        self.depthwise2 = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.widen2 = nn.Conv2d(6, 12, 1, groups=2)
        self.bn2 = nn.BatchNorm2d(12)

    def body(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.squeeze(x)))
        y = self.widen(self.depthwise(shuffled(y, 2)))
        x = torch.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))
        y = self.bn2(self.widen2(self.depthwise2(shuffled(self.squeeze2(x), 2))))
        return torch.relu(x + y)


class ShuffleV2(Structure):
    """ShuffleNet v2 units (Ma et al. 2018, arXiv 1807.11164, fig. 3): split, branch, concatenate, shuffle, twice."""

    out = 16

    def build(self) -> None:
        self.first, self.second = (self._branch(4, 1) for _ in range(2))
        self.left = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.right = self._branch(8, 2)

    @staticmethod
    def _branch(width: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, groups=width),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, width, 1),
        )

    def body(self, x: Tensor) -> Tensor:
        for branch in (self.first, self.second):
            left, right = x.chunk(2, dim=1)
            x = shuffled(torch.cat([left, branch(right)], 1), 2)
        return shuffled(torch.cat([self.left(x), self.right(x)], 1), 2)


class LinearGate(Structure):
    """A squeeze-and-excitation gate of linear layers, brought back to a map by a view, and one by two unsqueezes."""

    def build(self) -> None:
        self.down, self.up = nn.Linear(8, 3), nn.Linear(3, 8)
        self.down2, self.up2 = nn.Linear(8, 2), nn.Linear(2, 8)

    def body(self, x: Tensor) -> Tensor:
        n, c, _, _ = x.shape
        gate = F.adaptive_avg_pool2d(x, 1).view(n, c)
        x = x * torch.sigmoid(self.up(torch.relu(self.down(gate)))).view(n, c, 1, 1)
        gate = x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1)
        gate = self.up2(F.silu(self.down2(gate))).unsqueeze(2).unsqueeze(-1)
        return x * F.hardsigmoid(gate).expand_as(x)


class Cascade(Structure):
    """Res2Net (Gao et al. 2019, arXiv 1904.01169): four scales, each adding the one before, and a residual."""

    def build(self) -> None:
        self.expand = nn.Conv2d(8, 12, 1)
        self.bn1 = nn.BatchNorm2d(12)
        self.scales = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.project = nn.Conv2d(12, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        parts = torch.split(F.relu(self.bn1(self.expand(x))), 3, 1)
        outs = [parts[0]]
        for number, conv in enumerate(self.scales):
            part = parts[number + 1]
            outs.append(torch.relu(conv(part if number == 0 else outs[-1] + part)))
        return torch.relu(x + self.project(torch.cat(outs, 1)))


class Dense(Structure):
    """DenseNet (Huang et al. 2017, arXiv 1608.06993): every layer reads all before it; a norm on each concatenation."""

    out = 7

    def build(self) -> None:
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 3 * i), nn.ReLU(), nn.Conv2d(8 + 3 * i, 3, 3, padding=1)) for i in range(3)
        )
        self.last = nn.BatchNorm2d(17)
        self.transition = nn.Conv2d(17, 7, 1)

    def body(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return F.avg_pool2d(self.transition(torch.relu(self.last(torch.cat(features, 1)))), 2)


class NextBottleneck(Structure):
    """ResNeXt bottlenecks (Xie et al. 2017, arXiv 1611.05431): a convolution in four groups between pointwise ones."""

    out = 12

    def build(self) -> None:
        self.down = nn.Conv2d(8, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.up = nn.Conv2d(8, 12, 1)
        self.shortcut = nn.Conv2d(8, 12, 1)
        self.between = nn.Conv2d(12, 12, 3, padding=1, groups=4)  # on the residual itself

    def body(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.grouped(torch.relu(self.down(x)))))
        x = torch.relu(self.shortcut(x) + self.up(y))
        return x + self.between(x)


class ConvNext(Structure):
    """A ConvNeXt block (Liu et al. 2022, arXiv 2201.03545): channels last, layer norm, layer scale."""

    def build(self) -> None:
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.scale = nn.Parameter(torch.rand(8) + 0.1)

    def body(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class FirstNorm(Structure):
    """Layer norm over channels in the first dimension, written by hand as a mean and a variance, and an RMS norm."""

    def build(self) -> None:
        self.conv = nn.Conv2d(8, 8, 1)
        self.weight, self.bias = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))
        self.rms = nn.RMSNorm(8, eps=1e-6)

    def body(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        mean = x.mean(1, keepdim=True)
        deviation = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(deviation + 1e-6)
        x = self.weight[:, None, None] * x + self.bias[:, None, None]
        return self.rms(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GroupNorms(Structure):
    """Group norms with two groups, one, and one per channel; instance norm."""

    def build(self) -> None:
        self.norms = nn.ModuleList([nn.GroupNorm(2, 8), nn.GroupNorm(8, 8), nn.GroupNorm(1, 8)])
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(3))
        self.instance = nn.InstanceNorm2d(8, affine=True)

    def body(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        return self.instance(x)


class LayerScale(Structure):
    """Bare parameters of several shapes: per channel, for all, per pixel; a buffer."""

    def build(self) -> None:
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.gamma = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.1)
        self.beta = nn.Parameter(torch.rand(8, 1, 1))
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.place = nn.Parameter(torch.rand(1, 8, 6, 6))
        self.register_buffer("mask", (torch.rand(6, 6) > 0.3).float())

    def body(self, x: Tensor) -> Tensor:
        x = x + self.gamma * self.conv(x + self.place)
        return (x * self.temperature + self.beta) * self.get_buffer("mask")


class Attention(Structure):
    """Multi-head self-attention (Vaswani et al. 2017) written out: one layer for queries, keys and values."""

    fused = False

    def build(self) -> None:
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)

    def body(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # [N, 36, 8]
        qkv = self.qkv(self.norm(tokens)).reshape(n, h * w, 3, 2, 4).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q * 0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        tokens = tokens + self.proj(mixed.transpose(1, 2).reshape(n, h * w, c))
        return tokens.transpose(1, 2).reshape(n, c, h, w)


class FusedAttention(Attention):
    """The same with the fused operator."""

    fused = True


class Transformer(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021): class token, position embedding, one block, its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 10, 8))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Dropout(0.1), nn.Linear(12, 8))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.position
        z = self.norm(y)
        y = y + self.attention(z, z, z, need_weights=False)[0]
        y = y + self.mlp(y)
        return self.fc(y[:, 0])


class Windows(Structure):
    """Attention in windows that become a batch, biased by relative position (Liu et al. 2021, arXiv 2103.14030)."""

    def build(self) -> None:
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)
        self.table = nn.Parameter(torch.randn(25, 2))
        at = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")).flatten(1)
        far = (at[:, :, None] - at[:, None, :] + 2).permute(1, 2, 0)
        self.register_buffer("index", far[..., 0] * 5 + far[..., 1])

    def body(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = torch.roll(x.permute(0, 2, 3, 1), (-1, -1), (1, 2))
        rows = x.view(n, h // 3, 3, w // 3, 3, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 9, c)
        q, k, v = self.qkv(rows).reshape(rows.shape[0], 9, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        bias = self.table[self.get_buffer("index").view(-1)].view(9, 9, 2).permute(2, 0, 1).unsqueeze(0)
        rows = ((q @ k.transpose(-2, -1)) * 0.5 + bias).softmax(-1) @ v
        rows = self.proj(rows.transpose(1, 2).reshape(-1, 9, c))
        y = rows.view(-1, h // 3, w // 3, 3, 3, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(x + y, (1, 1), (1, 2)).permute(0, 3, 1, 2)


class Standardised(Structure):
    """Convolutions whose weights are standardised anew each time (Qiao et al. 2019, arXiv 1903.10520)."""

    def build(self) -> None:
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.gain = nn.Parameter(torch.rand(8, 1, 1, 1) + 0.5)

    def body(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        mean, variance = weight.mean((1, 2, 3), keepdim=True), weight.var((1, 2, 3), keepdim=True)
        x = torch.relu(
            F.conv2d(x, (weight - mean) / torch.sqrt(variance + 1e-5) * self.gain, self.conv.bias, padding=1)
        )
        flat = self.grouped.weight.reshape(1, 8, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(self.grouped.weight)
        return F.conv2d(x, weight, self.grouped.bias, padding=1, groups=2)


class BlurPool(Structure):
    """Anti-aliased pooling (Zhang 2019, arXiv 1904.11486): one fixed kernel for every channel, reflected borders."""

    def build(self) -> None:
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (line[:, None] * line / 16)[None, None])

    def body(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.conv(x)), 2, stride=1)
        kernel = self.get_buffer("kernel").expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), kernel, stride=2, groups=x.shape[1])


class Slopes(Structure):
    """PReLU with one slope per channel and with one for all; a threshold and a clamp."""

    def build(self) -> None:
        self.conv = nn.Conv2d(8, 8, 1)
        self.each, self.all = nn.PReLU(8, 0.3), nn.PReLU()

    def body(self, x: Tensor) -> Tensor:
        return self.all(torch.clamp(self.each(self.conv(x) - 0.5), -1.5, 1.5) - 0.1)


class ResponseNorm(Structure):
    """Local response normalisation (Krizhevsky et al. 2012) over neighbouring channels."""

    def build(self) -> None:
        self.norm = nn.LocalResponseNorm(3, alpha=0.1, k=2)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(self.norm(x)))


class GatedHalves(Structure):
    """A gated linear unit (Dauphin et al. 2017, arXiv 1612.08083), and the same by slices (NAFNet's simple gate)."""

    out = 4

    def build(self) -> None:
        self.wide = nn.Conv2d(8, 12, 1)
        self.next = nn.Conv2d(6, 8, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.next(F.glu(self.wide(x), dim=1))
        return x[:, :4] * torch.tanh(x[:, 4:])


class SpatialAttention(Structure):
    """CBAM's spatial attention (Woo et al. 2018, arXiv 1807.06521): mean and maximum over channels."""

    def build(self) -> None:
        self.conv = nn.Conv2d(8, 8, 1)
        self.look = nn.Conv2d(2, 1, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.look(seen))


class SplitAttention(Structure):
    """ResNeSt (Zhang et al. 2020, arXiv 2004.08955): grouped convolution, two radices, a softmax over them."""

    def build(self) -> None:
        self.conv = nn.Conv2d(8, 16, 3, padding=1, groups=4, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.down, self.up = nn.Conv2d(8, 4, 1, groups=2), nn.Conv2d(4, 16, 1, groups=2)

    def body(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv(x)))
        n, _, h, w = y.shape
        split = y.view(n, 2, 8, h, w)
        gate = self.up(torch.relu(self.down(split.sum(1).mean((2, 3), keepdim=True))))
        gate = gate.view(n, 2, 2, -1).transpose(1, 2).softmax(1).reshape(n, 2, 8, 1, 1)
        return (split * gate).sum(1)


class Selective(Structure):
    """Selective kernels (Li et al. 2019, arXiv 1903.06586): branches stacked, a softmax over them, a sum."""

    def build(self) -> None:
        self.branches = nn.ModuleList(nn.Conv2d(8, 6, k, padding=k // 2) for k in (1, 3))
        self.down, self.up = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 12, 1)
        self.last = nn.Conv2d(6, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        stack = torch.stack([branch(x) for branch in self.branches], dim=1)  # [N, 2, 6, h, w]
        gate = self.up(torch.relu(self.down(stack.sum(1).mean((2, 3), keepdim=True))))
        return self.last((stack * torch.softmax(gate.view(-1, 2, 6, 1, 1), 1)).sum(1))


class Coordinates(Structure):
    """Coordinate attention (Hou et al. 2021, arXiv 2103.02907): pooled rows and columns one behind the other."""

    def build(self) -> None:
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.both = nn.Conv2d(8, 4, 1)
        self.high, self.wide = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        rows = F.adaptive_avg_pool2d(x, (None, 1))
        columns = F.adaptive_avg_pool2d(x, (1, None)).permute(0, 1, 3, 2)
        both = F.hardswish(self.both(torch.cat([rows, columns], 2)))
        high, wide = torch.split(both, [x.shape[2], x.shape[3]], dim=2)
        return x * self.high(high).sigmoid() * self.wide(wide.permute(0, 1, 3, 2)).sigmoid()


class Ghost(Structure):
    """A ghost module (Han et al. 2020, arXiv 1911.11907): a convolution, cheap copies, and a slice of both."""

    out = 7

    def build(self) -> None:
        self.primary = nn.Conv2d(8, 4, 1)
        self.cheap = nn.Conv2d(4, 4, 3, padding=1, groups=4)

    def body(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)[:, :7]


class NextTo(Structure):
    """Efficient channel attention (Wang et al. 2020, arXiv 1910.03151): neighbouring channels mix, so all stay."""

    def build(self) -> None:
        self.conv = nn.Conv2d(8, 8, 1)
        self.line = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.last = nn.Conv2d(8, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = self.line(x.mean((2, 3)).unsqueeze(1)).transpose(-1, -2).unsqueeze(-1)
        return self.last(x * torch.sigmoid(gate))


class Pixels(Structure):
    """Pixels become channels and channels pixels (Shi et al. 2016, arXiv 1609.05158); strided slices side by side."""

    out = 4

    def build(self) -> None:
        self.focus = nn.Conv2d(32, 8, 1)
        self.up = nn.Conv2d(8, 16, 1)
        self.last = nn.Conv2d(4, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        return self.last(F.pixel_shuffle(self.up(torch.relu(self.focus(x))), 2))


class Folded(Structure):
    """Space to depth by views: a channel becomes four, side by side."""

    def build(self) -> None:
        self.conv = nn.Conv2d(32, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2)
        return self.conv(x)


class Pyramid(Structure):
    """A map made larger and joined with an earlier one (Ronneberger et al. 2015, arXiv 1505.04597)."""

    out = 8

    def build(self) -> None:
        self.down = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.same = nn.Conv2d(6, 6, 1)
        self.merge = nn.Conv2d(14, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        y = torch.relu(self.down(x))
        y = F.interpolate(y, scale_factor=2.0, mode="nearest") + F.interpolate(self.same(y), (6, 6), mode="bilinear")
        return self.merge(torch.cat([x, y], 1))


class Paths(Structure):
    """Residual branches that training drops for whole images (Huang et al. 2016, arXiv 1603.09382)."""

    def build(self) -> None:
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.drop = DropPath(0.5)

    def body(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + self.drop(torch.relu(conv(x)))
        return x


class DropPath(nn.Module):
    """As in many model collections: known by its name."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(1 - self.drop_prob)
        return x * kept / (1 - self.drop_prob)


STRUCTURES: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind
    for kind in (
        ShuffleV1, ShuffleV2, LinearGate, Cascade, Dense, NextBottleneck, ConvNext, FirstNorm, GroupNorms, LayerScale,
        Attention, FusedAttention, Transformer, Windows, Standardised, BlurPool, Slopes, ResponseNorm, GatedHalves,
        SpatialAttention, SplitAttention, Selective, Coordinates, Ghost, NextTo, Pixels, Folded, Pyramid, Paths,
    )
}  # fmt: skip


def structure(name: str, seed: int = 0) -> nn.Module:
    """Return one of the networks above with weights drawn from `seed`, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return lively(STRUCTURES[name](), seed)
