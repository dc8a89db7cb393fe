"""How the agent and those who use it know each other, by a token that never travels.

A request is signed with HMAC-SHA256 (RFC 2104) over its method, its path, a nonce of the agent's that is good once, a
challenge of the client's, and the SHA-256 of its body. The answer is signed over the request's signature, its status
and the SHA-256 of its body: it can only come from who knows the token, and only be the answer to this very request.
What is sent can be read on the way; it cannot be changed, repeated or made up.
"""

import hashlib
import hmac
import secrets
import threading
import time

NONCE, CHALLENGE, BODY, SIGNATURE = (f"Slimwright-{name}" for name in ("Nonce", "Challenge", "Body", "Signature"))
NONCE_S = 60.0  # how long a nonce is good
LEAST_TOKEN = 16  # characters


def request_signature(token: str, request: tuple[str, str], nonce: str, challenge: str, body_sha256: str) -> str:
    """Sign a request, given as its method and its path."""
    return _signature(token, "request", *request, nonce, challenge, body_sha256)


def answer_signature(token: str, request_signed: str, status: int, body: bytes) -> str:
    """Sign the answer to a request, given by that request's signature."""
    return _signature(token, "answer", request_signed, str(status), sha256(body))


def same(one: str, other: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Nonces:
    """Nonces that are good once and for a while. Those that were given out are not kept, only those that were used."""

    def __init__(self) -> None:
        self._secret = secrets.token_hex(32)
        self._used: dict[str, float] = {}
        self._lock = threading.Lock()

    def fresh(self) -> str:
        """Return a new nonce."""
        stamp = f"{int(time.monotonic())}.{secrets.token_hex(16)}"
        return f"{stamp}.{_signature(self._secret, stamp)}"

    def take(self, nonce: str) -> bool:
        """Use up a nonce; False where it is not one of these, too old, or was used before."""
        stamp, _, signature = nonce.rpartition(".")
        if not same(signature, _signature(self._secret, stamp)):
            return False
        now = time.monotonic()
        given = int(stamp.partition(".")[0])
        with self._lock:
            self._used = {used: until for used, until in self._used.items() if until >= now}
            if now - given > NONCE_S or nonce in self._used:
                return False
            self._used[nonce] = given + NONCE_S
        return True


def _signature(key: str, *parts: str) -> str:
    return hmac.new(key.encode(), "\n".join(parts).encode(errors="replace"), hashlib.sha256).hexdigest()
