"""A signed bundle is the one that was signed, to the last bit, or it is refused."""

import base64
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from typer.testing import CliRunner

from manifest_example import example_bundle
from slimwright.cli import app
from slimwright.errors import BundleError, RequestError
from slimwright.measure import SIGNATURE, check_signature, sign
from slimwright.reading import sha256_of

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def written(key: Key, folder: Path, password: bytes | None = None) -> Path:
    """The private key as private.pem, whose public one is public.pem."""
    folder.mkdir(exist_ok=True)
    hidden = BestAvailableEncryption(password) if password else NoEncryption()
    (folder / "private.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public)
    return folder / "private.pem"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    written(ec.generate_private_key(ec.SECP256R1()), folder)
    written(ec.generate_private_key(ec.SECP256R1()), folder / "other")
    return folder


@pytest.fixture(scope="module")
def kept(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle, with a page and a chart."""
    bundle = example_bundle(tmp_path_factory.mktemp("home") / "b")
    (bundle / "plots").mkdir()
    (bundle / "plots" / "memory.png").write_bytes(b"a chart")
    (bundle / "report.html").write_text("a page")
    (bundle / ".gitattributes").write_text("*.onnx filter=lfs")
    sign(bundle, keys / "private.pem")
    return bundle


@pytest.fixture
def signed(kept: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kept, tmp_path / "moved")


def names(bundle: Path) -> list[str]:
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())


def refused(bundle: Path, keys: Path) -> str:
    with pytest.raises(BundleError) as caught:
        check_signature(bundle, keys / "public.pem")
    return str(caught.value)


def test_a_bundle_that_was_moved_is_the_one_that_was_signed(signed: Path, keys: Path) -> None:
    check_signature(signed, keys / "public.pem")


def test_neither_signing_nor_checking_opens_a_connection(
    signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("socket", "getaddrinfo", "create_connection"):
        monkeypatch.setattr(f"socket.{name}", None)
    sign(signed, keys / "private.pem")
    check_signature(signed, keys / "public.pem")


def test_the_statement_holds_the_digest_of_every_file_and_so_what_was_measured(signed: Path) -> None:
    envelope = json.loads((signed / SIGNATURE).read_text())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    digests = {each["name"]: each["digest"] for each in statement["predicate"]["resources"]}
    assert digests == {name: sha256_of(signed / name) for name in names(signed) if name != SIGNATURE}
    assert "manifest.json" in digests


def test_one_bit_of_any_file_is_seen(signed: Path, keys: Path) -> None:
    for name in names(signed):
        if name == SIGNATURE:
            continue
        whole = (signed / name).read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        (signed / name).write_bytes(flipped)
        assert refused(signed, keys) == f"{signed} is not what was signed: {name} was changed"
        (signed / name).write_bytes(whole)
    check_signature(signed, keys / "public.pem")


def test_one_bit_of_the_signature_is_seen(signed: Path, keys: Path) -> None:
    """Wherever it is: also in what the signature itself does not cover."""
    whole = (signed / SIGNATURE).read_bytes()
    rng = random.Random(0)
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        (signed / SIGNATURE).write_bytes(flipped)
        assert str(signed / SIGNATURE) in refused(signed, keys), place


@pytest.mark.parametrize(
    "how", [lambda whole: whole[:500], lambda whole: whole + b"\n", lambda _: b"", lambda _: b"[]"]
)
def test_a_damaged_signature_is_refused(how: Callable[[bytes], bytes], signed: Path, keys: Path) -> None:
    (signed / SIGNATURE).write_bytes(how((signed / SIGNATURE).read_bytes()))
    assert str(signed / SIGNATURE) in refused(signed, keys)


@pytest.mark.parametrize("name", ["plots/more.png", ".hidden", ".gitignore", "net/.git/hooks/post-checkout"])
def test_one_file_more_is_refused(name: str, signed: Path, keys: Path) -> None:
    (signed / name).parent.mkdir(parents=True, exist_ok=True)
    (signed / name).write_text("more")
    assert refused(signed, keys) == f"{signed} is not what was signed: {name} was added"


def test_one_file_less_is_refused(signed: Path, keys: Path) -> None:
    for name in names(signed):
        (signed / name).rename(signed.parent / "away")
        said = refused(signed, keys)
        missing = f"{signed} is not what was signed: {name} is missing"
        unsigned = f"{signed} is not signed: {signed / name} is missing"
        assert said == (unsigned if name == SIGNATURE else missing)
        (signed.parent / "away").rename(signed / name)


def test_many_changes_are_counted(signed: Path, keys: Path) -> None:
    for number in range(9):
        (signed / f"{number}.txt").write_text("more")
    assert refused(signed, keys).endswith("3.txt was added, 4.txt was added, 4 more")


def test_the_signature_of_another_key_is_refused(signed: Path, keys: Path) -> None:
    assert refused(signed, keys / "other").startswith(
        f"{signed / SIGNATURE} is not a signature made with the private key to {keys / 'other' / 'public.pem'}"
    )


def test_the_signature_of_another_bundle_is_refused(signed: Path, keys: Path, tmp_path: Path) -> None:
    other = example_bundle(tmp_path / "other")
    (other / "report.html").write_text("another page")
    sign(other, keys / "private.pem")
    shutil.copyfile(other / SIGNATURE, signed / SIGNATURE)
    assert "report.html was changed" in refused(signed, keys)


def test_a_statement_that_ignores_files_is_not_followed(signed: Path, keys: Path) -> None:
    """As another program may have written it, with the right key."""
    from model_signing import hashing, signing

    (signed / SIGNATURE).unlink()
    config = signing.Config().use_elliptic_key_signer(private_key=keys / "private.pem")
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE, "plots"]))
    config.sign(signed, signed / SIGNATURE)
    said = refused(signed, keys)
    assert ".gitattributes was added" in said and "plots/memory.png was added" in said


def test_model_signing_itself_takes_what_was_signed(signed: Path, keys: Path) -> None:
    from model_signing import hashing, verifying

    (signed / ".gitattributes").unlink()  # which it passes over
    sign(signed, keys / "private.pem")
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys / "public.pem")
    verifier.set_hashing_config(hashing.Config().set_ignored_paths(paths=[signed / SIGNATURE]))
    verifier.verify(signed, signed / SIGNATURE)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_links_and_pipes_are_neither_signed_nor_taken(kind: str, signed: Path, keys: Path, tmp_path: Path) -> None:
    strange = signed / "net" / "net.json"
    strange.rename(tmp_path / "net.json")
    if kind == "link":
        strange.symlink_to(tmp_path / "net.json")
    elif kind == "folder":
        (tmp_path / "net.json").rename(strange)
        (signed / "more").symlink_to(tmp_path)
        strange = signed / "more"
    else:
        (tmp_path / "net.json").rename(strange)
        strange = signed / "pipe"
        os.mkfifo(strange)
    what = "a pipe or a device" if kind == "pipe" else "a link"
    said = f"{strange} is {what}; a signed bundle holds plain files alone"
    assert refused(signed, keys) == said
    before = (signed / SIGNATURE).read_bytes()
    with pytest.raises(BundleError) as caught:
        sign(signed, keys / "private.pem")
    assert str(caught.value) == said
    assert (signed / SIGNATURE).read_bytes() == before and not list(signed.glob(".*.part"))


def test_what_is_no_whole_bundle_is_not_signed(signed: Path, keys: Path) -> None:
    (signed / "model.onnx").write_bytes(b"1")
    with pytest.raises(BundleError, match=r"model\.onnx is missing or is not the file that was proven"):
        sign(signed, keys / "private.pem")


def test_keys_that_are_no_keys_are_refused(signed: Path, keys: Path, tmp_path: Path) -> None:
    long = written(rsa.generate_private_key(65537, 2048), tmp_path / "rsa")
    (tmp_path / "text.pem").write_text("no key")
    for key in (long, tmp_path / "text.pem", tmp_path / "none.pem", keys / "public.pem", tmp_path):
        with pytest.raises(RequestError, match="a private key on the curve P-256"):
            sign(signed, key)
    for key in (tmp_path / "rsa" / "public.pem", tmp_path / "text.pem", keys / "private.pem"):
        with pytest.raises(RequestError, match="a public key on the curve P-256"):
            check_signature(signed, key)


def test_a_key_within_the_bundle_is_refused(signed: Path, keys: Path) -> None:
    for name in ("private.pem", "public.pem"):
        shutil.copyfile(keys / name, signed / name)
    with pytest.raises(RequestError, match="lies in the bundle and goes wherever"):
        sign(signed, signed / "private.pem")
    with pytest.raises(RequestError, match="lies in the bundle and is whoever"):
        check_signature(signed, signed / "public.pem")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_a_key_with_a_password_on_a_longer_curve(curve: ec.EllipticCurve, signed: Path, tmp_path: Path) -> None:
    key = written(ec.generate_private_key(curve), tmp_path / "keys", b"secret")
    with pytest.raises(RequestError, match="private key"):
        sign(signed, key, b"guess")
    done = CliRunner().invoke(app, ["sign", str(signed), "--key", str(key)], input="secret\n")
    assert done.exit_code == 0 and "secret" not in done.output, done.output
    check_signature(signed, tmp_path / "keys" / "public.pem")


def test_a_bundle_with_another_page_is_refused_until_it_is_signed_again(signed: Path, keys: Path) -> None:
    (signed / "report.html").write_text("another page")
    assert "report.html was changed" in refused(signed, keys)
    assert sign(signed, keys / "private.pem") == [name for name in names(signed) if name != SIGNATURE]
    check_signature(signed, keys / "public.pem")
