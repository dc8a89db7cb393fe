"""Changes at random to what a file holds: its bytes, or the values of a JSON document."""

import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63, 10**12, 10**400, 1e308, float("nan"), float("inf"), "", "\x00", "\x1b[31m",
    "../../outside", "/dev/zero", "\ud800", "<script>alert(1)</script>", "{{ 7 * 7 }}", "[/bold]", [], {}, [[[]]],
)  # fmt: skip
LARGE = (2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """Return the bytes with a change: in a value, where they are a JSON document, or anywhere."""
    if whole[:1] in (b"{", b"[") and chance.random() < 0.75:
        return _other_value(whole, chance)
    changed = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 8, 32))):
        at = chance.randrange(max(len(changed), 1))
        match chance.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[at : at + chance.choice((1, 7, 512))]
            case 2:
                changed[at:at] = changed[at : at + chance.choice((1, 7, 512))]
            case 3:
                changed[at : at + 8] = chance.choice(LARGE).to_bytes(8, chance.choice(("little", "big")))
            case _ if chance.random() < 0.1:
                del changed[at:]
    return bytes(changed)


def _other_value(whole: bytes, chance: random.Random) -> bytes:
    document = json.loads(whole)
    for _ in range(chance.choice((1, 1, 3))):
        holder, key = chance.choice(list(_places(document)) or [(document, None)])
        if key is None:
            continue
        if chance.random() < 0.15:
            del holder[key]
        else:
            holder[key] = chance.choice(ODD)
    return json.dumps(document).encode()


def _places(document: Any) -> Any:
    """Every container and key in a document."""
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield document, key
        yield from _places(document[key])
