"""Inputs changed at random: a value of a JSON document for one that no writer writes, bytes for other bytes.

Seeds are fixed in the suite; `FUZZ_SEED` and `FUZZ_TIMES` in the surroundings vary and multiply them.
"""

import copy
import json
import os
import random
from collections.abc import Iterator
from typing import Any

SEED, TIMES = os.environ.get("FUZZ_SEED", "0"), int(os.environ.get("FUZZ_TIMES", "1"))
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**9, 10**400, -(2**63), 0.0, -0.0, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"), "", "\x00", "\x1b[2J", "../../etc/passwd", "/dev/zero", "\ud800",
    "a" * 9999,
    "<script>alert(1)</script>", "{{ 7 * 7 }}", "[/foo]", "\u202ecod.exe", [], {}, [[]], [None] * 99, {"": None},
)  # fmt: skip
BYTES = (0, 1, 0x7F, 0x80, 0xFF)


def numbered(cases: int) -> Iterator[random.Random]:
    """A source of chance for each case; more of them where the surroundings ask for that."""
    for number in range(cases * TIMES):
        yield random.Random(f"{SEED}-{number}")


def places(value: Any) -> list[tuple[Any, ...]]:
    """Every place in a JSON document, the containers too."""
    found: list[tuple[Any, ...]] = [()]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        found += [(key, *place) for place in places(item)]
    return found


def with_changes(document: Any, chance: random.Random) -> Any:
    """A JSON document in which up to three places are changed, left out, doubled or put elsewhere."""
    changed = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        *before, last = chance.choice(places(changed)[1:] or [("",)])
        inner = changed
        for key in before:
            inner = inner[key]
        if not isinstance(inner, dict | list) or last == "":
            continue
        match chance.randrange(6):
            case 0:
                del inner[last]
            case 1 if isinstance(inner, list):
                inner.insert(last, copy.deepcopy(inner[last]))
            case 1 | 2:
                other = changed
                for key in chance.choice(places(document)):
                    other = other[key] if isinstance(other, dict) and key in other else other
                inner[last] = copy.deepcopy(other)
            case _:
                inner[last] = copy.deepcopy(chance.choice(HOSTILE))
    return changed


def as_text(document: Any, chance: random.Random) -> bytes:
    """A document as JSON, sometimes nested deeply or cut short."""
    text = json.dumps(document)
    if chance.random() < 0.02:
        text = "[" * 100_000 + text
    data = text.encode()
    return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.05 else data


def with_other_bytes(data: bytes, chance: random.Random) -> bytes:
    """Bytes of which some are changed, cut off, left out, put in or doubled."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        match chance.randrange(6):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at] = chance.choice(BYTES)
            case 2:
                del changed[at : at + chance.choice((1, 4, 64))]
            case 3:
                changed[at:at] = bytes(chance.choice(BYTES) for _ in range(chance.choice((1, 4, 64))))
            case 4:
                changed[at : at + 8] = chance.choice((2**31, 2**62, 2**63, 2**64 - 1)).to_bytes(8, "little")
            case _:
                if chance.random() < 0.2:
                    del changed[at:]
    return bytes(changed)
