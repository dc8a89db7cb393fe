"""Sums over calibration images, by groups of classes: they add up over classes, and over images."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from torch import Tensor

from slimwright.errors import DataError
from slimwright.graph.net import Net
from slimwright.kept import write_tensors

FORMAT = "slimwright-evidence 3"


@dataclass(frozen=True)
class LayerSums:
    """Sums in float64 over what one layer reads: K class groups, G groups of D taps each, C input channels, O outputs.

    Positions are those of the output, each of which reads D taps; places are those of the input.
    """

    count: Tensor  # [K] positions seen
    total: Tensor  # [K, G, D] sum of x
    gram: Tensor  # [K, G, D, D] sum of x x^T
    magnitude: Tensor  # [K, C] sum of |x| over places
    places: Tensor  # [K] places seen
    fisher: Tensor  # [K, O] sum of squared loss gradients over positions
    zeros: Tensor  # [K, C] how many places are exactly zero
    taylor: Tensor  # [K, C] sum over images and calls of |sum over places of x dL/dx|


ROLES = tuple(field.name for field in fields(LayerSums))


def shapes_of(parts: int, taps: int, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each role's sums for one class group: `parts` groups of `taps`, and channels."""
    moments = (), (parts, taps), (parts, taps, taps)
    return dict(zip(ROLES, (*moments, (inputs,), (), (outputs,), (inputs,), (inputs,)), strict=True))


@dataclass(frozen=True)
class Evidence:
    """What was observed of one net, by K groups of classes: one for each class, or fewer where memory is short.

    A layer that is called several times has its sums over all calls, under the name of the first.
    """

    net_digest: str
    images: Tensor  # [K] images seen
    layers: Mapping[str, LayerSums]
    groups: tuple[tuple[int, ...], ...]  # the classes of each of the K groups
    taylor_images: Tensor  # [K] images that `taylor` was summed over: none where it was not asked for
    skipped: Mapping[str, str]  # layers that were not observed, and why

    def of(self, classes: Iterable[int]) -> "Evidence":
        """Return the evidence of some classes alone, added up; K becomes 1. No data is touched.

        Raises DataError for classes that were not observed, or only together with others.
        """
        wanted = set(classes)
        known = {label for group in self.groups for label in group}
        if not wanted or not wanted <= known:
            raise DataError(f"classes {sorted(wanted)} were not observed; there are {said(known)}")
        chosen = [place for place, group in enumerate(self.groups) if wanted & set(group)]
        for place in chosen:
            if rest := set(self.groups[place]) - wanted:
                raise DataError(
                    f"classes {said(self.groups[place])} were observed together, and {said(rest)} cannot be left out; "
                    "take whole groups, or observe again with more memory_bytes"
                )
        if len(self.groups) == 1:
            return self
        added = {name: _added(tensor, chosen) for name, tensor in self.tensors().items()}
        return self.with_tensors(added, (tuple(sorted(wanted)),))

    def all(self) -> "Evidence":
        """Return the evidence of all classes, added up."""
        return self.of(label for group in self.groups for label in group)

    def importance(self, layer: str) -> Tensor:
        """Return what squared errors of a layer's outputs [O] cost, in nats for each; K must be 1."""
        return 0.5 * self.layers[layer].fisher[0] / self.images[0]

    def covariance(self, layer: str) -> Tensor:
        """Return the covariance [G, D, D] of what a layer reads; K must be 1."""
        sums = self.layers[layer]
        mean = sums.total[0] / sums.count[0]
        return sums.gram[0] / sums.count[0] - mean[:, :, None] * mean[:, None]

    def summed_for(self, net: Net) -> "Evidence":
        """Return the evidence of all classes, added up. Raises DataError where it was observed on another net."""
        if self.net_digest != net.digest:
            raise DataError("this evidence was observed on another net; observe this one again")
        return self.all()

    def on(self, device: str) -> "Evidence":
        """Return the evidence with its sums on a device."""
        return self.with_tensors({name: t.to(device) for name, t in self.tensors().items()}, self.groups)

    def tensors(self) -> dict[str, Tensor]:
        """Return every sum: "images", "taylor_images", and "LAYER/ROLE" for each role of `LayerSums`."""
        every = {f"{name}/{role}": getattr(sums, role) for name, sums in self.layers.items() for role in ROLES}
        return {"images": self.images, "taylor_images": self.taylor_images, **every}

    def with_tensors(self, tensors: Mapping[str, Tensor], groups: tuple[tuple[int, ...], ...]) -> "Evidence":
        """Return the evidence with other sums, named as in `tensors()`, and the groups that they are of."""
        layers = {name: LayerSums(*(tensors[f"{name}/{role}"] for role in ROLES)) for name in self.layers}
        return replace(
            self, images=tensors["images"], taylor_images=tensors["taylor_images"], layers=layers, groups=groups
        )

    def save(self, path: Path, notes: Mapping[str, str] | None = None) -> None:
        """Write the sums as one safetensors file, replaced at once; `notes` become part of its metadata."""
        told = {
            "format": FORMAT,
            "net": self.net_digest,
            "groups": json.dumps(self.groups),
            "skipped": json.dumps(dict(self.skipped)),
        }
        write_tensors(path, self.tensors(), {**(notes or {}), **told})


def merged(parts: Iterable[Evidence]) -> Evidence:
    """Return the evidence of one net over all images of the parts, which have no image in common.

    One part at a time is looked at. Raises DataError where there are none, and where nets, groups of classes or layers
    differ.
    """
    whole: Evidence | None = None
    for part in parts:
        if whole is None:
            whole = part.with_tensors({name: t.clone() for name, t in part.tensors().items()}, part.groups)
            continue
        for what in ("net_digest", "groups", "skipped"):
            if getattr(part, what) != getattr(whole, what):
                raise DataError(f"evidence with different {what} cannot be merged; observe all parts in the same way")
        sums = part.tensors()
        for name, tensor in whole.tensors().items():
            tensor += sums[name]
    if whole is None:
        raise DataError("there is no evidence to merge")
    return whole


def said(classes: Iterable[int]) -> str:
    """Return classes as text: runs as "3 to 7"."""
    runs: list[list[int]] = []
    for label in sorted(classes):
        if runs and runs[-1][1] == label - 1:
            runs[-1][1] = label
        else:
            runs.append([label, label])
    return ", ".join(f"{first} to {last}" if first < last else f"{first}" for first, last in runs)


def _added(sums: Tensor, chosen: Sequence[int]) -> Tensor:
    """Some rows of [K, ...] as one, [1, ...]."""
    result = sums[chosen[0]].clone()
    for place in chosen[1:]:
        result += sums[place]
    return result[None]
