"""One observation by several processes: each takes every n-th batch, and their sums are added.

Workers are started afresh ("spawn"), each with one thread of torch. They are sent the net and the data set, and leave
their sums in files, which are read as any saved evidence is. A script that observes in parallel must guard its own
start with `if __name__ == "__main__"`, since workers import it.
"""

import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from math import prod
from multiprocessing import get_context, parent_process
from pathlib import Path

import safetensors.torch
import torch

from slimwright.data import Batch, Dataset, Part
from slimwright.errors import DataError, RequestError
from slimwright.evidence.observing import MEMORY_BYTES, Asked, key_of, observed
from slimwright.evidence.store import Checkpoint, load_evidence
from slimwright.evidence.sums import Evidence, merged
from slimwright.graph.net import Net
from slimwright.graph.store import load_net, save_net
from slimwright.progress import Event, Tell, silent

POLL_S = 0.2
BATCH, STOP = "batch-{}.safetensors", "stop"  # files of the shared folder; workers end where they find the second
MOST_BYTES = 2**30  # of images that are written to disk, so that they are read and decoded only once


def observe_in_parallel(
    net: Net,
    data: Dataset,
    part: Part,
    *,
    workers: int,
    batch_size: int = 64,
    seed: int = 0,
    taylor: bool = True,
    memory_bytes: float = MEMORY_BYTES,
    checkpoint: Path | None = None,
    tell: Tell = silent,
) -> Evidence:
    """Return what `observe` would of one part of a data set, on the CPU, by `workers` processes.

    Workers share `memory_bytes`. A part of up to 1 GB is read once and written for all of them; a larger one each of
    them reads, and the data set must be one that can be sent to another process. `checkpoint` is a folder in which they
    keep their sums until the end. Raises DataError where there are no images or they cannot be sent, and RequestError
    where a worker dies.
    """
    if workers < 1:
        raise RequestError(f"{workers} workers observe nothing; give 1 or more")
    with tempfile.TemporaryDirectory() as scratch:
        folder, kept = Path(scratch), checkpoint or Path(scratch)
        kept.mkdir(parents=True, exist_ok=True)
        save_net(net, folder)
        sent = _sent(data, part, batch_size, folder)
        works = []
        for number in range(workers):
            share = number, workers
            asked = Asked(len(data.labels), seed, taylor, memory_bytes / workers, share)
            sums = kept / f"sums-{number}-of-{workers}.safetensors"
            works.append(_Work(folder, asked, sent, part, batch_size, sums))
        _run(works, data.size(part), tell)
        found = merged(load_evidence(work.sums) for work in works)
    if not int(found.images.sum()):
        raise DataError(f"there are no {part} images to observe")
    if checkpoint is not None:
        for work in works:
            work.sums.unlink()
        if not any(checkpoint.iterdir()):
            checkpoint.rmdir()
    return found


@dataclass(frozen=True)
class _Work:
    """What one worker shall do."""

    folder: Path  # of the net, and of the batches where they were written
    asked: Asked
    data: Dataset | None  # None where the batches are in the folder
    part: Part
    batch_size: int
    sums: Path  # where they are to be left

    def batches(self) -> Iterator[Batch]:
        if self.data is not None:
            yield from self.data.batches(self.part, self.batch_size)
        for path in sorted(self.folder.glob(BATCH.format("*"))):
            batch = safetensors.torch.load_file(path)
            yield batch["images"], batch["labels"]

    @property
    def progress(self) -> Path:
        """A file with the number of images that are done."""
        return self.folder / f"done-{self.asked.share[0]}"

    def tell(self, event: Event) -> None:
        """Write how far the work is, and end it where nobody waits for it any more."""
        parent = parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)
        if (self.folder / STOP).exists():
            raise RequestError("another worker failed")
        self.progress.write_text(str(event.done))


def _work(work: _Work) -> None:
    """Observe a share, in a worker."""
    torch.set_num_threads(1)
    net = load_net(work.folder)
    kept = Checkpoint(work.sums, key_of(net, work.asked))
    kept.write(observed(net, work.batches(), work.asked, kept, tell=work.tell))


def _run(works: Sequence[_Work], images: int, tell: Tell) -> None:
    """Let workers work, and tell of their progress. Raises what the first one that fails raises."""
    with ProcessPoolExecutor(len(works), mp_context=get_context("spawn")) as pool:
        waiting, done = {pool.submit(_work, work) for work in works}, 0
        try:
            while waiting:
                ended, waiting = wait(waiting, POLL_S, return_when=FIRST_EXCEPTION)
                for future in ended:
                    future.result()
                done = max(done, sum(map(_done, works)))
                tell(Event("observe", done, images))
        except BrokenProcessPool as error:
            raise RequestError("a worker died, perhaps for want of memory; observe with fewer workers") from error
        finally:
            (works[0].folder / STOP).touch()


def _done(work: _Work) -> int:
    """Images that a worker is through with, as far as is known."""
    text = work.progress.read_text() if work.progress.exists() else ""
    return int(text) if text else 0


def _sent(data: Dataset, part: Part, batch_size: int, folder: Path) -> Dataset | None:
    """The data set as workers get it; or, where the part is small, none: its batches are then in the folder."""
    if 4 * data.size(part) * prod(data.image_shape) <= MOST_BYTES:
        for number, (images, labels) in enumerate(data.batches(part, batch_size)):
            batch = {"images": images.contiguous(), "labels": labels.contiguous()}
            safetensors.torch.save_file(batch, folder / BATCH.format(f"{number:08}"))
        return None
    try:
        pickle.dumps(data)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise DataError(
            f"data set '{data.name}' cannot be sent to other processes ({error}); observe in one"
        ) from error
    return data
