"""A data set that raises where a part of it is read that nobody may read yet."""

from collections.abc import Iterator, Mapping

from slimwright.data import Batch, Dataset, Part
from slimwright.progress import Event


class Trespass(AssertionError):
    """A part of the data was read that was closed."""


class Guarded:
    """A data set with closed parts. `read` names the part of each pass, in order."""

    def __init__(self, data: Dataset, *closed: Part) -> None:
        self._data, self._closed = data, set(closed)
        self.read: list[Part] = []

    @property
    def name(self) -> str:
        """As of the data behind it."""
        return self._data.name

    @property
    def labels(self) -> tuple[str, ...]:
        """As of the data behind it."""
        return self._data.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """As of the data behind it."""
        return self._data.image_shape

    @property
    def preprocessing(self) -> Mapping[str, object]:
        """As of the data behind it."""
        return self._data.preprocessing

    def size(self, part: Part) -> int:
        """How many images a part has, which anybody may know."""
        return self._data.size(part)

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Read a part. Raises Trespass where it is closed."""
        if part in self._closed:
            raise Trespass(f"the {part} part was read")
        self.read.append(part)
        return self._data.batches(part, batch_size, seed=seed)

    def proof_begins(self, event: Event) -> None:
        """Open the test part where a job tells that its final proof begins."""
        if event.stage == "prove":
            self._closed.discard("test")
