"""Sums of rank-one tensors (CP): found one by one, or all together under what a layer reads.

W~ = sum_r a_r x b_r x ..., the first mode the outputs', the others those of what an output reads.

- Without a metric: the greedy tensor power method. Each term comes from power iterations from a random start and is
  then subtracted, so |E_r|^2 = |E_r-1|^2 - lambda_r^2 (Astrid and Lee 2017, arXiv 1701.07148).
- Under a metric the start are whitened weights W' = F^1/2 W (L_1 x L_2 ...), where L_m is the Cholesky root of the
  covariance of input mode m alone: if C were the product of these, the error of the outputs would be the squared error
  of W'. The largest terms of a chain of SVDs of W' (TTr1SVD; Batselier, Liu and Wong 2015, arXiv 1407.1593) are
  improved by alternating least squares as if that were so, and then under C itself: the outputs' factor in closed form,
  the others by conjugate gradients, which the normal equations of that product precondition.

On trained 3x3 layers of 16 to 64 channels the error was, in the mean, a tenth below that of alternating from the power
method's terms (2026-11). Everything is computed in float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from slimwright.techniques.decompose import TINY, Metric

TOLERANCE, MOST_ROUNDS = 1e-4, 100  # 1e-6 moved the residuals of trained layers by 1 %, up or down (2026-11-21)
PLAIN_SWEEPS = 16  # as if the covariance were a product
SWEEPS, STEPS = 8, 2  # under the covariance itself; the last sweep lowers the error by 1 to 2 % (2026-11)
RIDGE = 1e-9  # of the mean diagonal of normal equations: terms may be alike
BOTH_STARTS = 100_000  # weights x terms up to which the power method's terms are tried as a start, too: milliseconds
FEW = 16  # terms at most: every rank is checked
CHECKED = (1 / 24, 1 / 8, 2 / 5)  # of the most terms; plans of trained nets took 0.05 to 0.5 of them (2026-11)
ALWAYS = 2  # of these are checked however long it takes
CHECK_FLOPS = 3e9  # for the sweeps at another: a tenth of a second


@dataclass(frozen=True)
class Polyadic:
    """W~ = sum_r of the outer products of the factors' columns r; the first factor is the outputs'."""

    factors: tuple[Tensor, ...]  # [n, R] for each mode

    @property
    def layers(self) -> tuple[Tensor, ...]:
        """The weights in the order in which they are applied, a row for each output."""
        return (*(factor.T for factor in self.factors[1:]), self.factors[0])

    def composed(self) -> Tensor:
        """Return the weights [O, D] that the layers make together."""
        return self.factors[0] @ products(self.factors[1:]).T

    def first(self, terms: int) -> "Polyadic":
        """Return the first terms alone."""
        return Polyadic(tuple(factor[:, :terms] for factor in self.factors))

    def balanced(self) -> "Polyadic":
        """Return the same terms, the factors of each alike in norm."""
        norms = torch.stack([factor.norm(dim=0) for factor in self.factors])  # [modes, R]
        shared = norms.prod(0).pow(1 / len(self.factors))
        pairs = zip(self.factors, norms, strict=True)
        return Polyadic(tuple(factor * (shared / norm.clamp_min(TINY)) for factor, norm in pairs))


def polyadic(tensor: Tensor, rank: int, metric: Metric | None = None, *, seed: int = 0) -> Polyadic:
    """Return `rank` terms for a tensor [O, S, ...], each one's factors alike in norm."""
    if metric is None:
        return power_method(tensor, rank, seed=seed)
    layer = _seen(tensor.double(), metric)
    found, _ = _best(layer, spectral_terms(layer.whitened, rank), sweeps=SWEEPS, seed=seed)
    return found.balanced()


def polyadic_errors(tensor: Tensor, rank: int, metric: Metric, pull: Tensor | None = None, *, seed: int = 0) -> Tensor:
    """Return the error [rank + 1] of `polyadic` at 0, 1, ... terms: exact at `CHECKED` ranks, predicted elsewhere.

    Between checked ranks it is a power of the rank. Before the first and behind the last it is in proportion to what
    the start's first terms lack of all `rank` terms; on trained layers within a sixth up to three quarters of the most
    terms (2026-11). Where sweeps at a checked rank would take long, there are fewer of them, and the error is an upper
    bound, or there are none. `pull` [D, O] is the covariance times the weights, where that is known.
    """
    layer = _seen(tensor.double(), metric, pull)
    start = spectral_terms(layer.whitened, rank)
    checked: dict[int, float] = {}
    shares = [terms / rank for terms in range(1, rank + 1)] if rank <= FEW else CHECKED
    for number, few in enumerate(dict.fromkeys(max(round(rank * share), 1) for share in shares)):
        sweeps = max(_affordable(layer, few), int(number < ALWAYS))
        if sweeps:
            checked[few] = _best(layer, start.first(few), sweeps=sweeps, seed=seed)[1]
    squares = start.factors[0].square().sum(0).cpu().numpy()  # of the terms, which are orthogonal
    lacking = np.append(squares[::-1].cumsum()[-2::-1], 0.0)  # [rank]
    errors = np.append(float(layer.nothing), _between(checked, np.maximum(lacking, TINY)))
    return torch.from_numpy(np.minimum.accumulate(errors)).to(tensor.device)


def _between(checked: Mapping[int, float], like: NDArray[np.float64]) -> NDArray[np.float64]:
    """The error at 1, 2, ... terms from that at some, and from numbers [rank] that it is in proportion to elsewhere."""
    ranks, known = np.arange(1, len(like) + 1), np.array(list(checked))
    errors = np.maximum(np.array(list(checked.values())), TINY)
    nearest = np.clip(ranks, known[0], known[-1])
    found: NDArray[np.float64] = np.exp(np.interp(np.log(ranks), np.log(known), np.log(errors)))
    return found * like / like[nearest - 1]


def power_method(tensor: Tensor, rank: int, *, seed: int = 0) -> Polyadic:
    """Return the terms that the greedy tensor power method finds one after the other, starting from `seed`.

    Its steps are many and small, so the processor takes them, wherever the tensor lies: 30 terms of a 3x3 layer of 64
    channels took 0.1 s there and 0.4 s on an H100, of 256 channels 1.0 and 0.5 s (our measurement of 2026-11-26).
    """
    left = tensor.double().flatten(1).to("cpu", copy=True)  # [O, D]
    generator = torch.Generator().manual_seed(seed)
    terms = []
    for _ in range(rank):
        vectors = _one_term(left, tensor.shape, generator)
        left.sub_(torch.outer(vectors[0], products([v[:, None] for v in vectors[1:]])[:, 0]))
        terms.append(vectors)
    modes = zip(*terms, strict=True)
    return Polyadic(tuple(torch.stack(mode, 1).to(tensor.device) for mode in modes)).balanced()


def spectral_terms(tensor: Tensor, rank: int) -> Polyadic:
    """Return the `rank` largest terms of a chain of SVDs, and zeros where there are fewer.

    The outputs are split off by one SVD, from each of its right vectors the next mode by another, and so on (TTr1SVD).
    Terms are orthogonal to each other, and all together are the tensor. The first factor holds their sizes.
    """
    sizes = tensor.shape
    outputs, size, rest = torch.linalg.svd(tensor.flatten(1), full_matrices=False)
    factors, rest = [outputs], rest * size[:, None]  # [n, terms] of each mode; [terms, what is left to split]
    for mode in range(1, len(sizes) - 1):
        split, size, rest = torch.linalg.svd(rest.reshape(len(rest), sizes[mode], -1), full_matrices=False)
        factors = [factor.repeat_interleave(size.shape[1], 1) for factor in factors]
        factors.append(split.movedim(1, 0).flatten(1))
        rest = (rest * size[:, :, None]).flatten(0, 1)
    size = rest.norm(dim=1)
    factors.append((rest / size.clamp_min(TINY)[:, None]).T)
    factors[0] = factors[0] * size
    largest = size.argsort(descending=True, stable=True)[:rank]
    missing = rank - len(largest)
    return Polyadic(tuple(F.pad(factor[:, largest], (0, missing)) for factor in factors))


def products(factors: Sequence[Tensor]) -> Tensor:
    """Return the column-wise Kronecker products (Khatri-Rao) [n_1 n_2 ..., R] of factors [n_i, R]."""
    found = factors[0]
    for factor in factors[1:]:
        found = (found[:, None] * factor).flatten(0, 1)
    return found


def _one_term(left: Tensor, shape: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """One vector for each mode: unit ones but the first, which holds the term's size.

    The inputs' vectors are updated one after the other from one contraction with the outputs' vector.
    """
    vectors = [_unit(torch.randn(size, generator=generator, dtype=torch.float64, device=left.device)) for size in shape]
    before = 0.0
    for _ in range(MOST_ROUNDS):
        inner = (_unit(vectors[0]) @ left).reshape(shape[1:])
        for mode in range(1, len(shape)):
            vectors[mode] = _unit(_contracted(inner, vectors[1:], mode - 1))
        vectors[0] = left @ products([v[:, None] for v in vectors[1:]])[:, 0]
        size = float(vectors[0].norm())
        if abs(size - before) <= TOLERANCE * size:
            break
        before = size
    return vectors


def _contracted(tensor: Tensor, vectors: Sequence[Tensor], free: int) -> Tensor:
    """The tensor times the vector of each mode but one."""
    moved = tensor.movedim(free, 0)
    for mode in reversed([m for m in range(len(vectors)) if m != free]):
        moved = moved @ vectors[mode]
    return moved


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm().clamp_min(TINY)
    return unit


@dataclass(frozen=True)
class _Seen:
    """A tensor under its metric, and where its terms are looked for first."""

    weight: Tensor  # [O, D]
    metric: Metric
    pull: Tensor  # [D, O], the covariance times the weights
    roots: tuple[Tensor, ...]  # [n_m, n_m] of each input mode, lower triangular: of its covariance alone
    whitened: Tensor  # [O, n_1, n_2, ...]

    @cached_property
    def nothing(self) -> Tensor:
        """The error of giving nothing."""
        return (self.metric.importance * (self.weight * self.pull.T).sum(1)).sum()

    def back(self, found: Polyadic) -> Polyadic:
        """Return terms of the whitened weights as terms of the weights."""
        outputs, *inputs = found.factors
        pairs = zip(inputs, self.roots, strict=True)
        solved = (torch.linalg.solve_triangular(root.T, factor, upper=True) for factor, root in pairs)
        return Polyadic((outputs / self.metric.importance.sqrt()[:, None], *solved))


def _seen(tensor: Tensor, metric: Metric, pull: Tensor | None = None) -> _Seen:
    sizes, whitened, roots = tensor.shape[1:], tensor, []
    for mode, size in enumerate(sizes):
        before, after = prod(sizes[:mode]), prod(sizes[mode + 1 :])
        alone = torch.einsum("aibajb->ij", metric.covariance.reshape(before, size, after, before, size, after))
        worth = metric.covariance.diagonal().mean() if mode == 0 else 1.0  # of all modes together: counted once
        roots.append(torch.linalg.cholesky(alone / alone.diagonal().mean() * worth))
        whitened = torch.tensordot(whitened, roots[mode], ([mode + 1], [0])).movedim(-1, mode + 1)
    whitened = whitened * metric.importance.sqrt().reshape(-1, *(1 for _ in sizes))
    weight = tensor.flatten(1)
    pull = metric.covariance @ weight.T if pull is None else pull
    return _Seen(weight, metric, pull, tuple(roots), whitened)


def _affordable(layer: _Seen, terms: int) -> int:
    """How many sweeps a checked rank gets."""
    flops = 2 * len(layer.metric.covariance) ** 2 * terms * STEPS * len(layer.roots)
    return min(SWEEPS, int(CHECK_FLOPS // flops))


def _best(layer: _Seen, start: Polyadic, *, sweeps: int, seed: int) -> tuple[Polyadic, float]:
    """As many terms as the start has, found under the metric, and their error."""
    rank, shape = start.factors[0].shape[1], layer.whitened.shape
    found = [_alternated(layer, layer.back(_plainly_alternated(layer.whitened, start)), sweeps)]
    if layer.weight.numel() * rank <= BOTH_STARTS:
        found.append(_alternated(layer, power_method(layer.weight.reshape(shape), rank, seed=seed), sweeps))
    return min(found, key=lambda entry: entry[1])


def _plainly_alternated(tensor: Tensor, start: Polyadic) -> Polyadic:
    """Alternating least squares for the squared error of the tensor itself."""
    weight, (outputs, *inputs) = tensor.flatten(1), start.factors
    for _ in range(PLAIN_SWEEPS):
        inputs = [factor / _sizes(factor) for factor in inputs]
        outputs = _solved(_overlaps(inputs), (weight @ products(inputs)).T).T
        pull, between = weight.T @ outputs, outputs.T @ outputs  # [D, R], [R, R]
        for mode in range(len(inputs)):
            overlaps = between * _overlaps([factor for m, factor in enumerate(inputs) if m != mode])
            inputs[mode] = _solved(overlaps, _gathered(pull, inputs, mode).T).T
    return Polyadic((outputs, *inputs))


def _alternated(layer: _Seen, start: Polyadic, sweeps: int) -> tuple[Polyadic, float]:
    """Alternating least squares under the covariance, and the error that is left; each sweep lowers it.

    The covariance times the terms' inputs is kept up to date, so that a step costs one product with it.
    """
    inputs = [factor / _sizes(factor) for factor in start.factors[1:]]
    seen = layer.metric.covariance @ products(inputs)  # [D, R]
    for _ in range(sweeps):
        outputs = _regressed(layer, products(inputs), seen)
        weighted = layer.metric.importance[:, None] * outputs
        target, between = layer.pull @ weighted, outputs.T @ weighted  # [D, R], [R, R]
        for mode in range(len(inputs)):
            inputs[mode], seen = _descended(layer, inputs, mode, target, between, seen)
        for mode, factor in enumerate(inputs):
            size = _sizes(factor)
            inputs[mode], seen = factor / size, seen / size
    basis = products(inputs)
    outputs = _regressed(layer, basis, seen)
    explained = 2 * layer.pull.T @ basis - outputs @ (basis.T @ seen)
    error = layer.nothing - (layer.metric.importance * (outputs * explained).sum(1)).sum()
    return Polyadic((outputs, *inputs)), float(error.clamp_min(0))


def _regressed(layer: _Seen, basis: Tensor, seen: Tensor) -> Tensor:
    """The outputs' factor [O, R] that is best for the terms' inputs `basis` [D, R]; importance does not matter here."""
    gram = basis.T @ seen
    return _solved((gram + gram.T) / 2, basis.T @ layer.pull, ridge=RIDGE / 10).T


def _descended(
    layer: _Seen, inputs: Sequence[Tensor], mode: int, target: Tensor, between: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor]:
    """One input factor [n, R] after some steps of conjugate gradients, and the covariance times all terms' inputs.

    `target` [D, R] is what the weights pull at, `between` [R, R] the outputs' products.
    """
    whitened = [root.T @ factor for root, factor in zip(layer.roots, inputs, strict=True)]
    overlaps = between * _overlaps([factor for m, factor in enumerate(whitened) if m != mode])

    def nearly(gradient: Tensor) -> Tensor:
        """The solution [n, R], were the covariance a product."""
        return _solved(overlaps, torch.cholesky_solve(gradient, layer.roots[mode]).T).T

    x, left = inputs[mode], _gathered(target - seen @ between, inputs, mode)
    scaled = nearly(left)
    direction, size = scaled, (left * scaled).sum()
    for _ in range(STEPS):
        moved = layer.metric.covariance @ products([*inputs[:mode], direction, *inputs[mode + 1 :]])
        bent = _gathered(moved @ between, inputs, mode)
        step = size / (direction * bent).sum().clamp_min(TINY)
        x, seen, left = x + step * direction, seen + step * moved, left - step * bent
        scaled = nearly(left)
        size, before = (left * scaled).sum(), size
        direction = scaled + size / before.clamp_min(TINY) * direction
    return x, seen


def _gathered(columns: Tensor, inputs: Sequence[Tensor], mode: int) -> Tensor:
    """Columns [D, R] times each term's inputs of all modes but one, [n, R]."""
    sizes = [len(factor) for factor in inputs]
    others = products([torch.ones_like(factor) if m == mode else factor for m, factor in enumerate(inputs)])
    return (columns * others).reshape(*sizes, -1).sum([m for m in range(len(sizes)) if m != mode])


def _overlaps(factors: Sequence[Tensor]) -> Tensor:
    """The inner products [R, R] of terms over some modes."""
    found = torch.ones((), dtype=torch.float64)
    for factor in factors:
        found = found * (factor.T @ factor)
    return found


def _solved(symmetric: Tensor, right: Tensor, *, ridge: float = RIDGE) -> Tensor:
    """Normal equations [R, R] solved for `right` [R, n]."""
    damping = ridge * symmetric.diagonal().mean().clamp_min(TINY)
    damped = symmetric + damping * torch.eye(len(symmetric), dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(damped, right)
    return solution


def _sizes(factor: Tensor) -> Tensor:
    """The norms [R] of its columns."""
    norms: Tensor = factor.norm(dim=0).clamp_min(TINY)
    return norms
