"""Few digits whose test part ends the process that reads it, once."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slimwright.data import ArrayData, Batch, Part


@dataclass(frozen=True)
class Dying(ArrayData):
    """As an `ArrayData`. Of the processes but the one that made it, the first that reads the test part dies of it."""

    marker: Path = Path()
    maker: int = 0

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield a part, or end the process."""
        if part == "test" and os.getpid() != self.maker:
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                return super().batches(part, batch_size, seed=seed)
            os._exit(7)
        return super().batches(part, batch_size, seed=seed)
