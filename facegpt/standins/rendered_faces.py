"""What the face tower saw of rendered faces, as `scripts/pretrain_face_reader.py` keeps it on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from facegpt.errors import SampleError
from facegpt.model.facegpt import FaceGPT

AT_ONCE = 250


class RenderedFaces:
    """The faces of a folder's `faces-*.npz`: map and thumbnail of each, and its true `parameters` (n,N).

    Raises SampleError when there is none.
    """

    def __init__(self, folder: Path) -> None:
        stored = [np.load(path) for path in sorted(folder.glob("faces-*.npz"))]
        if not stored:
            raise SampleError(f"{folder} holds no rendered faces; run scripts/pretrain_face_reader.py first")
        self._map = np.concatenate([piece["map"] for piece in stored])
        self._cells = np.concatenate([piece["cells"] for piece in stored])
        self.parameters = torch.from_numpy(np.concatenate([piece["parameters"] for piece in stored])).float()

    def __len__(self) -> int:
        return len(self._map)

    def tokens(self, rows: Any, tower: Any) -> Tensor:
        """The tokens (n,tokens,hidden) that a face tower makes of faces `rows`, a slice or a list."""
        cells = self._cells[rows] / np.float32(255)
        raw = torch.from_numpy(np.concatenate([self._map[rows].astype(np.float32), cells], axis=2))
        return tower.tokens((raw - tower.center) / tower.spread)


@torch.no_grad()
def mean_tokens(model: FaceGPT, faces: RenderedFaces) -> Tensor:
    """The mean projected token (n,H) of every rendered face."""
    whole: Any = model.vlm.base_model
    means = []
    for start in tqdm(range(0, len(faces), AT_ONCE), desc="tokens", mininterval=5):
        tokens = faces.tokens(slice(start, start + AT_ONCE), whole.vision_tower)
        means.append(whole.multi_modal_projector(tokens.to(model.vlm.dtype)).float().mean(dim=1))
    return torch.cat(means)
