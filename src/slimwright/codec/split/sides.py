"""Both sides of a split as they run: the phone's from an image to a message, the server's from a message to outputs.

Outputs travel as safetensors, by their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from slimwright.codec.split.bundle import Bundle
from slimwright.codec.split.message import message, received
from slimwright.codec.split.records import Manifest
from slimwright.codec.split.uploads import normalization_of
from slimwright.data import Preprocessing, preprocessing_of
from slimwright.data.pictures import picture
from slimwright.errors import CodecError, DataError, RequestError
from slimwright.reading import text_of
from slimwright.runner.sessions.onnxruntime import Session
from slimwright.runtimes import Artefact

Array = NDArray[np.float32]
LEAST_TOKEN, MOST_TOKEN = 16, 4096  # characters
HEAD_BYTES = 2**14  # of an answer, beside its numbers


@dataclass(frozen=True)
class PhoneSide:
    """The phone's part of a bundle, loaded."""

    bundle: Bundle
    session: Session

    @classmethod
    def of(cls, bundle: Bundle) -> "PhoneSide":
        """Load the phone's part."""
        return cls(bundle, _session(bundle.phone))

    def message(self, inputs: Sequence[Array]) -> bytes:
        """Return the message for one image: an array [1, ...] for each input. Raises DataError for other shapes."""
        shapes = [one.shape for one in inputs]
        if shapes != [tuple(shape) for shape in self.bundle.phone.shapes]:
            raise DataError(f"the phone's part takes {list(self.bundle.phone.shapes)}; it was given {shapes}")
        given = self.session.run([np.ascontiguousarray(one, np.float32) for one in inputs])
        pairs = zip(given, self.bundle.tables, strict=True)
        values = tuple(one.reshape(of.components, of.places) for one, of in pairs)
        return message(values, self.bundle.tables, self.bundle.split_id, self.bundle.most_bytes)


@dataclass(frozen=True)
class ServerSide:
    """The server's part of a bundle, loaded."""

    bundle: Bundle
    session: Session

    @classmethod
    def of(cls, bundle: Bundle) -> "ServerSide":
        """Load the server's part."""
        return cls(bundle, _session(bundle.server))

    def answer(self, data: bytes) -> bytes:
        """Return the outputs for a message as bytes. Raises CodecError for one that is damaged or of another split."""
        bundle = self.bundle
        values = received(data, bundle.tables, bundle.split_id, bundle.most_bytes)
        pairs = zip(values, bundle.server.shapes, strict=True)
        outputs = self.session.run([value.reshape(shape) for value, shape in pairs])
        return safetensors.numpy.save({str(number): np.ascontiguousarray(one) for number, one in enumerate(outputs)})


def answer_bytes(bundle: Bundle) -> int:
    """Return the most bytes that an answer has."""
    return HEAD_BYTES + sum(8 * int(np.prod(shape)) for shape in bundle.server.output_shapes)


def outputs_in(data: bytes, bundle: Bundle) -> tuple[Array, ...]:
    """Return the outputs in an answer. Raises CodecError where it holds others than this split gives."""
    try:
        found = safetensors.numpy.load(data)
        outputs = tuple(found[str(number)] for number in range(len(bundle.server.output_shapes)))
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CodecError(f"the server's answer cannot be read: {error}; ask again") from error
    if [one.shape for one in outputs] != [tuple(shape) for shape in bundle.server.output_shapes]:
        raise CodecError(f"the server answered with shapes {[one.shape for one in outputs]}; it has another bundle")
    return outputs


def image_in(path: Path, said: Manifest) -> Array:
    """Return the picture in a file as the phone's part takes it [1, C, H, W]: prepared as the data of the split was.

    Raises DataError for a file that is no picture, and where it is not known how pictures become what the net reads.
    """
    numbers = normalization_of(said.preprocessing, said.input_shape)
    if numbers is None:
        raise DataError(
            "the data of this split did not say how pictures become what the net reads; use the bundle's files"
        )
    channels, height, width = said.input_shape
    how = preprocessing_of(said.preprocessing) or Preprocessing(
        height, width, channels="grey" if channels == 1 else "RGB", mean=numbers.mean, std=numbers.std
    )
    levels = torch.tensor(picture(path.parent, path, how)).float()
    found: Array = numbers.of(levels[None]).numpy()
    return found


def token_in(path: Path) -> str:
    """Return the secret in a file. Raises RequestError for one that is too short to be one."""
    token = text_of(path, "a file with a token", most=MOST_TOKEN).strip()
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise RequestError(f"{path} is not a token: it needs {LEAST_TOKEN} printable ASCII characters or more")
    return token


def _session(artefact: Artefact) -> Session:
    return Session(artefact.files, artefact.side("split", 0, 1))
