"""Torch's tensors as the bits that packed files hold, and back."""

import numpy as np
import torch
from torch import Tensor

from slimwright.swz.forms import Like, Stored, bits, smallest
from slimwright.swz.hashed import Hashed
from slimwright.swz.planes import Words


def like_of(values: Tensor) -> Like:
    """Return the dtype and shape of a tensor."""
    return Like(str(values.dtype).removeprefix("torch."), tuple(values.shape))


def words_of(values: Tensor) -> Words:
    """Return the bits of a tensor's numbers [n] as unsigned whole numbers."""
    flat = values.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().view(like_of(values).word)


def tensor_of(words: Words, like: Like) -> Tensor:
    """Return the tensor whose numbers have these bits [n]."""
    octets = torch.from_numpy(np.array(words).view(np.uint8))
    return octets.view(getattr(torch, like.dtype)).reshape(like.shape)


def stored(values: Tensor, base: Tensor | None = None, by_hash: Hashed | None = None) -> Stored:
    """Return a tensor in its smallest form; `base` is one that the reader has, `by_hash` how values may follow."""
    like = like_of(values)
    return smallest(words_of(values), like, _before(base, like), by_hash)


def restored(form: str, data: bytes, like: Like, base: Tensor | None = None) -> Tensor:
    """Return the tensor in these bytes. Raises ModelError where they are not such, or need a base's that is missing."""
    return tensor_of(bits(form, data, like, _before(base, like)), like)


def _before(base: Tensor | None, like: Like) -> Words | None:
    """Return the bits [n] of a base's tensor, if there is one of this dtype and shape."""
    return words_of(base) if base is not None and like_of(base) == like else None
