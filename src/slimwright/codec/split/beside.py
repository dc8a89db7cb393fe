"""What could be done instead of a split, measured alike: the whole net on the phone, or the picture sent to the server.

A picture is sent as it is, or as JPEG or WebP at the lowest quality that the metric allows on validation images. The
server then runs the whole net.
"""

from dataclasses import dataclass

from slimwright.codec.split.job import Job
from slimwright.codec.split.judging import Judge
from slimwright.codec.split.timing import Times
from slimwright.codec.split.uploads import KINDS, lowest_quality, normalization_of, pictures_of, raw_bytes, uploaded
from slimwright.data.normalization import Normalization
from slimwright.progress import Event

STAGE = "look beside"
ON_PHONE, RAW, SPLIT = "whole on the phone", "raw picture", "split"


@dataclass(frozen=True)
class Way:
    """One way to an answer, whatever the link is: what it sends, how long its parts take here, and its metric."""

    kind: str
    times: Times
    score: float
    sent_bytes: float = 0.0
    file_bytes: float = 0.0
    largest_bytes: int = 0
    quality: int | None = None
    sends: bool = True  # False: the link plays no part


def ways_beside(job: Job, last: Judge, whole_ms: float) -> list[Way]:
    """Return the other ways; `last` judges on the test part, and the whole net takes `whole_ms`."""
    data, tell = job.data, job.tell
    on_server = Times(0.0, 0.0, 0.0, whole_ms)
    found = [Way(ON_PHONE, Times(whole_ms, 0.0, 0.0, 0.0), last.score, sends=False)]
    numbers = normalization_of(data.preprocessing, data.image_shape)
    if numbers is None or len(job.net.inputs) > 1:
        return found
    size = raw_bytes(data.image_shape)
    found.append(Way(RAW, on_server, last.score, size, size, size))
    for place, kind in enumerate(KINDS):
        tell(Event(STAGE, place, len(KINDS), kind))
        found.append(_sent_as(job, kind, last, numbers, whole_ms))
    tell(Event(STAGE, len(KINDS), len(KINDS)))
    return found


def _sent_as(job: Job, kind: str, last: Judge, numbers: Normalization, whole_ms: float) -> Way:
    judge = job.judge
    pictures = pictures_of(judge.inputs, numbers)

    def within(quality: int) -> bool:
        sent = uploaded(kind, quality, pictures, numbers)
        return job.within(judge.drop(judge.original.forward(sent.pictures)))

    quality = lowest_quality(within)
    sent = uploaded(kind, quality, pictures_of(last.inputs, numbers), numbers)
    score = last.task.score(last.original.forward(sent.pictures), last.targets)
    times = Times(0.0, *sent.coding_ms, whole_ms)
    return Way(kind, times, score, sent.bytes, sent.file_bytes, sent.most_bytes, quality)
