"""Names from an ONNX file as names that a net may have: identifiers for nodes, dotted paths for tensors."""

import keyword
import re

from torch import fx

LONGEST = 120  # characters kept of a name


class Names:
    """Hands out names, each once."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}  # name -> how often it was asked for
        self._tensors: set[str] = set()
        self._folders: set[str] = set()  # "a" and "a.b" of a tensor "a.b.c"

    def value(self, wish: str) -> str:
        """Return an identifier like `wish` that no value has yet."""
        return self._free(identifier(wish), self._values)

    def tensor(self, wish: str) -> str:
        """Return a dotted path like `wish` that no tensor has yet, and that is no folder of another's path."""
        parts = [part for part in re.split(r"\.", re.sub(r"[^\w.]+", "_", wish[-LONGEST:], flags=re.ASCII)) if part]
        parts = [_unlike_an_attribute(part) for part in parts[:-1]] + (parts[-1:] or ["tensor"])
        path = ".".join(parts).strip("_") or "tensor"
        number = 1
        free = path
        while free in self._tensors or free in self._folders or self._tensors.intersection(_folders(free)):
            free, number = f"{path}_{number}", number + 1
        self._tensors.add(free)
        self._folders.update(_folders(free))
        return free

    def _free(self, name: str, taken: dict[str, int]) -> str:
        free = name
        while free in taken:
            taken[name] += 1
            free = f"{name}_{taken[name]}"
        taken[free] = 0
        return free


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
