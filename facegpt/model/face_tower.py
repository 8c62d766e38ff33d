"""The vision tower of the small LLaVA: a frozen landmark network's map, raw pixels, and a reader of both.

It is a Hugging Face model like others: importing this file registers it with AutoConfig and AutoModel, and a
folder that holds one needs no code of its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from facegpt.errors import CheckpointError
from facegpt.model.face_reader import FaceReader
from facegpt.perception.graph_network import Graph, GraphNetwork, trace


class FaceTowerConfig(PreTrainedConfig):
    """Sizes of a face tower.

    trunk: the network that makes the map, `Graph.to_dict()`: one input (3,image_size,image_size), one output
    (channels,grid,grid) with grid = image_size / patch_size. channels: of the map. thumbnail: raw pixels per
    side that a token keeps of its cell. reader_outputs: features of the whole picture that every token ends
    with, 0 for no reader. reader_width, reader_hidden: see FaceReader.
    """

    model_type = "facegpt_face_tower"

    image_size: int = 256
    patch_size: int = 32
    channels: int = 128
    thumbnail: int = 4
    reader_width: int = 32
    reader_hidden: int = 512
    reader_outputs: int = 0
    trunk: dict[str, Any] | None = None

    @property
    def grid(self) -> int:
        """Tokens per side."""
        return self.image_size // self.patch_size

    @property
    def local_size(self) -> int:
        """Numbers of a token that come from its own place: the map's channels and the thumbnail's pixels."""
        return self.channels + 3 * self.thumbnail**2

    @property
    def hidden_size(self) -> int:
        """Numbers of a token."""
        return self.local_size + self.reader_outputs


class FaceTower(PreTrainedModel):
    """Image tokens (M,grid*grid,hidden_size) of pictures (M,3,image_size,image_size) in [0,1].

    A token is [the map at its cell | the cell's thumbnail | the reader's features], row by row from the top
    left; the first two are standardized by `center` and `spread`, the last are the same in all tokens of a
    picture, and everything is multiplied by `gain`.

    Trunk, standardization and reader stay in float32 under a bfloat16 model: they are small, and rounded
    weights would cost precision where landmarks are read to a fraction of a pixel. `gain` is of the type of
    the surrounding model and gives it to the tokens.
    """

    config_class = FaceTowerConfig
    main_input_name = "pixel_values"
    _keep_in_fp32_modules_strict = {"trunk", "center", "spread", "reader"}  # noqa: RUF012

    def __init__(self, config: FaceTowerConfig) -> None:
        super().__init__(config)
        self.gain = nn.Parameter(torch.ones(config.hidden_size))
        self.center = nn.Parameter(torch.zeros(config.local_size))
        self.spread = nn.Parameter(torch.ones(config.local_size))
        self.trunk = _trunk(config)
        self.reader = None
        if config.reader_outputs:
            sizes = (config.reader_width, config.reader_outputs, config.reader_hidden)
            self.reader = FaceReader(config.grid**2, config.local_size, *sizes)
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """The tokens as `last_hidden_state` and as the only one of `hidden_states`, whatever is asked for."""
        with torch.autocast(pixel_values.device.type, enabled=False):
            tokens = self.tokens(self.local_tokens(pixel_values))
        return BaseModelOutputWithPooling(last_hidden_state=tokens, hidden_states=(tokens,))

    def tokens(self, local: Tensor) -> Tensor:
        """The tokens (M,grid*grid,hidden_size) of what `local_tokens` returns."""
        if self.reader is not None:
            facts = self.reader(local)[:, None].expand(-1, local.shape[1], -1)
            local = torch.cat([local, facts], dim=2)
        return local.to(self.gain.dtype) * self.gain

    def local_tokens(self, pixel_values: Tensor) -> Tensor:
        """What the reader reads: standardized map and thumbnail (M,grid*grid,local_size)."""
        config = self.config
        pixels = pixel_values.to(self.center.dtype)
        (features,) = self.trunk(pixels)  # (M, channels, grid, grid)
        side = config.grid * config.thumbnail
        thumbnail = F.adaptive_avg_pool2d(pixels, side)
        cells = F.pixel_unshuffle(thumbnail, config.thumbnail)  # (M, 3*thumbnail*thumbnail, grid, grid)
        tokens = torch.cat([features, cells], dim=1).flatten(2).transpose(1, 2)
        return (tokens - self.center) / self.spread


def _trunk(config: FaceTowerConfig) -> GraphNetwork:
    """The empty trunk, if it makes what the config says. Raises CheckpointError otherwise."""
    graph = Graph.from_dict(config.trunk or {})
    expected = (1, config.channels, config.grid, config.grid)
    made = [trace(graph)[name] for name in graph.outputs]
    if graph.shape != [3, config.image_size, config.image_size] or made != [expected]:
        raise CheckpointError(f"the trunk of the face tower makes {made} of {graph.shape}, not {expected}")
    return GraphNetwork(graph)


AutoConfig.register(FaceTowerConfig.model_type, FaceTowerConfig)
AutoModel.register(FaceTowerConfig, FaceTower)
