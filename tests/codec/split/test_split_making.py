import shutil
from pathlib import Path

import numpy as np
import pytest

from guarded_data import Guarded
from slimwright.codec.split.bundle import FILES, MANIFEST, Bundle, load_split
from slimwright.codec.split.making import split
from slimwright.codec.split.message import HEADER_BYTES
from slimwright.codec.split.sides import PhoneSide, ServerSide, outputs_in
from slimwright.errors import BundleError, RequestError
from slimwright.measure import original_of
from slimwright.tasks import Classification
from small_digits import few_digits, small_digit_net
from small_split import request, small_split


@pytest.fixture(scope="module")
def bundle(run_folder: Path, cache: Path) -> Bundle:
    return load_split(small_split(run_folder, cache))


def images() -> np.ndarray:
    found, _ = few_digits().parts["test"]
    return found.numpy()  # type: ignore[union-attr]


def test_a_bundle_holds_its_files_and_nothing_else(bundle: Bundle) -> None:
    assert {path.name for path in bundle.path.iterdir()} == set(FILES)


def test_what_is_measured_is_not_where_predictions_are(bundle: Bundle) -> None:
    said = bundle.manifest
    tried = [cut for cut in said.cuts if cut.measured is not None]
    assert len(said.cuts) == 2 and [cut.after for cut in tried] == [said.after]
    assert all(cut.predicted.message_bytes > HEADER_BYTES for cut in said.cuts)


def test_what_is_predicted_to_be_fastest_is_measured(bundle: Bundle) -> None:
    totals = {cut.after: cut.predicted.total_ms for cut in bundle.manifest.cuts}
    assert totals[bundle.manifest.after] == min(totals.values())


def test_both_sides_give_what_the_manifest_says(bundle: Bundle) -> None:
    phone, server = PhoneSide.of(bundle), ServerSide.of(bundle)
    messages = [phone.message([image[None]]) for image in images()]
    scores = np.concatenate([outputs_in(server.answer(one), bundle)[0] for one in messages])
    _, labels = few_digits().parts["test"]
    right = 100 * float((scores.argmax(1) == labels.numpy()).mean())  # type: ignore[union-attr]
    (ours, *_) = bundle.manifest.alternatives
    assert right == pytest.approx(ours.score)
    assert np.mean([len(one) for one in messages]) == pytest.approx(ours.sent_bytes)
    assert max(len(one) for one in messages) == ours.largest_bytes <= bundle.most_bytes


def test_other_ways_stand_beside_it(bundle: Bundle) -> None:
    ways = {way.kind: way for way in bundle.manifest.alternatives}
    assert list(ways) == ["split", "whole on the phone", "raw picture", "JPEG 4:2:0", "JPEG 4:4:4", "WebP"]
    assert ways["whole on the phone"].sent_bytes == 0
    assert ways["raw picture"].sent_bytes == np.prod(bundle.manifest.input_shape)
    assert ways["raw picture"].score == ways["whole on the phone"].score == bundle.manifest.original_score
    assert bundle.manifest.halves_error < 1e-6


def test_no_image_exceeds_the_cap(bundle: Bundle) -> None:
    phone, rng = PhoneSide.of(bundle), np.random.default_rng(0)
    for scale in (0.1, 1, 10, 1e3, 1e6):
        for image in rng.choice(images(), 20):
            hostile = image + scale * rng.standard_normal(image.shape).astype(np.float32)
            assert len(phone.message([hostile[None].astype(np.float32)])) <= bundle.most_bytes


def test_a_tight_cap_is_kept_what_it_costs_is_told_and_the_test_part_is_read_once(tmp_path: Path, cache: Path) -> None:
    data = Guarded(few_digits(), "test")
    original, task = original_of(small_digit_net(), []), Classification(data.labels)
    asked = request(cache, max_bytes=HEADER_BYTES + 1, candidates=1)
    made = split(original, data, task, asked, out=tmp_path / "out", tell=data.proof_begins)
    assert made.alternatives[0].largest_bytes <= HEADER_BYTES + 1
    assert made.drop > 10 and not made.within
    assert data.read.count("test") == 1 and data.read[-1] == "test"


@pytest.mark.parametrize("name", FILES)
def test_a_changed_or_missing_file_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    if name == MANIFEST:
        (copy / name).write_text("{}")
    with pytest.raises(BundleError):
        load_split(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError):
        load_split(copy)


@pytest.mark.parametrize("changed", [{"candidates": 0}, {"max_drop": 0.0}, {"max_bytes": 3}])
def test_a_request_that_makes_no_sense_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        request(None, **changed)
