"""Attacks by hand on commands that read what a stranger made: each returns whether it was held off."""

import functools
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from lib.forks import Case, files_below, run_forked
from lib.hostile_kinds import KINDS

SECRET = "the content of a file that lies elsewhere"
MOST_BYTES = 10**9
OUTSIDE = {"size": [10**9], "stride": [1]}
OPENSSL = ("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out")


@dataclass(frozen=True)
class Place:
    """Where an attack is tried: a folder to run in, a file that lies outside, and a bundle of this machine's own."""

    home: Path
    outside: Path
    bundle: Path

    def run(self, *arguments: str) -> Case:
        """Run a command."""
        return run_forked(list(arguments), self.home, most_s=60.0)

    def refused(self, *arguments: str) -> bool:
        """Run a command, which must end with an error of ours, in bounds, without a word of what lies outside."""
        case = self.run(*arguments)
        ours = case.status in (1, 2) and "error:" in case.said and not case.foreign
        return ours and case.peak_bytes < MOST_BYTES and self.untouched and SECRET not in case.said

    @property
    def untouched(self) -> bool:
        """Nothing outside was changed or made."""
        return self.outside.read_text() == SECRET and not (self.outside.parent / "made").exists()

    def copied(self) -> Path:
        """A copy of the bundle in the folder."""
        return Path(shutil.copytree(self.bundle, self.home / "bundle"))


Attack = Callable[[Place], bool]


class Runs:
    """An object whose pickle makes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._path),)


def pickled_code(place: Place) -> bool:
    """A checkpoint that runs a command in torch.load."""
    torch.save({"state_dict": Runs(place.outside.parent / "made")}, place.home / "case.pth")
    return place.refused(*KINDS["checkpoint"].reads)


def pickled_net(place: Place) -> bool:
    """A plain pickle under the name of a model."""
    (place.home / "case.pt2").write_bytes(pickle.dumps(Runs(place.outside.parent / "made")))
    return place.refused("inspect", "case.pt2")


def zip_bomb(place: Place) -> bool:
    """A .pt2 archive of four gigabytes of zeros in a few megabytes."""
    with zipfile.ZipFile(place.home / "case.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("archive_format", "models/model.json", "data/weights/weight_0"):
            with archive.open(name, "w", force_zip64=True) as file:
                for _ in range(1300):
                    file.write(bytes(1 << 20))
    return place.refused("inspect", "case.pt2")


def picture_bomb(place: Place) -> bool:
    """A PNG of a hundred million pixels in a kilobyte, in the place of a photo."""
    path = KINDS["png"].write(place.home)
    size = struct.pack(">IIBBBBB", 65_500, 65_500, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", size), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    case = place.run(*KINDS["png"].reads)
    return not case.foreign and not case.crashed and not case.hangs and case.peak_bytes < MOST_BYTES


def huge_label(place: Place) -> bool:
    """A label that makes a billion classes."""
    path = KINDS["tensors"].write(place.home)
    tensors = {"images": torch.rand(24, 3, 8, 8), "labels": torch.full((24,), 10**9)}
    safetensors.torch.save_file(tensors, path)
    return place.refused(*KINDS["tensors"].reads)


def huge_count(place: Place) -> bool:
    """A device of a billion cores of a kind."""
    path = KINDS["device"].write(place.home)
    path.write_text(path.read_text().replace("value = 2,", "value = 1000000000,"))
    return place.refused(*KINDS["device"].reads)


def huge_header(place: Place) -> bool:
    """A safetensors file whose header claims 2^60 bytes."""
    (place.home / "case.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    return place.refused(*KINDS["tensors"].reads)


def deep_nesting(place: Place) -> bool:
    """A net nested a hundred thousand times."""
    KINDS["saved net"].write(place.home).write_text("[" * 100_000)
    return place.refused("inspect", "net")


def _net_with(name: str, op: str, arguments: Mapping[str, object] | None = None) -> Attack:
    def attack(place: Place) -> bool:
        path = KINDS["saved net"].write(place.home)
        document = json.loads(path.read_text())
        node = next(one for one in document["nodes"] if one["op"] == "relu")
        node["op"] = op
        node["arguments"].update(arguments or {})
        path.write_text(json.dumps(document))
        return place.refused("inspect", "net", "--measure")

    attack.__doc__ = f"A saved net that names {name}."
    return attack


def outside_weights(place: Place) -> bool:
    """An .onnx file whose weights lie in a file outside its folder."""
    import onnx

    model = onnx.load(KINDS[".onnx"].write(place.home))
    first = model.graph.initializer[0]
    first.data_location = onnx.TensorProto.EXTERNAL
    first.ClearField("raw_data")
    for key, value in (("location", "../outside/secret"), ("offset", "0"), ("length", "40")):
        first.external_data.add(key=key, value=value)
    onnx.save(model, place.home / "case.onnx")
    return place.refused("inspect", "case.onnx")


def xml_entities(place: Place) -> bool:
    """An annotation that reads a file, and one that grows to gigabytes."""
    path = KINDS["VOC"].write(place.home)
    path.write_text(
        f'<!DOCTYPE a [<!ENTITY x SYSTEM "{place.outside}">]><annotation><filename>&x;</filename></annotation>'
    )
    reads = place.run(*KINDS["VOC"].reads)
    levels = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    path.write_text(f'<!DOCTYPE a [<!ENTITY l0 "ha">{levels}]><annotation><filename>&l9;</filename></annotation>')
    grows = place.run(*KINDS["VOC"].reads)
    plain = all(not (case.foreign or case.crashed or case.hangs) for case in (reads, grows))
    return plain and SECRET not in reads.said and grows.peak_bytes < MOST_BYTES


def yaml_objects(place: Place) -> bool:
    """Names of classes in YAML that makes a Python object."""
    KINDS["YOLO"].write(place.home)
    made = place.outside.parent / "made"
    (place.home / "data.yaml").write_text(f'names: !!python/object/apply:os.mkdir ["{made}"]\n')
    case = place.run(*KINDS["YOLO"].reads)
    return place.untouched and not case.foreign


def _special(kind: str) -> Attack:
    def attack(place: Place) -> bool:
        path = place.home / "case.onnx"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(kind)
        return place.refused("inspect", "case.onnx")

    attack.__doc__ = f"A model that is {kind}."
    return attack


def page_over_a_link(place: Place) -> bool:
    """A foreign bundle whose page and plots are links to a file and a folder elsewhere."""
    bundle = place.copied()
    (bundle / "report.html").unlink(missing_ok=True)
    shutil.rmtree(bundle / "plots", ignore_errors=True)
    (bundle / "report.html").symlink_to(place.outside)
    (bundle / "plots").symlink_to(place.outside.parent)
    before = files_below(place.outside.parent)
    case = place.run("report", "bundle")
    return not case.foreign and place.untouched and files_below(place.outside.parent) == before


def html_over_a_link(place: Place) -> bool:
    """A page that is asked for where a link to another file lies."""
    KINDS["saved net"].write(place.home)
    (place.home / "page.html").symlink_to(place.outside)
    return place.refused("inspect", "net", "--html", "page.html") and place.untouched


def html_into_a_device(place: Place) -> bool:
    """A page that is asked for at a pipe."""
    KINDS["saved net"].write(place.home)
    os.mkfifo(place.home / "page.html")
    return place.refused("inspect", "net", "--html", "page.html", "--force")


def out_over_a_folder(place: Place) -> bool:
    """A result that is to replace a folder which slimwright did not write."""
    KINDS["recipe"].write(place.home)
    (place.home / "made").mkdir()
    (place.home / "made" / "thesis.tex").write_text("years of work")
    held = place.refused(*KINDS["recipe"].reads)
    return held and (place.home / "made" / "thesis.tex").read_text() == "years of work"


def _manifest(place: Place, change: Callable[[dict[str, object]], None]) -> None:
    bundle = place.copied()
    document = json.loads((bundle / "manifest.json").read_text())
    change(document)
    (bundle / "manifest.json").write_text(json.dumps(document))


def files_elsewhere(place: Place) -> bool:
    """A manifest whose model lies outside the bundle."""
    text = (place.bundle / "manifest.json").read_text()
    name = next(path.name for path in sorted(place.bundle.iterdir()) if path.suffix == ".onnx")
    (place.copied() / "manifest.json").write_text(text.replace(f'"{name}"', '"../../outside/secret"'))
    return place.refused("report", "bundle")


def markup_in_names(place: Place) -> bool:
    """A manifest whose name is a script, a template, markup and a terminal's control sequence."""

    def change(document: dict[str, object]) -> None:
        document["name"] = "<script>alert(1)</script>{{ 7 * 7 }}[/bold]\x1b[2J\u202e"

    _manifest(place, change)
    case = place.run("report", "bundle")
    page = place.home / "bundle" / "report.html"
    shown = page.read_text() if page.exists() else ""
    return not case.foreign and "\x1b" not in case.said and "\u202e" not in case.said and "<script>alert" not in shown


def markup_as_a_model(place: Place) -> bool:
    """A model's name on the command line that is markup and control characters."""
    case = place.run("inspect", "[/foo]\x1b[2J")
    return case.status == 2 and not case.foreign and "\x1b" not in case.said


def _number(value: object) -> Attack:
    def attack(place: Place) -> bool:
        def change(document: dict[str, object]) -> None:
            result = document["result"]
            assert isinstance(result, dict)
            for key, entry in result.items():
                if isinstance(entry, int | float):
                    result[key] = value

        _manifest(place, change)
        return place.refused("report", "bundle")

    attack.__doc__ = f"A manifest whose result counts {value}."
    return attack


def _tampered(change: Callable[[Path], None], what: str) -> Attack:
    def attack(place: Place) -> bool:
        bundle = place.copied()
        keys = _keys(place)
        signed = place.run("sign", "bundle", "--key", str(keys / "private.pem"))
        assert signed.status == 0, signed.said
        change(bundle)
        return place.refused("verify", "bundle", "--key", str(keys / "public.pem"))

    attack.__doc__ = f"A signed bundle {what}."
    return attack


def another_key(place: Place) -> bool:
    """A bundle that was signed with another key."""
    place.copied()
    mine, others = _keys(place, "mine"), _keys(place, "others")
    signed = place.run("sign", "bundle", "--key", str(others / "private.pem"))
    return signed.status == 0 and place.refused("verify", "bundle", "--key", str(mine / "public.pem"))


def _keys(place: Place, name: str = "keys") -> Path:
    folder = place.home / name
    folder.mkdir()
    private, public = folder / "private.pem", folder / "public.pem"
    subprocess.run([*OPENSSL, private], check=True, capture_output=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return folder


def _flipped(name: str, bundle: Path) -> None:
    path = bundle / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _job(entry: tarfile.TarInfo, what: str) -> Attack:
    def attack(place: Place) -> bool:
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
        return _job_refused(place, held.getvalue())

    attack.__doc__ = f"A job for the runner that holds {what}."
    return attack


def _entry(name: str, **more: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made


def job_of_holes(place: Place) -> bool:
    """A job that claims a file of a terabyte."""
    header = _entry("job.json", size=8 * 2**30 - 1).tobuf(tarfile.USTAR_FORMAT)
    return _job_refused(place, header + bytes(1024))


def _job_refused(place: Place, data: bytes) -> bool:
    """The runner answers, and makes nothing outside its folder."""
    command = [sys.executable, "-m", "slimwright.runner", "--pipe", "20", str(len(data))]
    before = files_below(place.home)
    done = subprocess.run(command, input=data, cwd=place.home, capture_output=True, timeout=60, check=False)
    return b'"error"' in done.stdout and files_below(place.home) == before and place.untouched


def attacks(bundle: Path) -> Iterator[tuple[str, Attack]]:
    """Every attack, with what it is; those on signatures once for each file of the bundle."""
    yield from ((str(attack.__doc__).rstrip("."), attack) for attack in PLAIN)
    for path in sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != "bundle.sig"):
        name = str(path.relative_to(bundle))
        attack = _tampered(functools.partial(_flipped, name), f"in which a bit of {name} was flipped")
        yield str(attack.__doc__).rstrip("."), attack


def _added(bundle: Path) -> None:
    (bundle / "readme").write_text("")


def _removed(bundle: Path) -> None:
    (bundle / "recipe.json").unlink()


def _linked(bundle: Path) -> None:
    (bundle / "recipe.json").rename(bundle.parent / "recipe.json")
    (bundle / "recipe.json").symlink_to(bundle.parent / "recipe.json")


def _unsigned(bundle: Path) -> None:
    (bundle / "bundle.sig").unlink()


PLAIN: tuple[Attack, ...] = (
    pickled_code,
    pickled_net,
    zip_bomb,
    picture_bomb,
    huge_label,
    huge_count,
    huge_header,
    deep_nesting,
    _net_with("an operator that reads outside its tensors", "aten._reshape_alias_copy.default", OUTSIDE),
    _net_with("an operator that maps files into memory", "aten.from_file.default", {"filename": "/etc/passwd"}),
    _net_with("an operator that is not known", "aten.sparse_resize_.default"),
    _net_with("an operator of another library", "evil.run.default"),
    _net_with("a function of Python", "builtins.exec"),
    outside_weights,
    xml_entities,
    yaml_objects,
    _special("/dev/zero"),
    _special("/dev/stdin"),
    _special("pipe"),
    _special("folder"),
    page_over_a_link,
    html_over_a_link,
    html_into_a_device,
    out_over_a_folder,
    files_elsewhere,
    markup_in_names,
    markup_as_a_model,
    _number(float("nan")),
    _number(2**64),
    _number(-1),
    _tampered(_added, "to which an empty file was added"),
    _tampered(_removed, "from which a file was taken away"),
    _tampered(_linked, "of which a file became a link to itself elsewhere"),
    _tampered(_unsigned, "whose signature was taken away"),
    another_key,
    _job(_entry("../made", size=4), "a file above its folder"),
    _job(_entry("/tmp/made-by-a-job", size=4), "a file at an absolute path"),
    _job(_entry("job.json", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
    _job(_entry("job.json", type=tarfile.LNKTYPE, linkname="/etc/passwd"), "a hard link"),
    _job(_entry("job.json", type=tarfile.FIFOTYPE), "a pipe"),
    job_of_holes,
)
