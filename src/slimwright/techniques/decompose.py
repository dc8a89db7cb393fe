"""Weights as products of thinner ones: pairs of matrices and Tucker cores. `polyadic.py` has sums of rank-one tensors.

Plainly, a decomposition minimises the squared error of the weights. Under a `Metric`, what the layer reads and how much
each output matters, it minimises the squared error of the outputs,

    sum_o importance_o E[((W - W~)_o x)^2] = tr F (W - W~) C (W - W~)^T,    F = diag(importance), C = E[x x^T]

- A pair W~ = A B of rank R is exact in both cases: with U the R leading eigenvectors of F^1/2 W C W^T F^1/2,
  B = U^T F^1/2 W and A = F^-1/2 U (reduced-rank regression, Izenman 1975; without a metric, the truncated SVD).
- Tucker's form with two modes, outputs and inputs (Kim et al. 2016, arXiv 1511.06530), starts from the SVD of each mode
  and alternates between the two. Under a metric the output mode is a pair as above, the input mode again least squares.
  With the input mode alone (`InputPair`) all outputs are kept.

Everything is computed in float64. W has a row for each output; its columns run over input channels, then kernel taps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import scipy.linalg
import torch
from torch import Tensor

TUCKER_ROUNDS = 3
SWEEPS, STEPS = 8, 5  # of the least squares; twice the steps gained less than two more sweeps did (2026-11-21)
GAIN = 5e-3  # of the error: a sweep that lowers it by less is the last
SOLVED_TAPS = 1152  # weights of an output up to which what reads fewer directions is solved for all of them
TINY = 1e-200


@dataclass(frozen=True)
class Metric:
    """What a layer reads, covariance C [D, D], positive definite; what its outputs are worth, importance [O] > 0."""

    covariance: Tensor
    importance: Tensor

    def error(self, difference: Tensor) -> float:
        """Return the squared output error of weights that are off by `difference` [O, D]."""
        return float((self.importance[:, None] * difference * (difference @ self.covariance)).sum())


@dataclass(frozen=True)
class Pair:
    """W~ = second @ first."""

    first: Tensor  # [R, D]
    second: Tensor  # [O, R]

    @property
    def layers(self) -> tuple[Tensor, ...]:
        """The weights in the order in which they are applied, a row for each output."""
        return self.first, self.second

    def composed(self) -> Tensor:
        """Return the weights [O, D] that the layers make together."""
        return self.second @ self.first


@dataclass(frozen=True)
class Tucker2:
    """W~[o, s, p] = sum_qr outputs[o, q] core[q, r, p] inputs[s, r]."""

    inputs: Tensor  # [S, R_in]
    core: Tensor  # [R_out, R_in, taps]
    outputs: Tensor  # [O, R_out]

    @property
    def layers(self) -> tuple[Tensor, ...]:
        """The weights in the order in which they are applied, a row for each output."""
        return self.inputs.T, self.core, self.outputs

    def composed(self) -> Tensor:
        """Return the weights [O, D] that the layers make together."""
        return self.outputs @ torch.einsum("qrp,sr->qsp", self.core, self.inputs).flatten(1)


@dataclass(frozen=True)
class InputPair:
    """W~[o, s, p] = sum_r core[o, r, p] inputs[s, r]."""

    inputs: Tensor  # [S, R]
    core: Tensor  # [O, R, taps]

    @property
    def layers(self) -> tuple[Tensor, ...]:
        """The weights in the order in which they are applied, a row for each output."""
        return self.inputs.T, self.core

    def composed(self) -> Tensor:
        """Return the weights [O, D] that the layers make together."""
        return torch.einsum("orp,sr->osp", self.core, self.inputs).flatten(1)


def low_rank_pair(weight: Tensor, rank: int, metric: Metric | None = None) -> Pair:
    """Return the best pair of this rank for `weight` [O, D]; both halves of a term have the same norm."""
    scale = torch.ones(len(weight), dtype=torch.float64) if metric is None else metric.importance.sqrt()
    scaled = weight.double() * scale[:, None]
    leading = _leading(_outer(scaled, metric), rank)
    first, second = leading.T @ scaled, leading / scale[:, None]
    ratio = (first.norm(dim=1).clamp_min(TINY) / second.norm(dim=0)).sqrt()
    return Pair(first / ratio[:, None], second * ratio)


def pair_errors(weight: Tensor, metric: Metric, pull: Tensor | None = None) -> Tensor:
    """Return the error [min(O, D) + 1] of the best pair of each rank from 0, where nothing is left.

    `pull` [D, O] is the covariance times the weights, where that is known.
    """
    scaled = weight.double() * metric.importance.sqrt()[:, None]
    outer = _outer(scaled, metric) if pull is None else (scaled @ pull) * metric.importance.sqrt()
    values = torch.linalg.eigvalsh(outer).clamp_min(0)  # ascending
    tails = torch.cat([torch.zeros(1, dtype=torch.float64), values.cumsum(0)]).flip(0)  # [O + 1]
    return tails[: min(weight.shape) + 1] - tails[min(weight.shape)]


def input_errors(tensor: Tensor, metric: Metric, pull: Tensor | None = None) -> Tensor:
    """Return the error [S + 1] of a tensor [O, S, taps] that reads the leading 0, 1, ... directions of its channels.

    The directions are the best ones if the covariance were a product of one over channels and one over taps; what
    reads them is solved under the covariance as it is. On trained layers 0 to 13 % above what `tucker2` found
    (2026-11-21). Of layers of more than `SOLVED_TAPS` that is solved for half of the directions; the errors of more are
    those under the product, times the last ratio of the two. `pull` is that of `pair_errors`.
    """
    channels, taps = tensor.shape[1:]
    covariance = metric.covariance.reshape(channels, taps, channels, taps)
    of_channels = torch.linalg.cholesky(torch.einsum("sptp->st", covariance))
    of_taps = torch.linalg.cholesky(torch.einsum("spsq->pq", covariance))
    whole, scale = tensor.double(), metric.importance.sqrt()
    whitened = torch.einsum("osp,st,pq->toq", whole * scale[:, None, None], of_channels, of_taps).flatten(1)
    sizes, leading = torch.linalg.eigh(whitened @ whitened.T)
    directions = torch.linalg.solve(of_channels.T, leading.flip(1))  # [S, S]
    solved = channels if channels * taps <= SOLVED_TAPS else channels // 2
    pull = metric.covariance @ whole.flatten(1).T if pull is None else pull
    explained = _explained(metric, directions[:, :solved], pull * scale)
    nothing = (metric.importance * (whole.flatten(1) * pull.T).sum(1)).sum()
    errors = nothing - torch.cat([explained.new_zeros(1), explained.cumsum(0)])
    tails = sizes.clamp_min(0).cumsum(0).flip(0)  # what is left under the product [S], from no direction on
    beyond = torch.cat([tails[solved + 1 :], tails.new_zeros(1)]) / tails[min(solved, channels - 1)].clamp_min(TINY)
    return torch.cat([errors, errors[-1] * beyond[: channels - solved]]).clamp_min(0)


def _explained(metric: Metric, directions: Tensor, pull: Tensor) -> Tensor:
    """What reading each direction [S, R] adds, those before it read already: [R]; `pull` is [D, O]."""
    channels, rank = directions.shape
    narrow = torch.einsum("spo,sr->rpo", pull.reshape(channels, -1, pull.shape[1]), directions).flatten(0, 1)
    root = torch.linalg.cholesky(_reduced(metric, directions).covariance)
    solved: Tensor = torch.linalg.solve_triangular(root, narrow, upper=False)
    return solved.square().sum(1).reshape(rank, -1).sum(1)


def tucker2(tensor: Tensor, ranks: tuple[int, int], metric: Metric | None = None) -> Tucker2:
    """Return Tucker's form of a tensor [O, S, taps] with `ranks` of inputs and of outputs."""
    whole = tensor.double()
    of_inputs, of_outputs = ranks
    inputs = _leading(_outer(whole.movedim(1, 0).flatten(1)), of_inputs)
    outputs = _leading(_outer(whole.flatten(1)), of_outputs)
    for _ in range(TUCKER_ROUNDS):
        outputs = _leading(_outer(torch.einsum("osp,sr->orp", whole, inputs).flatten(1)), of_outputs)
        inputs = _leading(_outer(torch.einsum("osp,oq->sqp", whole, outputs).flatten(1)), of_inputs)
    found = Tucker2(inputs, torch.einsum("osp,oq,sr->qrp", whole, outputs, inputs), outputs)
    return found if metric is None else _alternated_tucker(found, whole.flatten(1), metric)


def _outer(rows: Tensor, metric: Metric | None = None) -> Tensor:
    """Return rows C rows^T."""
    return (rows if metric is None else rows @ metric.covariance) @ rows.T


def _leading(symmetric: Tensor, rank: int) -> Tensor:
    """The eigenvectors [n, rank] of the largest eigenvalues, largest first."""
    size = len(symmetric)
    if symmetric.device.type != "cpu":
        _, every = torch.linalg.eigh(symmetric)
        leading: Tensor = every[:, size - rank :].flip(1)
        return leading
    _, vectors = scipy.linalg.eigh(symmetric.numpy(), subset_by_index=[size - rank, size - 1])
    return torch.from_numpy(vectors).flip(1)


def _alternated_tucker(found: Tucker2, weight: Tensor, metric: Metric) -> Tucker2:
    """Output and input mode in turn: the one in closed form, the other by least squares."""
    channels, taps = found.inputs.shape[0], found.core.shape[2]
    pull = metric.covariance @ weight.T  # [D, O]
    coarse = metric.covariance.float()  # for steps that are not taken to their end
    nothing = float((metric.importance * (weight * pull.T).sum(1)).sum())
    inputs, best, error = found.inputs, found, math.inf
    for _ in range(SWEEPS):
        reduced = _reduced(metric, inputs)
        narrow = torch.einsum("spo,sr->rpo", pull.reshape(channels, taps, -1), inputs).flatten(0, 1)  # [R_in taps, O]
        pair = low_rank_pair(torch.linalg.solve(reduced.covariance, narrow).T, found.outputs.shape[1], reduced)
        best = Tucker2(inputs, pair.first.reshape(found.core.shape), pair.second)
        before, error = error, nothing - reduced.error(pair.composed())  # the pair is a projection
        if error > (1 - GAIN) * before:
            break
        inputs = _solved_inputs(best, pull, metric, coarse)
    return best


def _reduced(metric: Metric, inputs: Tensor) -> Metric:
    """The metric of a layer that reads what `inputs` [S, R_in] makes of the channels."""
    channels, rank = inputs.shape
    taps = len(metric.covariance) // channels
    by_tap = metric.covariance.reshape(channels, taps, channels, taps).permute(1, 3, 2, 0)  # [taps, taps, S, S]
    half = (inputs.T @ by_tap).transpose(2, 3)  # [taps, taps, S, R_in]
    narrow = (inputs.T @ half).permute(2, 0, 3, 1).reshape(rank * taps, rank * taps)
    return Metric((narrow + narrow.T) / 2, metric.importance)


def _solved_inputs(found: Tucker2, pull: Tensor, metric: Metric, coarse: Tensor) -> Tensor:
    """The input mode, moved towards its least-squares solution while core and outputs stand.

    `coarse` is the metric's covariance in float32.
    """
    weighted = metric.importance[:, None] * found.outputs  # [O, R_out]
    between = found.outputs.T @ weighted
    sizes = (len(found.inputs), found.core.shape[2], -1)

    def spread(inputs: Tensor) -> Tensor:  # [S, R_in] -> [D, R_out]
        return torch.einsum("qrp,sr->spq", found.core, inputs).flatten(0, 1)

    def gathered(columns: Tensor) -> Tensor:  # [D, R_out] -> [S, R_in]
        return torch.einsum("qrp,spq->sr", found.core, columns.reshape(sizes))

    spreads = torch.einsum("qrp,qv,vrp->pr", found.core, between, found.core)  # [taps, R_in]
    return _descended(
        found.inputs,
        gathered(pull @ weighted),
        lambda inputs: gathered((coarse @ spread(inputs).float()).double() @ between),
        metric.covariance.diagonal().reshape(sizes[:2]) @ spreads,
    )


def _descended(start: Tensor, target: Tensor, curvature: Callable[[Tensor], Tensor], diagonal: Tensor) -> Tensor:
    """Some steps of conjugate gradients towards the x where `curvature(x)` is `target`; each lowers the error.

    `diagonal` is that of the curvature, by which the steps are scaled.
    """
    diagonal = diagonal.clamp_min(1e-12 * float(diagonal.max()) + TINY)
    x, left = start, target - curvature(start)
    scaled = left / diagonal
    direction, size = scaled, (left * scaled).sum()
    for _ in range(STEPS):
        bent = curvature(direction)
        step = size / (direction * bent).sum().clamp_min(TINY)
        x, left = x + step * direction, left - step * bent
        scaled = left / diagonal
        size, before = (left * scaled).sum(), size
        direction = scaled + size / before.clamp_min(TINY) * direction
    return x
