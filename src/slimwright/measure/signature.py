"""Sign a bundle with a key of one's own, and check the signature. Neither needs a network.

`bundle.sig` is what the package model-signing writes (OpenSSF Model Signing 1.0): a Sigstore bundle that holds a DSSE
envelope, and in it an in-toto statement with the SHA-256 of every file. The manifest is one of these files, and so what
was measured is part of what is signed; report.html and plots/ are as well. The signature is ECDSA, on P-256, P-384 or
P-521.

Stricter than the package by itself: it passes over Git's files and over whatever a statement says is to be ignored,
and takes several spellings of one signature. Here every file counts but bundle.sig, which must be spelled as written.
"""

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Base64Bytes, ConfigDict, Field
from pydantic.alias_generators import to_camel

from slimwright.atomic import replacing, swept
from slimwright.errors import BundleError, RequestError, check_extra
from slimwright.measure.bundle import SIGNATURE, load_bundle
from slimwright.measure.record import Record
from slimwright.reading import data_of, is_text, reading

if TYPE_CHECKING:
    from model_signing.manifest import Manifest as Digests

KEY_BYTES = 100_000  # of a key in PEM: the longest has less than a thousand
NAMED = 5  # of the files that differ
CURVES = "on the curve P-256, P-384 or P-521, in PEM"


def sign(bundle: Path, key: Path, password: bytes | None = None) -> list[str]:
    """Write `bundle.sig` into a bundle, and return the names of the files that it signs.

    Raises RequestError for what is not a private key, and BundleError for what is not a whole bundle of plain files.
    """
    _check_installed()
    from model_signing import signing

    _check_key(bundle, key, "a private key")
    load_bundle(bundle)
    swept(bundle)
    with reading(key, f"a private key {CURVES}", RequestError):
        signer = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
    with replacing(bundle / SIGNATURE) as temporary, reading(bundle, "a bundle that can be signed", BundleError):
        unsigned = (SIGNATURE, temporary.name)
        signer.set_hashing_config(_Every(bundle, unsigned)).sign(bundle, temporary)
        return sorted(_files(bundle, unsigned))


def check_signature(bundle: Path, key: Path) -> None:
    """Raise BundleError where a bundle is not the one that was signed with the private key to the public `key`.

    It says which files were changed, added or taken away. Nothing of the bundle is loaded.
    """
    _check_installed()
    from model_signing import verifying

    _check_key(bundle, key, "a public key")
    with reading(key, f"a public key {CURVES}", RequestError):
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    if not (bundle / SIGNATURE).exists():
        raise BundleError(f"{bundle} is not signed: {bundle / SIGNATURE} is missing")
    what = f"a signature made with the private key to {key}"
    with reading(bundle / SIGNATURE, what, BundleError):
        envelope = _envelope(bundle / SIGNATURE, what)
        verifier.set_hashing_config(_Every(bundle, (SIGNATURE,), envelope.payload))
        verifier.verify(bundle, bundle / SIGNATURE)


def is_encrypted(key: Path) -> bool:
    """Whether a private key can only be read with a password."""
    return b"ENCRYPTED" in data_of(key, "a private key in PEM", most=KEY_BYTES)


@dataclass(frozen=True)
class _Every:
    """What model-signing asks for digests, in place of its own settings: every file but the `unsigned` ones.

    It asks once the signature has been found to be that of the `statement`, which may be believed from then on.
    """

    bundle: Path
    unsigned: Collection[str]
    statement: bytes | None = None

    def add_ignored_paths(self, **_: object) -> None:
        """Ignore nothing, whatever a statement says."""

    def hash(self, _: Path, *, files_to_hash: object = None) -> "Digests":
        """Return the digest of each file. Raises BundleError where they are not those of the statement."""
        from model_signing import hashing

        assert files_to_hash is None
        every = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
        names = _files(self.bundle, self.unsigned)
        found = every.hash(self.bundle, files_to_hash=[self.bundle / name for name in names])
        if self.statement is not None:
            now = {each.identifier: each.digest.digest_hex for each in found.resource_descriptors()}
            resources = json.loads(self.statement)["predicate"]["resources"]
            _check_same(self.bundle, {each["name"]: each["digest"] for each in resources}, now)
        return found


def _check_same(bundle: Path, signed: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise BundleError, naming files, where the digests that were signed are not those of now."""
    said = [f"{name} is missing" for name in sorted(signed.keys() - now.keys())]
    said += [f"{name} was added" for name in sorted(now.keys() - signed.keys())]
    said += [f"{name} was changed" for name in sorted(signed.keys() & now.keys()) if signed[name] != now[name]]
    if said:
        more = [f"{len(said) - NAMED} more"] if len(said) > NAMED else []
        raise BundleError(f"{bundle} is not what was signed: {', '.join([*said[:NAMED], *more])}")


def _files(bundle: Path, unsigned: Collection[str]) -> list[str]:
    """The names of a bundle's files. Raises BundleError for links, pipes and devices, which could change unseen."""
    return [name for name in _plain_files(bundle) if name not in unsigned]


def _plain_files(bundle: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(bundle, onerror=_raised):
        for path in (Path(folder) / name for name in (*folders, *files)):
            mode = path.lstat().st_mode
            if not is_text(path.name):
                raise BundleError(f"{bundle} holds a file whose name is no text: {path.name!a}; rename it")
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                what = "a link" if stat.S_ISLNK(mode) else "a pipe or a device"
                raise BundleError(f"{path} is {what}; a signed bundle holds plain files alone")
            if stat.S_ISREG(mode):
                yield path.relative_to(bundle).as_posix()


def _raised(error: OSError) -> None:
    raise error


def _check_installed() -> None:
    check_extra("signing", "signatures of bundles need", "model_signing", "OpenSSL")


def _check_key(bundle: Path, key: Path, what: str) -> None:
    """Raise RequestError where a key is no small file, or lies in the bundle."""
    data_of(key, f"{what} {CURVES}", most=KEY_BYTES)
    if key.resolve().is_relative_to(bundle.resolve()):
        why = "goes wherever the bundle goes" if what == "a private key" else "is whoever's made the bundle"
        raise RequestError(f"{key} lies in the bundle and {why}; keep keys elsewhere")


class _Spelled(Record):
    """A part of the signature file."""

    model_config = ConfigDict(alias_generator=to_camel)


class _PublicKey(_Spelled):
    hint: str = Field(pattern="^[0-9a-f]{64}$")


class _Material(_Spelled):
    public_key: _PublicKey
    tlog_entries: list[str] = Field(max_length=0)


class _Signed(_Spelled):
    sig: Base64Bytes
    keyid: Literal[""]


class _Envelope(_Spelled):
    payload: Base64Bytes
    payload_type: str
    signatures: list[_Signed] = Field(min_length=1, max_length=1)


class _SignatureFile(_Spelled):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


def _envelope(path: Path, what: str) -> _Envelope:
    """The envelope in a signature file. Raises BundleError where a byte of the file could be otherwise."""
    data = data_of(path, what, BundleError)
    found = _SignatureFile.model_validate_json(data)
    if found.model_dump_json(by_alias=True).encode() != data:
        raise BundleError(f"{path} was changed after it was written; sign the bundle again")
    return found.dsse_envelope
