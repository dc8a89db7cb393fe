"""`slimwright doctor`: a real net in real runtimes, and what is said of what was seen."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from slimwright.cli import app
from slimwright.cli.doctor_tables import diagnosed, diagnosis_data
from slimwright.errors import RequestError
from slimwright.graph import Net, save_net
from slimwright.importers import capture
from slimwright.jobs.doctor.examining import Diagnosis, Visit, examine, rewritten
from slimwright.jobs.doctor.swaps import swaps_of
from slimwright.jobs.doctor.symptoms import findings
from slimwright.jobs.doctor.widths import kinds, rounded_up, roundings, shapes_to_time
from slimwright.runner.sessions.session import Kernel
from slimwright.runtimes import Workshop
from slimwright.runtimes.fallbacks import Fallback
from slimwright.runtimes.known import installed
from slimwright.units import GAP

SHAPE = (3, 16, 16)
RUNTIME = "ncnn" if installed("ncnn") else "onnxruntime"  # the first converts faster


class Patient(nn.Module):
    """A response norm, a channel shuffle, hard swish, odd widths and a heavy linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.LocalResponseNorm(5)
        self.grouped, self.depthwise = nn.Conv2d(12, 12, 1, groups=2), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.fc = nn.Linear(12 * 256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x).relu())
        x = self.grouped(x).unflatten(1, (2, 6)).transpose(1, 2).flatten(1, 2)
        x = F.hardswish(self.depthwise(x))
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def patient() -> Net:
    torch.manual_seed(0)
    return capture(Patient().eval(), SHAPE)


@pytest.fixture(scope="module")
def diagnosis(patient: Net, workshop: Workshop) -> Diagnosis:
    return examine(patient, "patient", runtimes=[RUNTIME], workshop=workshop)


def listed(found: Diagnosis, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(diagnosed(found, width))
    return captured.get()


def said(found: Diagnosis, start: str) -> list[str]:
    return [finding.what for finding in findings(found) if finding.what.startswith(start)]


def test_a_net_that_converts_runs_and_is_equal_is_well(diagnosis: Diagnosis) -> None:
    (visit,) = diagnosis.visits
    assert visit.well and diagnosis.well and visit.kernels and not visit.why
    assert visit.error is not None and visit.error <= 1e-5
    assert visit.latency is not None and visit.latency.median_ms > 0
    assert visit.rewritten == {"lrn": ("div",)}


def test_swaps_are_timed_and_name_their_layers(diagnosis: Diagnosis, patient: Net) -> None:
    assert {tried.swap.name for tried in diagnosis.trials} == {swap.name for swap in swaps_of(patient)}
    assert all(tried.before_ms > 0 and tried.after_ms > 0 for tried in diagnosis.trials)


def test_layers_are_timed_as_they_are_and_rounded_up(diagnosis: Diagnosis) -> None:
    times = diagnosis.layer_ms[RUNTIME]
    assert set(times) == set(shapes_to_time(diagnosis.net))
    assert sum(kind.time_share for kind in kinds(diagnosis.net, times)) == pytest.approx(1)
    assert sum(kind.mac_share for kind in kinds(diagnosis.net, times)) == pytest.approx(1)


def test_the_linear_layer_that_holds_the_weights_is_named(diagnosis: Diagnosis) -> None:
    (heavy,) = (finding for finding in findings(diagnosis) if finding.what.startswith("linear layers hold"))
    assert heavy.nodes == ("fc",)
    held, others = 12 * 256 * 10, 3 * 12 * 9 + 12 * 6 + 12 * 9
    biases = 12 * 3 + 10
    assert f"{100 * held / (held + others + biases):.0f}{GAP}%" in heavy.what
    assert heavy.advice == "average over the image before the first of them"


@pytest.mark.parametrize("width", [80, 120])
def test_the_listing_fits_the_terminal(diagnosis: Diagnosis, width: int) -> None:
    text = listed(diagnosis, width)
    assert "patient: image 3x16x16" in text and RUNTIME in text and "→" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_the_data_is_json_and_tells_all(diagnosis: Diagnosis) -> None:
    data = json.loads(json.dumps(diagnosis_data(diagnosis), allow_nan=False))
    assert data["well"] and data["runtimes"][0]["equal"] and len(data["findings"]) == len(findings(diagnosis))


def test_a_swap_takes_out_what_it_names(patient: Net) -> None:
    without, plain, unshuffled = swaps_of(patient)
    assert without.name == "without its local response norms" and "lrn" not in {n.op for n in without.net.nodes}
    assert plain.name == "with ReLU for hard swish" and plain.net[plain.nodes[0]].op == "relu"
    assert unshuffled.nodes == ("flatten",) and "transpose" not in {n.op for n in unshuffled.net.nodes}
    assert all(swap.net[swap.net.outputs[0]].shape == (1, 10) for swap in (without, plain, unshuffled))


def test_channels_are_rounded_up_but_for_images_classes_and_groups(patient: Net) -> None:
    rounded = {(s.in_channels, s.out_channels): rounded_up(s, patient) for s in shapes_to_time(patient)}
    assert (rounded[3, 12].in_channels, rounded[3, 12].out_channels) == (3, 16)
    assert (rounded[3072, 10].in_channels, rounded[3072, 10].out_channels) == (3072, 10)
    shapes = {shape: float(index + 1) for index, shape in enumerate(shapes_to_time(patient))}
    found = {names for each in roundings(patient, shapes) for names in each.nodes}
    assert found == {"conv2d", "conv2d_2"}  # not the one in groups, not the classifier


def test_joined_values_of_very_different_sizes_are_named(diagnosis: Diagnosis) -> None:
    """From sixteen times on: four of eight bits are left for the smaller side."""

    class Joins(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.relu(), torch.sigmoid(x)], 1)

    net = capture(Joins(), SHAPE)
    (cat,) = (node for node in net.nodes if node.op == "concat")
    for times, bits in ((15.9, None), (16.0, 4), (100.0, 1), (1e4, 0)):
        found = replace(diagnosis, net=net, trials=(), layer_ms={}, visits=(), largest={"relu": times, "sigmoid": 1.0})
        named = [finding for finding in findings(found) if "in INT8" in finding.what]
        assert len(named) == (bits is not None)
        for finding in named:
            assert finding.what.startswith(f"values that are up to {times:,.0f} times larger")
            assert finding.what.endswith(f"the smaller ones {bits} of 8 bits") and finding.nodes == (
                net.paths.get(cat.name, cat.name),
            )


def test_what_is_put_otherwise_is_named_by_path(patient: Net) -> None:
    assert rewritten(patient, "ncnn") == {"lrn": ("div",)}


def failing(diagnosis: Diagnosis, visit: Visit) -> Diagnosis:
    return replace(diagnosis, visits=(visit,), trials=(), layer_ms={})


def test_what_does_not_convert_run_or_agree_is_told_first(diagnosis: Diagnosis) -> None:
    refused = Visit("mnn", "fp32", "no such operator", fallbacks=(Fallback("aten::roll", "conv2d"),))
    crashed = Visit("ncnn", "fp32", "killed by SIGSEGV", converted=True)
    wrong = Visit("ort", "int8", converted=True, ran=True, error=0.9)
    nan = Visit("onnxruntime", "fp16", converted=True, ran=True, error=float("nan"))
    for visit, words in (
        (refused, "mnn fp32: does not convert. no such operator"),
        (crashed, "ncnn fp32: converts, but does not run. killed by SIGSEGV"),
        (wrong, "ort int8: runs, but gives other scores. The largest error is 0.9"),
        (nan, "onnxruntime fp16: runs, but gives other scores. They are no numbers"),
    ):
        found = failing(diagnosis, visit)
        assert not found.well and findings(found)[0].grade == "broken" and findings(found)[0].what.startswith(words)
        json.dumps(diagnosis_data(found), allow_nan=False)
    assert findings(failing(diagnosis, refused))[0].nodes == ("stem",)


def test_operators_outside_the_fast_path_are_counted_by_kind(diagnosis: Diagnosis) -> None:
    names = {"conv2d": "native_layer_norm", "conv2d_1": "native_layer_norm", "linear": "elu"}
    left = tuple(Fallback(op, name) for name, op in names.items())
    found = failing(diagnosis, Visit("executorch", "fp32", converted=True, ran=True, error=0.0, fallbacks=left))
    assert said(found, "executorch") == [
        "executorch fp32: elu runs outside XNNPACK, once",
        "executorch fp32: native_layer_norm runs outside XNNPACK, 2 times",
    ]
    assert found.well


def test_kernels_that_are_no_layers_are_told_from_a_share_on(diagnosis: Diagnosis) -> None:
    kernels = (Kernel("a", "Convolution", 7.0), Kernel("b", "HardSwish", 2.5), Kernel("c", "Pooling", 0.5))
    visit = Visit("ncnn", "fp32", converted=True, ran=True, error=0.0, kernels=kernels)
    found = failing(diagnosis, visit)
    (slow,) = (finding for finding in findings(found) if finding.grade == "slow")
    assert slow.what == f"activations: 25{GAP}% in ncnn fp32, of the time" and slow.nodes == ("hardswish",)
    assert visit.other_share == pytest.approx(0.3)


def test_a_runtime_that_is_not_there_is_no_failure(diagnosis: Diagnosis) -> None:
    absent = Visit("ncnn", "fp32", "ncnn is not installed: pip install 'slimwright[ncnn]'", missing=True)
    found = replace(diagnosis, visits=(*diagnosis.visits, absent))
    assert found.well
    assert "pip install 'slimwright[ncnn]'" in listed(found, 80)


def test_wrong_requests_are_refused(patient: Net) -> None:
    with pytest.raises(RequestError, match="there is no runtime 'tflight'"):
        examine(patient, "patient", runtimes=["tflight"])
    with pytest.raises(RequestError, match="there is no precision 'int4'"):
        examine(patient, "patient", precisions=["int4"])


def test_the_command_line_gives_the_status(tmp_path: Path) -> None:
    save_net(capture(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), (3, 4, 4)), tmp_path / "net")
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "net"), "--runtime", RUNTIME, "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["runtimes"][0]["runtime"] == RUNTIME
