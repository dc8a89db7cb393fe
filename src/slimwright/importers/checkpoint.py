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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

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
HOLDERS = (  # keys that are looked at first, in this order
    "state_dict", "model_state_dict", "model", "net", "weights", "model_ema", "state_dict_ema", "ema", "generator",
)  # fmt: skip
PREFIXES = ("", "module.", "model.", "net.", "_orig_mod.", "backbone.", "network.")
DEEPEST, MOST_ITEMS, SHOWN_KEYS = 4, 64, 8  # of keys within keys; looked at in one place; in an error
Keys: TypeAlias = tuple[Any, ...]
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

    They may stand under any keys, and under a prefix, as trainers and wrappers save them. Raises ModelError, saying how
    they differ, where none fit, and how to convert a file that holds a whole module.
    """
    found = read_checkpoint(path)
    whole = [
        (keys, held.name)
        for keys, held in _places(found)
        if isinstance(held, Foreign) and (not keys or keys[-1] in HOLDERS)
    ]
    if whole and not _holders(found):
        (keys, name), *_ = whole
        raise ModelError(
            f"{path}{_under(keys)} is a whole pickled object of class {name}, which cannot be read without running its "
            f"code. {_way_out(path, keys)}"
        )
    return fitting(model, found, path)


def fitting(model: nn.Module, found: object, path: Path) -> Checkpoint:
    """Return those of the tensors that were `found` in a file that fit a module, as `weights_for` does."""
    own = {name: held for name, held in model.state_dict().items() if isinstance(held, Tensor)}
    held = _holders(found)
    if not held:
        raise ModelError(f"{path} holds no dict of tensors{_keys_said(found)}")
    ends = [*list(own)[:1], *list(own)[-1:]]
    candidates = [
        (len(faults := _faults(tensors, prefix, own)), faults, keys, prefix)
        for keys, tensors in held.items()
        for prefix in dict.fromkeys([*PREFIXES, *_prefixes(tensors, ends)])
    ]
    _, faults, keys, prefix = min(candidates, key=lambda one: one[0])
    if faults:
        raise ModelError(
            f"the weights in {path}{f',{_under(keys)}' if keys else ''} do not fit the model: {'; '.join(faults[:3])}"
            f"{f'; and {len(faults) - 3} more' if len(faults) > 3 else ''}"
        )
    others = [_place_said(*one[2:]) for one in candidates if not one[1] and one[2:] != (keys, prefix)]
    also = f"; those {' and those '.join(others)} fit, too" if others else ""
    return Checkpoint(
        {name: held[keys][prefix + name] for name in own if prefix + name in held[keys]},
        f"weights of {path.name} {_place_said(keys, prefix)}".strip() + also,
    )


def _place_said(keys: Keys, prefix: str) -> str:
    return ", ".join([_under(keys).strip()] * bool(keys) + [f"without the prefix '{prefix}'"] * bool(prefix))


def _under(keys: Keys) -> str:
    return f" under {', '.join(map(repr, keys))}" if keys else ""


def _keys_said(found: object) -> str:
    keys = [str(key) for key in found][:SHOWN_KEYS] if isinstance(found, dict) else []
    return f"; its keys are {', '.join(keys)}" if keys else ""


def _way_out(path: Path, keys: Keys = ()) -> str:
    """The lines that convert a file, where its source is trusted."""
    to = str(path.with_name(f"{path.stem}-weights.pth"))
    inner = "".join(f"[{key!r}]" for key in keys)
    return (
        "Where you trust where it is from, save its weights once, and give these:\n"
        "    import torch\n"
        f"    model = torch.load({str(path)!r}, map_location='cpu', weights_only=False){inner}\n"
        f"    torch.save(getattr(model, 'state_dict', lambda: model)(), {to!r})"
    )


def _places(found: object, keys: Keys = ()) -> Iterator[tuple[Keys, object]]:
    """What a file holds, and what is in that, with the keys that lead there; known keys first."""
    yield keys, found
    if isinstance(found, dict) and len(keys) < DEEPEST:
        inner = {key: held for key, held in found.items() if isinstance(held, dict | list | tuple | Foreign)}
        known = [key for key in HOLDERS if key in inner]
    elif isinstance(found, list | tuple) and len(keys) < DEEPEST:
        inner, known = dict(enumerate(found[:MOST_ITEMS])), []
    else:
        return
    for key in dict.fromkeys([*known, *list(inner)[:MOST_ITEMS]]):
        yield from _places(inner[key], (*keys, key))


def _holders(found: object) -> dict[Keys, Mapping[str, Tensor]]:
    """The dicts of tensors in a file, by the keys that they stand under."""
    tensors = {
        keys: {name: tensor for name, tensor in held.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
        for keys, held in _places(found)
        if isinstance(held, dict)
    }
    return {keys: held for keys, held in tensors.items() if held}


def _prefixes(tensors: Mapping[str, Tensor], ends: Sequence[str]) -> list[str]:
    """What stands before a module's own names in a file."""
    found = [name.removesuffix(end) for end in ends for name in tensors if name.endswith(f".{end}")]
    return list(dict.fromkeys(found))[:MOST_ITEMS]


def _faults(tensors: Mapping[str, Tensor], prefix: str, own: Mapping[str, Tensor]) -> list[str]:
    """How tensors differ from a module's own; the counts of batches that a batch norm saw do not matter.

    A tensor that two layers share may be there once.
    """
    faults = []
    there = {tensor.data_ptr() for name, tensor in own.items() if prefix + name in tensors and tensor.numel()}
    for name, tensor in own.items():
        given, shape = tensors.get(prefix + name), tuple(tensor.shape)
        if given is None:
            counted = name.endswith("num_batches_tracked") or tensor.data_ptr() in there
            faults += [f"'{name}' is missing"] * (not counted)
        elif tuple(given.shape) != shape:
            faults.append(f"'{name}' is {list(given.shape)}, not {list(shape)}")
    extra = [name for name in tensors if name.startswith(prefix) and name.removeprefix(prefix) not in own]
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
