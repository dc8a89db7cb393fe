"""A size that is asked for is met, by the price of a bit; what cannot be met says how small it would be."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slimwright.cost import AIM
from slimwright.cost.budget import size_asked
from slimwright.errors import BudgetError, RequestError
from slimwright.graph import save_net
from slimwright.jobs.packing import fitted, scores
from slimwright.measure import original_of
from slimwright.progress import Event
from slimwright.storage import packed_bytes, read_packed
from slimwright.tasks import Classification
from slimwright.techniques import fold_batch_norm
from slimwright.techniques.fitting import Fitted, _next_price
from slimwright.techniques.memory_plan import solving_bytes
from slimwright.techniques.solver.draft import Draft
from slow import slow
from small_digits import few_digits, small_digit_net


@pytest.mark.parametrize("times", [8, slow(12), slow(16), slow(20), 30])
def test_the_size_that_is_asked_for_is_met_within_one_per_cent(times: int) -> None:
    net, data = small_digit_net(), few_digits()
    asked = 4 * sum(tensor.numel() for tensor in net.tensors.values()) / times
    found = fitted(net, data, Classification(data.labels), asked, images=64)
    assert 0.99 * asked <= found.size_bytes <= asked and found.size_bytes == packed_bytes(found.net)
    judged = scores(original_of(net, []), found.net, data, Classification(data.labels))
    assert judged.validation[1] > judged.validation[0] - (4 if times == 8 else 25 if times <= 20 else 100)
    assert judged.test[0] > 80


@pytest.mark.parametrize(("images", "solved_on"), [(64, 32), (32, 32)])
def test_weights_are_solved_on_as_many_images_as_memory_allows(images: int, solved_on: int) -> None:
    net, data, told = small_digit_net(), few_digits(), list[Event]()
    there = int(solving_bytes(Draft.of(fold_batch_norm(net)), 32, rounded=True) / AIM) + 1
    task = Classification(data.labels)
    found = fitted(net, data, task, 2000, images=images, memory_bytes=there, tell=told.append)
    fewer = f"memory is short: weights are solved on {solved_on} images instead of {images}"
    notes = [event.note for event in told if event.stage == "memory"]
    assert notes == ([fewer] if solved_on < images else []) and found.size_bytes <= 2000


def test_memory_that_no_image_can_be_solved_in_is_told_in_advance() -> None:
    data = few_digits()
    with pytest.raises(RequestError, match=r"^solving the weights needs about .* are there: .* --memory-limit"):
        fitted(small_digit_net(), data, Classification(data.labels), 2000, memory_bytes=10**7)


def test_a_size_that_the_graph_alone_exceeds_is_told() -> None:
    data = few_digits()
    with pytest.raises(BudgetError, match=r"the smallest file that was found has [\d,]+ bytes, and 60 were asked for"):
        fitted(small_digit_net(), data, Classification(data.labels), 60, images=16)


def test_a_net_whose_layers_do_not_matter_cannot_be_priced() -> None:
    net, data = small_digit_net(), few_digits()
    last = net[net.outputs[0]].tensors["weight"]
    flat = net.edited(tensors={last: torch.zeros_like(net.tensors[last])})
    with pytest.raises(BudgetError, match="no weight can be priced"):
        fitted(flat, data, Classification(data.labels), 2000, images=16)


@pytest.mark.parametrize(("power", "noise"), [(-0.45, 0.0), (-0.1, 0.0), (-0.6, 0.004)])
def test_prices_are_found_where_sizes_follow_any_power(power: float, noise: float) -> None:
    net = small_digit_net()

    def size(price: float) -> int:
        return int(1e6 * price**power * (1 + noise * math.sin(1e3 * math.log(price))))

    tried, price, aim = list[Fitted](), 1.0, 2.1e5
    while len(tried) < 12:
        tried.append(Fitted(net, size(price), price, None))
        if abs(tried[-1].size_bytes / aim - 1) < 0.005:
            break
        price = _next_price(tried, aim)
    assert abs(tried[-1].size_bytes / aim - 1) < 0.005


def test_sizes_are_read_as_people_write_them() -> None:
    assert size_asked("200kB", 10**6) == 2e5 and size_asked("0.02x", 10**6) == 2e4 and size_asked("50x", 10**6) == 2e4
    with pytest.raises(BudgetError, match="size_bytes"):
        size_asked("small", 10**6)


def test_the_command_line_packs_to_a_size(tmp_path: Path) -> None:
    save_net(small_digit_net(), tmp_path / "net")
    command = [sys.executable, "-m", "slimwright", "pack", "net", "--data", "digits", "--images", "32"]
    command += ["--size", "10x", "--max-drop", "30", "--out", "small.swz", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert 10 <= said["ratio"] <= 10.11 and said["bytes"] == (tmp_path / "small.swz").stat().st_size
    assert said["metric"] == "accuracy" and len(said["test"]) == 2
    assert packed_bytes(read_packed(tmp_path / "small.swz")) == said["bytes"]
    alone = subprocess.run(
        [*command[:5], "--size", "9x", "--out", "x.swz"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 2 and "--size and --data go together" in alone.stderr
