from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from slimwright.data import Batch, Part
from slimwright.errors import DataError, RequestError
from slimwright.evidence import Evidence, observe, observe_in_parallel
from slimwright.evidence.observing import MEMORY_BYTES, Asked, key_of, observed
from slimwright.evidence.store import Checkpoint
from slimwright.graph import Net
from slimwright.progress import Event


@dataclass(frozen=True)
class Noise:
    """A data set that is drawn anew, so that it can be sent anywhere; `nothing` can make that impossible."""

    count: int = 44
    broken: bool = False
    nothing: object = None
    name: str = "noise"
    labels: tuple[str, ...] = ("a", "b", "c")
    image_shape: tuple[int, int, int] = (1, 6, 6)
    preprocessing: Mapping[str, object] = field(default_factory=dict)

    def size(self, part: Part) -> int:
        return self.count

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        images = torch.randn(self.count, *self.image_shape, generator=torch.Generator().manual_seed(1))
        if self.broken:
            images[-1] = torch.nan
        yield from zip(images.split(batch_size), (torch.arange(self.count) % 3).split(batch_size), strict=True)


def assert_close(one: Evidence, other: Evidence) -> None:
    """To 1e-12 of the largest: only the order in which float64 sums are added differs."""
    assert one.tensors().keys() == other.tensors().keys() and one.groups == other.groups
    for name, tensor in one.tensors().items():
        wanted = other.tensors()[name]
        assert float((tensor - wanted).abs().max()) <= 1e-12 * float(wanted.abs().max()), name


def test_two_processes_find_what_one_does_and_go_on_from_what_was_kept(residual: Net, tmp_path: Path) -> None:
    """The second share was interrupted after 2 of 3 batches."""
    kept, told = tmp_path / "sums", list[Event]()
    asked = Asked(3, 5, memory_bytes=MEMORY_BYTES / 2, share=(1, 2))
    checkpoint = Checkpoint(kept / "sums-1-of-2.safetensors", key_of(residual, asked))
    kept.mkdir()
    first = list(Noise().batches("calibration", 8))[:4]
    checkpoint.write(observed(residual, first, asked, checkpoint))
    seen = observe_in_parallel(
        residual, Noise(), "calibration", workers=2, batch_size=8, seed=5, checkpoint=kept, tell=told.append
    )
    assert_close(seen, observe(residual, Noise().batches("calibration", 8), classes=3, seed=5))
    assert [e.done for e in told] == sorted(e.done for e in told) and (told[-1].done, told[-1].total) == (44, 44)
    assert not kept.exists()


def test_what_a_worker_raises_is_raised(residual: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the images itself, where they are too many to be written for it, and some are no numbers."""
    monkeypatch.setattr("slimwright.evidence.parallel.MOST_BYTES", 0)
    with pytest.raises(DataError, match="NaN"):
        observe_in_parallel(residual, Noise(broken=True), "calibration", workers=1)


def test_a_data_set_that_cannot_be_sent_is_refused(residual: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimwright.evidence.parallel.MOST_BYTES", 0)
    with pytest.raises(DataError, match=r"'noise' cannot be sent.*observe in one"):
        observe_in_parallel(residual, Noise(nothing=lambda: None), "calibration", workers=1)


@pytest.mark.parametrize("workers", [0, -2])
def test_no_workers_are_refused(residual: Net, workers: int) -> None:
    with pytest.raises(RequestError, match=f"{workers} workers"):
        observe_in_parallel(residual, Noise(), "calibration", workers=workers)
