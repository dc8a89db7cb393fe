"""Nonces are good once and for a while; signatures cover everything."""

import hashlib
import hmac
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.runner.signing import NONCE_S, Nonces, answer_signature, request_signature, same, sha256

REQUEST = (("POST", "/job?seconds=5"), "nonce", "challenge", sha256(b"body"))


def test_a_nonce_is_good_once() -> None:
    nonces = Nonces()
    nonce = nonces.fresh()
    assert nonces.take(nonce)
    assert not nonces.take(nonce)
    assert nonces.take(nonces.fresh())


def test_a_nonce_is_good_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    nonces, now = Nonces(), time.monotonic()
    old, older = nonces.fresh(), nonces.fresh()
    monkeypatch.setattr(time, "monotonic", lambda: now + NONCE_S - 2)
    assert nonces.take(old)
    monkeypatch.setattr(time, "monotonic", lambda: now + NONCE_S + 2)
    assert not nonces.take(older)
    assert not nonces.take(old)  # forgotten by now, and too old


@given(st.text())
def test_what_was_never_given_out_is_no_nonce(text: str) -> None:
    nonces = Nonces()
    assert not nonces.take(text)
    assert not nonces.take(Nonces().fresh())
    assert not nonces.take(f"{text}{nonces.fresh()}x")


def test_a_signature_is_hmac_sha256_of_all_parts() -> None:
    expected = hmac.digest(
        b"token", f"request\nPOST\n/job?seconds=5\nnonce\nchallenge\n{REQUEST[3]}".encode(), "sha256"
    )
    assert request_signature("token", *REQUEST) == expected.hex()
    answer = f"answer\nsigned\n200\n{hashlib.sha256(b'body').hexdigest()}"
    assert answer_signature("token", "signed", 200, b"body") == hmac.digest(b"token", answer.encode(), "sha256").hex()


def test_every_part_changes_the_signature() -> None:
    request, given, challenge, body = REQUEST
    signed = {
        request_signature("token", request, given, challenge, body),
        request_signature("other", request, given, challenge, body),
        request_signature("token", ("GET", request[1]), given, challenge, body),
        request_signature("token", ("POST", "/about"), given, challenge, body),
        request_signature("token", request, "x", challenge, body),
        request_signature("token", request, given, "x", body),
        request_signature("token", request, given, challenge, "x"),
        answer_signature("token", "signed", 200, b""),
        answer_signature("token", "signed", 409, b""),
        answer_signature("token", "other", 200, b""),
        answer_signature("token", "signed", 200, b"x"),
    }
    assert len(signed) == 11


def test_strings_of_any_kind_compare() -> None:
    assert same("é", "é")
    assert not same("é", "e")
    assert not same("\udc80", "")
