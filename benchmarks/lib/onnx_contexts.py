"""The codec's context net, run by ONNX Runtime in the place of torch."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimwright.codec.context_net import WholeNet
from slimwright.codec.context_onnx import context_model


class OnnxNet:
    """A context net whose indices ONNX Runtime computes."""

    def __init__(self, net: WholeNet) -> None:
        self.net = net

    @cached_property
    def sessions(self) -> dict[tuple[str, int], Any]:
        """Sessions by role and pass."""
        import onnxruntime

        return {
            (role, phase): onnxruntime.InferenceSession(
                context_model(self.net, role, phase), providers=["CPUExecutionProvider"]
            )
            for role in ("luma", "chroma")
            for phase in range(4)
        }

    def indices(self, features: Tensor, role: str, phase: int, band: int) -> tuple[Tensor, Tensor]:
        """Return the indices as `WholeNet` does."""
        given = {"features": features.double().numpy(), "band": np.array(band)}
        (found,) = self.sessions[role, phase].run(None, given)
        odds, scale = torch.from_numpy(found).long().unbind(1)
        return odds, scale
