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


@torch.no_grad()
def mean_tokens(model: FaceGPT, folder: Path) -> tuple[Tensor, Tensor]:
    """Mean projected token (n,H) and true parameters (n,N) of all faces in the `faces-*.npz` of a folder.

    Raises SampleError when there is none.
    """
    whole: Any = model.vlm.base_model
    tower, projector = whole.vision_tower, whole.multi_modal_projector
    files = sorted(folder.glob("faces-*.npz"))
    if not files:
        raise SampleError(f"{folder} holds no rendered faces; run scripts/pretrain_face_reader.py first")
    means, truth = [], []
    for path in tqdm(files, desc="tokens", unit="file"):
        piece = np.load(path)
        truth.append(torch.from_numpy(piece["parameters"]).float())
        for start in range(0, len(piece["map"]), 250):
            part = slice(start, start + 250)
            cells = piece["cells"][part] / np.float32(255)
            raw = torch.from_numpy(np.concatenate([piece["map"][part].astype(np.float32), cells], axis=2))
            tokens = tower.tokens((raw - tower.center) / tower.spread)
            means.append(projector(tokens.to(model.vlm.dtype)).float().mean(dim=1))
    return torch.cat(means), torch.cat(truth)
