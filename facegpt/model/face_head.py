"""The face head: an MLP from the state that predicts `<FACE>`, and from its image, to face parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from facegpt.errors import ConfigError
from facegpt.head.parameters import FaceParameters, ParameterLayout
from facegpt.model.text_reader import TextReader

# How far an output of 1 moves each group: standard deviations for coefficients, radians for rotations, metres
# for the camera's shift, and the logarithm of the camera's scale (0.1 = 10 %), which so stays positive.
GROUP_SCALES: dict[str, tuple[float, ...]] = {
    "shape": (1.0,),
    "albedo": (1.0,),
    "expression": (1.0,),
    "pose": (0.3,),
    "camera": (0.1, 0.02, 0.02),
    "lighting": (0.3,),
    "neck": (0.3,),
    "eyes": (0.3,),
}
# Gives outputs of about 0.1 at the start: near the mean face, yet with gradients behind.
LAST_LAYER_GAIN = 0.25


class FaceHead(nn.Module):
    """LayerNorm, then linear layers with GELU between them, then offsets from the mean face.

    hidden_size: width of the language model's states.
    mean (N,): parameter vector of the face that the head starts around, with a camera that frames it.
    widths: hidden widths, one layer of `hidden_size` when None. (The FaceGPT paper gives the channels as
        5120-5120-257; 5120 is the width of a 13B model, so input and hidden width are the backbone's.)
    scales: group name -> one number, or one for each component; groups left out take GROUP_SCALES.
    reads_image: whether the MLP sees, beside the state, the mean of the tokens of the image that the face was
        asked about (as the language model gets them), normalised by itself. What a photograph shows then need
        not squeeze through a single state; what is wanted of it still does.
    reads_text: the same for words: whether the MLP sees what a `TextReader` finds in the text so far.

    Raises ConfigError for scales of an unknown group or of a wrong count, ValueError for a mean of another
    layout.

    Parameters are float32 and the head computes in their type whatever autocast says around it: it is a
    few rows only, and bfloat16 has 8 bits for a rotation. The normalisation is ours: the size of a state
    differs by a factor of ten between backbones, and the start near the mean should not.
    """

    mean: Tensor
    scales: Tensor

    def __init__(
        self,
        hidden_size: int,
        layout: ParameterLayout,
        mean: Tensor,
        widths: Sequence[int] | None = None,
        scales: Mapping[str, Sequence[float]] | None = None,
        reads_image: bool = False,
        reads_text: bool = False,
    ) -> None:
        super().__init__()
        if mean.shape != (layout.total,):
            raise ValueError(f"a mean of shape ({layout.total},) is needed, got {tuple(mean.shape)}")
        self.layout = layout
        # Not persistent: a checkpoint describes them in words (facegpt.json) and holds trained weights only.
        self.register_buffer("mean", mean.detach().float().clone(), persistent=False)
        self.register_buffer("scales", _scale_vector(layout, scales or {}), persistent=False)
        self.image_norm = nn.LayerNorm(hidden_size) if reads_image else None
        self.text_reader = TextReader(hidden_size) if reads_text else None
        inputs = hidden_size * (1 + reads_image) + TextReader.size * reads_text
        channels = [inputs, *(widths if widths is not None else [hidden_size])]
        layers: list[nn.Module] = [nn.LayerNorm(hidden_size)]
        for inputs, outputs in pairwise(channels):
            layers += [nn.Linear(inputs, outputs), nn.GELU()]
        last = nn.Linear(channels[-1], layout.total)
        nn.init.normal_(last.weight, std=LAST_LAYER_GAIN / channels[-1] ** 0.5)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(*layers, last)

    def forward(
        self,
        states: Tensor,
        images: Tensor | None = None,
        words: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Tensor:
        """Face states (F, hidden_size) -> parameter vectors (F, N), float32; see `face_parameters`.

        images (F, hidden_size): mean token of the image of each, zeros (or None) without one; words (F, T,
        hidden_size) and told (F, T): see `TextReader`. Not looked at unless the head reads them.

        A tensor and no dataclass, because ZeRO-3 hooks only into tensors, tuples and dictionaries.
        """
        dtype = next(self.network.parameters()).dtype
        with torch.autocast(device_type=states.device.type, enabled=False):
            states = states.to(dtype)
            inputs = [self.network[0](states)]
            if self.image_norm is not None:
                inputs.append(
                    self.image_norm(torch.zeros_like(states) if images is None else images.to(dtype))
                )
            if self.text_reader is not None:
                if words is None or told is None:
                    raise ValueError("a face head that reads text needs the states of the words")
                inputs.append(self.text_reader(states, words.to(dtype), told))
            offsets = self.network[1:](torch.cat(inputs, dim=1)).float() * self.scales
        moved = self.mean + offsets
        camera = list(self.layout.sizes).index("camera")
        column = sum(list(self.layout.sizes.values())[:camera])
        scale = self.mean[column] * offsets[:, column].exp()
        return torch.cat([moved[:, :column], scale[:, None], moved[:, column + 1 :]], dim=1)

    def face_parameters(
        self,
        states: Tensor,
        images: Tensor | None = None,
        words: Tensor | None = None,
        told: Tensor | None = None,
    ) -> FaceParameters:
        """Face states, images and words, as `forward` takes them -> parameters of F faces, float32."""
        return FaceParameters.from_vector(self(states, images, words, told), self.layout)


def _scale_vector(layout: ParameterLayout, scales: Mapping[str, Sequence[float]]) -> Tensor:
    unknown = sorted(set(scales) - set(GROUP_SCALES))
    if unknown:
        raise ConfigError(f"there is no parameter group '{unknown[0]}'; known: {', '.join(GROUP_SCALES)}")
    parts = []
    for name, size in layout.sizes.items():
        values = torch.tensor(tuple(scales.get(name, GROUP_SCALES[name])), dtype=torch.float32)
        if len(values) not in (1, size):
            raise ConfigError(f"group '{name}' needs 1 or {size} scales, got {len(values)}")
        parts.append(values.expand(size))
    return torch.cat(parts)
