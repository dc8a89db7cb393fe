import pytest
import torch

from slimwright.codec.adapting import adaptable, applied, own_parameters
from slimwright.codec.decoding import decoded
from slimwright.codec.encoding import Aim, Options, encoded
from slimwright.codec.overfitting import Effort, overfitted_to
from slimwright.codec.parameters import parameters
from slimwright.codec.picturing import source_of
from slimwright.errors import CodecError
from slimwright.progress import silent
from small_pictures import drawn

SHARED = parameters()


def test_differences_come_back_from_their_bytes() -> None:
    chance = torch.Generator().manual_seed(0)
    differences = {}
    for place, name in enumerate(adaptable(SHARED)):
        whole = torch.randint(-3, 4, SHARED.tensors[name].shape, generator=chance).float()
        differences[name] = whole if place % 3 else torch.zeros_like(whole)
    own = applied(differences, SHARED)
    found = own_parameters(own.own, SHARED)
    assert all(torch.equal(found.tensors[name], own.tensors[name]) for name in own.tensors)


def test_a_picture_without_its_own_has_the_shared_ones() -> None:
    assert own_parameters(b"", SHARED) is SHARED
    assert applied({}, SHARED).own == b""


def test_damaged_differences_are_refused() -> None:
    with pytest.raises(CodecError, match="send it again"):
        own_parameters(b"\xf0\xf0\x01", SHARED)


def test_fitting_to_a_picture_saves_more_than_it_takes() -> None:
    source, aim = source_of(drawn(192, 192, seed=3)), Aim(quality=34)
    plain = encoded(source, SHARED, aim, Options(), silent)
    made = overfitted_to(source, SHARED, aim, Options(), Effort(iterations=50), silent)
    assert made.head.own and len(made.data) < 0.99 * len(plain.data) and made.psnr > plain.psnr - 0.1
    assert torch.equal(decoded(made.data, SHARED, silent).picture, made.picture)
