import random

import pytest
import torch

from slimwright.codec import packets
from slimwright.codec.decoding import decoded
from slimwright.codec.encoding import Aim, Encoded, Options, encoded
from slimwright.codec.packets import MARK
from slimwright.codec.parameters import parameters
from slimwright.codec.picturing import psnr_of, source_of
from slimwright.errors import CodecError
from slimwright.progress import silent
from small_pictures import drawn

SHARED = parameters()


@pytest.fixture(scope="module")
def made() -> Encoded:
    return encoded(source_of(drawn(192, 192)), SHARED, Aim(quality=28), Options(64, copies=2), silent)


def parts(data: bytes) -> list[bytes]:
    """The packets of a file whose bytes hold the mark nowhere else."""
    return [MARK + one for one in data.split(MARK)[1:]]


def test_the_order_of_packets_does_not_matter(made: Encoded) -> None:
    found = parts(made.data)
    assert len(found) == 9 + 2
    random.Random(0).shuffle(found)
    assert torch.equal(decoded(b"".join(found), SHARED, silent).picture, made.picture)


def test_a_lost_tile_costs_that_tile_alone(made: Encoded) -> None:
    found = parts(made.data)
    lost = decoded(b"".join(found[:5] + found[6:]), SHARED, silent)
    assert lost.concealed == (4,) and lost.tiles == 9
    for one, other in zip(lost.numbers.bands.high, made.numbers.bands.high, strict=True):
        side = one.shape[-1] // 3
        one[..., side : 2 * side, side : 2 * side] = other[..., side : 2 * side, side : 2 * side]
        assert torch.equal(one, other)
    tile = (slice(None), slice(64, 128), slice(64, 128))
    assert psnr_of(lost.picture[tile], made.picture[tile]) > 10
    assert psnr_of(lost.picture[:, :, :48], made.picture[:, :, :48]) > 25  # wavelets reach over the border


def test_a_changed_byte_costs_its_tile(made: Encoded) -> None:
    data = bytearray(made.data)
    data[len(data) // 2] ^= 16
    assert len(decoded(bytes(data), SHARED, silent).concealed) == 1


def test_what_arrived_of_a_file_that_was_cut_is_shown(made: Encoded) -> None:
    found = decoded(made.data[: len(made.data) // 2], SHARED, silent)
    assert 0 < len(found.concealed) < found.tiles and found.picture.shape == made.picture.shape


def test_the_second_head_is_as_good(made: Encoded) -> None:
    assert torch.equal(decoded(b"".join(parts(made.data)[1:]), SHARED, silent).picture, made.picture)


def test_without_a_head_or_a_tile_there_is_no_picture(made: Encoded) -> None:
    head, *rest = parts(made.data)
    with pytest.raises(CodecError, match="no tile"):
        decoded(head, SHARED, silent)
    with pytest.raises(CodecError, match="no whole head"):
        decoded(rest[0], SHARED, silent)


def test_other_parameters_are_told(made: Encoded) -> None:
    other = dict(SHARED.tensors)
    other["filter_bias0"] = other["filter_bias0"] + 1
    with pytest.raises(CodecError, match="--parameters"):
        decoded(made.data, type(SHARED)(other), silent)


def test_tiles_of_another_picture_are_left_alone(made: Encoded) -> None:
    other = encoded(source_of(drawn(64, 192, seed=5)), SHARED, Aim(quality=20), Options(64), silent)
    assert torch.equal(decoded(made.data + parts(other.data)[1], SHARED, silent).picture, made.picture)


def test_marks_without_packets_are_passed_over_at_once(made: Encoded) -> None:
    hostile = (MARK + bytes([packets.VERSION << 4]) + b"\xff\xff\xff\x03") * 20_000
    assert torch.equal(decoded(hostile[:2000] + made.data, SHARED, silent).picture, made.picture)
    with pytest.raises(CodecError):
        packets.read(hostile)


@pytest.mark.parametrize("size", [(60_000, 60_000), (0, 5), (30_000, 1000)])
def test_a_head_claims_no_more_than_its_bytes_can_hold(size: tuple[int, int]) -> None:
    head = packets.Head(*size, 512, 30, (100, 0, 0, 0), SHARED.checksum)
    with pytest.raises(CodecError, match="claims"):
        packets.read(packets.written(head, [], 1))
