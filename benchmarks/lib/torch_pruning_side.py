"""Channels by torch-pruning (Fang et al. 2023, arXiv 2301.12900), as its README uses it.

By its group magnitude or group Taylor importance, which rank channels within each group, within groups of like
structure ("isomorphic") or across the whole net ("global"): the latter two remove the same number of channels in all,
but other shares of the multiply-accumulates.
"""

import copy

import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

from slimwright.data import Labelled

IMPORTANCES = {"magnitude": tp.importance.GroupMagnitudeImportance, "Taylor": tp.importance.GroupTaylorImportance}
SCOPES = {"": (False, False), ", isomorphic": (True, True), ", global": (True, False)}  # -> global_pruning, isomorphic


def by_torch_pruning(model: nn.Module, batch: Labelled, removed: float, *, importance: str, scope: str) -> nn.Module:
    """Return a copy in eval mode without that share of its channels; the last linear layer gives as many classes.

    Taylor judges by the gradients that the weights hold: the model is given those of the batch, once.
    """
    across, isomorphic = SCOPES[scope]
    images, labels = batch
    if importance == "Taylor" and all(weight.grad is None for weight in model.parameters()):
        torch.autograd.backward(F.cross_entropy(model.eval()(images), labels))
    small = copy.deepcopy(model)
    for copied, weight in zip(small.parameters(), model.parameters(), strict=True):
        copied.grad = None if weight.grad is None else weight.grad.clone()
    tp.pruner.BasePruner(
        small,
        images[:1],
        importance=IMPORTANCES[importance](),
        global_pruning=across,
        isomorphic=isomorphic,
        pruning_ratio=removed,
        iterative_steps=1,
        ignored_layers=[[m for m in small.modules() if isinstance(m, nn.Linear)][-1]],
    ).step()
    small.zero_grad()
    return small.eval()
