"""How long a split takes: predicted by cut from the times of single layers, then measured in the runtime.

    total = phone's part + coding + round trip + bytes / uplink + decoding + server's part

The phone is what runs here, times a factor that is given; the server likewise. A prediction adds up the layers of a
part as they were timed one by one, scaled so that the whole net takes what it was measured to take. Predicted and
measured times stand in fields of their own.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from slimwright.codec.split.features import Tables, Values
from slimwright.codec.split.links import Link
from slimwright.codec.split.message import message, received
from slimwright.cost.latency import LatencyTable, shape_of
from slimwright.errors import RequestError
from slimwright.graph.net import Net

CODED = 32  # messages that are timed
ID = bytes(4)


@dataclass(frozen=True)
class Machines:
    """How much slower the phone, and how much faster the server, is than what runs here."""

    phone_slowdown: float = 1.0
    server_speedup: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("phone-slowdown", self.phone_slowdown), ("server-speedup", self.server_speedup)):
            if not 0 < value < float("inf"):
                raise RequestError(f"--{name} is a factor above 0, not {value:g}")


@dataclass(frozen=True)
class Times:
    """Milliseconds here, of each part of the work."""

    phone_ms: float
    encode_ms: float
    decode_ms: float
    server_ms: float

    def total_ms(self, machines: Machines, link: Link, size_bytes: float) -> float:
        """Return the milliseconds from an image to its answer, over a link."""
        phone = (self.phone_ms + self.encode_ms) * machines.phone_slowdown
        server = (self.decode_ms + self.server_ms) / machines.server_speedup
        return phone + link.transfer_ms(size_bytes) + server


def layers_ms(table: LatencyTable, nets: Sequence[Net]) -> list[float]:
    """Return the sum over the layers of each net, timed one by one."""
    shapes = [[shape_of(net, node) for node in net.weighted()] for net in nets]
    table.fill(shape for some in shapes for shape in some)
    return [sum(table.time(shape) for shape in some) for some in shapes]


def coding(values: Sequence[Values], tables: Sequence[Tables], most_bytes: int) -> tuple[list[bytes], float, float]:
    """Return the messages of some images, and the median milliseconds to make and to read the first of them."""
    messages, encode, decode = [], [], []
    for number, one in enumerate(values):
        began = time.perf_counter()
        messages.append(message(one, tables, ID, most_bytes))
        between = time.perf_counter()
        if number < CODED:
            received(messages[-1], tables, ID, most_bytes)
            encode.append(between - began)
            decode.append(time.perf_counter() - between)
    return messages, 1e3 * median(encode), 1e3 * median(decode)
