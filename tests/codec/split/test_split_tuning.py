from pathlib import Path

import pytest
import torch

from slimwright.codec.split.bottleneck import transform_of
from slimwright.codec.split.cuts import cuts
from slimwright.codec.split.judging import Judge
from slimwright.codec.split.moments import moments
from slimwright.codec.split.rates import Bottleneck, coarsest, coarsest_by_damage, damage, quantized
from slimwright.codec.split.tuning import Tuning, drop_of, tuned
from slimwright.data import calibration_inputs
from slimwright.errors import ModelError
from slimwright.measure import original_of
from slimwright.progress import silent
from slimwright.tasks import Classification
from small_digits import few_digits, small_digit_net

COARSE = 4  # quarters of an octave


@pytest.fixture(scope="module")
def judge() -> Judge:
    data = few_digits()
    return Judge.of(original_of(small_digit_net(), []), data, Classification(data.labels), "validation")


@pytest.fixture(scope="module")
def bottleneck(judge: Judge) -> Bottleneck:
    net, (first, *_) = small_digit_net(), cuts(small_digit_net())
    seen = moments(net, first.values, few_digits().batches("calibration", 64), judge.task, images=130)
    return Bottleneck.of(net, first, [transform_of(seen[name]) for name in first.values])


def test_a_coarser_step_does_more_damage_and_one_is_found_for_a_damage(bottleneck: Bottleneck) -> None:
    components = bottleneck.components(calibration_inputs(few_digits()))
    harm = [damage(components, exponent) for exponent in range(-40, 20, 4)]
    assert harm == sorted(harm)
    found = coarsest_by_damage(components, 0.5)
    assert damage(components, found) <= 0.5 < damage(components, found + 1)


def test_a_fitted_bottleneck_gives_what_rounding_does(bottleneck: Bottleneck, judge: Judge) -> None:
    components = bottleneck.components(calibration_inputs(few_digits()))
    fitted = bottleneck.kept(small_digit_net(), components, -8)
    kept = judge.drop(bottleneck.outputs(quantized(bottleneck.components(judge.inputs), -8)))
    assert drop_of(fitted, judge) == pytest.approx(kept, abs=1.0)  # but for components that calibration never sends


def test_training_makes_up_for_a_coarse_step_is_kept_and_leaves_the_phone_alone(
    bottleneck: Bottleneck, judge: Judge, tmp_path: Path
) -> None:
    components = bottleneck.components(calibration_inputs(few_digits()))
    fitted = bottleneck.kept(small_digit_net(), components, coarsest_by_damage(components, 0.1) + COARSE)
    made = tuned(fitted, small_digit_net(), judge, Tuning(0.1, few_digits(), tmp_path), silent)
    assert drop_of(made, judge) < drop_of(fitted, judge)
    assert made.phone is fitted.phone and made.tables is fitted.tables
    assert made.server.digest != fitted.server.digest
    again = tuned(fitted, small_digit_net(), judge, Tuning(0.1, few_digits(), tmp_path), silent)
    assert again.server.digest == made.server.digest and [path.suffix for path in tmp_path.iterdir()] == [
        ".safetensors"
    ]
    assert torch.equal(made.phone.run(judge.inputs)[0], fitted.phone.run(judge.inputs)[0])


@pytest.mark.parametrize("limit", [-13, -1, 0, 1, 2, 3, 4, 9, 30])
@pytest.mark.parametrize("first", [-20, 0, 7])
def test_the_coarsest_step_that_is_allowed_is_found_from_anywhere(limit: int, first: int) -> None:
    assert coarsest(lambda exponent: exponent <= limit, first) == limit


def test_no_step_is_told_where_none_is_allowed() -> None:
    with pytest.raises(ModelError, match="--max-drop"):
        coarsest(lambda _: False, 0)
