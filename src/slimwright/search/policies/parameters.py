"""What a policy has learned, as one safetensors file with a checksum. Nothing in it is run."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from slimwright.errors import RequestError
from slimwright.kept import read_tensors, write_tensors

LEARNED_FILE = "policy.safetensors"
FORMAT = "1"
WHAT = "the parameters of a policy, as --save-policy writes them"


@dataclass(frozen=True)
class Parameters:
    """Tensors by name, and the policy that they belong to."""

    policy: str
    tensors: Mapping[str, Tensor]

    @property
    def digest(self) -> str:
        """A hash over all of it: parameters shape what a search finds."""
        hashed = hashlib.sha256(self.policy.encode())
        for name, tensor in sorted(self.tensors.items()):
            hashed.update(f"{name} {tuple(tensor.shape)}".encode())
            hashed.update(tensor.contiguous().numpy().tobytes())
        return hashed.hexdigest()

    def save(self, path: Path) -> None:
        """Write the file, replaced at once."""
        write_tensors(path, self.tensors, {"format": FORMAT, "policy": self.policy})


def load_parameters(path: Path, policy: str) -> Parameters:
    """Read what a policy of this name has learned. Raises RequestError, naming the file, for anything else."""
    tensors, notes = read_tensors(path, WHAT, RequestError)
    if notes.get("format") != FORMAT:
        raise RequestError(f"{path} is not {WHAT}")
    if notes.get("policy") != policy:
        raise RequestError(f"{path} holds what the policy {notes.get('policy')!r} has learned, not {policy!r}")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise RequestError(f"{path}: '{name}' must hold float32 numbers, none of them infinite or NaN")
    return Parameters(policy, tensors)


def learned(**modules: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters of some modules, by the module's name and their own."""
    return {
        f"{module}.{name}": tensor.detach().clone()
        for module, each in modules.items()
        for name, tensor in each.state_dict().items()
    }


def start_from(parameters: Parameters | None, **modules: nn.Module) -> None:
    """Load parameters into modules. Raises RequestError where they are of other names or shapes."""
    if parameters is None:
        return
    wanted, found = learned(**modules), parameters.tensors
    for name in sorted(wanted.keys() ^ found.keys()):
        raise RequestError(f"the parameters of the policy {parameters.policy!r} do not fit: '{name}' is in one only")
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            raise RequestError(
                f"the parameters of the policy {parameters.policy!r} do not fit: '{name}' has the shape "
                f"{list(found[name].shape)}, not {list(tensor.shape)}"
            )
    for module, each in modules.items():
        each.load_state_dict({name: found[f"{module}.{name}"].clone() for name in each.state_dict()})
