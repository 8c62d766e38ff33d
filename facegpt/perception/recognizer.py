"""Frozen face recognition features."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from facegpt.errors import CheckpointError
from facegpt.perception.iresnet import iresnet_from_state
from facegpt.perception.onnx_network import OnnxNetwork
from facegpt.perception.tiny_network import TinyNetwork

TINY_WEIGHTS = Path(__file__).parents[1] / "assets" / "tiny_recognizer.safetensors"


class Recognizer(nn.Module):
    """A frozen recognition network: always in evaluation mode, gradients to its input but not its weights."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.requires_grad_(False)
        self.eval()

    def forward(self, aligned: Tensor) -> Tensor:
        """Unit features (B,D) of faces (B,3,112,112), RGB in [0,1], aligned by `facegpt.perception.align`."""
        return F.normalize(self.network(2 * aligned - 1), dim=1)

    def train(self, mode: bool = True) -> Recognizer:
        """Stays in evaluation mode, whatever the module it hangs in does."""
        return super().train(False)


def load_recognizer(name_or_path: str | Path) -> Recognizer:
    """Load a recogniser: "tiny", or a file with the weights of an ArcFace network.

    "tiny": the built-in stand-in, trained on faces of the built-in head only.
    `.onnx`: insightface's recognition models (`w600k_r50.onnx` of buffalo_l).
    `.pth`, `.pt`: a state dict of insightface's `arcface_torch` IResNets (`ms1mv3_arcface_r50_fp16`).
    `.safetensors`: either network's state dict.
    Raises CheckpointError, naming the file, when it is missing, broken or of another network.
    """
    path = TINY_WEIGHTS if str(name_or_path) == "tiny" else Path(name_or_path)
    if not path.is_file():
        raise CheckpointError(
            f'{path}: no such recogniser file; give "tiny" or a .onnx, .pth or .safetensors file'
        )
    if path.suffix == ".onnx":
        return Recognizer(OnnxNetwork(path))
    try:
        return Recognizer(_network_from_state(_read_state(path)))
    except (RuntimeError, KeyError, ValueError) as error:  # names or shapes do not fit
        raise CheckpointError(
            f"{path}: these are not the weights of a tiny recogniser or an IResNet: {error}"
        ) from error


def _read_state(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix in (".pth", ".pt"):
            state = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values()):
                return state
            raise CheckpointError(f"{path}: a plain state dict is needed (name -> tensor)")
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as weights: {error}") from error
    raise CheckpointError(
        f"{path}: unknown recogniser format {path.suffix!r}, use .onnx, .pth or .safetensors"
    )


def _network_from_state(state: Mapping[str, Tensor]) -> nn.Module:
    if "layer1.0.conv1.weight" in state:
        return iresnet_from_state(state)
    network = TinyNetwork(folded=True)
    network.load_state_dict(state)  # copies into float32
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on CPUs
    return network
