"""What deployments of the same classes share: evidence of a subset is a sum of what was observed once."""

import torch

from slimwright.data import of_classes
from slimwright.evidence import observe
from slimwright.jobs.fleet.ground import evidence_of
from slimwright.measure import kept_to, original_of
from slimwright.tasks import Classification
from small_digits import few_digits, small_digit_net

PLACES = (7, 1, 4)


def test_evidence_of_some_classes_is_that_of_their_images_but_for_the_loss() -> None:
    net, data = small_digit_net(), few_digits()
    every = observe(net, data.batches("calibration", 64), task=Classification(data.labels), taylor=False)
    cut, some = kept_to(original_of(net, []), PLACES).net, of_classes(data, PLACES)
    task = Classification(some.labels)
    found = evidence_of(every, cut, task, PLACES)
    again = observe(cut, some.batches("calibration", 64), task=task, taylor=False).all()
    assert found.net_digest == cut.digest and found.layers.keys() == again.layers.keys()
    assert torch.equal(found.images, again.images)
    for name, sums in again.layers.items():
        mine = found.layers[name]
        for role in ("count", "total", "gram", "magnitude", "zeros"):
            expected = getattr(sums, role)
            assert torch.allclose(getattr(mine, role), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        assert mine.fisher.shape == sums.fisher.shape
        assert bool((mine.fisher >= 0).all()) and float(mine.fisher.sum()) > 0


def test_evidence_of_all_classes_is_all_of_it() -> None:
    net, data = small_digit_net(), few_digits()
    task = Classification(data.labels)
    every = observe(net, data.batches("calibration", 64), task=task, taylor=False)
    assert torch.equal(evidence_of(every, net, task, ()).images, every.all().images)
