"""Device profiles: those that come with slimwright, those that a user writes, and what is said of bad ones."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.cost.device import FOLDER, PRECISIONS, SOURCES, Device, device_names, facts, load_device, load_devices
from slimwright.errors import ProfileError, RequestError

PROFILE = """
name = "toy"
title = "A toy"
kind = "board"
processor = "two fast cores, one slow"
scope = "its cores"
memory_bytes_per_s = { value = 1e9, source = "datasheet: toy, page 1" }
ram_bytes = { value = 1_000_000, source = "datasheet: toy, page 1" }

[[cores]]
name = "fast"
count = { value = 2, source = "datasheet: toy, page 2" }
macs_per_s = { fp32 = { value = 4e9, source = "computed: 4 lanes x 1 GHz" } }

[[cores]]
name = "slow"
count = { value = 1, source = "datasheet: toy, page 2" }
macs_per_s = { fp32 = { value = 1e9, source = "measured: it" }, int8 = { value = 2e9, source = "measured: it" } }
"""


@pytest.fixture(params=device_names())
def shipped(request: pytest.FixtureRequest) -> Device:
    return load_device(request.param)


def written(folder: Path, text: str) -> Path:
    path = folder / "toy.toml"
    path.write_text(text)
    return path


def numbers(value: object, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every table or bare number of a TOML file, with its place."""
    match value:
        case {"value": _, **rest}:
            yield place, rest.get("source")
        case dict():
            for key, inner in value.items():
                yield from numbers(inner, (*place, key))
        case list():
            for item in value:
                yield from numbers(item, place)
        case int() | float():
            yield place, None


def test_there_are_devices_of_every_kind() -> None:
    found = load_devices()
    assert {device.kind for device in found} == {"phone", "board", "FPGA", "ASIC", "GPU", "microcontroller"}
    assert [device.name for device in found] == device_names()


def test_a_profile_is_named_as_its_file_and_says_what_it_counts(shipped: Device) -> None:
    assert load_device(shipped.name) == shipped
    assert shipped.title and shipped.processor and shipped.scope


def test_every_number_of_a_profile_has_a_source(shipped: Device) -> None:
    sources = list(numbers(tomllib.loads((FOLDER / f"{shipped.name}.toml").read_text())))
    assert len(sources) == len(list(facts(shipped))) >= 6
    for place, source in sources:
        assert isinstance(source, str) and source.partition(":")[0] in SOURCES, place


def test_the_numbers_of_a_profile_are_of_the_size_that_such_devices_have(shipped: Device) -> None:
    assert 1e8 < max(shipped.macs_per_s(p) for p in PRECISIONS) < 1e14
    assert 1e8 < shipped.memory_bytes_per_s.value < 1e12
    assert shipped.cache_bytes is not None and shipped.cache_bytes.value < shipped.ram_bytes.value
    assert all(0.1 < fact.value < 1000 for place, fact in facts(shipped) if place.startswith("energy_per_mac"))  # type: ignore[operator]


def test_a_narrower_number_is_never_slower_nor_dearer(shipped: Device) -> None:
    known = [shipped.macs_per_s(p) for p in PRECISIONS if p in shipped.supported]
    assert known == sorted(known)
    energies = [fact.value for p in PRECISIONS if (fact := getattr(shipped.energy_per_mac_pj, p))]
    assert energies == sorted(energies, reverse=True)
    assert all(getattr(shipped.energy_per_mac_pj, p) is None for p in PRECISIONS if p not in shipped.supported)


def test_rates_agree_with_what_was_measured_on_the_device() -> None:  # GFLOPS of github.com/pigirons/cpufp, two a MAC
    assert load_device("pi4").macs_per_s("fp32") == pytest.approx(47.88e9 / 2, rel=0.01)
    assert load_device("pi4").macs_per_s("fp32", 1) == pytest.approx(11.958e9 / 2, rel=0.01)
    assert load_device("pi5").macs_per_s("fp32") == pytest.approx(153.5e9 / 2, rel=0.01)
    assert load_device("pi5").macs_per_s("fp16") == pytest.approx(306.98e9 / 2, rel=0.01)
    assert load_device("pi5").macs_per_s("int8") == pytest.approx(614.02e9 / 2, rel=0.01)


def test_energy_of_a_mac_is_power_under_load_beyond_idle_by_peak_rate() -> None:
    for name in ("pi3", "pi4", "pi5"):
        device = load_device(name)
        assert device.max_power_w and device.idle_power_w and device.energy_per_mac_pj.fp32
        watts = device.max_power_w.value - device.idle_power_w.value
        assert device.energy_per_mac_pj.fp32.value == pytest.approx(1e12 * watts / device.macs_per_s("fp32"), rel=1e-3)


def test_a_profile_of_the_user_is_read_from_its_path(tmp_path: Path) -> None:
    device = load_device(written(tmp_path, PROFILE))
    assert load_device(str(tmp_path / "toy.toml")) == device
    assert device.supported == ("fp32", "int8")
    assert device.core_count == 3
    assert device.idle_power_w is None and device.weights_in == "ram"
    assert dict(facts(device))["cores.1.macs_per_s.int8"].kind == "measured"


def test_the_profile_in_the_documentation_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "devices.md").read_text().split("```toml\n")[1].split("```")[0]
    device = load_device(written(tmp_path, text))
    assert device.macs_per_s("int8") == 4 * 16 * 1.8e9
    for kind in SOURCES:
        assert f"`{kind}:`" in (Path(__file__).parents[2] / "docs" / "devices.md").read_text()


def test_threads_run_on_the_fastest_cores(tmp_path: Path) -> None:
    device = load_device(written(tmp_path, PROFILE))
    assert [device.macs_per_s("fp32", n) for n in (1, 2, 3, 4)] == [4e9, 8e9, 9e9, 9e9]
    assert device.macs_per_s("fp32") == 9e9
    assert [device.macs_per_s("int8", n) for n in (1, 2)] == [2e9, 2e9]
    assert device.macs_per_s("fp16") == 0


def test_an_unknown_name_lists_the_devices_and_the_nearest() -> None:
    with pytest.raises(ProfileError, match=r"no device 'galaxy-23'; did you mean galaxy-s23") as caught:
        load_device("galaxy-23")
    assert all(name in str(caught.value) for name in device_names())
    assert issubclass(ProfileError, RequestError)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("value = 1e9, ", "value = -1e9, ", r"memory_bytes_per_s\.value: .*greater than 0"),
        ("value = 1e9, ", "value = inf, ", r"memory_bytes_per_s\.value: .*finite"),
        ("value = 1e9, ", 'value = "fast", ', r"memory_bytes_per_s\.value: .*valid number"),
        ('{ value = 1e9, source = "datasheet: toy, page 1" }', "1e9", r"memory_bytes_per_s: a number needs its source"),
        ("datasheet: toy, page 1", "somewhere", r"memory_bytes_per_s\.source: a source starts with one of datasheet"),
        ("datasheet: toy, page 1", "datasheet: ", r"memory_bytes_per_s\.source: a source starts with"),
        ("ram_bytes", "ram_byte", r"ram_bytes?: "),
        ("ram_bytes", "memory_mb = 5\nram_bytes", r"memory_mb: there is no such field"),
        ('kind = "board"', 'kind = "toaster"', r"kind: .*'phone', 'board'"),
        ("count = { value = 2,", "count = { value = 2.5,", r"cores\.0\.count\.value: .*integer"),
        ("count = { value = 2,", "count = { value = 1_000_000_000,", r"cores\.0\.count\.value: .*less than or equal"),
        ("fp32 = ", "fp64 = ", r"cores\.0\.macs_per_s\.fp64: there is no such field; did you mean fp"),
        ("name =", "name", "is not a device profile"),
    ],
)
def test_a_bad_profile_names_file_field_and_fix(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PROFILE
    with pytest.raises(ProfileError, match=said) as caught:
        load_device(written(tmp_path, PROFILE.replace(old, new, 1)))
    assert "toy.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_powers_that_fall_and_cores_without_a_rate_are_refused(tmp_path: Path) -> None:
    power = (
        'idle_power_w = { value = 3, source = "measured: a" }\nmax_power_w = { value = 2, source = "measured: a" }\n'
    )
    with pytest.raises(ProfileError, match="must not fall"):
        load_device(written(tmp_path, PROFILE.replace("\n[[cores]]", f"{power}\n[[cores]]", 1)))
    without = PROFILE.partition("[[cores]]")[0] + (
        '[[cores]]\nname = "a"\ncount = { value = 1, source = "paper: b" }\nmacs_per_s = {}'
    )
    with pytest.raises(ProfileError, match="no core has a rate"):
        load_device(written(tmp_path, without))
    with pytest.raises(ProfileError, match=r"cores: .*at least 1 item"):
        load_device(written(tmp_path, PROFILE.partition("[[cores]]")[0] + "cores = []"))


def test_a_file_that_is_not_there_or_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="does not exist"):
        load_device(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="is not a device profile"):
        load_device(tmp_path / "bytes.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ProfileError, match="is not a device profile"):
        load_device(tmp_path / "deep.toml")


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "any.toml"
    path.write_text(text, encoding="utf-8", errors="ignore")
    with pytest.raises(ProfileError):
        load_device(path)
