"""Weights from a file of `torch.save`, as untrusted input: its pickle is parsed, and nothing in it is run.

The operations of the pickle are listed by the standard library's `pickletools`, which only reads them, and carried out
here on dicts, lists, numbers, text and tensors alone. An object of any other class is noted by its name and otherwise
passed over, so that checkpoints which hold hyperparameters or an optimiser beside the weights can be read.

Source: the layout that torch.save has written since version 1.6: a zip archive with `data.pkl`, and each storage's
bytes under `data/`.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimwright.errors import ModelError
from slimwright.importers.archives import is_archive, opened
from slimwright.reading import reading

WHAT = "a file of torch.save"
MOST_OPERATIONS = 10**7
MOST_PICKLE_BYTES = 2**28
MOST_TIMES = 4  # the file's size, that its tensors may take: views of one storage may be many
STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
ORDERED = "collections OrderedDict"
HOLDERS = (
    "state_dict", "model_state_dict", "model", "net", "weights", "model_ema", "state_dict_ema", "ema", "generator",
)  # fmt: skip
PREFIXES = ("", "module.", "model.", "net.", "_orig_mod.", "backbone.", "network.")
MARK = object()


@dataclass(frozen=True)
class Foreign:
    """An object of a class that is not read, by the class's name."""

    name: str


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were found in a file for a module, and in which words to say where."""

    tensors: Mapping[str, Tensor]
    said: str


def read_checkpoint(path: Path) -> object:
    """Return what a file of `torch.save` holds: dicts, lists, numbers, text, tensors, and `Foreign` for all else.

    Raises ModelError where it is no such file, is damaged, or was saved by a torch before 1.6.
    """
    with reading(path, WHAT, ModelError):
        if not is_archive(path):
            raise ModelError(f"{path} is no file that torch has written since 1.6. {_way_out(path)}")
        with opened(path, WHAT) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
            if len(names) != 1:
                raise ModelError(f"{path} holds no weights of torch.save: there is no data.pkl in it")
            if archive.getinfo(names[0]).file_size > MOST_PICKLE_BYTES:
                raise ModelError(
                    f"the pickle in {path} is larger than {MOST_PICKLE_BYTES >> 20} MiB; it holds no weights alone"
                )
            return _Reader(path, archive, names[0].removesuffix("data.pkl")).read(archive.read(names[0]))


def weights_for(model: nn.Module, path: Path) -> Checkpoint:
    """Return the weights in a file of `torch.save` that fit a module, by the names that the module calls them.

    They may stand under a key of their own, and under a prefix, as trainers and wrappers save them. Raises ModelError,
    saying how they differ, where none fit, and how to convert a file that holds a whole module.
    """
    found = read_checkpoint(path)
    if isinstance(found, Foreign):
        raise ModelError(f"{path} is a whole pickled object of class {found.name}, which cannot be read without "
                         f"running its code. {_way_out(path)}")  # fmt: skip
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    held = _holders(found)
    candidates = [
        (_fitted(tensors, prefix, wanted), holder, prefix) for holder, tensors in held.items() for prefix in PREFIXES
    ]
    if not candidates:
        raise ModelError(f"{path} holds no dict of tensors, under no key of {', '.join(HOLDERS)}")
    faults, holder, prefix = min(candidates, key=lambda one: len(one[0]))
    if faults:
        raise ModelError(
            f"the weights in {path}{f', under {holder!r}' if holder else ''} do not fit the model: "
            f"{'; '.join(faults[:3])}{f'; and {len(faults) - 3} more' if len(faults) > 3 else ''}"
        )
    where = [f"under '{holder}'"] * bool(holder) + [f"without the prefix '{prefix}'"] * bool(prefix)
    return Checkpoint(
        {name: held[holder][prefix + name] for name in wanted if prefix + name in held[holder]},
        f"weights of {path.name} {', '.join(where)}".strip(),
    )


def _way_out(path: Path) -> str:
    """The lines that convert a file, where its source is trusted."""
    to = str(path.with_name(f"{path.stem}-weights.pth"))
    return (
        "Where you trust where it is from, save its weights once, and give these:\n"
        "    import torch\n"
        f"    model = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
        f"    torch.save(getattr(model, 'state_dict', lambda: model)(), {to!r})"
    )


def _holders(found: object) -> dict[str, Mapping[str, Tensor]]:
    """The dicts of tensors in a file, by the keys that they stand under."""
    if not isinstance(found, dict):
        return {}
    places = {"": found, **{key: found[key] for key in HOLDERS if isinstance(found.get(key), dict)}}
    tensors = {
        key: {n: t for n, t in held.items() if isinstance(n, str) and isinstance(t, Tensor)}
        for key, held in places.items()
    }
    return {key: held for key, held in tensors.items() if held}


def _fitted(tensors: Mapping[str, Tensor], prefix: str, wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """How tensors differ from what is wanted; the counts of batches that a batch norm saw do not matter."""
    faults = []
    for name, shape in wanted.items():
        given = tensors.get(prefix + name)
        if given is None:
            faults += [f"'{name}' is missing"] * (not name.endswith("num_batches_tracked"))
        elif tuple(given.shape) != shape:
            faults.append(f"'{name}' is {list(given.shape)}, not {list(shape)}")
    extra = [name for name in tensors if name.startswith(prefix) and name.removeprefix(prefix) not in wanted]
    return faults + [f"the model has no '{name}'" for name in extra]


@dataclass
class _Reader:
    """The stack and the memory of a pickle that is carried out on plain values."""

    path: Path
    archive: zipfile.ZipFile
    folder: str
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Tensor] = field(default_factory=dict)
    made_bytes: int = 0

    def read(self, pickled: bytes) -> object:
        """Return the value that the pickle describes."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            if number > MOST_OPERATIONS:
                raise ValueError("its pickle is too long")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._do(opcode.name, argument)
        raise ValueError("its pickle is cut short")

    def _do(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            known = argument if name == "GLOBAL" else " ".join(map(str, self.taken(2)))
            self.stack.append(Foreign(str(known)))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[int(argument)])
        elif name in ACTIONS:
            ACTIONS[name](self)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its pickle has the operation {name}, which weights do not need")

    def taken(self, count: int) -> list[Any]:
        """The topmost values, taken off the stack."""
        if len(self.stack) < count:
            raise ValueError("its pickle takes more than there is")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def marked(self) -> list[Any]:
        """All values above the last mark, taken off the stack with the mark."""
        place = len(self.stack) - 1
        while place >= 0 and self.stack[place] is not MARK:
            place -= 1
        taken = self.taken(len(self.stack) - 1 - place)
        self.stack.pop()
        return taken

    def fixed_tuple(self, count: int) -> None:
        """A tuple of the topmost values."""
        self.stack.append(tuple(self.taken(count)))

    def extend(self, items: list[Any]) -> None:
        """Put values into the list below."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values into the dict below."""
        if isinstance(self.stack[-1], dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                if isinstance(key, str | int | float | bool | tuple | None):
                    self.stack[-1][key] = value

    def persistent(self) -> None:
        """A storage: its kind, the name of its bytes, and how many numbers it has."""
        (said,) = self.taken(1)
        kind, known, key, _, count = said
        dtype = STORAGES.get(known.name.rpartition(" ")[2] if known.name.startswith("torch ") else "")
        if kind != "storage" or dtype is None:
            self.stack.append(Foreign(getattr(known, "name", "storage")))
            return
        if key in self.storages:
            self.stack.append(self.storages[key].view(dtype))
            return
        info = self.archive.getinfo(f"{self.folder}data/{key}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != count * dtype.itemsize:
            raise ValueError(f"storage {key} holds {info.file_size} bytes, not {count} numbers of {dtype}")
        raw = bytearray(self.archive.read(info))
        self.storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.zeros(0, dtype=dtype)
        self.stack.append(self.storages[key])

    def reduce(self) -> None:
        """A call of a known function, as what it gives; of any other, by the function's name."""
        function, arguments = self.taken(2)
        name = function.name if isinstance(function, Foreign) else ""
        if name == TENSOR:
            self.stack.append(self.tensor(*arguments[:4]))
        elif name == PARAMETER:
            self.stack.append(arguments[0])
        elif name == ORDERED:
            self.stack.append(dict(arguments[0] if arguments else ()))
        else:
            self.stack.append(Foreign(name or "unknown"))

    def tensor(self, storage: object, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> object:
        """A tensor as a part of its storage; every element must lie inside."""
        if not isinstance(storage, Tensor):
            return storage
        if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
            raise ValueError(f"a tensor has the size {size}, the stride {stride} and the offset {offset}")
        count = math.prod(size)
        if count and offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= storage.numel():
            raise ValueError(f"a tensor of size {size} reaches beyond its storage of {storage.numel()} numbers")
        self.made_bytes += count * storage.element_size()
        if self.made_bytes > MOST_TIMES * self.path.stat().st_size + MOST_PICKLE_BYTES:
            raise ValueError("its tensors are many times larger than the file")
        return storage.as_strided(size, stride, offset).clone() if count else storage.new_zeros(size)

    def new_object(self, count: int) -> None:
        """An object of some class, by the class's name."""
        known = self.taken(count)[0]
        self.stack.append(known if isinstance(known, Foreign) else Foreign("unknown"))

    def drop(self) -> None:
        """A value that is not used, such as an object's state: dicts and tensors have none that matters."""
        self.taken(1)


VALUES = (
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING",
    "SHORT_BINSTRING", "STRING",
)  # fmt: skip
CONSTANTS: Mapping[str, Callable[[], object]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "EMPTY_SET": list, "MARK": lambda: MARK,
}  # fmt: skip
ACTIONS: Mapping[str, Callable[[_Reader], None]] = {
    "TUPLE": lambda reader: reader.stack.append(tuple(reader.marked())),
    "LIST": lambda reader: reader.stack.append(reader.marked()),
    "FROZENSET": lambda reader: reader.stack.append(tuple(reader.marked())),
    "DICT": lambda reader: reader.stack.append(dict(zip(*[iter(reader.marked())] * 2, strict=True))),
    "TUPLE1": lambda reader: reader.fixed_tuple(1),
    "TUPLE2": lambda reader: reader.fixed_tuple(2),
    "TUPLE3": lambda reader: reader.fixed_tuple(3),
    "APPEND": lambda reader: reader.extend(reader.taken(1)),
    "APPENDS": lambda reader: reader.extend(reader.marked()),
    "ADDITEMS": lambda reader: reader.extend(reader.marked()),
    "SETITEM": lambda reader: reader.set_items(reader.taken(2)),
    "SETITEMS": lambda reader: reader.set_items(reader.marked()),
    "BINPERSID": _Reader.persistent,
    "REDUCE": _Reader.reduce,
    "NEWOBJ": lambda reader: reader.new_object(2),
    "NEWOBJ_EX": lambda reader: reader.new_object(3),
    "OBJ": lambda reader: reader.stack.append(reader.marked()[0]),
    "BUILD": _Reader.drop,
    "POP": _Reader.drop,
    "POP_MARK": lambda reader: reader.marked().clear(),
    "DUP": lambda reader: reader.stack.append(reader.stack[-1]),
}
