"""Frozen face recognition features."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from facegpt.errors import CheckpointError, ConfigError
from facegpt.parts import part_path
from facegpt.perception.align import ALIGNED_SIZE
from facegpt.perception.iresnet import iresnet_from_state
from facegpt.perception.onnx_file import LARGEST_FILE
from facegpt.perception.onnx_network import OnnxNetwork
from facegpt.perception.tiny_network import TinyNetwork

TINY_WEIGHTS = Path(__file__).parents[1] / "assets" / "tiny_recognizer.safetensors"
MOST_WEIGHTS = LARGEST_FILE // 4  # numbers, widened to float32; IResNet-200 has 119 million


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


@torch.no_grad()
def check_recognizer(recognizer: Recognizer) -> None:
    """Raise ConfigError unless it gives finite features (1,D) of a black aligned face (1,3,112,112)."""
    tensors = (*recognizer.parameters(), *recognizer.buffers())
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.zeros(()))
    face = like.new_zeros(1, 3, ALIGNED_SIZE, ALIGNED_SIZE)
    try:
        features = recognizer(face)
    except Exception as error:  # networks raise whatever another size or channel count leads to
        raise ConfigError(
            f"the recogniser cannot read aligned RGB faces of {ALIGNED_SIZE} x {ALIGNED_SIZE} pixels "
            f"({_in_short(error)}); choose one that is made for them"
        ) from error
    if features.ndim != 2 or len(features) != 1 or not bool(features.isfinite().all()):
        raise ConfigError(
            f"the recogniser gives {tuple(features.shape)} for one face instead of one row of finite "
            "features; choose another"
        )


def load_recognizer(name_or_path: str | Path) -> Recognizer:
    """Load a recogniser: "tiny", "sface", or a file with the weights of an ArcFace network.

    "tiny": the built-in stand-in, trained on faces of the built-in head only.
    "sface": OpenCV's SFace, which reads faces aligned as ArcFace does, from the cache of fetched parts.
    `.onnx`: insightface's recognition models (`w600k_r50.onnx` of buffalo_l).
    `.pth`, `.pt`: a state dict of insightface's `arcface_torch` IResNets (`ms1mv3_arcface_r50_fp16`).
    `.safetensors`: either network's state dict.
    Raises CheckpointError, naming the file, when it is missing, broken, of another network, larger than
    `LARGEST_FILE` bytes or than `MOST_WEIGHTS` numbers; MissingPartError when SFace was not fetched yet. No
    code of a file is run.
    """
    if str(name_or_path) == "sface":
        path = part_path("sface")
    else:
        path = TINY_WEIGHTS if str(name_or_path) == "tiny" else Path(name_or_path)
    if not path.is_file():
        raise CheckpointError(
            f'{path}: no such recogniser file; give "tiny", "sface" or a .onnx, .pth or .safetensors file'
        )
    if path.suffix == ".onnx":
        return Recognizer(OnnxNetwork(path))
    state = _read_state(path)
    try:
        return Recognizer(_network_from_state(state))
    except (RuntimeError, LookupError, ValueError, TypeError) as error:  # names or shapes do not fit
        raise CheckpointError(
            f"{path}: these are not the weights of a tiny recogniser or an IResNet: {_in_short(error)}"
        ) from error


def _read_state(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a .safetensors, .pth or .pt file; raises CheckpointError."""
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise CheckpointError(
            f"{path}: unknown recogniser format {path.suffix!r}, use .onnx, .pth, .pt or .safetensors"
        )
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise CheckpointError(f"{path}: {size} bytes, {LARGEST_FILE} is the limit for a recogniser")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            _check_archive(path, size)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:  # its own message tells people to unpickle it all the same
        raise CheckpointError(
            f"{path}: not a state dict of plain tensors, and nothing else is unpickled; save the network's "
            "state_dict()"
        ) from error
    except Exception as error:  # unpicklers raise whatever their first surprise is
        raise CheckpointError(f"{path}: cannot be read as weights: {_in_short(error)}") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"{path}: a plain state dict is needed (name -> tensor)")
    if (count := sum(value.numel() for value in state.values())) > MOST_WEIGHTS:  # strides can repeat numbers
        raise CheckpointError(f"{path}: {count} numbers, {MOST_WEIGHTS} is the limit for a recogniser")
    return state


def _in_short(error: Exception) -> str:
    """The beginning of a foreign message, on one line: torch lists every tensor that does not fit."""
    return " ".join(str(error).split())[:200]


def _check_archive(path: Path, size: int) -> None:
    """Refuse a zip archive that unpacks to more than its `size` bytes: torch stores without compression."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:
            raise CheckpointError(
                f"{path}: {size} bytes would unpack to {unpacked}, which torch never writes; save it again"
            )


def _network_from_state(state: Mapping[str, Tensor]) -> nn.Module:
    if "layer1.0.conv1.weight" in state:
        return iresnet_from_state(state)
    network = TinyNetwork(folded=True)
    network.load_state_dict(state)  # copies into float32
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on CPUs
    return network
