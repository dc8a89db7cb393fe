"""Names from an ONNX file as names that a net may have: identifiers for nodes, dotted paths for tensors."""

import keyword
import re

from torch import fx

LONGEST = 120  # characters kept of a name


class Names:
    """Hands out names, each once."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}  # name -> how often another like it was asked for
        self._tensors: dict[str, int] = {}
        self._folders: set[str] = set()  # "a" and "a.b" of a tensor "a.b.c"

    def value(self, wish: str) -> str:
        """Return an identifier like `wish` that no value has yet."""
        return _free(identifier(wish), self._values)

    def tensor(self, wish: str) -> str:
        """Return a dotted path like `wish` that no tensor has yet, and that is no folder of another's path."""
        path = _path(wish)
        if path in self._folders or any(folder in self._tensors for folder in _folders(path)):
            path = path.replace(".", "_") + "_"
        free = _free(path, self._tensors)
        self._folders.update(_folders(free))
        return free


def _free(name: str, taken: dict[str, int]) -> str:
    free = name
    while free in taken:
        taken[name] += 1
        free = f"{name}_{taken[name]}"
    taken[free] = 0
    return free


def _path(wish: str) -> str:
    parts = [part for part in re.sub(r"[^\w.]+", "_", wish[-LONGEST:], flags=re.ASCII).split(".") if part]
    return ".".join(map(_unlike_an_attribute, parts or ["tensor"]))


def identifier(wish: str) -> str:
    """Return an identifier like `wish` that is no keyword and no attribute of a module."""
    name = re.sub(r"\W+", "_", wish[-LONGEST:], flags=re.ASCII).strip("_") or "value"
    return _unlike_an_attribute(f"_{name}" if name[0].isdigit() else name)


def module_path(node_name: str) -> str:
    """Return where a layer sat in the model that torch.onnx traced into this node name, or "".

    Such a name is the chain of modules, each under its name in its parent, which for the parts of a Sequential repeats
    the parent's: "/layer1/layer1.0/conv1/Conv" is layer1.0.conv1.
    """
    *scopes, _ = node_name.split("/")
    parts: list[str] = []
    for scope in scopes:
        if parts and scope.startswith(parts[-1] + "."):
            parts[-1] = scope
        elif scope:
            parts.append(scope)
    return ".".join(parts)


def _unlike_an_attribute(name: str) -> str:
    if keyword.iskeyword(name) or name == "self" or hasattr(fx.GraphModule, name) or name == "training":
        return name + "_"
    return name


def _folders(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]
